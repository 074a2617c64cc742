"""What a file of weights must prove before a model is built from it: its digest, and that its weights are the model's.

A configuration is a few numbers, of which a damaged or hostile file may ask for a network of any size. So its outline
is built first, without memory (on the meta device), and no further than the weights go that the file holds.
"""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_parameter_registration_hook

from flowsr.errors import CheckpointError, quoted
from flowsr.models.image_model import ImageModel

Shapes = Mapping[str, Sequence[int]]

_SLACK = 64  # weights, so that a file that lacks a few is told which


class _HoldsLessError(Exception):
    """A network has many more weights than there are."""


def content_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 of what a file of weights says: its facts, and names, dtypes, shapes and bytes of its tensors.

    The order of tensors and facts does not count.

    Cost: one pass over the tensors.

    Args:
        tensors: by name, on the CPU.
        facts: texts by name.

    Example:
        >>> content_digest({"weight": torch.zeros(3)}, {"model": "Glow"})[:8]
        '87b763ee'
    """
    digest = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def outline(model: type[ImageModel], config: Any, held: int, *, name: str) -> dict[str, torch.Size]:
    """Names and shapes of the weights and buffers that a model of this configuration has.

    Cost: building the modules, without their numbers.

    Args:
        model: the class.
        config: its configuration.
        held: how many tensors a file holds; building stops where the model has many more.
        name: of the file, for messages.

    Raises:
        CheckpointError: if the model has many more weights than the file, or cannot be built.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), _no_more_than(2 * held + _SLACK):
            return {key: value.shape for key, value in model(config).state_dict().items()}
    except _HoldsLessError:
        why = f"got {held} tensors"
    except (ValueError, RuntimeError, TypeError, OverflowError, MemoryError) as error:  # sizes beyond all bounds
        why = quoted(error, most=200)
    raise CheckpointError(f"expected {name} to hold all weights of {quoted(config, most=400)}; {why}")


@contextmanager
def _no_more_than(most: int) -> Iterator[None]:
    """Within this context no more parameters are registered, by this thread."""
    thread, left = threading.get_ident(), most

    def count(_module: Any, _name: str, parameter: Tensor | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= 1
            if left < 0:
                raise _HoldsLessError

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_names(expected: Iterable[str], held: Iterable[str], *, config: Any, name: str) -> None:
    """Refuse a file without all weights of a model, or with others."""
    missing, surplus = sorted(set(expected) - set(held)), sorted(set(held) - set(expected))
    if missing or surplus:
        raise CheckpointError(
            f"expected {name} to hold exactly the weights of {quoted(config, most=400)}; "
            f"missing {_some(missing)}; surplus {_some(surplus)}"
        )


def check_shape(key: str, expected: Sequence[int], got: Sequence[int], *, name: str) -> None:
    """Refuse a tensor of another shape."""
    if tuple(expected) != tuple(got):
        raise CheckpointError(f"expected {quoted(key)} in {name} of shape {tuple(expected)}; got {quoted(tuple(got))}")


def _some(keys: list[str]) -> str:
    if not keys:
        return "none"
    return ", ".join(map(quoted, keys[:3])) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
