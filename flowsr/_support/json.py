"""The JSON of commands: documents with their schema, which every parser reads, as infinities and NaN are strings."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from flowsr._support.atomic import atomic_path
from flowsr._support.names import printable, visible

VERSION = 1
"""Of the documents that commands write; it grows when a key changes its meaning or goes away."""


def json_number(value: float | None) -> float | str | None:
    """A number as JSON can hold it: infinities and NaN, which JSON lacks, become strings that ``float`` reads.

    Example:
        >>> json_number(1.5), json_number(math.inf), json_number(None)
        (1.5, 'inf', None)
    """
    return value if value is None or math.isfinite(value) else str(value)


def document(kind: str, /, **facts: Any) -> dict[str, Any]:
    """What a command prints or writes as JSON: its schema and version first, then the facts under snake-case keys.

    Args:
        kind: which of the schemas in ``flowsr/workflows/schemas`` it follows.
        **facts: anything that :func:`to_plain` takes.

    Example:
        >>> document("score", model="sr-x4-small", provenance={"trained by": "flowsr train"})["provenance"]
        {'trained_by': 'flowsr train'}
    """
    return {"schema": f"urn:flowsr:{kind}", "version": VERSION, **snake_keys(to_plain(facts))}


def snake_keys(value: Any) -> Any:
    """Plain values with all keys in snake case, as weights saved by earlier versions tell their provenance in words.

    Example:
        >>> snake_keys({"Left out": [{"as HR image": 1}]})
        {'left_out': [{'as_hr_image': 1}]}
    """
    if isinstance(value, Mapping):
        return {re.sub(r"[^0-9a-z]+", "_", str(key).lower()).strip("_"): snake_keys(v) for key, v in value.items()}
    return [snake_keys(item) for item in value] if isinstance(value, list) else value


def size_of(shape: Sequence[int]) -> dict[str, int]:
    """Height and width, the last two of a shape.

    Example:
        >>> size_of((3, 480, 640))
        {'height': 480, 'width': 640}
    """
    return {"height": int(shape[-2]), "width": int(shape[-1])}


def to_json(facts: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """A document as JSON text: numbers go through :func:`json_number`, names through :func:`printable`.

    Args:
        facts: the document.
        ascii_only: write letters beyond ASCII by their numbers, as JSON allows.

    Raises:
        TypeError: for what JSON cannot hold.

    Example:
        >>> to_json({"unit": "dB", "temperature": "τ", "psnr": math.inf})
        '{\\n  "unit": "dB",\\n  "temperature": "τ",\\n  "psnr": "inf"\\n}\\n'
    """
    return json.dumps(to_plain(facts), indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a document as JSON, whole or not at all; whether it may be overwritten was decided before."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(facts), encoding="utf-8")


def to_plain(value: Any) -> Any:
    """A value as JSON can hold it, and as it may be shown: texts are visible, and paths are printable names.

    Raises:
        TypeError: for a value of a kind that JSON has no place for.

    Example:
        >>> import torch
        >>> to_plain({"mean": torch.tensor([1.0, math.inf]), "of": (1, None)})
        {'mean': [1.0, 'inf'], 'of': [1, None]}
    """
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, str):
        return visible(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return json_number(value)
    if hasattr(value, "tolist"):  # tensors and arrays; torch need not be loaded to know them
        return to_plain(value.tolist())
    if hasattr(value, "to_dict"):
        return to_plain(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {visible(str(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [to_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return printable(value)
    raise TypeError(f"expected a value that JSON can hold; got {type(value).__name__}")
