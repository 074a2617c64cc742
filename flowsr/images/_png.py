"""PNG: the chunks are walked and checked here, and the picture alone goes to libpng.

libpng gives the values, at every depth, with palettes and transparent colours resolved. It forgives more than is good
(a damaged chunk of transparency is dropped, and the image is opaque), so every chunk's checksum and place is checked
before; texts, however long, never reach it.

References:
    W3C, Portable Network Graphics Specification, third edition, chapters 5 and 11.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from flowsr._support.shapes import size_text
from flowsr.errors import ImageError
from flowsr.images._stored import Stored, check_count, profile_remark, space_remark

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER = struct.Struct(">IIBBBBB")
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_DEFLATED = 1032  # bytes that one byte of a zlib stream can stand for at most
_BAND = 2**20
_LONGEST_SIDE = 1_000_000  # libpng's own limit
_MOST_PROFILE = 16_000_000
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_SRGB_GAMMA = 45455
_SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)

_Chunks = list[tuple[bytes, bytes]]


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlace: int

    def chunk(self) -> tuple[bytes, bytes]:
        return b"IHDR", _HEADER.pack(*self)

    def row_bytes(self) -> int:
        return math.ceil(self.width * self.depth * _SAMPLES[self.colour] / 8)


def decode_png(path: Path, *, max_pixels: int) -> Stored:
    """The picture of a PNG file; a ValueError says what is damaged."""
    import imagecodecs

    chunks = list(_walk(path.read_bytes()))
    first = dict(reversed(chunks))  # of each kind
    rows = [body for kind, body in chunks if kind == b"IDAT"]
    header = _check_header(chunks[0], sum(map(len, rows)), max_pixels=max_pixels)
    _check_order([kind for kind, _ in chunks])
    _check_colours(first, header)
    wanted = (b"PLTE", b"tRNS") if header.colour == 3 else (b"tRNS",)
    colours = [(kind, first[kind]) for kind in wanted if kind in first]
    if header.interlace:
        pixels = _decode_interlaced(header, colours, b"".join(rows))
    else:
        pixels = imagecodecs.png_decode(_join([header.chunk(), *colours, *((b"IDAT", body) for body in rows)]))
    remark = _colour_remark(first, mode="L" if header.colour in (0, 4) else "RGB")
    return Stored(pixels, _orientation(chunks), (remark,) if remark else ())


def _decode_interlaced(header: _Header, colours: _Chunks, packed: bytes) -> np.ndarray:
    """Each of Adam7's passes as a picture of its own; of all together libpng complains, to the terminal."""
    import imagecodecs

    stream = zlib.decompressobj()
    raw = stream.decompress(packed, header.height * (header.row_bytes() + 8 * 2) + 64)
    pixels, start = None, 0
    for top, left, down, across in _ADAM7:
        height, width = math.ceil((header.height - top) / down), math.ceil((header.width - left) / across)
        if height < 1 or width < 1:
            continue
        one = header._replace(width=width, height=height, interlace=0)
        end = start + height * (1 + one.row_bytes())
        part = imagecodecs.png_decode(_join([one.chunk(), *colours, (b"IDAT", zlib.compress(raw[start:end], 0))]))
        pixels = np.empty((header.height, header.width, *part.shape[2:]), part.dtype) if pixels is None else pixels
        pixels[top::down, left::across] = part
        start = end
    if pixels is None or not stream.eof:
        raise ValueError("the picture's data do not end where they should")
    return pixels


