"""Text inside PNG files (tEXt chunks): a fact about an image that travels with it."""

import struct
import zlib
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 8 + 25  # the signature and IHDR, which has a fixed length


def add_text(png: bytes, key: str, text: str) -> bytes:
    """A PNG file's bytes with a text put behind its header.

    Args:
        png: the file.
        key: 1 to 79 Latin-1 characters.
        text: Latin-1 characters.

    Raises:
        ValueError: if it is not a PNG file, or the key is not usable.
    """
    if not png.startswith(_SIGNATURE) or png[12:16] != b"IHDR":
        raise ValueError(f"expected the bytes of a PNG file; got bytes that start with {png[:8]!r}")
    if not 1 <= len(key) <= 79 or "\0" in key + text:
        raise ValueError(f"expected a key of 1 to 79 characters; got {key!r}")
    body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_HEADER_END] + chunk + png[_HEADER_END:]


def read_text(png: bytes, key: str) -> str | None:
    """The text under a key in a PNG file's bytes; None if there is none, or if it is no PNG file.

    Example:
        >>> import imagecodecs, numpy
        >>> png = imagecodecs.png_encode(numpy.zeros((2, 2), numpy.uint8))
        >>> read_text(add_text(png, "size", "13x16"), "size"), read_text(png, "size")
        ('13x16', None)
    """
    for kind, body in _chunks(png):
        name, _, text = body.partition(b"\0")
        if kind == b"tEXt" and name == key.encode("latin-1"):
            return text.decode("latin-1")
    return None


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while png.startswith(_SIGNATURE) and position + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        yield kind, png[position + 8 : position + 8 + length]
        position += length + 12
