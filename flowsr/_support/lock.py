"""One writer for each folder: a lock that the system releases when its holder ends, however it ends."""

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowsr._support.atomic import sweep_unfinished
from flowsr._support.names import output_stem, printable

try:
    import fcntl
except ImportError:  # Windows, where two writers do not notice each other
    fcntl = None  # type: ignore[assignment]

_FORGOTTEN = 3600.0
"""Seconds after which nobody is writing to a temporary file any more."""

_held: set[int] = set()


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun or Lightning have started."""
    # torchrun sets the first; the processes that Lightning starts have the second alone.
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


@contextmanager
def sole_writer(folder: str | os.PathLike[str], *, file: str = "") -> Iterator[None]:
    """Within this context no other process that asks for it too writes into a folder, which is made if missing.

    The lock is the system's (``flock``), on a hidden file that goes away with it, and ends with the process, killed or
    not. Of several processes with ranks the first holds it for all. What was made and is empty at the end is removed.
    Between machines that share a file system it is up to that, NFS above all, whether they see each other's locks:
    nothing is promised there. Where there are no locks at all, a warning says so.

    Args:
        folder: where the results go.
        file: the only file that is written, where that is one; others may then write other files.

    Raises:
        BlockingIOError: if another process is writing there, with its number.
        OSError: if the folder cannot be made, or nothing can be written there.

    Example:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "results"
        >>> with sole_writer(out):
        ...     sorted(path.name for path in out.iterdir())
        ['.flowsr.lock']
        >>> out.exists()
        False
    """
    folder = Path(folder)
    if not is_first_process():
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    of = f".{output_stem(f'{file}.lock')}" if file else ""
    path = folder / f".flowsr{of}.lock"
    try:
        descriptor = _lock(path)
        try:
            if not file:
                sweep_unfinished(folder, idle=_FORGOTTEN)
            yield
        finally:
            _unlock(path, descriptor)
    finally:
        for made in missing:
            with suppress(OSError):  # it has been filled
                made.rmdir()


def _lock(path: Path) -> int | None:
    """The open file that the lock is held by; None where there are no locks."""
    while fcntl is not None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _named(os.read(descriptor, 300).decode(errors="replace"))
            os.close(descriptor)
            raise BlockingIOError(
                f"expected a folder that nobody else is writing to; {holder} is writing to {printable(path.parent)}: "
                "wait until it is done, or choose another --out"
            ) from None
        except OSError as error:
            os.close(descriptor)
            warnings.warn(
                f"{printable(path.parent)} is on a file system without locks ({error.strerror}): two runs or commands "
                "that write there do not notice each other",
                stacklevel=5,
            )
            return None
        if _is_same(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
            _held.add(descriptor)
            return descriptor
        os.close(descriptor)  # its holder has removed it since it was opened: once more
    return None


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _named(holder: str) -> str:
    """The process that wrote its number and machine into a lock file."""
    number, _, machine = holder.strip().partition(" ")
    if not number:  # between taking the lock and writing into it
        return "another process"
    return f"process {number}" + (f" on {machine}" if machine and machine != platform.node() else "")


def _unlock(path: Path, descriptor: int | None) -> None:
    if descriptor in _held:
        _held.discard(descriptor)
        if _is_same(path, descriptor):
            path.unlink()
        os.close(descriptor)


def _let_go() -> None:
    """In a forked process, which must not hold the lock when the one it comes from has ended."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
