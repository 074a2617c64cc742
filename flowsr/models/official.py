"""Import of the authors' released weights: the configuration is read off keys and shapes, every key is translated."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsr._support.torch_files import read_tensors
from flowsr.errors import CheckpointError, quoted
from flowsr.models.hcflow import HCFlow
from flowsr.models.hcflow_config import HCFlowConfig
from flowsr.models.image_model import ImageModel
from flowsr.models.integrity import check_names, check_shape, outline
from flowsr.models.irn import IRN, IRNConfig
from flowsr.models.srflow import SRFlow, SRFlowConfig

StateDict = dict[str, Tensor]

NO_CONFIGURATION = (
    "expected a file that says which model it holds; {} has the bare weights of one of flowsr's: load them with "
    "load_state_dict into the model that they are of, and write that with flowsr.save"
)
"""What to do about a state dict without its configuration."""


@dataclass(frozen=True)
class OfficialLayout:
    """The key layout of a model's official code.

    Attributes:
        model: class of the model.
        marker: pattern that some key of such a file matches, and no key of another model's.
        example: what such a key looks like, for messages.
        unused: pattern of keys to leave out: constants, and weights that the authors' code never uses.
        read_config: the configuration from a state dict; may raise KeyError, ValueError or IndexError.
        key_pairs: pairs (official key, key of this package) for a configuration.
    """

    model: type[ImageModel]
    marker: str
    example: str
    unused: str
    read_config: Callable[[StateDict], Any]
    key_pairs: Callable[[Any], Iterable[tuple[str, str]]]


def find_layout(state: StateDict, layouts: Iterable[OfficialLayout]) -> OfficialLayout | None:
    """The layout that a state dict is in, or None."""
    for layout in layouts:
        if any(re.match(rf"(module\.)?{layout.marker}", key) for key in state):
            return layout
    return None


def from_official(state: StateDict, layout: OfficialLayout, *, name: str = "the checkpoint") -> ImageModel:
    """Build a model from an official state dict, in its dtype.

    Args:
        state: the state dict; a leading ``module.`` of the keys is dropped.
        layout: the layout it is in, see :func:`find_layout`.
        name: what to call it in errors.

    Raises:
        CheckpointError: if keys are missing or left over, or shapes fit no such model.
    """
    label = layout.model.__name__
    state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not re.fullmatch(layout.unused, key)}
    try:
        config = layout.read_config(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"expected {name} to hold an {label} in the official key layout; its configuration cannot be read: "
            f"{quoted(error)}"
        ) from error
    dtypes = {value.dtype for value in state.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        raise CheckpointError(f"expected one floating dtype in {name}; got {sorted(map(str, dtypes))}")
    outlined = outline(layout.model, config, len(state), name=name)
    pairs = dict(layout.key_pairs(config))
    check_names(pairs, state, config=config, name=name)
    own = {}
    for official, key in pairs.items():
        value = state[official]
        value = value.squeeze(0) if value.dim() == 4 and value.shape[0] == 1 and len(outlined[key]) == 3 else value
        check_shape(official, outlined[key], value.shape, name=name)
        if not torch.isfinite(value).all():
            raise CheckpointError(f"expected finite weights in {name}; got NaN or infinity in {official}")
        own[key] = value
    own |= {key: torch.tensor(True) for key in outlined if key.endswith(".initialized")}
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random state
        model = layout.model(config).to(next(iter(dtypes)))
    model.load_state_dict({**model.state_dict(), **own})
    return model


def count(state: StateDict, pattern: str) -> int:
    """How many different numbers the pattern's group takes among the keys."""
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def same_names(official: str, own: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of keys that differ in their prefix only."""
    for name in names:
        yield official + name, own + name


def dense_pairs(official: str, own: str) -> Iterator[tuple[str, str]]:
    """Pairs for the five convolutions of a dense block."""
    for conv in range(5):
        yield from same_names(f"{official}conv{conv + 1}.", f"{own}convs.{conv}.", ("weight", "bias"))


def rrdb_pairs(official: str, own: str, blocks: int) -> Iterator[tuple[str, str]]:
    """Pairs for a trunk of RRDBs."""
    for block in range(blocks):
        for dense_block in range(3):
            yield from dense_pairs(f"{official}{block}.RDB{dense_block + 1}.", f"{own}{block}.blocks.{dense_block}.")


def fcn_pairs(official: tuple[str, str, str], own: str) -> Iterator[tuple[str, str]]:
    """Pairs for the three layers of an :class:`flowsr.nn.FCN`, whose official names differ."""
    for number, layer in enumerate(official[:2], start=1):
        yield f"{layer}.weight", f"{own}conv{number}.weight"
        yield from same_names(f"{layer}.actnorm.", f"{own}conv{number}.norm.", ("bias", "logs"))
    yield from same_names(f"{official[2]}.", f"{own}conv3.", ("weight", "bias", "logs"))


def _hcflow_config(state: StateDict) -> HCFlowConfig:
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


def hcflow_key_pairs(config: HCFlowConfig) -> Iterator[tuple[str, str]]:
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


HCFLOW_LAYOUT = OfficialLayout(
    model=HCFlow,
    marker=r"flow\.level\d+_condFlow\.",
    example="flow.level0_condFlow…",
    # A constant of the Haar transform, stored by the authors as a frozen parameter.
    unused=r".*\.haar_weights",
    read_config=_hcflow_config,
    key_pairs=hcflow_key_pairs,
)
"""HCFlow, github.com/JingyunLiang/HCFlow."""


def _irn_config(state: StateDict) -> IRNConfig:
    """Read the configuration off the keys and shapes of an official state dict."""
    blocks = sorted({int(m[1]) for key in state if (m := re.match(r"operations\.(\d+)\.F\.", key))})
    if blocks[-1] > 2 * len(state):
        raise ValueError(f"operation {blocks[-1]} of {len(state)} weights")
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


def irn_key_pairs(config: IRNConfig) -> Iterator[tuple[str, str]]:
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


IRN_LAYOUT = OfficialLayout(
    model=IRN,
    marker=r"operations\.\d+\.F\.conv1\.",
    example="operations.1.F.conv1…",
    # A constant of the Haar transform, stored by the authors as a frozen parameter.
    unused=r".*\.haar_weights",
    read_config=_irn_config,
    key_pairs=irn_key_pairs,
)
"""IRN, github.com/pkuxmq/Invertible-Image-Rescaling."""


_FLOW = r"flowUpsamplerNet\.layers\.(\d+)\."

_STACKED = {(4, 23): (1, 8, 15, 22), (8, 8): (1, 3, 5, 7), (8, 23): (1, 3, 5, 7)}
"""Which of the RRDBs' outputs the released models stack, by upscale factor and number of RRDBs: no key says it."""


def _srflow_config(state: StateDict) -> SRFlowConfig:
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


def srflow_key_pairs(config: SRFlowConfig) -> Iterator[tuple[str, str]]:
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


SRFLOW_LAYOUT = OfficialLayout(
    model=SRFlow,
    marker=r"flowUpsamplerNet\.layers\.\d+\.affine\.",
    example="flowUpsamplerNet.layers.3.affine…",
    # A convolution that the authors' code never applies.
    unused=r"flowUpsamplerNet\.f\..*",
    read_config=_srflow_config,
    key_pairs=srflow_key_pairs,
)
"""SRFlow, github.com/andreas128/SRFlow."""


OFFICIAL_LAYOUTS = (HCFLOW_LAYOUT, SRFLOW_LAYOUT, IRN_LAYOUT)
"""The key layouts of released weights that :func:`load_official` reads."""


def load_official(path: Path, *, proven: bool = False) -> ImageModel:
    """The model in a file of weights that its authors released.

    Args:
        path: the file.
        proven: whether it is known to be whole, by a digest.

    Raises:
        CheckpointError: if it is damaged, holds more than tensors, or other weights than those of one such model.
    """
    state = read_tensors(path, what="an official .pth file", proven=proven)
    layout = find_layout(state, OFFICIAL_LAYOUTS)
    if layout is None and any(key.startswith("transform.") for key in state):
        raise CheckpointError(NO_CONFIGURATION.format(path))
    if layout is None:
        known = "; ".join(f"{known.model.__name__}: {known.example}" for known in OFFICIAL_LAYOUTS)
        raise CheckpointError(
            f"expected {path} in the key layout of a model's authors ({known}); got keys like "
            f"{', '.join(map(quoted, list(state)[:3])) or 'none'}"
        )
    if sum(value.nbytes for value in state.values()) > path.stat().st_size:
        # A few numbers may stand for tensors of any size, of which a model of that size would be built.
        raise CheckpointError(f"expected all values of all tensors in {path}; got some that share theirs: save copies")
    flow = from_official(state, layout, name=str(path))
    flow.provenance = {"imported_from": path.name, "key_layout": f"official {layout.model.__name__}"}
    return flow
