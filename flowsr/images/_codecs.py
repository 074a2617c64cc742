"""Bytes to integer pixels and back: PNG, JPEG and TIFF, 8 and 16 bits, nothing lost on the way.

Three libraries, each for what it alone does right. Pillow reads headers without decoding (so a decompression bomb is
refused before it explodes), palettes, JPEG and EXIF, and knows the texts in PNG files. It silently reduces 16-bit
colour PNG to 8 bits, so imagecodecs decodes those, and encodes everything but 8-bit PNG with a text. tifffile knows
TIFF.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from flowsr.errors import ImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # the last two are BigTIFF
_PNG_BIT_DEPTH = 24  # where IHDR, always the first chunk, says it
_EXIF_ORIENTATION = 0x0112


def decode(path: Path, *, max_pixels: int) -> np.ndarray:
    """The upright pixels of a file, (H, W, C) with C = 1 to 4, uint8 or uint16; the content decides, not the suffix."""
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise ImageError(f"{path}: expected an image; got an empty file")
    if head.startswith((_PNG, _JPEG)):
        read = _decode_png_or_jpeg
    elif head.startswith(_TIFF):
        read = _decode_tiff
    else:
        raise ImageError(f"{path}: expected a PNG, JPEG or TIFF image; got other content, starting with {head[:8]!r}")
    try:
        pixels, orientation = read(path, head, max_pixels)
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        return np.ascontiguousarray(_upright(pixels, orientation))
    except ImageError:
        raise
    except Exception as error:  # damaged files raise nearly anything: OSError, struct.error, SyntaxError, KeyError
        raise ImageError(f"{path}: expected a complete image; got a damaged or truncated file ({error})") from error


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


def read_text(path: Path, key: str) -> str | None:
    """The text under a key in a PNG file; None if there is none, or if it is no PNG file."""
    from PIL import UnidentifiedImageError

    try:
        with _opened(path, ("PNG",)) as image:
            return image.text.get(key)
    except UnidentifiedImageError:
        return None


def _decode_png_or_jpeg(path: Path, head: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    with _opened(path, ("PNG", "JPEG")) as image:
        _check_count(path, image.width, image.height, max_pixels)
        if head.startswith(_PNG) and head[_PNG_BIT_DEPTH] == 16:
            import imagecodecs

            pixels = imagecodecs.png_decode(path.read_bytes())
        else:
            pixels = np.asarray(_without_palette(image))
        return pixels, image.getexif().get(_EXIF_ORIENTATION, 1)


@contextmanager
def _opened(path: Path, formats: tuple[str, ...]) -> Iterator[Any]:
    """A Pillow image of which the header has been read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        try:
            image = Image.open(path, formats=formats)
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{path}: expected an image within Pillow's limit; got a larger one ({error}); "
                f"raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
            ) from error
    with image:
        yield image


def _without_palette(image: Any) -> Any:
    """The same Pillow image in one of the modes L, LA, RGB, RGBA."""
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _decode_tiff(path: Path, head: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) == 0:
            raise ImageError(f"{path}: expected a complete image; got a damaged or truncated file (no page)")
        if len(tiff.pages) > 1:
            raise ImageError(
                f"{path}: expected a TIFF of one page; got {len(tiff.pages)}; save the page you want alone"
            )
        page: Any = tiff.pages[0]
        _check_count(path, page.imagewidth, page.imagelength, max_pixels)
        kind = page.photometric.name
        if kind not in ("MINISBLACK", "MINISWHITE", "RGB", "YCBCR", "PALETTE"):
            raise ImageError(f"{path}: expected a gray, RGB or palette TIFF; got {kind}; convert it to RGB")
        if page.dtype not in (np.bool_, np.uint8, np.uint16) or page.bitspersample not in (1, 8, 16):
            raise ImageError(f"{path}: expected 8 or 16 bits per channel; got {page.bitspersample} bits, {page.dtype}")
        if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > 4:
            raise ImageError(
                f"{path}: expected one image of 1 to 4 channels; "
                f"got axes {page.axes} with {page.samplesperpixel} channels"
            )
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        if kind == "PALETTE":
            pixels = page.colormap.T[pixels]
        elif pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        if kind == "MINISWHITE":
            pixels = np.iinfo(pixels.dtype).max - pixels
        tag = page.tags.get("Orientation")
        return pixels, 1 if tag is None else int(tag.value)


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


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the camera's rotation; the numbers 1 to 8 are those of EXIF and TIFF."""
    if orientation in (5, 6, 7, 8):  # the first four act on the transposed image
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _check_count(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{path}: expected at most {max_pixels} pixels; got {width} x {height} = {width * height}; "
            f"raise max_pixels if you trust the file"
        )
