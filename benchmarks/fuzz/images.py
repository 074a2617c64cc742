"""Damaged image files by the thousand: each is refused, or read to the value that an independent reader gives.

Each attempt is refused, read equal, read with a remark of what is wrong, read alone (no other reader takes the file) or
read to a different picture without a word; the last must not be, nor any exception but ImageError.

The independent readers are Pillow (its own PNG and TIFF, libtiff behind it, libjpeg-turbo) and, because Pillow cuts
16-bit colour to 8 bits, a PNG reader of this file's own; tifffile puts together what Pillow cannot.
"""

import logging
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.trial import Trial, attempts
from flowsr.errors import ImageError
from flowsr.images import read_image

_MOST_PIXELS = 1_000_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_TELLING = (0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 32, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**32 - 1)


# ------------------------------------------------------------------------------------------------- whole files


def write_png(levels: np.ndarray, *, depth: int, colour: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG file of any depth and colour type, no filter, the picture in two chunks; ``levels`` are (H, W, samples)."""
    height, width, _ = levels.shape
    passes = [levels[top::down, left::across] for top, left, down, across in _ADAM7] if interlaced else [levels]
    packed = zlib.compress(b"".join(_png_lines(part, depth) for part in passes if part.size))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    half = len(packed) // 2
    picture = png_chunk(b"IDAT", packed[:half]) + png_chunk(b"IDAT", packed[half:])
    return _SIGNATURE + head + extra + picture + png_chunk(b"IEND", b"")


def _png_lines(levels: np.ndarray, depth: int) -> bytes:
    height, width, samples = levels.shape
    halves = np.ascontiguousarray(levels, ">u2").view(np.uint8).reshape(height, width * samples, 2)
    lines = np.packbits(np.unpackbits(halves, axis=2)[:, :, -depth:].reshape(height, -1), axis=1)
    return b"".join(b"\0" + line.tobytes() for line in lines)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def originals() -> dict[str, bytes]:
    """Small whole files of every kind that is read, by name; the ending is that of the format."""
    return {**_pngs(), **_jpegs(), **_tiffs()}


def _picture(*shape: int, peak: int = 255) -> np.ndarray:
    """Waves and a little noise: smooth enough for JPEG, and no row like another."""
    rng, axes = np.random.default_rng(len(shape)), np.indices(shape)
    waves = 0.5 + 0.4 * np.sin(axes[0] / 3 + axes[1] / 5 + (axes[2] if len(shape) == 3 else 0))
    return (peak * (waves + 0.1 * rng.random(shape))).clip(0, peak).astype(np.uint16 if peak > 255 else np.uint8)


def _pngs() -> dict[str, bytes]:
    palette, clear = bytes(range(48)) * 16, {0: b"\0\1", 2: b"\0\1\0\2\0\3", 3: b"\x10\x80"}
    files = {}
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            levels = _picture(13, 17, _SAMPLES[colour], peak=2**depth - 1)
            needed = png_chunk(b"PLTE", palette[: 3 * 2**depth]) if colour == 3 else b""
            files[f"{colour}-{depth}.png"] = write_png(levels, depth=depth, colour=colour, extra=needed)
            if depth < 16:  # no other reader here has them interlaced
                files[f"{colour}-{depth}-adam7.png"] = write_png(
                    levels, depth=depth, colour=colour, extra=needed, interlaced=True
                )
            if colour in clear:
                more = needed + png_chunk(b"tRNS", clear[colour])
                files[f"{colour}-{depth}-clear.png"] = write_png(levels, depth=depth, colour=colour, extra=more)
    return files


def _saved(image: Any, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _jpegs() -> dict[str, bytes]:
    from PIL import Image

    image = Image.fromarray(_picture(40, 56, 3))
    return {
        "rgb.jpg": _saved(image, "JPEG", quality=90),
        "fine.jpg": _saved(image, "JPEG", quality=95, subsampling=0),
        "progressive.jpg": _saved(image, "JPEG", progressive=True),
        "restart.jpg": _saved(image, "JPEG", restart_marker_blocks=2),
        "gray.jpg": _saved(image.convert("L"), "JPEG"),
        "cmyk.jpg": _saved(image.convert("CMYK"), "JPEG"),
    }


def _tiffs() -> dict[str, bytes]:
    import tifffile
    from PIL import Image

    rgb = Image.fromarray(_picture(23, 34, 3))
    files = {
        f"{mode}-{coding}.tif": _saved(rgb.convert(mode), "TIFF", compression=coding)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
        for coding in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
    }
    files |= {f"{mode}-jpeg.tif": _saved(rgb.convert(mode), "TIFF", compression="jpeg") for mode in ("L", "RGB")}
    files["YCbCr.tif"] = _saved(rgb.convert("YCbCr"), "TIFF")
    for peak in (255, 65535):
        for name, options in {
            "plain": {},
            "strips": {"rowsperstrip": 5, "compression": "lzw", "predictor": True},
            "tiles": {"tile": (16, 16), "compression": "zlib"},
            "planes": {"planarconfig": "separate"},
            "big": {"byteorder": ">", "bigtiff": True},
        }.items():
            shape = (3, 23, 34) if name == "planes" else (23, 34, 3)
            file = BytesIO()
            tifffile.imwrite(file, _picture(*shape, peak=peak), photometric="rgb", metadata=None, **options)
            files[f"{name}-{peak}.tif"] = file.getvalue()
    return files


# --------------------------------------------------------------------------------------------------- damaged files


def damage(content: bytes, rng: random.Random) -> bytes:
    """The file with one to three changes that a disk, a transfer or an adversary may make."""
    changes = (_change_bit, _change_byte, _cut, _move, _change_header, _change_header)
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(changes)(content, rng) if len(content) > 16 else content
    # Most damage to a PNG stops at its checksums; what is behind them is met only with right ones.
    return _mend_checksums(content) if content.startswith(_SIGNATURE) and rng.random() < 0.7 else content


def _change_bit(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _change_byte(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([rng.choice((0, 1, 255, rng.randrange(256)))]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(16, len(content))] if rng.random() < 0.3 else content


def _move(content: bytes, rng: random.Random) -> bytes:
    start, end, to = sorted(rng.randrange(len(content)) for _ in range(3))
    return rng.choice((content[:start] + content[end:], content[:to] + content[start:end] + content[to:]))


def _change_header(content: bytes, rng: random.Random) -> bytes:
    """A number in the header becomes another one, telling or near."""
    if content[:4] in (b"II*\0", b"MM\0*"):
        return _change_tag(content, rng)
    place, size = rng.randrange(8, min(len(content), 64) - 4), rng.choice((1, 2, 4))
    number = rng.choice(_TELLING) % 256**size
    return content[:place] + number.to_bytes(size) + content[place + size :]


def _change_tag(content: bytes, rng: random.Random) -> bytes:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        place = start + 2 + 12 * rng.randrange(max(count, 1))
        offset, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "H"), (8, "H"), (8, "I")))
        (number,) = struct.unpack_from(order + form, content, place + offset)
        number = rng.choice((*_TELLING, number + 1, number - 1, 2 * number, number // 2)) % 256 ** struct.calcsize(form)
        changed = bytearray(content)
        struct.pack_into(order + form, changed, place + offset, number)
    except struct.error:  # an earlier change has led out of the file
        return content
    return bytes(changed)


def _mend_checksums(content: bytes) -> bytes:
    mended, start = bytearray(content), len(_SIGNATURE)
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4])
        if end + 4 > len(content):
            break
        mended[end : end + 4] = zlib.crc32(content[start + 4 : end]).to_bytes(4)
        start = end + 4
    return bytes(mended)


# --------------------------------------------------------------------------------------------- independent readers


def other_readings(content: bytes) -> Iterator[tuple[np.ndarray, float]]:
    """What other readers make of a file, RGBA in [0, 1] of shape (H, W, 4), and how exact each is."""
    for read in (_read_png, _read_with_pillow, _read_with_tifffile):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reading = read(content)
        except Exception:  # what another reader refuses it refuses in its own way
            continue
        if reading is not None:
            yield reading


def _read_with_pillow(content: bytes) -> tuple[np.ndarray, float] | None:
    from PIL import Image, ImageOps

    with Image.open(BytesIO(content), formats=("PNG", "JPEG", "TIFF")) as image:
        if image.width * image.height > _MOST_PIXELS:
            return None
        # Pillow has no 16-bit colour, and keeps the upper halves.
        tags = getattr(image, "tag_v2", {})
        deep = content[24] == 16 if content.startswith(_SIGNATURE) else 16 in tags.get(258, ())
        if tags.get(284) == 2 and set(tags.get(258, ())) != {8}:  # separate planes it takes for planes of 8 bits
            return None
        # Pillow compares a transparent colour of other than 8 bits with levels of 8.
        if image.format == "PNG" and b"tRNS" in content and content[25] in (0, 2) and content[24] in (2, 4, 16):
            return None
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            gray = np.asarray(image).astype(np.float64)[:, :, None] / 65535
            return np.concatenate([gray, gray, gray, np.ones_like(gray)], axis=2), 1e-6
        image = image.convert("LA") if image.mode == "La" else image
        return np.asarray(image.convert("RGBA")) / 255, 1.01 / 255 if deep else 1e-6


def _read_with_tifffile(content: bytes) -> tuple[np.ndarray, float] | None:
    """What Pillow cannot: BigTIFF of big-endian numbers, separate planes of 16 bits. Plain RGB only."""
    import tifffile

    if content[:2] not in (b"II", b"MM"):
        return None
    with tifffile.TiffFile(BytesIO(content)) as tiff:
        page: Any = tiff.pages[0]
        if page.photometric.name != "RGB" or page.samplesperpixel != 3 or 274 in page.tags or page.size > _MOST_PIXELS:
            return None
        levels = page.asarray() if page.planarconfig == 1 else np.moveaxis(page.asarray(), 0, -1)
    values = levels / np.iinfo(levels.dtype).max
    return np.concatenate([values, np.ones_like(values[:, :, :1])], axis=2), 1e-6


def _read_png(content: bytes) -> tuple[np.ndarray, float] | None:
    """A reader of PNG straight from the specification: slow, small, not interlaced."""
    if not content.startswith(_SIGNATURE):
        return None
    found, picture, start = {}, b"", len(_SIGNATURE)
    while b"IEND" not in found:
        length, kind = struct.unpack_from(">I4s", content, start)
        body = content[start + 8 : start + 8 + length]
        picture += body if kind == b"IDAT" else b""
        found.setdefault(kind, body)
        start += 12 + length
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", found[b"IHDR"])
    if interlace or width * height > _MOST_PIXELS or b"eXIf" in found:
        return None
    levels = _unfilter(zlib.decompress(picture), width, height, depth, _SAMPLES[colour])
    return _resolve(levels, depth, colour, found), 1e-6


def _unfilter(data: bytes, width: int, height: int, depth: int, samples: int) -> np.ndarray:
    length, back = -(-width * samples * depth // 8), max(1, samples * depth // 8)
    above, lines = bytearray(length), []
    for row in range(height):
        kind, *line = data[row * (length + 1) : (row + 1) * (length + 1)]
        if len(line) != length or kind > 4:
            raise ValueError("a row that is short, or filtered in no known way")
        for i in range(length):
            left, corner = (line[i - back], above[i - back]) if i >= back else (0, 0)
            guess = (0, left, above[i], (left + above[i]) // 2, _paeth(left, above[i], corner))[kind]
            line[i] = (line[i] + guess) % 256
        above = bytearray(line)
        lines.append(line)
    bits = np.unpackbits(np.array(lines, np.uint8), axis=1)[:, : width * samples * depth]
    weights = 2 ** np.arange(depth - 1, -1, -1)
    return bits.reshape(height, width, samples, depth).astype(np.int64) @ weights


def _paeth(left: int, above: int, corner: int) -> int:
    return min((left, above, corner), key=lambda value: abs(left + above - corner - value))


def _resolve(levels: np.ndarray, depth: int, colour: int, found: dict[bytes, bytes]) -> np.ndarray:
    """RGBA in [0, 1] from levels, a palette, and colours that are clear."""
    clear, ones = found.get(b"tRNS"), np.ones((*levels.shape[:2], 1))
    if colour == 3:
        table = np.frombuffer(found[b"PLTE"], np.uint8).reshape(-1, 3) / 255
        alpha = np.ones((len(table), 1))
        alpha[: len(clear or b""), 0] = np.frombuffer(clear or b"", np.uint8) / 255
        return np.concatenate([table, alpha], axis=1)[levels[:, :, 0]]
    values = levels / (2**depth - 1)
    alpha = values[:, :, -1:] if colour in (4, 6) else ones
    if clear is not None and colour in (0, 2):
        alpha = ones - (levels == np.frombuffer(clear, ">u2")).all(axis=2, keepdims=True)
    colours = values[:, :, :3] if colour in (2, 6) else values[:, :, :1].repeat(3, axis=2)
    return np.concatenate([colours, alpha], axis=2)


# ------------------------------------------------------------------------------------------------------- the trial


_FINE = ("refused", "equal", "remarked", "alone")


def try_file(trial: Trial, path: Path, content: bytes) -> None:
    """Read one file with flowsr and with the others; note what came of it."""
    path.write_bytes(content)
    end = _end_of(path, content)
    trial.note(end, path.name, content, fine=end in _FINE)


def _end_of(path: Path, content: bytes) -> str:
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            image = read_image(path, mode="RGBA", max_pixels=_MOST_PIXELS).double().movedim(0, -1).numpy()
    except ImageError:
        return "refused"
    except Exception as error:  # nothing else may come out of read_image
        return f"raised {type(error).__name__}"
    others = list(other_readings(content))
    if others and all(_agree(image, other, exact) for other, exact in others):
        return "equal"
    return "remarked" if remarks else "different" if others else "alone"


def _agree(image: np.ndarray, other: np.ndarray, exact: float) -> bool:
    return image.shape == other.shape and bool(np.abs(image - other).max() <= exact)


def run(*, seconds: float, seed: int) -> Trial:
    """Damage and read files for a time."""
    files = originals()
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it has much to say of damaged files

    def attempt(trial: Trial, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(files))
        try_file(trial, folder / name, damage(files[name], rng))

    return attempts(attempt, seconds=seconds, seed=seed)
