r"""Names of files as text that does no harm where it is shown, and as the beginnings of other names.

On most systems a name is any bytes: escape sequences that a terminal obeys, line breaks, bytes in no encoding. One
notation serves all outputs: such a byte is written as a backslash, an x and two digits, as shells take it back in
``$'caf\xe9.png'``, and a backslash that could be taken for one as ``\x5c``. So different names look different.
"""

import hashlib
import os
import re
from pathlib import Path

# Control characters, breaks of lines, what turns the direction of writing, and what stands for bytes in no encoding.
_ACTING = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BACKSLASH = re.compile(r"\\(?=x[0-9a-f]{2})")
_BYTES = re.compile("[\udc80-\udcff]+")
_ROOM = 225  # of the 255 bytes that file systems give a name; the rest is for what commands put behind it


def printable(name: str | os.PathLike[str]) -> str:
    r"""A file's name as text for people, JSON and tables: what cannot be shown is escaped, each name in another way.

    To be called once, where a name becomes a part of a text.

    Example:
        >>> print(printable("café.png"), printable("caf\udce9.png"), printable("a\x1b[2J\n.png"))
        café.png caf\xe9.png a\x1b[2J\x0a.png
        >>> print(printable(r"\x0a.png"))
        \x5cx0a.png
    """
    text = _BYTES.sub(lambda found: _decoded(found[0]), os.fspath(name))
    return _ACTING.sub(_escaped, _BACKSLASH.sub(r"\\x5c", text))


def visible(text: str) -> str:
    r"""Any text with nothing in it that acts on a terminal or that no encoding can hold; lines and tabs stay.

    What :func:`printable` made stays as it is.

    Example:
        >>> print(visible("title:\x1b]0;gone\x07\n  line"))
        title:\x1b]0;gone\x07
          line
    """
    return _ACTING.sub(lambda found: found[0] if found[0] in "\n\t" else _escaped(found), text)


def output_stem(path: str | os.PathLike[str]) -> str:
    """How the names of files begin that are made from a file: as its own, without the suffix.

    One too long to put anything behind is cut, with eight digits of its SHA-256 for the rest, so that images whose
    names begin alike keep different ones.

    Example:
        >>> output_stem("photographs/baby.png")
        'baby'
        >>> output_stem("b" * 245 + ".png")[215:]
        'b~678fb482'
    """
    whole = os.fsencode(Path(path).stem)
    if len(whole) <= _ROOM:
        return os.fsdecode(whole)
    ending = b"~" + hashlib.sha256(whole).hexdigest()[:8].encode()
    cut = whole[: _ROOM - len(ending)]
    while 0x80 <= whole[len(cut)] < 0xC0 and cut:  # not within a character of UTF-8
        cut = cut[:-1]
    return os.fsdecode(cut + ending)


def escaped_bytes(text: str) -> str:
    r"""Each byte of a text in the notation of this module.

    Example:
        >>> print(escaped_bytes("é"))
        \xc3\xa9
    """
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character of UTF-16, which no file's name has
        content = text.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in content)


def _escaped(found: re.Match[str]) -> str:
    return escaped_bytes(found[0])


def _decoded(text: str) -> str:
    """Bytes that are text after all, though not in the encoding that this system says its names have."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
