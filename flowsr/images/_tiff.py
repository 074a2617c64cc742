"""TIFF: tifffile reads the structure, imagecodecs the strips and tiles, and both are held to what the header says.

A TIFF has no checksum, so its header is believed only as far as the file bears it out: as many strips or tiles as the
picture needs, inside the file and apart from each other, and each exactly as long as its rows. Whatever is short would
else be read as black, and whatever does not fit as another picture.

References:
    Adobe, TIFF 6.0 (1992), sections 3 to 22.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowsr._support.shapes import size_text
from flowsr.errors import ImageError
from flowsr.images._jpeg import read_frame, scan_remark
from flowsr.images._stored import PRINT_REMARK, Stored, check_count, profile_remark

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # the last two are BigTIFF

_SAMPLES = {"MINISWHITE": 1, "MINISBLACK": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "SEPARATED": 4}
_PLAIN = ("NONE", "PACKBITS")
_PREDICTED = ("LZW", "ADOBE_DEFLATE", "DEFLATE", "LZMA", "ZSTD")
_CMYK = 1


def decode_tiff(path: Path, *, max_pixels: int) -> Stored:
    """The picture of a TIFF file of one page; a ValueError says what is damaged."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) == 0:
            raise ValueError("no page")
        if len(tiff.pages) > 1:
            raise ImageError(f"expected a TIFF of one page; got {len(tiff.pages)}; save the page you want alone")
        page: Any = tiff.pages[0]
        check_count(page.imagewidth, page.imagelength, max_pixels=max_pixels)
        _check_kind(page)
        remarks: list[str | None] = []
        levels = _levels(page, remarks)
        mode = {"RGB": "RGB", "YCBCR": "RGB", "PALETTE": "RGB", "SEPARATED": "CMYK"}.get(page.photometric.name, "L")
        remarks.append(profile_remark(page.tags.valueof(34675), mode=mode))
        remarks.append(PRINT_REMARK if mode == "CMYK" else None)
        return Stored(_colours(page, levels), int(page.tags.valueof(274, 1)), tuple(filter(None, remarks)))


# ------------------------------------------------------------------------------------------------------ what is read


def _check_kind(page: Any) -> None:
    """Refuse by name what would not be read to its right values."""
    kind, coding, bits = _name(page.photometric), _name(page.compression), page.bitspersample
    if kind not in _SAMPLES or 262 not in page.tags:
        raise ImageError(f"expected a gray, RGB, CMYK or palette TIFF; got {kind}; convert it to RGB")
    if coding not in (*_PLAIN, *_PREDICTED, "JPEG"):
        raise ImageError(f"expected a TIFF without compression, or of LZW or deflate; got {coding}; save it so")
    if page.sampleformat != 1 or bits not in ((1, 2, 4, 8, 16) if page.samplesperpixel == 1 else (8, 16)):
        raise ImageError(f"expected 8 or 16 bits per channel; got {bits} bits, {page.dtype}; save it with 8 or 16")
    if page.axes not in ("YX", "YXS", "SYX") or page.imagedepth != 1:
        raise ImageError(f"expected one image of 1 to 4 channels; got axes {page.axes}; save one image")
    if page.predictor not in ((1, 2) if coding in _PREDICTED and bits >= 8 else (1,)):
        raise ImageError(f"expected a TIFF without such a predictor; got {page.predictor} with {coding}; save it anew")
    _check_samples(page, kind)
    if coding == "JPEG" and (bits != 8 or page.extrasamples or kind == "PALETTE" or page.planarconfig != 1):
        raise ImageError("expected a JPEG in a TIFF of 8 bits, gray, RGB or CMYK; got another; save it without JPEG")
    if kind == "YCBCR" and coding != "JPEG" and not _is_plain_ycbcr(page):
        raise ImageError("expected YCbCr of 8 bits, not subsampled, of the usual range; got other; convert it to RGB")
    if kind == "SEPARATED" and page.tags.valueof(332, _CMYK) != _CMYK:
        raise ImageError("expected the four inks CMYK; got others; convert it to RGB")


def _name(number: Any) -> str:
    """The name of a numbered kind; the number if tifffile knows none."""
    return getattr(number, "name", f"number {number}")


