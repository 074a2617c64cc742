"""The key layout of the authors' SRFlow code: layers in encoding order, changes of resolution and splits included."""

import re
from collections.abc import Iterator

from flowsr.models.official import OfficialLayout, StateDict, count, fcn_pairs, rrdb_pairs, same_names
from flowsr.models.srflow import SRFlow, SRFlowConfig

_FLOW = r"flowUpsamplerNet\.layers\.(\d+)\."

_STACKED = {(4, 23): (1, 8, 15, 22), (8, 8): (1, 3, 5, 7), (8, 23): (1, 3, 5, 7)}
"""Which of the RRDBs' outputs the released models stack, by upscale factor and number of RRDBs: no key says it."""


def read_config(state: StateDict) -> SRFlowConfig:
    """Read the configuration off the keys and shapes of an official state dict."""
    norms = sorted({int(m[1]) for key in state if (m := re.match(_FLOW + r"actnorm\.bias", key))})
    coupled = sorted({int(m[1]) for key in state if (m := re.match(_FLOW + r"affine\.", key))})
    channels = {n: state[f"flowUpsamplerNet.layers.{n}.actnorm.bias"].numel() for n in norms}
    levels = len(set(channels.values()))
    steps, rest = divmod(len(coupled), levels)
    transitions, more = divmod(len(norms) - len(coupled), levels)
    if rest or more:
        raise ValueError(f"{len(norms)} steps, {len(coupled)} of them coupled, do not share out over {levels} levels")
    first = state["RRDB.conv_first.weight"]
    features, image_channels = first.shape[:2]
    fcn = f"flowUpsamplerNet.layers.{coupled[0]}.affine.fFeatures.0.weight"
    rrdbs = count(state, r"RRDB\.RRDB_trunk\.(\d+)\.")
    upscale = 2 ** (levels - 1)
    number = state[fcn].shape[1] // features - 1
    stacked = tuple(range(rrdbs)) if number == rrdbs else _STACKED.get((upscale, rrdbs), ())
    if len(stacked) != number:
        raise ValueError(f"which {number} of {rrdbs} RRDBs' outputs are stacked is not known for x{upscale}")
    return SRFlowConfig(
        upscale=upscale,
        image_channels=image_channels,
        steps=steps,
        transition_steps=transitions,
        hidden_channels=state[fcn].shape[0],
        features=features,
        growth=state["RRDB.RRDB_trunk.0.RDB1.conv1.weight"].shape[0],
        rrdbs=rrdbs,
        stacked=stacked,
    )


def key_pairs(config: SRFlowConfig) -> Iterator[tuple[str, str]]:
    """Pairs (official key, key of this package), one for each weight."""
    both = ("weight", "bias")
    yield from same_names("RRDB.conv_first.", "transform.encoder.conv_first.", both)
    yield from rrdb_pairs("RRDB.RRDB_trunk.", "transform.encoder.trunk.", config.rrdbs)
    yield from same_names("RRDB.trunk_conv.", "transform.encoder.conv_trunk.", both)
    for i in range(config.levels - 2):
        yield from same_names(f"RRDB.upconv{i + 1}.", f"transform.encoder.upconvs.{i}.", both)
    yield from same_names(f"RRDB.upconv{config.levels - 1}.", "regression.upconv.", both)
    yield from same_names("RRDB.HRconv.", "regression.conv_hr.", both)
    yield from same_names("RRDB.conv_last.", "regression.conv_last.", both)
    number = 0
    for level in range(config.levels):
        parts = f"transform.transform.mains.{level}.parts."
        last = config.steps + config.transition_steps - 1
        for i in range(config.transition_steps):
            number += 1
            official, own = f"flowUpsamplerNet.layers.{number}.", f"{parts}{last - i}.parts."
            yield from same_names(official + "actnorm.", own + "1.affine.", ("bias", "logs"))
            yield official + "invconv.weight", own + "0.weight"
        for i in range(config.steps):
            number += 1
            official, own = f"flowUpsamplerNet.layers.{number}.", f"{parts}{config.steps - 1 - i}."
            yield from same_names(official + "actnorm.", own + "actnorm.affine.", ("bias", "logs"))
            yield official + "invconv.weight", own + "mixing.weight"
            for part, name in enumerate(("fAffine", "fFeatures")):
                net = f"{official}affine.{name}."
                yield from fcn_pairs((net + "0", net + "2", net + "4"), f"{own}coupling.parts.{part}.conditioner.")
        number += 1  # the next change of resolution, or a split before it
        if level < config.levels - 2:
            own = f"transform.transform.heads.{level}.conditioner."
            yield from same_names(f"flowUpsamplerNet.layers.{number}.conv.", own, (*both, "logs"))
            number += 1


LAYOUT = OfficialLayout(
    model=SRFlow,
    marker=r"flowUpsamplerNet\.layers\.\d+\.affine\.",
    example="flowUpsamplerNet.layers.3.affine…",
    # A convolution that the authors' code never applies.
    unused=r"flowUpsamplerNet\.f\..*",
    read_config=read_config,
    key_pairs=key_pairs,
)
"""SRFlow, github.com/andreas128/SRFlow."""
