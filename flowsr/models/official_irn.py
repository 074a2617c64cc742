"""The key layout of the authors' IRN code: operations in encoding order, with three dense blocks in each."""

import re
from collections.abc import Iterator
from itertools import pairwise

from flowsr.models.irn import IRN, IRNConfig
from flowsr.models.official import OfficialLayout, StateDict, dense_pairs


def read_config(state: StateDict) -> IRNConfig:
    """Read the configuration off the keys and shapes of an official state dict."""
    blocks = sorted({int(m[1]) for key in state if (m := re.match(r"operations\.(\d+)\.F\.", key))})
    # Changes of resolution are the numbers left out; the first operation is one of them.
    starts = [n for n in range(blocks[-1] + 1) if n not in set(blocks)]
    counts = tuple(after - before - 1 for before, after in pairwise([*starts, blocks[-1] + 1]))
    learned = [key for key in state if re.match(r"operations\.0\.", key)]
    factors = {1: 2, 2: 4, 3: 8}
    return IRNConfig(
        upscale=3 if learned else factors[len(counts)],
        image_channels=state[f"operations.{blocks[0]}.G.conv1.weight"].shape[1],
        blocks=counts,
        growth=state[f"operations.{blocks[0]}.F.conv1.weight"].shape[0],
    )


def key_pairs(config: IRNConfig) -> Iterator[tuple[str, str]]:
    """Pairs (official key, key of this package), one for each weight."""
    main = "transform.mains.0.parts."
    part = sum(2 * blocks + 1 for blocks in config.blocks)
    number = 0
    for blocks in config.blocks:
        part -= 1
        if config.upscale == 3:
            yield "operations.0.conv_weights", f"{main}{part}.weight"
        number += 1
        for _ in range(blocks):
            # This package numbers from the latent side and has a part for each coupling.
            additive, affine = f"{main}{part - 1}.conditioner.", f"{main}{part - 2}.conditioner."
            yield from dense_pairs(f"operations.{number}.F.", additive)
            yield from dense_pairs(f"operations.{number}.G.", f"{affine}0.")
            yield from dense_pairs(f"operations.{number}.H.", f"{affine}1.")
            part, number = part - 2, number + 1


LAYOUT = OfficialLayout(
    model=IRN,
    marker=r"operations\.\d+\.F\.conv1\.",
    example="operations.1.F.conv1…",
    # A constant of the Haar transform, stored by the authors as a frozen parameter.
    unused=r".*\.haar_weights",
    read_config=read_config,
    key_pairs=key_pairs,
)
"""IRN, github.com/pkuxmq/Invertible-Image-Rescaling."""
