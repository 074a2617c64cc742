"""Which files are trained on: each once, whatever links lead to it; none of a run's own; none that is held out."""

import hashlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from flowsr.errors import ImageError
from flowsr.images import list_images

MANIFEST, PICTURES = "run.json", "pictures"
"""Their names in the folder of a run."""


def find_images(
    folder: str | PathLike[str], *, out: Path | None = None, left_out: dict[Path, str] | None = None
) -> list[Path]:
    """The images in a folder, or, where it has none itself, in its sub-folders; sorted by path. A file is itself.

    No folder is entered twice, so links neither multiply images nor lead round and round. Folders of runs, which hold
    pictures too, are left out.

    Cost: a listing of each folder; no file is opened.

    Args:
        folder: where to look.
        out: the folder of the run that the images are for; never looked into, also before there is a run in it.
        left_out: gets the folders left out, and why.

    Raises:
        ImageError: if there are no images.
        ValueError: if the folder itself is one of a run, such as ``out``.

    Example:
        >>> import tempfile, torch
        >>> from flowsr.images import write_image
        >>> top = Path(tempfile.mkdtemp())
        >>> (top / "photographs").mkdir()
        >>> write_image(top / "photographs" / "a.png", torch.rand(3, 8, 8))
        >>> (top / "again").symlink_to(".")
        >>> [str(path.relative_to(top)) for path in find_images(top)]
        ['photographs/a.png']
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    own = [] if out is None else [out.resolve(), out.resolve() / PICTURES]
    if folder.resolve() in own or (folder / MANIFEST).is_file():
        raise ValueError(
            f"expected a folder of images; got {folder}, the folder of a run, whose pictures are not to be trained on: "
            "name another folder"
        )
    return sorted(_search(folder, {_identity(folder)}, out, {} if left_out is None else left_out))


def _search(folder: Path, been: set[object], out: Path | None, left_out: dict[Path, str]) -> list[Path]:
    try:
        return list_images(folder)
    except ImageError:
        found: list[Path] = []
        # Links after what they may lead to, which is then known by its own name.
        for child in sorted(_folders(folder), key=lambda path: (path.is_symlink(), path)):
            if out is not None and _identity(child) == _identity(out):
                continue
            if (child / MANIFEST).is_file():
                left_out[child] = "the folder of a run"
            elif _identity(child) in been:
                left_out[child] = "a link to a folder that is looked into anyway"
            else:
                been.add(_identity(child))
                try:
                    found += _search(child, been, out, left_out)
                except ImageError:
                    continue
        if not found:
            raise
        return found


def _folders(folder: Path) -> list[Path]:
    children = folder.iterdir() if folder.is_dir() else ()
    return [child for child in children if child.is_dir() and not child.name.startswith(".")]


def _identity(path: Path) -> object:
    """What is the same for all names of a file or folder, links of either kind included."""
    try:
        found = path.stat()
    except OSError:  # gone since it was listed; reading it will say so
        return path
    return found.st_dev, found.st_ino


def other_names(paths: Sequence[Path]) -> dict[int, Path]:
    """The places in a list of files whose file is there under another name too, and that name; links before others.

    Example:
        >>> other_names([Path(__file__), Path(__file__)])[1].name
        'sources.py'
    """
    names: dict[object, int] = {}
    for place in sorted(range(len(paths)), key=lambda place: (paths[place].is_symlink(), place)):
        names.setdefault(_identity(paths[place]), place)
    kept = {place: names[_identity(path)] for place, path in enumerate(paths)}
    return {place: paths[other] for place, other in kept.items() if other != place}


def copies(paths: Iterable[Path], *, of: Iterable[Path]) -> dict[Path, Path]:
    """Those among files that hold, byte by byte, what one of others holds, with that other one.

    Cost: reads the files that are as long as one of the others, and those.

    Example:
        >>> copies([Path(__file__)], of=[Path(__file__)]) == {Path(__file__): Path(__file__)}
        True
    """
    by_size: dict[int, list[Path]] = {}
    for path in of:
        by_size.setdefault(_size(path), []).append(path)
    digests: dict[int, dict[str, Path]] = {}
    found = {}
    for path in paths:
        size = _size(path)
        if size in by_size:
            if size not in digests:
                digests[size] = {_digest(other): other for other in reversed(by_size[size])}
            if (digest := _digest(path)) in digests[size]:
                found[path] = digests[size][digest]
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # gone: like no other
        return str(path)


def name_some(names: Sequence[str]) -> str:
    """The first names of many, and how many more there are.

    Example:
        >>> name_some(["a", "b", "c", "d", "e"])
        'a; b; c; and 2 more'
    """
    more = [f"and {len(names) - 3} more"] if len(names) > 3 else []
    return "; ".join([*names[:3], *more])
