"""Every kind of image file against independent readers, and every damage that must not be read as a picture."""

import struct
import warnings
import zlib
from io import BytesIO
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin
from skimage import data

from benchmarks.fuzz import images as fuzz
from benchmarks.fuzz.images import other_readings, png_chunk, write_png
from benchmarks.fuzz.trial import Trial
from flowsr.errors import ImageError
from flowsr.images import list_images, read_image, read_png_text

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GRAY_DEPTHS, DEPTHS = (1, 2, 4, 8, 16), {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
CMYK_REMARK = r"holds inks for print \(CMYK\)"


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(data.astronaut()[:96, 180:300] / 255).movedim(-1, 0)


def noise(*shape, peak=255):
    return np.random.default_rng(shape).integers(0, peak + 1, shape).astype(np.uint16 if peak > 255 else np.uint8)


def read(path, content, mode="RGBA"):
    """The values (H, W, C) that flowsr reads, in float64."""
    path.write_bytes(content)
    return read_image(path, mode=mode, dtype=torch.float64).movedim(0, -1).numpy()


def assert_as_others_read(path, content, *, least=1):
    image, others = read(path, content), list(other_readings(content))
    assert len(others) >= least, path.name
    for other, exact in others:
        assert image.shape == other.shape
        assert np.abs(image - other).max() <= exact, path.name


def assert_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as refused:
        read_image(path)
    assert len(str(refused.value)) < 600


# ------------------------------------------------------------------------------------------------------------- PNG


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize(("colour", "depth"), [(c, d) for c, depths in DEPTHS.items() for d in depths])
def test_png_of_every_colour_and_depth(tmp_path, colour, depth, clear, interlaced):
    levels = noise(11, 13, SAMPLES[colour], peak=2**depth - 1)
    levels[0, 0, 0] = 0 if colour == 3 else levels[0, 0, 0]
    extra = png_chunk(b"PLTE", noise(3 * 2**depth).tobytes()) if colour == 3 else b""
    transparency = {0: levels[0, 0].astype(">u2"), 2: levels[0, 0].astype(">u2"), 3: noise(1) // 2}
    if clear and colour in transparency:
        extra += png_chunk(b"tRNS", transparency[colour].tobytes())
    plain = write_png(levels, depth=depth, colour=colour, extra=extra)
    assert_as_others_read(tmp_path / "plain.png", plain)
    content = write_png(levels, depth=depth, colour=colour, extra=extra, interlaced=interlaced)
    image = read(tmp_path / "image.png", content)
    assert np.array_equal(image, read(tmp_path / "plain.png", plain))
    if colour in transparency:
        assert (image[:, :, 3].min() < 1) == clear
    if colour in (0, 2):  # and what was written
        assert np.array_equal(image[:, :, :3], np.broadcast_to(levels / (2**depth - 1), (11, 13, 3)))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), [(c, d) for c, depths in DEPTHS.items() for d in depths])
def test_png_with_rows_missing_is_refused(tmp_path, colour, depth, interlaced):
    extra = png_chunk(b"PLTE", noise(3 * 2**depth).tobytes()) if colour == 3 else b""
    options = {"depth": depth, "colour": colour, "extra": extra, "interlaced": interlaced}
    whole = write_png(noise(9, 8, SAMPLES[colour], peak=2**depth - 1), **options)
    short = write_png(noise(8, 8, SAMPLES[colour], peak=2**depth - 1), **options)
    header = whole[:33]  # that of nine rows, before the data of eight
    assert_refused(tmp_path / "short.png", header + short[33:], "a damaged or truncated file")


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt"])
def test_texts_of_a_png_are_of_any_length(tmp_path, kind):
    text = PngImagePlugin.PngInfo()
    add = text.add_itxt if kind == "iTXt" else text.add_text
    add("parameters", "x" * 3_000_000, zip=kind == "zTXt")
    file = BytesIO()
    pixels = noise(5, 6, 3)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=text)
    assert kind.encode() in file.getvalue()
    assert np.array_equal(read(tmp_path / "text.png", file.getvalue(), "RGB"), pixels / 255)


