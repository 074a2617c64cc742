"""The errors a caller may want to catch, as users' other mistakes raise ValueError, and what their messages share."""

from collections.abc import Iterable
from difflib import get_close_matches


class FlowsrError(Exception):
    """Base of the errors of this package."""


class CheckpointError(FlowsrError, ValueError):
    """A file of weights is damaged, of another architecture, or holds more than tensors."""


class ImageError(FlowsrError, ValueError):
    """An image file cannot be read, or holds something flowsr cannot use."""


class NonFiniteError(FlowsrError, ArithmeticError):
    """Training was stopped because too many steps in a row had a loss or gradient that is not finite."""


class DownloadError(FlowsrError, OSError):
    """A released file of weights cannot be fetched."""


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
