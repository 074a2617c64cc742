"""Import of the authors' released HCFlow weights: the configuration is read off keys and shapes.

A released file is a plain state dict. Layers of the main flow are numbered in encoding order, changes of resolution
and splits included; this package numbers parts from the latent side, so every number is translated here.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from flowsr.errors import CheckpointError
from flowsr.models.config import HCFlowConfig
from flowsr.models.hcflow import HCFlow

StateDict = dict[str, Tensor]


def is_official(state: StateDict) -> bool:
    """Whether a state dict is in the key layout of the authors' HCFlow code."""
    return any(re.match(r"(module\.)?flow\.level\d+_condFlow\.", key) for key in state)


def from_official(state: StateDict, *, name: str = "the checkpoint") -> HCFlow:
    """Build an HCFlow from an official state dict, in its dtype.

    Args:
        state: the state dict; a leading ``module.`` of the keys is dropped.
        name: what to call it in errors.

    Raises:
        CheckpointError: if keys are missing or left over, or shapes fit no HCFlow.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    # A constant of the Haar transform, stored by the authors as a frozen parameter.
    state = {key: value for key, value in state.items() if not key.endswith(".haar_weights")}
    try:
        config = read_config(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"expected {name} to hold an HCFlow in the official key layout; its configuration cannot be read: {error}"
        ) from error
    dtypes = {value.dtype for value in state.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        raise CheckpointError(f"expected one floating dtype in {name}; got {sorted(map(str, dtypes))}")
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random state
        flow = HCFlow(config).to(next(iter(dtypes)))
    own = flow.state_dict()
    pairs = dict(_key_pairs(config))
    missing, surplus = sorted(set(pairs) - set(state)), sorted(set(state) - set(pairs))
    if missing or surplus:
        raise CheckpointError(
            f"expected {name} to hold exactly the weights of {config}; "
            f"missing {_some(missing)}; surplus {_some(surplus)}"
        )
    for official, key in pairs.items():
        value = state[official]
        value = value.squeeze(0) if value.dim() == 4 and value.shape[0] == 1 and own[key].dim() == 3 else value
        if value.shape != own[key].shape:
            raise CheckpointError(
                f"expected {official} in {name} of shape {tuple(own[key].shape)}; got {tuple(value.shape)}"
            )
        if not torch.isfinite(value).all():
            raise CheckpointError(f"expected finite weights in {name}; got NaN or infinity in {official}")
        own[key] = value
    for key in own:
        if key.endswith(".initialized"):
            own[key] = torch.tensor(True)
    flow.load_state_dict(own)
    return flow


def read_config(state: StateDict) -> HCFlowConfig:
    """Read the configuration off the keys and shapes of an official state dict."""
    levels = 1 + max(int(m[1]) for key in state if (m := re.match(r"flow\.level(\d+)_condFlow\.", key)))
    layers = {int(m[1]) for key in state if (m := re.match(r"flow\.layers\.(\d+)\.actnorm\.bias", key))}
    main_steps, rest = divmod(len(layers), levels)
    if rest:
        raise ValueError(f"{len(layers)} main steps do not share out over {levels} levels")
    top = f"flow.level{levels - 1}_condFlow."
    conditional_steps = _count(state, top + r"additional_flow_steps\.(\d+)\.")
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
        rrdbs=(_count(state, top + r"RRDB_trunk0\.(\d+)\."), _count(state, top + r"RRDB_trunk1\.(\d+)\.")),
    )


def _count(state: StateDict, pattern: str) -> int:
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _some(keys: list[str]) -> str:
    if not keys:
        return "none"
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _key_pairs(config: HCFlowConfig) -> Iterator[tuple[str, str]]:
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
        yield from _pairs(official + "f.", own + "head.conditioner.", ("weight", "bias", "logs"))
        yield from _pairs(official + "conv_first.", own + "encoder.conv_first.", ("weight", "bias"))
        yield from _pairs(official + "trunk_conv1.", own + "encoder.conv_last.", ("weight", "bias"))
        for trunk, blocks in enumerate(config.rrdbs):
            for block in range(blocks):
                for dense_block in range(3):
                    for conv in range(5):
                        yield from _pairs(
                            f"{official}RRDB_trunk{trunk}.{block}.RDB{dense_block + 1}.conv{conv + 1}.",
                            f"{own}encoder.trunk{trunk}.{block}.blocks.{dense_block}.convs.{conv}.",
                            ("weight", "bias"),
                        )


def _step_pairs(official: str, own: str, *, mixing: bool, dense: bool) -> Iterator[tuple[str, str]]:
    yield from _pairs(official + "actnorm.", own + "actnorm.affine.", ("bias", "logs"))
    if mixing:
        yield official + "permute.weight", own + "mixing.weight"
    net, conditioner = official + "affine.f.", own + "coupling.conditioner."
    if dense:
        for conv in range(5):
            yield from _pairs(f"{net}conv{conv + 1}.", f"{conditioner}convs.{conv}.", ("weight", "bias"))
        return
    for conv in ("conv1.", "conv2."):
        yield net + conv + "weight", conditioner + conv + "weight"
        yield from _pairs(net + conv + "actnorm.", conditioner + conv + "norm.", ("bias", "logs"))
    yield from _pairs(net + "conv3.", conditioner + "conv3.", ("weight", "bias", "logs"))


def _pairs(official: str, own: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        yield official + name, own + name
