"""The key layout of the authors' HCFlow code.

Layers of the main flow are numbered in encoding order, changes of resolution and splits included; this package numbers
parts from the latent side, so every number is translated here.
"""

import re
from collections.abc import Iterator

from flowsr.models.config import HCFlowConfig
from flowsr.models.hcflow import HCFlow
from flowsr.models.official import (
    OfficialLayout,
    StateDict,
    count,
    dense_pairs,
    fcn_pairs,
    rrdb_pairs,
    same_names,
)


def read_config(state: StateDict) -> HCFlowConfig:
    """Read the configuration off the keys and shapes of an official state dict."""
    levels = 1 + max(int(m[1]) for key in state if (m := re.match(r"flow\.level(\d+)_condFlow\.", key)))
    layers = {int(m[1]) for key in state if (m := re.match(r"flow\.layers\.(\d+)\.actnorm\.bias", key))}
    main_steps, rest = divmod(len(layers), levels)
    if rest:
        raise ValueError(f"{len(layers)} main steps do not share out over {levels} levels")
    top = f"flow.level{levels - 1}_condFlow."
    conditional_steps = count(state, top + r"additional_flow_steps\.(\d+)\.")
    rescaling = main_steps > 0 and "flow.layers.1.permute.weight" not in state
    main_width = state["flow.layers.1.affine.f.conv1.weight"].shape[0] if main_steps else 1
    key = top + "additional_flow_steps.0.affine.f.conv1.weight"
    conditional_width = state[key].shape[0] if conditional_steps else 1
    first = state[top + "conv_first.weight"]
    return HCFlowConfig(
        task="rescaling" if rescaling else "super-resolution",
        image_channels=first.shape[1],
        levels=levels,
        steps=main_steps + conditional_steps,
        conditional_steps=conditional_steps,
        hidden_channels=1 if rescaling else main_width,
        conditional_hidden_channels=conditional_width,
        dense_growth=main_width if rescaling else 1,
        features=first.shape[0],
        growth=state[top + "RRDB_trunk0.0.RDB1.conv1.weight"].shape[0],
        rrdbs=(count(state, top + r"RRDB_trunk0\.(\d+)\."), count(state, top + r"RRDB_trunk1\.(\d+)\.")),
    )


def key_pairs(config: HCFlowConfig) -> Iterator[tuple[str, str]]:
    """Pairs (official key, key of this package), one for each weight."""
    main_steps = config.steps - config.conditional_steps
    dense = config.task == "rescaling"
    for level in range(config.levels):
        for step in range(main_steps):
            # Per level: one change of resolution, the steps, one split.
            official = f"flow.layers.{level * (main_steps + 2) + 1 + step}."
            yield from _step_pairs(
                official, f"transform.mains.{level}.parts.{main_steps - 1 - step}.", mixing=not dense, dense=dense
            )
        official, own = f"flow.level{level}_condFlow.", f"transform.conditionals.{level}."
        for step in range(config.conditional_steps):
            part = config.conditional_steps - 1 - step
            yield from _step_pairs(
                f"{official}additional_flow_steps.{step}.", f"{own}steps.parts.{part}.", mixing=True, dense=False
            )
        yield from same_names(official + "f.", own + "head.conditioner.", ("weight", "bias", "logs"))
        yield from same_names(official + "conv_first.", own + "encoder.conv_first.", ("weight", "bias"))
        yield from same_names(official + "trunk_conv1.", own + "encoder.conv_last.", ("weight", "bias"))
        for trunk, blocks in enumerate(config.rrdbs):
            yield from rrdb_pairs(f"{official}RRDB_trunk{trunk}.", f"{own}encoder.trunk{trunk}.", blocks)


def _step_pairs(official: str, own: str, *, mixing: bool, dense: bool) -> Iterator[tuple[str, str]]:
    yield from same_names(official + "actnorm.", own + "actnorm.affine.", ("bias", "logs"))
    if mixing:
        yield official + "permute.weight", own + "mixing.weight"
    net, conditioner = official + "affine.f.", own + "coupling.conditioner."
    if dense:
        yield from dense_pairs(net, conditioner)
    else:
        yield from fcn_pairs((f"{net}conv1", f"{net}conv2", f"{net}conv3"), conditioner)


LAYOUT = OfficialLayout(
    model=HCFlow,
    marker=r"flow\.level\d+_condFlow\.",
    example="flow.level0_condFlow…",
    # A constant of the Haar transform, stored by the authors as a frozen parameter.
    unused=r".*\.haar_weights",
    read_config=read_config,
    key_pairs=key_pairs,
)
"""HCFlow, github.com/JingyunLiang/HCFlow."""
