"""Files of ``torch.save``, read as tensors alone: whole by their own checksums, and no code is run from them."""

import hashlib
import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsr.errors import CheckpointError, quoted, what_is_at

_ZIP = b"PK\3\4"


def read_tensors(path: Path, *, what: str, proven: bool = False) -> dict[str, Tensor]:
    """The state dict in a file of weights.

    The zip files that torch has written since version 1.6 have a checksum (CRC-32) of each tensor, which torch does not
    look at, and which are checked here. Older files have none: damage to their numbers cannot be told, which is warned
    of (UserWarning).

    Cost: reading the file twice.

    Args:
        path: of the file.
        what: is expected in it, for messages: "an official .pth file".
        proven: whether it is known to be whole, by a digest.

    Raises:
        CheckpointError: if it is no such file, damaged, cut off, or holds anything but dense tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"expected {what}; {path} is {what_is_at(path)}")
    zipped = _check_start(path, what)
    if zipped:
        _check_members(path, what)
    state = load_plain(path, what=what, name=str(path))
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"expected {path} to hold a plain state dict of tensors; got something else")
    _check_tensors(state, path)
    if not zipped and not proven:
        warnings.warn(
            f"{path} is in the format of torch before 1.6, which has no checksums: whether its numbers are whole "
            "cannot be told; load it with torch and save it again, if you trust it",
            stacklevel=2,
        )
    return state


def load_plain(source: Path | io.BytesIO, *, what: str, name: str) -> Any:
    """What ``torch.save`` wrote, if it is tensors and plain values alone.

    Args:
        source: the file.
        what: is expected in it, for messages.
        name: of the file, for messages.

    Raises:
        CheckpointError: if it is damaged, or holds other objects.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on unusual pickle protocols: what matters is said below
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Without its cause, whose advice is to unpickle the file as code, which nobody should follow.
        raise CheckpointError(
            f"expected {what}; {name} is damaged or holds other objects, more than tensors and plain values, and was "
            "not unpickled: such objects can run code; save a plain state dict"
        ) from None
    except Exception as error:  # damaged files raise nearly anything: RuntimeError, EOFError, KeyError
        reason = quoted(f"{type(error).__name__}: {error}", most=200)
        raise CheckpointError(f"expected {what} that is complete; {name} cannot be read ({reason})") from None


def _check_start(path: Path, what: str) -> bool:
    """Whether a file is a zip file; what is no file of torch at all is refused by what it is."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"expected {what}; {path} is empty")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise CheckpointError(f"expected {what}; {path} is a page (HTML or XML), not weights")
    return start.startswith(_ZIP)


def _check_members(path: Path, what: str) -> None:
    """Refuse a zip file whose members are not what their checksums say, or not stored as torch stores them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # Packed members could be a thousand times the file; of two of one name only one would be looked at.
            plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            plain &= sum(member.file_size for member in members) <= path.stat().st_size
            plain &= len({member.filename for member in members}) == len(members)
            damaged = archive.testzip() if plain else None
    except Exception as error:  # damaged files raise nearly anything, as above
        raise CheckpointError(
            f"expected {what} that is complete; {path} is damaged or cut off ({quoted(error)})"
        ) from None
    if not plain:
        raise CheckpointError(f"expected {what}; {path} is a zip file that torch.save has not written")
    if damaged is not None:
        raise CheckpointError(
            f"expected {what} that is complete; {path} is damaged: the checksum of {quoted(damaged)} in it does not fit"
        )


def _check_tensors(state: dict[str, Tensor], path: Path) -> None:
    """Refuse tensors of other kinds than weights are."""
    for key, value in state.items():
        if value.layout is not torch.strided or value.is_meta or value.is_quantized:
            kind = "one without values (meta)" if value.is_meta else str(value.layout)
            kind = "a quantized one" if value.is_quantized else kind
            raise CheckpointError(
                f"expected dense tensors in {path}; got {kind} in {quoted(key)}: save with .to_dense()"
            )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
