"""Input files found and output files refused, before any work is done."""

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from flowsr._support.atomic import atomic_path
from flowsr._support.lock import sole_writer
from flowsr._support.names import output_stem, printable, visible
from flowsr.cli.console import Reporter
from flowsr.errors import what_is_at

_claims: ContextVar[ExitStack | None] = ContextVar("claims", default=None)


@contextmanager
def claims() -> Iterator[None]:
    """Within this context, which is that of a command, output folders stay claimed."""
    with ExitStack() as stack:
        token = _claims.set(stack)
        try:
            yield
        finally:
            _claims.reset(token)


def expand_inputs(inputs: Sequence[Path]) -> list[Path]:
    """The image files among files and folders, folders in the order of their names; what is missing is refused.

    Raises:
        FileNotFoundError: for a name that is neither a file nor a folder.
        ImageError: for a folder without images.
        ValueError: if a file is named twice, or two files would get the same name in the output.
    """
    from flowsr.images import list_images

    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            files.extend(list_images(path))
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"expected an image or a folder of images; {printable(path)} {instead(path)}")
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(output_stem(path), path)
        if other is not path and other.resolve() == path.resolve():
            raise ValueError(f"expected each image once; got {printable(path)} twice: name it, or its folder, once")
        if other is not path:
            both = f"{printable(other)} and {printable(path)}"
            raise ValueError(f"expected images of different names; got {both}: rename one, or run twice")
    return files


def instead(path: Path) -> str:
    """What is where a file should be, and what to do: a missing name, or a pipe or device, which is never opened."""
    what = what_is_at(path)
    return "does not exist: check the name" if what == "no such file" else f"is {what}: give a file"


def keep_hr(files: Sequence[Path], reporter: Reporter) -> list[Path]:
    """The HR images, told by their names where a folder holds LR images too; a remark on names that say otherwise."""
    kept = keep_named(files, "HR", other="LR")
    for path in misnamed(kept, "HR", other="LR"):
        reporter.remark(
            f"Note: {printable(path.name)} is called LR but is taken for an HR image; `sample` is for LR images"
        )
    return kept


def keep_lr(lr: Path) -> list[Path]:
    """The LR images of a file or folder, told by their names where HR images are there too."""
    return keep_named(expand_inputs([lr]), "LR", other="HR")


def keep_named(files: Sequence[Path], word: str, *, other: str) -> list[Path]:
    """The files of one kind where a folder holds two, told apart by a word such as HR or LR in their names.

    Example:
        >>> keep_named([Path("a_HR.png"), Path("a_LR.png")], "HR", other="LR")
        [PosixPath('a_HR.png')]
    """
    if not any(_has_word(path, word) for path in files):
        return list(files)
    return [path for path in files if _has_word(path, word) or not _has_word(path, other)]


def misnamed(files: Sequence[Path], word: str, *, other: str) -> list[Path]:
    """The files whose names say the other kind, where :func:`keep_named` had no choice but to keep them.

    Example:
        >>> misnamed([Path("a_LR.png"), Path("b.png")], "HR", other="LR")
        [PosixPath('a_LR.png')]
    """
    return [path for path in files if _has_word(path, other) and not _has_word(path, word)]


def _has_word(path: Path, word: str) -> bool:
    return word in re.split(r"[_\-. ]", path.stem.upper())


def claim_outputs(folder: Path, names: Iterable[str], *, force: bool, alone: bool = True) -> None:
    """Refuse, before any work, an output folder that cannot be used or files that would be overwritten without leave.

    Until the end of :func:`claims` no other command writes there, see :func:`flowsr._support.lock.sole_writer`. Nothing
    stays behind: an empty folder goes away.

    Args:
        folder: the output folder.
        names: the files that shall be written there.
        force: overwrite those that exist.
        alone: nobody else may write anything into the folder; False for a command that writes one file.

    Raises:
        BlockingIOError: if another command is writing there.
        FileExistsError: if one of the files exists and ``force`` is False.
        NotADirectoryError: if the folder is a file, or lies below one.
        PermissionError: if the folder cannot be made, or nothing can be written there.
    """
    names = list(names)
    _check_files(folder, names, force=force)
    check_folder(folder, names)
    claims = _claims.get()
    if claims is not None:
        claims.enter_context(sole_writer(folder, file="" if alone else names[0]))
        _check_files(folder, names, force=force)  # what another command wrote while this one was looking


def _check_files(folder: Path, names: Iterable[str], *, force: bool) -> None:
    for path in (folder / name for name in names):
        if path.is_dir():
            raise FileExistsError(f"{printable(path)} is a folder where a file shall be: choose another name or --out")
        if not force and path.exists():
            raise FileExistsError(
                f"{printable(path)} exists: choose another name or --out, or add --force to overwrite"
            )


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Refuse an output folder that cannot be used, or has no room for these names; nothing stays behind.

    Raises:
        NotADirectoryError: if it is a file, or lies below one.
        PermissionError: if it cannot be made, or nothing can be written there.
    """
    folder = folder.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        found = "is a file" if nearest.exists() else "is a link that leads nowhere"
        where = f"{printable(nearest)} {found}"
        raise NotADirectoryError(f"expected a folder for the results; {where}: choose another --out")
    _try_names(folder, names, nearest)


def _try_names(folder: Path, names: Sequence[str], nearest: Path) -> None:
    """Make the same folders and files, empty, in a passing folder beside.

    What the rights allow a file system may still refuse: names that are too long, or that are in no encoding.
    """
    wanted, made = "a folder that can be written to", folder
    try:
        with tempfile.TemporaryDirectory(dir=nearest) as passing:
            Path(passing, folder.relative_to(nearest)).mkdir(parents=True, exist_ok=True)
            for name in names:
                wanted, made = "a name that a file can have there", folder / name
                Path(passing, made.relative_to(nearest)).touch()
    except OSError as error:
        what = f"{printable(made)} cannot ({error.strerror})"
        raise PermissionError(f"expected {wanted}; {what}: choose another --out") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; whether it may be overwritten was decided before."""
    with atomic_path(path) as temporary:
        temporary.write_text(visible(text), encoding="utf-8")
