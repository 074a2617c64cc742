"""JSON that every parser reads: infinities and NaN, which JSON lacks, are strings."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsr._files import atomic_path


def json_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities and NaN, which JSON lacks, become strings that ``float`` reads.

    Example:
        >>> json_number(1.5), json_number(math.inf), json_number(None)
        (1.5, 'inf', None)
    """
    return value if value is None or math.isfinite(value) else str(value)


def to_json(document: Mapping[str, Any]) -> str:
    """A document as JSON text; paths become strings, and numbers go through :func:`json_number`.

    Raises:
        TypeError: for what JSON cannot hold.

    Example:
        >>> to_json({"unit": "dB", "temperature": "τ", "psnr": math.inf})
        '{\\n  "unit": "dB",\\n  "temperature": "τ",\\n  "psnr": "inf"\\n}\\n'
    """
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all; whether it may be overwritten was decided before."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(document), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
