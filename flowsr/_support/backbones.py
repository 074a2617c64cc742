"""Weights of torchvision's backbones: where its cache has them, whether they are what their name says, tensors alone.

A published file has the first digits of its SHA-256 in its name. A file of that name with another content is damaged,
cut off or somebody else's, and would give numbers that are none: it is refused. Nothing is ever unpickled as code.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from flowsr._support.downloads import download
from flowsr._support.torch_files import read_tensors, sha256_of
from flowsr.errors import CheckpointError, what_is_at

_DIGEST = re.compile(r"-([0-9a-f]{8,})\.pth$")


def cached_backbone(name: str) -> Path:
    """Where torchvision's cache has the file of this name, or would have it."""
    return Path(torch.hub.get_dir(), "checkpoints", name)


def fetch_backbone(url: str, *, what: str) -> Path:
    """Where torchvision's cache has a published file, fetched into it if it is not there.

    Args:
        url: of the file; its name ends in the first digits of its SHA-256.
        what: is expected in it, for messages: "torchvision's VGG19 weights".

    Raises:
        DownloadError: if it cannot be had; nothing else stays in the cache.
    """
    path = cached_backbone(url.rsplit("/", 1)[-1])
    if not path.is_file():
        download(url, path, what=what, check=lambda answer: _check_digest(answer, name=path.name, what=what))
    return path


def read_backbone(path: Path, *, what: str) -> dict[str, Tensor]:
    """The state dict in a file of weights.

    Cost: reading it three times.

    Args:
        path: of the file.
        what: is expected in it, for messages: "torchvision's VGG19 weights".

    Raises:
        CheckpointError: if it is not what its name says, or holds anything but tensors by name.
    """
    _check_digest(path, name=path.name, what=what)
    return read_tensors(path, what=what, proven=_DIGEST.search(path.name) is not None)


def _check_digest(path: Path, *, name: str, what: str) -> None:
    """Refuse a file that has not the digest that a name says, if the name says one."""
    if not path.is_file():
        raise CheckpointError(f"expected {what}; {path} is {what_is_at(path)}")
    said, found = _DIGEST.search(name), sha256_of(path)
    if said and not found.startswith(said[1]):
        raise CheckpointError(
            f"expected {path} to be the published file, whose SHA-256 begins with {said[1]}; got {found[:8]}…: it is "
            "damaged or another one; delete it, and put the published one there"
        )