def test_a_short_text_is_found_beside_a_long_one_and_damage_is_said(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 3_000_000, zip=True)
    text.add_text("size", "13x16")
    content = saved(Image.fromarray(noise(5, 6, 3)), "PNG", pnginfo=text)
    (tmp_path / "text.png").write_bytes(content)
    assert read_png_text(tmp_path / "text.png", "size") == "13x16"
    (tmp_path / "text.png").write_bytes(content.replace(b"13x16", b"13x17"))
    with pytest.raises(ImageError, match=r"text\.png: .*chunk b'tEXt' has a wrong checksum"):
        read_png_text(tmp_path / "text.png", "size")


def damaged_pngs():
    levels = noise(4, 5, 1, peak=15)
    whole = write_png(levels, depth=4, colour=0)
    head, rest = whole[:33], whole[33:]
    clear = png_chunk(b"tRNS", b"\0\7")
    wrong_sum = clear[:-1] + bytes([clear[-1] ^ 1])
    first_rows = rest[: 12 + int.from_bytes(rest[:4])]
    palette = write_png(levels, depth=4, colour=3)
    return {
        "checksum": (head + wrong_sum + rest, r"chunk b'tRNS' has a wrong checksum"),
        "text": (head + png_chunk(b"tEXt", b"a\0b")[:-1] + b"\0" + rest, r"chunk b'tEXt' has a wrong checksum"),
        "late": (head + first_rows + clear + rest[len(first_rows) :], "the parts of the picture are not in one row"),
        "behind": (whole[:-12] + clear + whole[-12:], r"b'tRNS' twice, or behind the picture"),
        "twice": (head + clear + clear + rest, r"b'tRNS' twice"),
        "long": (head + png_chunk(b"tRNS", b"\0\7\0") + rest, "transparency of 3 bytes in an image of colour type 0"),
        "large": (head + png_chunk(b"tRNS", b"\0\x10") + rest, "a transparent colour 0010 of more than 4 bits"),
        "alpha": (
            write_png(noise(4, 5, 2), depth=8, colour=4, extra=clear),
            "transparency of 2 bytes in an image of colour type 4",
        ),
        "unknown": (head + png_chunk(b"IDOT", b"") + rest, "chunk b'IDOT', without which"),
        "no palette": (palette, "a palette of 0 bytes"),
        "torn palette": (palette[:33] + png_chunk(b"PLTE", bytes(4)) + palette[33:], "a palette of 4 bytes"),
        "depth": (whole[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 3, 0, 0, 0, 0)) + rest, "header"),
        "no end": (whole[:-12], "the file ends before its end chunk"),
        "no rows": (head + whole[-12:], "damaged"),
        "tall": (
            whole[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 30_000_000, 4, 0, 0, 0, 0)) + rest,
            "sides of at most 1000000 pixels",
        ),
        "claim": (
            whole[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 4, 0, 0, 0, 0)) + rest,
            "9000 × 9000 pixels in [0-9]+ compressed bytes",
        ),
    }


@pytest.mark.parametrize("name", damaged_pngs())
def test_damage_that_libpng_forgives_is_refused(tmp_path, name):
    content, message = damaged_pngs()[name]
    assert_refused(tmp_path / "image.png", content, message)


# ------------------------------------------------------------------------------------------------------------ TIFF