def _is_plain_ycbcr(page: Any) -> bool:
    """Whether JPEG's formula is the right one: full range, the weights of BT.601, colours as fine as luma."""
    said = {code: tuple(page.tags.valueof(code, ())) for code in (529, 530, 532)}
    weights, coarseness, ends = said[529], said[530], said[532]
    usual = [0, 255, 128, 255, 128, 255]
    return (
        page.bitspersample == 8
        and coarseness == (1, 1)
        and (not weights or np.allclose(np.divide(weights[::2], weights[1::2]), (0.299, 0.587, 0.114), atol=1e-3))
        and (not ends or np.allclose(np.divide(ends[::2], ends[1::2]), usual))
    )


def _check_samples(page: Any, kind: str) -> None:
    count, extra = page.samplesperpixel, tuple(map(int, page.extrasamples))
    if count == _SAMPLES[kind] and not extra:
        return
    alpha = kind in ("MINISBLACK", "RGB") and count == _SAMPLES[kind] + 1
    # Four channels of which the last is not explained are RGBA to Pillow; it is often so.
    if not alpha or not (extra in ((1,), (2,)) or (extra == () and kind == "RGB")):
        raise ImageError(
            f"expected one image of 1 to 4 channels, the last of gray-alpha and RGBA marked as alpha; "
            f"got axes {page.axes} with {count} channels, marked {extra}, {kind}; save it as RGB or RGBA"
        )


# ----------------------------------------------------------------------------------------------- from strips to levels


