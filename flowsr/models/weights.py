"""Weights by name: those that come with the package, and the authors' released files, fetched once into a cache."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from flowsr._support.atomic import atomic_path
from flowsr.errors import DownloadError

ShippedName = Literal["sr-x4-small", "rescaling-x4-small"]
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
    """

    file: str
    licence: str
    about: str


RELEASES: dict[str, Release] = {
    "sr-x4": Release("SR_DF2K_X4_HCFlow++.pth", "Apache-2.0", "HCFlow++ x4, general images (DF2K)"),
    "sr-x8": Release("SR_CelebA_X8_HCFlow++.pth", "Apache-2.0", "HCFlow++ x8, faces (CelebA)"),
    "rescaling-x4": Release("Rescaling_DF2K_X4_HCFlow.pth", "Apache-2.0", "HCFlow x4 rescaling (DF2K)"),
}
"""The authors' files by preset; tag v0.0 of github.com/JingyunLiang/HCFlow.

No checksums were published with them. A fetched file is checked by its length only, and its SHA-256 is printed, so that
it can be compared with that of another copy.
"""


def shipped_path(name: str) -> Path | None:
    """The file of weights that comes with the package under a preset's name, or None.

    Example:
        >>> shipped_path("no-such-preset") is None
        True
    """
    path = Path(str(files("flowsr"))) / "weights" / f"{name}.safetensors"
    return path if path.is_file() else None


def cache_folder() -> Path:
    """Where fetched files are kept: ``$FLOWSR_CACHE``, or ``flowsr`` in the user's cache folder."""
    if chosen := os.environ.get("FLOWSR_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flowsr"


def fetch_release(name: str, *, timeout: float = 20.0) -> Path:
    """The authors' file for a preset, downloaded into the cache unless it is there already.

    The file appears whole or not at all. When it is fetched, its licence and its SHA-256 are stated on stderr: nothing
    was published to compare the latter with, so a file is known to be complete, not to be the authors'. It is read as
    tensors only, whatever it is.

    Cost: about 100 MB over the network, once.

    Args:
        name: sr-x4, sr-x8 or rescaling-x4.
        timeout: seconds to wait for an answer.

    Raises:
        ValueError: for a name without a released file.
        DownloadError: if the file cannot be had, with what to do about it.
    """
    if name not in RELEASES:
        raise ValueError(f"expected a released model among {', '.join(RELEASES)}; got {name!r}")
    release = RELEASES[name]
    path = cache_folder() / release.file
    if path.is_file():
        return path
    url = RELEASE_URL + urllib.request.pathname2url(release.file)
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"Fetching {release.about}, released by its authors under {release.licence}: {url}", file=sys.stderr)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, atomic_path(path) as temporary:
            digest = hashlib.sha256()
            with open(temporary, "wb") as file:
                while block := answer.read(2**20):
                    digest.update(block)
                    file.write(block)
            expected, got = answer.headers.get("Content-Length"), temporary.stat().st_size
            if expected is not None and got != int(expected):
                raise DownloadError(_advice(name, url, path, f"the connection ended after {got} of {expected} bytes"))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(_advice(name, url, path, str(error))) from error
    print(f"Wrote {path}, SHA-256 {digest.hexdigest()}", file=sys.stderr)
    return path


def _advice(name: str, url: str, path: Path, why: str) -> str:
    return (
        f"expected to fetch the weights of {name} from {url}; got: {why}. Try again later, or put the file at {path} "
        "by hand."
    )