def _walk(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks up to IEND, each of them whole and with its right checksum."""
    start = len(SIGNATURE)
    while True:
        if start + 12 > len(content):
            raise ValueError("the file ends before its end chunk")
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + 8 + length
        if end + 4 > len(content):
            raise ValueError(f"chunk {kind!r} of {length} bytes reaches past the end of the file")
        if zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4]):
            raise ValueError(f"chunk {kind!r} has a wrong checksum")
        yield kind, content[start + 8 : end]
        if kind == b"IEND":
            return
        start = end + 4


def _join(chunks: _Chunks) -> bytes:
    return b"".join([SIGNATURE, *(_packed(*chunk) for chunk in [*chunks, (b"IEND", b"")])])


def _packed(kind: bytes, body: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))])


def stream_png(file: BinaryIO, pixels: np.ndarray) -> None:
    """Write (H, W, C) pixels, uint8, as PNG in bands of rows: libraries hold the whole file, and a copy, in memory.

    Each row goes through the filter of Paeth, which suits photographs.
    """
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    file.write(SIGNATURE + _packed(*_Header(width, height, 8, colour, 0, 0, 0).chunk()))
    packer, above = zlib.compressobj(), np.zeros((1, width, channels), np.uint8)
    step = max(1, _BAND // (width * channels))
    for top in range(0, height, step):
        band = pixels[top : top + step]
        body = packer.compress(_paeth(np.concatenate([above, band])).tobytes())
        file.write(_packed(b"IDAT", body) if body else b"")
        above = band[-1:]
    file.write(_packed(b"IDAT", packer.flush()) + _packed(b"IEND", b""))


def _paeth(rows: np.ndarray) -> np.ndarray:
    """All rows but the first, each as the number of the filter and what it leaves, ``(rows, 1 + W·C)`` bytes."""
    wide = np.pad(rows, ((0, 0), (1, 0), (0, 0))).astype(np.int16)
    left, up, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    far_left, far_up = np.abs(up - corner), np.abs(left - corner)
    far_corner = np.abs(left + up - 2 * corner)
    guess = np.where(far_up <= far_corner, up, corner)
    guess = np.where((far_left <= far_up) & (far_left <= far_corner), left, guess)
    rest = (wide[1:, 1:] - guess).astype(np.uint8).reshape(len(rows) - 1, -1)
    return np.pad(rest, ((0, 0), (1, 0)), constant_values=4)


def _check_header(chunk: tuple[bytes, bytes], packed_bytes: int, *, max_pixels: int) -> _Header:
    """The header, if it says nothing impossible, nor more than the file can hold."""
    kind, body = chunk
    header = _Header(*_HEADER.unpack(body))
    possible = header.depth in _DEPTHS.get(header.colour, ()) and header.interlace <= 1
    if kind != b"IHDR" or not possible or header.compression or header.filtering:
        raise ValueError(f"header {kind!r} {body.hex()}")
    check_count(header.width, header.height, max_pixels=max_pixels)
    if max(header.width, header.height) > _LONGEST_SIDE:
        raise ImageError(
            f"expected sides of at most {_LONGEST_SIDE} pixels; got {size_text((header.height, header.width))}"
        )
    if header.height * header.row_bytes() > _MOST_DEFLATED * packed_bytes:
        raise ValueError(f"{size_text((header.height, header.width))} in {packed_bytes} compressed bytes")
    return header


def _check_order(kinds: list[bytes]) -> None:
    """Refuse what libpng leaves out with a warning that nobody sees."""
    rows = [index for index, kind in enumerate(kinds) if kind == b"IDAT"]
    if not rows or rows[-1] - rows[0] + 1 != len(rows):
        raise ValueError("the parts of the picture are not in one row")
    for kind in set(kinds):
        if kind[0] < ord("a") and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise ValueError(f"chunk {kind!r}, without which the picture cannot be understood")
    for kind in (b"IHDR", b"PLTE", b"tRNS"):
        if kinds.count(kind) > 1 or (kind in kinds and kinds.index(kind) > rows[0]):
            raise ValueError(f"chunk {kind!r} twice, or behind the picture")


def _check_colours(found: dict[bytes, bytes], header: _Header) -> None:
    """Refuse a palette or transparency of an impossible length, or a transparent colour that no pixel can have."""
    colour, colours, clear = header.colour, len(found.get(b"PLTE", b"")), found.get(b"tRNS")
    if colour == 3 and (colours % 3 or not 3 <= colours <= 768):
        raise ValueError(f"a palette of {colours} bytes")
    lengths = {0: range(2, 3), 2: range(6, 7), 3: range(1, colours // 3 + 1)}
    if clear is None:
        return
    if len(clear) not in lengths.get(colour, ()):
        raise ValueError(f"transparency of {len(clear)} bytes in an image of colour type {colour}")
    if colour != 3 and max(struct.unpack(f">{len(clear) // 2}H", clear)) >= 2**header.depth:
        raise ValueError(f"a transparent colour {clear.hex()} of more than {header.depth} bits")


def _colour_remark(found: dict[bytes, bytes], *, mode: str) -> str | None:
    """What to say of the colours, from the chunk that goes before the others where several speak of them."""
    if b"cICP" in found:
        primaries, transfer = found[b"cICP"][:2]
        return None if primaries == 1 and transfer in (1, 6, 13) else space_remark(f"cICP {primaries}/{transfer}")
    if b"iCCP" in found:
        packed = found[b"iCCP"].partition(b"\0")[2][1:]
        return profile_remark(zlib.decompressobj().decompress(packed, _MOST_PROFILE), mode=mode)
    if b"sRGB" in found:
        return None
    gamma = int.from_bytes(found.get(b"gAMA", _SRGB_GAMMA.to_bytes(4)))
    if abs(gamma - _SRGB_GAMMA) > 2000:
        return space_remark(f"of gamma {gamma / 100_000:g} in place of 1/2.2")
    primaries = struct.unpack(">8I", found.get(b"cHRM", struct.pack(">8I", *_SRGB_PRIMARIES)))
    moved = max(abs(one - other) for one, other in zip(primaries, _SRGB_PRIMARIES, strict=True))
    return space_remark("of other primary colours") if moved > 1000 and mode == "RGB" else None


def _orientation(chunks: _Chunks) -> int:
    """Which way is up, by Pillow's reading."""
    from PIL import ExifTags

    said = [c for c in chunks if c[0] == b"eXIf" or (c[0] in _TEXTS and c[1].startswith(_ORIENTING))]
    if not said:
        return 1
    with _one_pixel(said) as image:
        return image.getexif().get(ExifTags.Base.Orientation, 1)


def read_text(path: Path, key: str) -> str | None:
    """The text under a key in a PNG file; None if there is none, or if it is no PNG file."""
    content = path.read_bytes()
    if not content.startswith(SIGNATURE):
        return None
    start = key.encode("latin-1", "replace") + b"\0"
    with _one_pixel([c for c in _walk(content) if c[0] in _TEXTS and c[1].startswith(start)]) as image:
        return image.text.get(key)


def _one_pixel(chunks: _Chunks) -> Any:
    """A picture of one pixel, in Pillow, that has nothing else of a file than these chunks."""
    from PIL import Image

    short = [chunk for chunk in chunks if len(chunk[1]) < 1_000_000]  # Pillow's limit for texts
    pixel = [_Header(1, 1, 8, 0, 0, 0, 0).chunk(), *short, (b"IDAT", zlib.compress(b"\0\0"))]
    return Image.open(BytesIO(_join(pixel)), formats=("PNG",))
