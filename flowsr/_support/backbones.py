"""Weights of torchvision's backbones: where its cache has them, whether they are what their name says, tensors alone.

A published file has the first digits of its SHA-256 in its name. A file of that name with another content is damaged,
cut off or somebody else's, and would give numbers that are none: it is refused. Nothing is ever unpickled as code.
"""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from flowsr.errors import CheckpointError

_DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth$")


def cached_backbone(name: str) -> Path:
    """Where torchvision's cache has the file of this name, or would have it."""
    return Path(torch.hub.get_dir(), "checkpoints", name)


def read_backbone(path: Path, *, what: str) -> dict[str, Tensor]:
    """The state dict in a file of weights.

    Cost: reading it twice.

    Args:
        path: of the file.
        what: is expected in it, for messages: "torchvision's VGG19 weights".

    Raises:
        CheckpointError: if it is not what its name says, or holds anything but tensors by name.
    """
    said = _DIGEST.search(path.name)
    try:
        found = _sha256(path)
    except OSError as error:
        raise CheckpointError(f"expected {what} in {path}; it cannot be read: {error.strerror}") from error
    if said and not found.startswith(said[1]):
        raise CheckpointError(
            f"expected {path} to be the published file, whose SHA-256 begins with {said[1]}; got {found[:8]}…: it is "
            "damaged or another one; delete it, and put the published one there"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        # Its own advice is to unpickle the file as code, which nobody should follow.
        raise CheckpointError(
            f"expected a torchvision state dict; got {path}, which torch cannot load as tensors alone"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"expected a torchvision state dict; got {path}, which holds something else")
    return state


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
