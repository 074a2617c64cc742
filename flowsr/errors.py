"""The errors a caller may want to catch, as users' other mistakes raise ValueError, and what their messages share."""

import os
import stat
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

__all__ = [
    "CheckpointError",
    "DownloadError",
    "FlowsrError",
    "ImageError",
    "MissingExtraError",
    "NonFiniteError",
    "OutOfMemoryError",
]

_MOST_CHARACTERS = 900
_MOST_LINES = 5
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class FlowsrError(Exception):
    """Base of the errors of this package; the message is a few lines, whatever of a file's content it quotes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(few_lines(message))


class CheckpointError(FlowsrError, ValueError):
    """A file of weights is damaged, of another architecture, or holds more than tensors."""


class ImageError(FlowsrError, ValueError):
    """An image file cannot be read, or holds something flowsr cannot use."""


class NonFiniteError(FlowsrError, ArithmeticError):
    """What was computed is not finite: an image drawn, or too many losses or gradients in a row while training."""


class DownloadError(FlowsrError, OSError):
    """A released file of weights cannot be fetched."""


class MissingExtraError(FlowsrError, ImportError):
    """A library that only some jobs need is not installed; the message names the extra of flowsr that brings it."""


class OutOfMemoryError(FlowsrError, MemoryError):
    """What is asked for does not fit into memory, as an estimate says before anything is allocated."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the closest of the known ones as a question, or nothing.

    Example:
        >>> did_you_mean("sr-x4-smal", ["sr-x4-small", "glow-small"])
        ': did you mean sr-x4-small?'
        >>> did_you_mean("colour", ["steps", "crop"])
        ''
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f": did you mean {close[0]}?" if close else ""


def few_lines(message: str) -> str:
    """A message of a few lines at most: the lines joined where there are more, the middle left out where it is long.

    Example:
        >>> few_lines("expected 3; got 4"), len(few_lines("x" * 3_000_000))
        ('expected 3; got 4', 900)
    """
    if message.count("\n") >= _MOST_LINES:
        message = " ".join(message.split())
    if len(message) <= _MOST_CHARACTERS:
        return message
    end = _MOST_CHARACTERS // 3
    return f"{message[: _MOST_CHARACTERS - end - 3]} … {message[-end:]}"


def quoted(value: Any, *, most: int = 80) -> str:
    r"""What somebody else wrote, as a message quotes it: on one line, without control characters, of bounded length.

    Example:
        >>> quoted("a page\n\x1b[31mof red"), quoted("x" * 99, most=5)
        ('a page \\x1b[31mof red', 'xxxxx…')
    """
    text = str(value)
    line = " ".join(text[: most + 1].split())
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line[:most])
    return shown + "…" * (len(text) > most)


def what_is_at(path: str | os.PathLike[str]) -> str:
    """What stands where a file was expected, for a message; a pipe or a device is never opened.

    Example:
        >>> what_is_at("/"), what_is_at("/nowhere")
        ('a folder', 'no such file')
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return "a link that leads nowhere" if os.path.islink(path) else "no such file"
    return next((name for holds, name in _KINDS if holds(mode)), "a file")
