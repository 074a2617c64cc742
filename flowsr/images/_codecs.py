"""Bytes to integer pixels and back: PNG, JPEG and TIFF, 8 and 16 bits, nothing lost on the way.

The content of a file says which of the three it is; each has a module that reads it to the value that its reference
library gives, or refuses it by name. imagecodecs encodes, because Pillow reduces 16-bit colour to 8 bits; Pillow
encodes the 8-bit PNG that carry a text.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from flowsr.errors import ImageError
from flowsr.images import _jpeg, _png, _tiff
from flowsr.images._stored import Stored

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".pgm", ".ppm", ".tga", ".webp")

LARGE = 2**27
"""Values of a picture from which on the bytes of its file are not put together in memory."""

_READERS = {
    (_png.SIGNATURE,): _png.decode_png,
    (_jpeg.SIGNATURE,): _jpeg.decode_jpeg,
    _tiff.SIGNATURES: _tiff.decode_tiff,
}
_OTHERS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (8, b"WEBP", "WebP"),
)


def decode(path: Path, *, max_pixels: int) -> Stored:
    """What a file stores, its pixels with 1 to 4 channels; the content decides, not the suffix."""
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise ImageError(f"{path}: expected an image; got an empty file")
    read = next((reader for signatures, reader in _READERS.items() if head.startswith(signatures)), None)
    if read is None:
        raise ImageError(f"{path}: expected a PNG, JPEG or TIFF image; got {_content_name(head)}")
    with _blamed_on(path):
        return read(path, max_pixels=max_pixels)


def read_text(path: Path, key: str) -> str | None:
    """The text under a key in a PNG file; None if there is none, or if it is no PNG file."""
    with _blamed_on(path):
        return _png.read_text(path, key)


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Whatever is raised becomes an ImageError that names the file."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except Exception as error:  # damaged files raise nearly anything: OSError, struct.error, SyntaxError, KeyError
        reason = f"{error}"[:200]  # some quote the file
        raise ImageError(f"{path}: expected a complete image; got a damaged or truncated file ({reason})") from error


def _content_name(head: bytes) -> str:
    for start, magic, name in _OTHERS:
        if head[start:].startswith(magic):
            return f"{name}: save it as PNG"
    return f"other content, starting with {head[:8]!r}"


def write(path: Path, pixels: np.ndarray, *, suffix: str, quality: int) -> None:
    """Write a file holding (H, W, C) pixels, uint8 or uint16; a large PNG in memory for a part of it."""
    if suffix == ".png" and pixels.dtype == np.uint8 and pixels.size > LARGE:
        with path.open("wb") as file:
            _png.stream_png(file, pixels)
    else:
        path.write_bytes(encode(pixels, suffix=suffix, quality=quality))


def encode(pixels: np.ndarray, *, suffix: str, quality: int) -> bytes:
    """The bytes of a file holding (H, W, C) pixels, uint8 or uint16."""
    if suffix in (".tif", ".tiff"):
        return _encode_tiff(pixels)
    import imagecodecs

    pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    if suffix == ".png":
        return bytes(imagecodecs.png_encode(pixels))
    return bytes(imagecodecs.jpeg8_encode(pixels, level=quality, subsampling="444"))


def encode_with_text(pixels: np.ndarray, text: Mapping[str, str]) -> bytes:
    """The bytes of a PNG file holding (H, W, C) pixels, uint8, and texts by their keys."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    file = BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def _encode_tiff(pixels: np.ndarray) -> bytes:
    import tifffile

    channels = pixels.shape[2]
    file = BytesIO()
    tifffile.imwrite(
        file,
        pixels[:, :, 0] if channels == 1 else pixels,
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig=None if channels == 1 else "contig",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="zlib",
        metadata=None,
    )
    return file.getvalue()
