"""Writing files so that a reader never sees half of one."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowsr._support.names import printable
from flowsr.errors import what_is_at

_UNFINISHED = ".flowsr-"
_LONGEST_SUFFIX = len(".safetensors")


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends without an error and removed otherwise.

    Args:
        path: where the file shall be; its folder must exist.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: if the file exists and must not be overwritten, or is a pipe or a device.
        FileNotFoundError: if its folder does not exist.
        PermissionError: if its folder may not be written to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("all or nothing")
        >>> target.read_text()
        'all or nothing'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"expected a file name; got {printable(path)}, which is a folder: name a file in it")
    if path.exists() and not path.is_file():  # /dev/stdout too would be replaced by a file
        got = f"{printable(path)}, which is {what_is_at(path)}"
        raise FileExistsError(f"expected a file name; got {got}: choose another name")
    # lexists: a broken link counts as something that is there.
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"expected {printable(path)} not to exist; it does: choose another name, or ask to overwrite it"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected the folder {printable(path.parent)} to exist; got none: create it first")
    # The suffix stays, as writers choose the format by it; what is longer says no format.
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, suffix=suffix, dir=path.parent)
    except PermissionError:  # which names a file that nobody asked for
        raise PermissionError(
            f"expected a folder that may be written to; got {printable(path.parent)}: change its permissions, or "
            "choose another folder"
        ) from None
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep_unfinished(folder: Path, *, idle: float = 0.0) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: where nobody else is writing, or else
        idle: seconds that nothing was written into a file, for it to be left over.
    """
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime <= time.time() - idle:
                path.unlink()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
