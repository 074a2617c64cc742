"""Weights by name: those that come with the package, and the authors' released files, fetched once into a cache."""

import os
import re
import sys
import urllib.request
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal

from flowsr._support.atomic import atomic_path
from flowsr._support.downloads import download
from flowsr._support.torch_files import sha256_of
from flowsr.errors import CheckpointError
from flowsr.models.official import load_official

ShippedName = Literal[
    "sr-x4-small",
    "sr-x4-small-v1",
    "rescaling-x4-small",
    "srflow-x4-small",
    "irn-x4-small",
    "glow-small",
    "realnvp-points",
]
"""Presets whose weights come with the package, as a type checker reads them."""

ReleaseName = Literal["sr-x4", "sr-x8", "rescaling-x4"]
"""Presets whose weights the authors have released, as a type checker reads them."""

RELEASE_URL = "https://github.com/JingyunLiang/HCFlow/releases/download/v0.0/"
"""Where the authors of HCFlow keep their files."""


@dataclass(frozen=True)
class Release:
    """A released file of weights.

    Attributes:
        file: its name.
        licence: under which it is released.
        about: what it was trained on and for.
        sha256: of the file, where its authors have published it.
    """

    file: str
    licence: str
    about: str
    sha256: str | None = None


RELEASES: dict[str, Release] = {
    "sr-x4": Release("SR_DF2K_X4_HCFlow++.pth", "Apache-2.0", "HCFlow++ x4, general images (DF2K)"),
    "sr-x8": Release("SR_CelebA_X8_HCFlow++.pth", "Apache-2.0", "HCFlow++ x8, faces (CelebA)"),
    "rescaling-x4": Release("Rescaling_DF2K_X4_HCFlow.pth", "Apache-2.0", "HCFlow x4 rescaling (DF2K)"),
}
"""The authors' files by preset; tag v0.0 of github.com/JingyunLiang/HCFlow.

No SHA-256 was published with them; where one is, it belongs here. Without it the file that is met first is trusted: its
SHA-256 is recorded beside it, and every later one must be the same.
"""


def shipped_path(name: str) -> Path | None:
    """The file of weights that comes with the package under a preset's name, or None.

    A name stands for its newest weights: the file of that name, or, where all have a version, the one of the highest.
    Earlier ones stay under their versions, as ``sr-x4-small-v1``, so that what was measured with them can be repeated.

    Example:
        >>> shipped_path("sr-x4-small-v1").name, shipped_path("no-such-preset") is None
        ('sr-x4-small-v1.safetensors', True)
    """
    folder = Path(str(files("flowsr"))) / "weights"
    path = folder / f"{name}.safetensors"
    if path.is_file():
        return path
    there = folder.iterdir() if folder.is_dir() else ()
    versions = {int(found[1]): file for file in there if (found := _version(name).fullmatch(file.name))}
    return versions[max(versions)] if versions else None


def _version(name: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(name)}-v(\d+)\.safetensors")


def cache_folder() -> Path:
    """Where fetched files are kept: ``$FLOWSR_CACHE``, or ``flowsr`` in the user's cache folder."""
    if chosen := os.environ.get("FLOWSR_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flowsr"


def fetch_release(name: str, *, timeout: float = 20.0) -> Path:
    """The authors' file for a preset, downloaded into the cache unless it is there already.

    An answer stays in the cache only if a model can be loaded from it; it is read as tensors only, whatever it is. Its
    SHA-256 must be the published one, or else that of the file that was met here first, which is recorded beside it as
    ``….sha256`` and stated on stderr together with the licence: it is known to be the same one, not to be the authors'.

    Cost: about 100 MB over the network, once; then reading the file.

    Args:
        name: sr-x4, sr-x8 or rescaling-x4.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: for a name without a released file.
        DownloadError: if the file cannot be had, with what to do about it.
        CheckpointError: if the file in the cache is another one than was met first.
    """
    if name not in RELEASES:
        raise ValueError(f"expected a released model among {', '.join(RELEASES)}; got {name!r}")
    release = RELEASES[name]
    path = cache_folder() / release.file
    if not path.is_file():
        url = RELEASE_URL + urllib.request.pathname2url(release.file)
        print(f"Fetching {release.about}, released by its authors under {release.licence}: {url}", file=sys.stderr)
        download(url, path, what=f"the weights of {name}", check=partial(_check, path), timeout=timeout)
        return path
    try:
        _check(path, path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {path} to have it fetched again") from None
    return path


def _check(path: Path, file: Path) -> None:
    """Refuse a file that is not the one that belongs at a path of the cache; the first that loads is recorded as it."""
    record = path.with_name(f"{path.name}.sha256")
    published = next((release.sha256 for release in RELEASES.values() if release.file == path.name), None)
    found, expected = sha256_of(file), published or _recorded(record)
    if expected is None:
        load_official(file)
        _record(record, path, found)
    elif expected != found:
        which = "that was published" if published else f"that was met first (its digest is in {record})"
        raise CheckpointError(
            f"expected the file {which}, of SHA-256 {expected[:16]}…; {file} has {found[:16]}…: damaged or another one"
        )


def _record(record: Path, path: Path, digest: str) -> None:
    kept = "recorded beside it"
    try:
        with atomic_path(record) as temporary:
            temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    except OSError as error:  # a cache that others fill
        kept = f"not recorded: {error.strerror}"
    print(f"Using {path}, SHA-256 {digest}, {kept}", file=sys.stderr)


def _recorded(record: Path) -> str | None:
    """The digest in a file such as sha256sum writes, if there is one."""
    if not record.is_file():
        return None
    with record.open(encoding="utf-8", errors="replace") as file:
        return file.read(64)
