"""Import of the authors' released weights: the configuration is read off keys and shapes, every key is translated.

A released file is a plain state dict in the key layout of its authors' code. One file per model says what that layout
is; here is what the layouts share.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsr.errors import CheckpointError
from flowsr.models.base import ImageModel

StateDict = dict[str, Tensor]


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
            f"expected {name} to hold an {label} in the official key layout; its configuration cannot be read: {error}"
        ) from error
    dtypes = {value.dtype for value in state.values()}
    if len(dtypes) != 1 or not next(iter(dtypes)).is_floating_point:
        raise CheckpointError(f"expected one floating dtype in {name}; got {sorted(map(str, dtypes))}")
    with torch.random.fork_rng(devices=[]):  # loading must not move the caller's random state
        model = layout.model(config).to(next(iter(dtypes)))
    own = model.state_dict()
    pairs = dict(layout.key_pairs(config))
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
    model.load_state_dict(own)
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


def _some(keys: list[str]) -> str:
    if not keys:
        return "none"
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
