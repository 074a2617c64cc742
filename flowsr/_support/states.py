"""Files of states to go on from: whole or not at all, with a digest that proves it, and read without running code."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from flowsr._support.atomic import atomic_path
from flowsr.errors import CheckpointError


def write_state(path: str | os.PathLike[str], state: dict[str, Any], *, kind: str) -> None:
    """Write a dict of tensors and plain values, flushed to the disk, with a digest of its content.

    Args:
        path: the file; its folder must exist.
        state: tensors, numbers, strings, and containers of them.
        kind: what it is a state of, such as "training checkpoint".

    Raises:
        OSError: if the file cannot be written; an earlier one is then untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(_magic(kind) + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(Path(path).parent)


def read_state(path: str | os.PathLike[str], *, kind: str) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Raises:
        CheckpointError: if it is truncated, altered, or of another kind.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "count.state"
        >>> write_state(target, {"count": 3}, kind="tally")
        >>> read_state(target, kind="tally")
        {'count': 3}
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"expected a {kind} at {path}; it cannot be read: {error}") from error
    magic = _magic(kind)
    header = len(magic) + 65
    if not content.startswith(magic) or len(content) <= header:
        raise CheckpointError(f"expected a {kind}; {path} is not one, or is truncated")
    digest, body = content[len(magic) : header - 1].decode(errors="replace"), content[header:]
    if hashlib.sha256(body).hexdigest() != digest:
        raise CheckpointError(f"expected a whole {kind}; {path} is truncated or damaged (its digest does not fit)")
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"expected tensors and plain values; {path} holds more than tensors: {error}") from error


def _magic(kind: str) -> bytes:
    return f"flowsr {kind} 1\n".encode()


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk; not every platform can open a folder.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
