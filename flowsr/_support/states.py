"""Files of states to go on from: whole or not at all, with a digest that proves it, and read without running code."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from flowsr._support.atomic import atomic_path
from flowsr._support.torch_files import load_plain
from flowsr.errors import CheckpointError, quoted, what_is_at


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
        CheckpointError: if it is truncated, altered, of another kind, or holds more than tensors and plain values.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "count.state"
        >>> write_state(target, {"count": 3}, kind="tally")
        >>> read_state(target, kind="tally")
        {'count': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"expected a {kind} at {path}; got {what_is_at(path)}")
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
    state = load_plain(io.BytesIO(body), what=f"a {kind}", name=str(path))
    if not isinstance(state, dict):
        raise CheckpointError(f"expected a {kind}; {path} holds {type(state).__name__}")
    return state


@contextmanager
def as_written(where: str | os.PathLike[str], *, kind: str) -> Iterator[None]:
    """Within this context what a state lacks, or has of another type, is a CheckpointError.

    A digest that fits says that the file is as it was written, not who wrote it.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = quoted(f"{type(error).__name__}: {error}", most=200)
        raise CheckpointError(
            f"expected a {kind} as flowsr writes it; that in {where} is whole, but something in it is missing or of "
            f"another kind ({reason}): remove it and start anew"
        ) from None


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
