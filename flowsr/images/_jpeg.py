"""JPEG: Pillow gives the values, and a second decoder says whether the scan is whole.

libjpeg decodes a damaged scan to something and counts a warning, which Pillow does not pass on; simplejpeg, the same
library, does. It notices what puts the decoder out of step: about three in ten flipped bits, among them those that
spoil the rest of the picture; a flipped bit that leaves it in step is only another picture.

References:
    ITU-T T.81, annex B, for the markers.
"""

import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from flowsr._support.shapes import size_text
from flowsr.errors import ImageError
from flowsr.images._stored import PRINT_REMARK, Stored, check_count, profile_remark, space_remark

SIGNATURE = b"\xff\xd8\xff"

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_ARITHMETIC = (0xC9, 0xCA)
_MOST_PER_BYTE = 512  # pixels: every block of 64 takes a bit at least


def decode_jpeg(path: Path, *, max_pixels: int) -> Stored:
    """The picture of a JPEG file; a ValueError says what is damaged."""
    content = path.read_bytes()
    _check_frame(content, max_pixels=max_pixels)
    with _open(content) as image:
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        orientation = image.getexif().get(0x0112, 1)
        remarks = (
            scan_remark(content),
            PRINT_REMARK if image.mode == "CMYK" else None,
            profile_remark(image.info.get("icc_profile"), mode=image.mode) or _exif_remark(image),
        )
    return Stored(pixels, orientation, tuple(filter(None, remarks)))


def scan_remark(content: bytes) -> str | None:
    """What libjpeg warns of while it decodes a stream, None if nothing; gray, because that is half the work."""
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, "GRAY", strict=True)
    except ValueError as error:
        if "subsampling level" in str(error):  # of the header, before the scan
            return "has colours subsampled in an unusual way, for which its scan is not checked: look at it"
        return (
            f"is damaged, its decoder says ({error}): a part of the picture may be wrong; "
            "look at it, and take the file anew from where it came"
        )
    return None


def _open(content: bytes) -> Any:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        try:
            return Image.open(BytesIO(content), formats=("JPEG",))
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"expected an image within Pillow's limit; got a larger one ({error}); "
                f"raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
            ) from error


def _check_frame(content: bytes, *, max_pixels: int) -> None:
    """Refuse kinds of JPEG that are not read, and a size that the file cannot hold."""
    kind, bits, height, width = read_frame(content)
    if kind not in (*_HUFFMAN, *_ARITHMETIC) or bits != 8:
        raise ImageError(f"expected a JPEG of 8 bits, not lossless; got {bits} bits, frame {kind:x}: save it as PNG")
    check_count(width, height, max_pixels=max_pixels)
    if kind in _HUFFMAN and width * height > _MOST_PER_BYTE * len(content):
        raise ValueError(f"{size_text((height, width))} in {len(content)} bytes")


def read_frame(content: bytes) -> tuple[int, int, int, int]:
    """The marker that says how the picture is coded, bits, height and width."""
    start = 2
    while start + 9 <= len(content):
        if content[start] != 0xFF:
            raise ValueError("no marker where one is due")
        kind = content[start + 1]
        if kind in _FRAMES:
            return kind, *struct.unpack_from(">BHH", content, start + 4)
        # Before a marker may stand any number of 0xFF.
        start += 1 if kind == 0xFF else 2 + int.from_bytes(content[start + 2 : start + 4])
    raise ValueError("no picture in it")


def _exif_remark(image: Any) -> str | None:
    """Cameras mark Adobe RGB in one of two places if they write no profile."""
    from PIL import ExifTags

    exif = image.getexif()
    space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
    index = exif.get_ifd(ExifTags.IFD.Interop).get(1)
    return space_remark("Adobe RGB") if space == 2 or index == "R03" else None