def write_tiff(levels, *, photometric, bits=8, coding="none", order="<", planar=False, reverse=False, tags=()):
    """A TIFF file straight from the specification: levels (H, W, samples), in strips of three rows."""
    height, width, samples = levels.shape
    numbers = {256: (4, width), 257: (4, height), 259: (3, CODINGS[coding][0]), 262: (3, photometric), 278: (4, 3)}
    numbers |= {277: (3, samples), 284: (3, 2 if planar else 1)}
    lists = {258: (3, [bits] * samples)}
    planes = np.split(levels, samples, axis=2) if planar else [levels]
    strips = [
        CODINGS[coding][1](packed(plane[top : top + 3], bits, order)) for plane in planes for top in range(0, height, 3)
    ]
    if reverse:
        strips = [
            np.packbits(np.unpackbits(np.frombuffer(s, np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes() for s in strips
        ]
        numbers[266] = (3, 2)
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    lists |= {273: (4, starts[:-1]), 279: (4, [len(strip) for strip in strips])}
    lists |= {code: (kind, [value]) for code, (kind, value) in numbers.items()}
    lists |= {code: (kind, list(values)) for code, kind, values in tags}
    return assemble(b"".join(strips), lists, order)


def packed(levels, bits, order):
    if bits == 16:
        return levels.astype(order + "u2").tobytes()
    each = np.unpackbits(levels.astype(np.uint8)[..., None], axis=3)[..., -bits:]
    return np.packbits(each.reshape(len(levels), -1), axis=1).tobytes()


def assemble(strips, lists, order):
    body, entries = strips + b"\0" * (len(strips) % 2), []
    for code, (kind, values) in sorted(lists.items()):
        field = struct.pack(f"{order}{len(values)}{'HI'[kind - 3]}", *values)
        if len(field) > 4:
            field, body = struct.pack(order + "I", 8 + len(body)), body + field
        entries.append(struct.pack(order + "HHI", code, kind, len(values)) + field.ljust(4, b"\0"))
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    head = magic + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def pack_bits(raw):
    return b"".join(bytes([len(part) - 1]) + part for part in (raw[i : i + 100] for i in range(0, len(raw), 100)))


CODINGS = {
    "none": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, pack_bits),
    "zstd": (50000, imagecodecs.zstd_encode),
    "lzma": (34925, imagecodecs.lzma_encode),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [MINISWHITE, MINISBLACK, RGB])
def test_tiff_of_every_colour_depth_and_compression(tmp_path, photometric, order, coding):
    for bits, planar, reverse in product(GRAY_DEPTHS if photometric != RGB else (8, 16), (False, True), (False, True)):
        levels, peak = noise(10, 13, 3 if photometric == RGB else 1, peak=2**bits - 1), 2**bits - 1
        options = {"bits": bits, "coding": coding, "order": order, "planar": planar, "reverse": reverse}
        content = write_tiff(levels, photometric=photometric, **options)
        image = read(tmp_path / "image.tif", content, None)
        assert np.array_equal(image, (peak - levels if photometric == MINISWHITE else levels) / peak), options
        # Pillow knows fewer combinations.
        if not reverse and not (planar and bits != 8) and photometric != MINISWHITE:
            assert_as_others_read(tmp_path / "image.tif", content)


@pytest.mark.parametrize("coding", ["lzw", "deflate", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("samples", [1, 3])
def test_tiff_with_a_predictor_in_strips_and_tiles(tmp_path, coding, dtype, tile, samples):
    levels = noise(37, 41, samples, peak=np.iinfo(dtype).max).astype(dtype)
    options = {"rowsperstrip": 5} if tile is None else {"tile": tile}
    name = {"lzw": "lzw", "deflate": "zlib", "zstd": "zstd"}[coding]
    file = BytesIO()
    kind = "rgb" if samples == 3 else "minisblack"
    stored = levels if samples == 3 else levels[:, :, 0]
    tifffile.imwrite(file, stored, photometric=kind, compression=name, predictor=True, metadata=None, **options)
    assert np.array_equal(read(tmp_path / "image.tif", file.getvalue(), None), levels / np.iinfo(dtype).max)
    assert_as_others_read(tmp_path / "image.tif", file.getvalue())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("coding", ["none", "lzw"])
def test_tiff_palettes_have_the_upper_half_of_their_entries(tmp_path, bits, coding):
    for scale in (256, 257):  # as Pillow writes them, and as libtiff does
        entries = noise(3 * 2**bits).astype(np.int64) * scale
        entries[0] = 255 * scale
        levels = noise(7, 9, 1, peak=2**bits - 1)
        content = write_tiff(levels, photometric=PALETTE, bits=bits, coding=coding, tags=[(320, 3, entries.tolist())])
        image = read(tmp_path / "palette.tif", content, "RGB")
        expected = (entries // scale).reshape(3, -1).T[levels[:, :, 0]] / 255
        assert np.array_equal(image, expected)
        assert_as_others_read(tmp_path / "palette.tif", content)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("samples", [2, 4])
def test_premultiplied_alpha_is_divided_out(tmp_path, bits, samples):
    peak = 2**bits - 1
    levels = noise(10, 11, samples, peak=peak)
    levels[:2, :, -1], levels[2:4, :, -1] = 0, peak
    levels[:2] = levels[:2] if samples == 4 else 0  # Pillow keeps the gray of what is clear, and not the colour
    kind = MINISBLACK if samples == 2 else RGB
    content = write_tiff(levels, photometric=kind, bits=bits, tags=[(338, 3, [1])])
    stored, alpha = levels[:, :, :-1].astype(float), levels[:, :, -1:].astype(float)
    colours = np.where(alpha == 0, 0, np.floor(np.minimum(peak, stored * peak / np.maximum(alpha, 1))))
    expected = np.concatenate([colours, alpha], axis=2) / peak
    assert np.abs(read(tmp_path / "glass.tif", content, None) - expected).max() < 1e-12
    if bits == 8:
        assert_as_others_read(tmp_path / "glass.tif", content)


@pytest.mark.parametrize("tags", [[(338, 3, [2])], []])
@pytest.mark.parametrize("bits", [8, 16])
def test_plain_alpha_is_kept(tmp_path, bits, tags):
    levels = noise(10, 11, 4, peak=2**bits - 1)
    content = write_tiff(levels, photometric=RGB, bits=bits, tags=tags)
    assert np.array_equal(read(tmp_path / "glass.tif", content), levels / (2**bits - 1))
    assert_as_others_read(tmp_path / "glass.tif", content)


def saved(image, form, **options):
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
@pytest.mark.parametrize("coding", ["jpeg", "raw"])
def test_tiffs_of_pillow_in_jpeg_and_ycbcr(tmp_path, mode, coding, photograph):
    pixels = photograph[:, :50, :70].movedim(0, -1).mul(255).byte().numpy()
    image = Image.fromarray(pixels).convert(mode)
    assert_as_others_read(tmp_path / "image.tif", saved(image, "TIFF", compression=coding))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_tiff_with_a_jpeg_in_every_tile(tmp_path, subsampling, photograph):
    pixels = photograph[:, :70, :90].movedim(0, -1).mul(255).byte().numpy()
    stored, file = np.asarray(Image.fromarray(pixels).convert("YCbCr")), BytesIO()
    tifffile.imwrite(
        file, stored, photometric="ycbcr", compression="jpeg", subsampling=subsampling, tile=(32, 48), metadata=None
    )
    assert_as_others_read(tmp_path / "image.tif", file.getvalue())
    assert np.abs(read(tmp_path / "image.tif", file.getvalue(), "RGB") - pixels / 255).mean() < 0.02


def test_cmyk_is_alike_in_jpeg_and_tiff(tmp_path):
    image = Image.fromarray(noise(8, 8, 4), "CMYK").resize((24, 16), Image.Resampling.BICUBIC)
    for name, content in {
        "print.jpg": saved(image, "JPEG", quality=100, subsampling=0),
        "print.tif": saved(image, "TIFF"),
        "jpeg.tif": saved(image, "TIFF", compression="jpeg", quality=100),
    }.items():
        with pytest.warns(UserWarning, match=f"{name} {CMYK_REMARK}.*convert it to RGB"):
            values = read(tmp_path / name, content, "RGB")
        with Image.open(BytesIO(content)) as stored:
            assert np.array_equal(values, np.asarray(stored.convert("RGB")) / 255)
        assert np.abs(255 * values - np.asarray(image.convert("RGB"))).mean() < 3


def test_cmyk_of_16_bits_follows_the_formula(tmp_path):
    levels = noise(10, 11, 4, peak=65535)
    with pytest.warns(UserWarning, match=CMYK_REMARK):
        values = read(tmp_path / "print.tif", write_tiff(levels, photometric=SEPARATED, bits=16), "RGB")
    ink = levels / 65535
    assert np.abs(values - (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:])).max() <= 0.51 / 65535


def unreadable_tiffs():
    levels = noise(9, 8, 3)
    rgba, rgb = noise(9, 8, 4), {"photometric": RGB}
    ratios = [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]
    jpeg2000 = BytesIO()
    tifffile.imwrite(jpeg2000, levels, compression="jpeg2000", metadata=None)
    return {
        "subsampled": (write_tiff(levels, photometric=YCBCR, tags=[(530, 3, [2, 2])]), "not subsampled"),
        "unsaid": (write_tiff(levels, photometric=YCBCR), "not subsampled"),
        "deep": (write_tiff(levels, photometric=YCBCR, bits=16, tags=[(530, 3, [1, 1])]), "YCbCr of 8 bits"),
        "lab": (write_tiff(levels, photometric=8), "got CIELAB; convert it to RGB"),
        "inks": (write_tiff(rgba, photometric=SEPARATED, tags=[(332, 3, [2])]), "expected the four inks CMYK"),
        "fourth": (write_tiff(rgba, **rgb, tags=[(338, 3, [0])]), r"4 channels, marked \(0,\), RGB"),
        "second": (write_tiff(rgba[:, :, :2], photometric=MINISBLACK), r"2 channels, marked \(\), MINISBLACK"),
        "three grays": (write_tiff(levels, photometric=MINISBLACK), "3 channels"),
        "predictor": (write_tiff(levels, **rgb, tags=[(317, 3, [2])]), "got 2 with NONE"),
        "8-bit map": (
            write_tiff(levels[:, :, :1], photometric=PALETTE, tags=[(320, 3, noise(768).tolist())]),
            "expected a palette of 16 bits",
        ),
        "long map": (
            write_tiff(levels[:, :, :1], photometric=PALETTE, tags=[(320, 3, noise(771, peak=65535).tolist())]),
            r"a palette of shape \(257, 3\) for 8 bits",
        ),
        "torn map": (
            write_tiff(levels[:, :, :1], photometric=PALETTE, tags=[(320, 3, noise(767, peak=65535).tolist())]),
            r"a palette of shape \(767,\) for 8 bits",
        ),
        "signed": (write_tiff(levels, **rgb, tags=[(339, 3, [2, 2, 2])]), "expected 8 or 16 bits"),
        "coding": (jpeg2000.getvalue(), "without compression, or of LZW or deflate; got"),
        "ratios": (
            write_tiff(levels, photometric=YCBCR, tags=[(530, 3, [1, 1]), (529, 3, ratios[:3])]),
            "expected",
        ),
    }


@pytest.mark.parametrize("name", unreadable_tiffs())
def test_tiffs_that_would_be_read_wrong_are_refused_by_name(tmp_path, name):
    content, message = unreadable_tiffs()[name]
    assert_refused(tmp_path / "image.tif", content, message)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(
    ("code", "values"),
    [
        (256, [9]),  # wider
        (256, [7]),
        (257, [12]),  # taller
        (257, [6]),
        (257, [60_000]),
        (278, [2]),  # other strips
        (278, [9]),
        (258, [16, 16, 16]),
        (273, [8, 8, 8]),  # one strip thrice
        (273, [8, 60, 10**9]),
        (279, [10, 10, 10]),
        (279, [0, 0, 0]),
        (284, [2]),
    ],
)
def test_a_header_that_the_file_does_not_bear_out_is_refused(tmp_path, coding, code, values):
    kind = 3 if code in (258, 284) else 4
    content = write_tiff(noise(9, 8, 3), photometric=RGB, coding=coding)
    assert read(tmp_path / "whole.tif", content).shape == (9, 8, 4)
    changed = write_tiff(noise(9, 8, 3), photometric=RGB, coding=coding, tags=[(code, kind, values)])
    assert_refused(tmp_path / "image.tif", changed, "damaged or truncated file")


def test_a_jpeg_of_another_size_in_a_tiff_is_refused(tmp_path):
    content = saved(Image.fromarray(noise(24, 32, 3)), "TIFF", compression="jpeg")
    width = struct.pack("<HHIHH", 256, 3, 1, 32, 0)
    start = content.find(width) if width in content else content.find(struct.pack("<HHII", 256, 4, 1, 32))
    assert start > 0
    changed = content[: start + 8] + struct.pack("<H", 16) + content[start + 10 :]
    assert_refused(tmp_path / "image.tif", changed, "a JPEG of 32 × 24 pixels where 16 × 24 pixels are due")


# ------------------------------------------------------------------------------------------------------------ JPEG


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_jpeg_of_every_kind(tmp_path, mode, options, photograph):
    image = Image.fromarray(photograph.movedim(0, -1).mul(255).byte().numpy()).convert(mode)
    content = saved(image, "JPEG", quality=90, **options)
    assert_as_others_read(tmp_path / "image.jpg", content)
    # The same by another build of the library.
    other = imagecodecs.jpeg8_decode(content).reshape(*image.size[::-1], -1) / 255
    assert np.abs(read(tmp_path / "image.jpg", content, None) - other).max() <= 1 / 255


def spoiled(content, *, part=0.5):
    """The file without some bytes in the middle of its scan."""
    start = content.index(b"\xff\xda") + 14
    middle = start + int(part * (len(content) - start))
    return content[:middle] + content[middle + 200 :]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_damaged_scan_is_remarked(tmp_path, options, photograph):
    image = Image.fromarray(photograph.movedim(0, -1).mul(255).byte().numpy())
    content = saved(image, "JPEG", quality=90, **options)
    with pytest.warns(UserWarning, match=r"photo\.jpg is damaged, its decoder says \(.+\): a part of the picture may"):
        read(tmp_path / "photo.jpg", spoiled(content))
    taller = content.replace(struct.pack(">HH", *image.size[::-1]), struct.pack(">HH", image.height + 64, image.width))
    with pytest.warns(UserWarning, match="is damaged, its decoder says"):
        assert len(read(tmp_path / "taller.jpg", taller)) == image.height + 64


def test_a_scan_that_cannot_be_checked_is_remarked_as_such(tmp_path):
    content = bytearray(saved(Image.new("RGB", (8, 24), (200, 100, 50)), "JPEG", subsampling=0))
    content[content.index(b"\xff\xc0") + 11] = 0x13  # luma three times as fine as the colours, from top to bottom
    with pytest.warns(UserWarning, match="subsampled in an unusual way, for which its scan is not checked"):
        read(tmp_path / "photo.jpg", bytes(content))


def test_a_damaged_scan_in_a_tiff_is_remarked(tmp_path, photograph):
    image = Image.fromarray(photograph.movedim(0, -1).mul(255).byte().numpy())
    content = saved(image, "TIFF", compression="jpeg")
    start = content.index(b"\xff\xda") + 14
    spoiled = content[: start + 500] + b"\xff\xd9" + bytes(400) + content[start + 902 :]
    with pytest.warns(UserWarning, match=r"photo\.tif is damaged, its decoder says"):
        read(tmp_path / "photo.tif", spoiled)


def test_flipped_bits_in_a_scan_are_noticed_as_often_as_is_said(tmp_path, photograph):
    content = saved(Image.fromarray(photograph.movedim(0, -1).mul(255).byte().numpy()), "JPEG", quality=90)
    start, rng, noticed = content.index(b"\xff\xda") + 14, np.random.default_rng(0), 0
    for place in rng.integers(start, len(content) - 2, 40):
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            try:
                read(tmp_path / "photo.jpg", content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
                noticed += bool(remarks)
            except ImageError:
                noticed += 1
    assert noticed >= 4


def test_jpegs_that_are_not_read_are_refused_by_name(tmp_path):
    deep = imagecodecs.jpeg_encode(noise(16, 16, 1, peak=4095)[:, :, 0], bitspersample=12)
    assert_refused(tmp_path / "deep.jpg", deep, r"expected a JPEG of 8 bits, not lossless; got 12 bits, frame c1")
    lossless = imagecodecs.jpeg8_encode(noise(16, 16), lossless=True)
    assert_refused(tmp_path / "lossless.jpg", lossless, r"got 8 bits, frame c3: save it as PNG")
    small = saved(Image.new("RGB", (16, 16)), "JPEG")
    large = small.replace(struct.pack(">HH", 16, 16), struct.pack(">HH", 10_000, 10_000))
    assert_refused(tmp_path / "large.jpg", large, "10000 × 10000 pixels in [0-9]+ bytes")


# ------------------------------------------------------------------------------------- which way is up, which colours


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", ["eXIf", "text", "xmp"])
def test_a_png_is_turned_as_pillow_turns_it(tmp_path, orientation, place):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    body = exif.tobytes()
    raw = f"\nexif\n{len(body):8}\n{body.hex()}\n".encode()
    xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
    chunk = {
        "eXIf": png_chunk(b"eXIf", body.removeprefix(b"Exif\0\0")),
        "text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        "xmp": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }[place]
    content = write_png(noise(3, 4, 3), depth=8, colour=2)
    for turned in (content[:33] + chunk + content[33:], content[:-12] + chunk + content[-12:]):
        with Image.open(BytesIO(turned)) as image:
            image.load()
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(read(tmp_path / "photo.png", turned, "RGB"), expected / 255)


def profiles():
    primaries = [0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1]
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    wide = imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.329, 1.0], primaries=primaries, gamma=2.2)
    gray = imagecodecs.cms_profile("gray", whitepoint=[0.3127, 0.329, 1.0], gamma=1.0)
    return {"srgb": made, "lcms": imagecodecs.cms_profile("srgb"), "wide": wide, "lab": lab, "gray": gray, "bad": b"x"}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("name", "mode", "remark"),
    [
        ("srgb", "RGB", None),
        ("lcms", "RGB", None),
        ("srgb", "L", None),  # a gray image that kept the profile of its colours
        (
            "wide",
            "RGB",
            r"has the colour profile '.*', up to \d+ of 255 levels away from sRGB: values are read as they",
        ),
        ("gray", "L", r"has the colour profile '.*', up to \d+ of 255 levels"),
        ("gray", "RGB", "has a colour profile that cannot be used"),
        ("lab", "RGB", "has a colour profile that cannot be used"),
        ("bad", "RGB", "has a colour profile that cannot be used"),
    ],
)
def test_a_profile_other_than_srgb_is_remarked_and_values_stay(tmp_path, form, name, mode, remark):
    image = Image.fromarray(noise(8, 9, 3)).convert(mode)
    content = saved(image, form, icc_profile=profiles()[name])
    path = tmp_path / f"image.{form.lower()}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        values = read(path, content, None)
    with Image.open(path) as stored:
        assert np.array_equal(values, np.asarray(stored).reshape(values.shape) / 255)
    assert len(said) == (remark is not None)
    if remark:
        with pytest.warns(UserWarning, match=remark):
            read(path, content)


@pytest.mark.parametrize(
    ("chunk", "remark"),
    [
        (png_chunk(b"gAMA", struct.pack(">I", 45455)), None),
        (png_chunk(b"gAMA", struct.pack(">I", 100_000)), r"is marked as of gamma 1 in place of 1/2\.2"),
        (png_chunk(b"sRGB", b"\0") + png_chunk(b"gAMA", struct.pack(">I", 100_000)), None),
        (png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)), None),
        (
            png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
            "of other prim",
        ),
        (png_chunk(b"cICP", b"\1\15\0\1"), None),
        (png_chunk(b"cICP", b"\11\20\0\1"), "is marked as cICP 9/16"),
    ],
)
def test_chunks_of_a_png_that_speak_of_colours(tmp_path, chunk, remark):
    content = write_png(noise(3, 4, 3), depth=8, colour=2, extra=chunk)
    if remark is None:
        assert read(tmp_path / "image.png", content).shape == (3, 4, 4)
    else:
        with pytest.warns(UserWarning, match=remark):
            read(tmp_path / "image.png", content)


@pytest.mark.parametrize(("tag", "value"), [(ExifTags.IFD.Exif, {0xA001: 2}), (ExifTags.IFD.Interop, {1: "R03"})])
def test_adobe_rgb_that_a_camera_marks_without_a_profile(tmp_path, tag, value):
    exif = Image.Exif()
    exif[tag] = value
    if tag == ExifTags.IFD.Interop:  # it lies in the other
        exif = Image.Exif()
        exif[ExifTags.IFD.Exif] = {ExifTags.IFD.Interop: value}
    content = saved(Image.new("RGB", (8, 8), (9, 99, 199)), "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="is marked as Adobe RGB: values are read as they are stored"):
        read(tmp_path / "photo.jpg", content)


# ----------------------------------------------------------------------------------------- formats that are not read


@pytest.mark.parametrize(
    ("form", "name"), [("WEBP", "WebP"), ("GIF", "GIF"), ("BMP", "BMP"), ("AVIF", "AVIF"), ("JPEG2000", "JPEG 2000")]
)
def test_other_formats_are_refused_by_name(tmp_path, form, name):
    content = saved(Image.new("RGB", (16, 16)), form)
    assert_refused(tmp_path / "image.png", content, f"expected a PNG, JPEG or TIFF image; got {name}: save it as PNG")
    heic = b"\0\0\0\x18ftypheic" + content
    assert_refused(tmp_path / "image.jpg", heic, "got HEIC: save it as PNG")
    assert_refused(tmp_path / "image.heic", heic, r"got '\.heic': save it as PNG")


def test_images_of_other_formats_in_a_folder_are_named(tmp_path):
    for name in ("a.webp", "b.GIF", "c.heic", "d.bmp", ".hidden.webp", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "album.webp").mkdir()
    message = r"a\.webp, b\.GIF, c\.heic and 1 more: save as PNG what you want"
    with pytest.raises(ImageError, match=rf"expected files named \.png, .*; got only {message}"):
        list_images(tmp_path)
    (tmp_path / "e.png").touch()
    with pytest.warns(UserWarning, match=f": left out {message}"):
        assert [path.name for path in list_images(tmp_path)] == ["e.png"]


# ------------------------------------------------------------------------------------------------------- the fuzzer


def test_whole_files_of_every_kind_are_read_as_others_read_them(tmp_path):
    trial = Trial()
    files = fuzz.originals()
    for name, content in files.items():
        fuzz.try_file(trial, tmp_path / name, content)
    assert trial.counts == {"equal": len(files)}


def test_damaged_files_are_refused_or_read_right():
    trial = fuzz.run(seconds=2.0, seed=1)
    assert trial.failures == []
    assert trial.counts.total() > 30
    assert trial.counts["refused"] > trial.counts["equal"] > 0


def test_the_fuzzer_sees_a_wrong_value_and_a_wrong_exception(tmp_path, monkeypatch):
    content = write_png(noise(3, 4, 3), depth=8, colour=2)
    trial = Trial()
    monkeypatch.setattr(fuzz, "read_image", lambda *_, **__: torch.zeros(4, 3, 4))
    fuzz.try_file(trial, tmp_path / "image.png", content)

    def fail(*_, **__):
        raise KeyError("tag")

    monkeypatch.setattr(fuzz, "read_image", fail)
    fuzz.try_file(trial, tmp_path / "image.png", content)
    assert [end for end, *_ in trial.failures] == ["different", "raised KeyError"]
