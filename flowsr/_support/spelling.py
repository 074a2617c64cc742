"""What somebody may have meant by a name that there is none of."""

from collections.abc import Iterable
from difflib import get_close_matches


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