def _levels(page: Any, remarks: list[str | None]) -> np.ndarray:
    """The stored levels (H, W, samples): every strip or tile put where it belongs."""
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    tile_height, tile_width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
    if tile_height < 1 or tile_width < 1:
        raise ValueError(f"strips or tiles of {size_text((tile_height, tile_width))}")
    tile_height = tile_height if page.is_tiled else min(tile_height, height)
    planes = 1 if page.planarconfig == 1 else samples
    down, across = math.ceil(height / tile_height), math.ceil(width / tile_width)
    parts = _parts(page, planes * down * across)
    levels = np.empty((height, width, samples), np.uint16 if page.bitspersample == 16 else np.uint8)
    for index, data in enumerate(parts):
        plane, (row, column) = index // (down * across), divmod(index % (down * across), across)
        top, left = row * tile_height, column * tile_width
        channels = slice(None) if planes == 1 else slice(plane, plane + 1)
        place = levels[top : top + tile_height, left : left + tile_width, channels]
        rows = tile_height if page.is_tiled else len(place)
        part = _part(page, index, data, (rows, tile_height, tile_width, samples // planes), remarks)
        place[:] = part[: place.shape[0], : place.shape[1]]
    return levels


def _parts(page: Any, count: int) -> Iterator[bytes]:
    """The bytes of each strip or tile, if there are as many as there must be, all in the file, none over another."""
    # As written: tifffile takes as many as it needs.
    offsets = page.tags.valueof(324) or page.tags.valueof(273) or ()
    lengths = page.tags.valueof(325) or page.tags.valueof(279) or ()
    if len(offsets) != count or len(lengths) != count:
        raise ValueError(f"{len(offsets)} strips or tiles of {len(lengths)} lengths where {count} are needed")
    file = page.parent.filehandle
    free = 8  # behind the head of the file
    for offset, length in sorted(zip(offsets, lengths, strict=True)):
        if length < 1 or offset < free or offset + length > file.size:
            raise ValueError(f"a strip or tile of {length} bytes at {offset} of {file.size}, or over another")
        free = offset + length
    for offset, length in zip(offsets, lengths, strict=True):
        file.seek(offset)
        yield file.read(length)


def _part(
    page: Any, index: int, data: bytes, shape: tuple[int, int, int, int], remarks: list[str | None]
) -> np.ndarray:
    """One strip or tile (rows, width, samples); a last strip may be as tall as the others."""
    rows, most_rows, width, samples = shape
    if page.compression.name == "JPEG":
        return _jpeg_part(page, index, data, shape, remarks)
    row_bytes = math.ceil(width * samples * page.bitspersample / 8)
    data = _decompress(page, data, most_bytes=most_rows * row_bytes)
    if len(data) not in (rows * row_bytes, most_rows * row_bytes):
        raise ValueError(f"a strip or tile of {len(data)} bytes where {rows * row_bytes} are due")
    lines = _unpack(page, data, row_bytes)[:rows, : width * samples].reshape(rows, width, samples)
    return np.cumsum(lines, axis=1, dtype=lines.dtype) if page.predictor == 2 else lines


def _jpeg_part(
    page: Any, index: int, data: bytes, shape: tuple[int, int, int, int], remarks: list[str | None]
) -> np.ndarray:
    rows, most_rows, width, samples = shape
    tables = page.jpegtables
    if not any(remarks):  # one is enough
        remarks.append(scan_remark(data if tables is None else tables[:-2] + data[2:]))
    _, _, coded_rows, coded_width = read_frame(data)
    part = page.decode(data, index, jpegtables=tables)[0][0]
    # The decoder would make a JPEG of another size fit.
    if coded_width != width or coded_rows not in (rows, most_rows) or part.shape[1:] != (width, samples):
        raise ValueError(f"a JPEG of {size_text((coded_rows, coded_width))} where {size_text((rows, width))} are due")
    return part


def _decompress(page: Any, data: bytes, *, most_bytes: int) -> bytes:
    import imagecodecs
    import tifffile

    if page.fillorder == 2:
        data = bytes(imagecodecs.bitorder_decode(data))
    if page.compression.name == "NONE":
        return data
    # One byte more shows what is too long, which some decoders cut without a word.
    return tifffile.TIFF.DECOMPRESSORS[page.compression](data, out=most_bytes + 1)


def _unpack(page: Any, data: bytes, row_bytes: int) -> np.ndarray:
    """Levels (rows, samples of a row) in this machine's order of bytes; each row starts with a new byte."""
    bits = page.bitspersample
    lines = np.frombuffer(data, np.uint8).reshape(-1, row_bytes)
    if bits == 16:
        return lines.view(page.parent.byteorder + "u2").astype(np.uint16)
    if bits == 8:
        return lines
    each = np.unpackbits(lines, axis=1).reshape(len(lines), -1, bits)
    return np.packbits(each, axis=2)[:, :, 0] >> (8 - bits)


# --------------------------------------------------------------------------------------------- from levels to colours


def _colours(page: Any, levels: np.ndarray) -> np.ndarray:
    """Gray, RGB, or either with an alpha that is not multiplied into it."""
    from PIL import Image

    kind = page.photometric.name
    if kind == "PALETTE":
        return _palette(page)[levels[:, :, 0]]
    if page.bitspersample < 8:
        levels = levels * np.uint8(255 // (2**page.bitspersample - 1))
    peak = int(np.iinfo(levels.dtype).max)
    if kind == "MINISWHITE":
        return peak - levels
    if kind == "YCBCR" and page.compression.name != "JPEG":
        return np.asarray(Image.frombytes("YCbCr", levels.shape[1::-1], levels.tobytes()).convert("RGB"))
    if kind == "SEPARATED":
        return _cmyk_to_rgb(levels)
    return _unmultiplied(levels, peak) if 1 in page.extrasamples else levels


def _palette(page: Any) -> np.ndarray:
    """(entries, 3) of 8 bits: a TIFF has entries of 16, of which every program reads the upper half."""
    entries = np.asarray(page.colormap).T
    if entries.shape != (2**page.bitspersample, 3):
        raise ValueError(f"a palette of shape {entries.shape} for {page.bitspersample} bits")
    if 0 < entries.max() < 256:
        raise ImageError("expected a palette of 16 bits, as TIFF has it; got one of 8; convert it to RGB")
    return (entries >> 8).astype(np.uint8)


def _unmultiplied(levels: np.ndarray, peak: int) -> np.ndarray:
    """Divide the colours by the alpha, as Pillow does: rounded down, and black where all is clear."""
    stored, alpha = levels[:, :, :-1].astype(np.int64), levels[:, :, -1:].astype(np.int64)
    colours = np.minimum(peak, stored * peak // np.maximum(alpha, 1))
    return np.concatenate([np.where(alpha == 0, 0, colours), alpha], axis=2).astype(levels.dtype)


def _cmyk_to_rgb(levels: np.ndarray) -> np.ndarray:
    """Ink on white, (1 - C)(1 - K), rounded: what Pillow makes of it, without a profile of the inks."""
    peak = int(np.iinfo(levels.dtype).max)
    ink, black = levels[:, :, :3].astype(np.int64), peak - levels[:, :, 3:].astype(np.int64)
    return (black - (2 * ink * black + peak) // (2 * peak)).clip(0, peak).astype(levels.dtype)
