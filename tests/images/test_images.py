"""Image files, MATLAB's bicubic kernel against its formula, padding and colour."""

import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from flowsr.errors import ImageError
from flowsr.images import (
    bicubic_down,
    bicubic_resize,
    bicubic_up,
    check_image,
    crop_to,
    encode_png,
    list_images,
    pad_to_multiple,
    pair_by_name,
    read_image,
    read_png_text,
    rgb_to_gray,
    rgb_to_y,
    round_to_8bit,
    write_image,
)

SHARED = Path(os.environ.get("FLOWSR_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"no golden data in {SHARED}")


def levels(channels, peak, height=5, width=7):
    return torch.from_numpy(np.random.default_rng(channels).integers(0, peak + 1, (channels, height, width)))


# ---------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lossless_round_trip_keeps_every_level(tmp_path, suffix, bit_depth, channels, dtype):
    peak = 2**bit_depth - 1
    stored = levels(channels, peak)
    path = tmp_path / f"image{suffix}"
    write_image(path, stored.to(dtype) / peak, bit_depth=bit_depth)
    image = read_image(path, mode=None, dtype=dtype)
    assert image.dtype == dtype
    assert image.is_contiguous()
    assert torch.equal(image, stored.to(dtype) / peak)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_programs_read_what_we_write(tmp_path, channels):
    stored = levels(channels, 255)
    write_image(tmp_path / "image.png", stored / 255.0)
    write_image(tmp_path / "image.tif", stored / 255.0)
    for name in ("image.png", "image.tif"):
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.atleast_3d(np.asarray(image)), stored.movedim(0, -1).numpy())


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    # Pillow reads a 16-bit colour PNG as 8 bits; levels that differ only in the low byte show it.
    stored = torch.tensor([256, 257, 300, 511])[:, None].expand(3, 4, 1) / 65535
    write_image(tmp_path / "deep.png", stored, bit_depth=16)
    assert len(read_image(tmp_path / "deep.png").unique()) == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_close_and_has_full_resolution_colour(tmp_path, channels):
    image = torch.from_numpy(data.astronaut()[::4, ::4] / 255).movedim(-1, 0)[:channels]
    write_image(tmp_path / "image.jpg", image, quality=100)
    again = read_image(tmp_path / "image.jpg", mode=None, dtype=torch.float64)
    assert again.shape == image.shape
    assert (again - image).abs().mean() < 1 / 255


def test_writing_clamps_and_rounds_halves_to_even(tmp_path):
    path = tmp_path / "image.png"
    write_image(path, torch.tensor([-0.9, 0.5 / 255, 1.5 / 255, 1.9], dtype=torch.float64)[None, None])
    assert (read_image(path, mode="gray") * 255).tolist() == [[[0, 0, 2, 255]]]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("gray", 1), ("RGBA", 4), (None, None)])
@pytest.mark.parametrize("stored", [1, 2, 3, 4])
def test_modes_have_the_promised_channels(tmp_path, mode, channels, stored):
    image = levels(stored, 255) / 255.0
    if stored in (2, 4):
        image[-1] = 1.0
    path = tmp_path / "image.png"
    write_image(path, image)
    read = read_image(path, mode=mode)
    colour = image[:-1] if stored in (2, 4) else image
    assert len(read) == (channels or stored)
    if mode == "gray":
        assert torch.equal(read, colour if len(colour) == 1 else rgb_to_gray(colour))
    else:
        assert torch.equal(read[: len(colour)], colour)
    if mode == "RGBA":
        assert (read[3] == 1).all()


@pytest.mark.parametrize("mode", ["RGB", "gray"])
def test_transparent_pixels_are_not_dropped_silently(tmp_path, mode):
    write_image(tmp_path / "glass.png", torch.full((4, 2, 2), 0.5))
    with pytest.raises(ImageError, match=r'glass.png: expected an opaque image.*editor or.*read with mode="RGBA"'):
        read_image(tmp_path / "glass.png", mode=mode)


def test_palettes_and_bilevel_become_colours(tmp_path):
    colours = Image.fromarray(levels(3, 255).movedim(0, -1).numpy().astype(np.uint8))
    palette = colours.quantize(8)
    expected = torch.from_numpy(np.array(palette.convert("RGB"))).movedim(-1, 0) / 255
    for name in ("palette.png", "palette.tif"):
        palette.save(tmp_path / name)
        assert torch.equal(read_image(tmp_path / name), expected)
    palette.save(tmp_path / "clear.png", transparency=0)
    assert len(read_image(tmp_path / "clear.png", mode=None)) == 4
    for name in ("bits.png", "bits.tif"):
        Image.new("1", (4, 3), 1).save(tmp_path / name)
        assert torch.equal(read_image(tmp_path / name, mode=None), torch.ones(1, 3, 4))


def test_tiff_white_is_zero_and_separate_planes(tmp_path):
    import tifffile

    stored = levels(3, 65535).numpy().astype(np.uint16)
    tifffile.imwrite(tmp_path / "planes.tif", stored, photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "negative.tif", stored[0], photometric="miniswhite")
    assert torch.equal(read_image(tmp_path / "planes.tif"), torch.from_numpy(stored.astype(np.float32)) / 65535)
    negative = read_image(tmp_path / "negative.tif", mode="gray")
    assert torch.equal(negative, torch.from_numpy(65535.0 - stored[:1]).float() / 65535)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["photo.png", "photo.tif"])
def test_photographs_are_turned_upright(tmp_path, orientation, name):
    photo = Image.fromarray(levels(3, 255).movedim(0, -1).numpy().astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / name, exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(image))).movedim(-1, 0) / 255
    assert torch.equal(read_image(tmp_path / name), expected)


def test_the_content_decides_the_format(tmp_path):
    write_image(tmp_path / "image.png", torch.rand(3, 4, 4))
    (tmp_path / "image.jpg").write_bytes((tmp_path / "image.png").read_bytes())
    assert torch.equal(read_image(tmp_path / "image.jpg"), read_image(tmp_path / "image.png"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.png", None, r"missing\.png: expected an image file; got no such file"),
        ("empty.png", b"", r"empty\.png: expected an image; got an empty file"),
        ("text.png", b"hello there", r"text\.png: expected a PNG, JPEG or TIFF image; got other content"),
        ("head.png", b"\x89PNG\r\n\x1a\n", r"head\.png: expected a complete image; got a damaged"),
        ("head.jpg", b"\xff\xd8\xff\xe0", r"head\.jpg: expected a complete image; got a damaged"),
        ("head.tif", b"II*\x00\xff\xff\xff\x7f", r"head\.tif: expected a complete image; got a damaged"),
        ("image.webp", b"RIFF", r"image\.webp: expected a file named \.png, .*; got '\.webp'"),
        ("image", b"RIFF", r"image: expected a file named \.png, .*; got 'no suffix'"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["image.png", "deep.png", "image.jpg", "image.tif", "deep.tif", "plain.tif"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, name, part):
    path = tmp_path / name
    image = levels(3, 65535, 40, 50) / 65535
    if name == "plain.tif":
        import tifffile

        tifffile.imwrite(path, image.movedim(0, -1).mul(255).numpy().astype(np.uint8), photometric="rgb")
    else:
        write_image(path, image, bit_depth=16 if "deep" in name else 8)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ImageError, match=f"{name}: expected a complete image; got a damaged or truncated file"):
        read_image(path)


def test_damage_inside_a_png_is_noticed(tmp_path):
    path = tmp_path / "image.png"
    for bit_depth in (8, 16):
        write_image(path, torch.rand(3, 40, 50), bit_depth=bit_depth, overwrite=True)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ImageError, match="expected a complete image"):
            read_image(path)


def bomb(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("most", "message"),
    [
        (1_000_000, "expected at most 1000000 pixels; got 20000 × 20000 pixels, 400000000 in all; raise max_pixels if"),
        (10**9, "a damaged or truncated file"),  # more than its bytes can stand for
    ],
)
def test_decompression_bombs_are_refused_before_decoding(tmp_path, most, message):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(20_000, 20_000))
    with pytest.raises(ImageError, match=f"bomb.png: .*{message}"):
        read_image(path, max_pixels=most)


def test_pillows_limit_holds_for_jpeg(tmp_path, monkeypatch):
    write_image(tmp_path / "large.jpg", torch.zeros(3, 40, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(ImageError, match=r"large\.jpg: expected an image within Pillow's limit; .*MAX_IMAGE_PIXELS"):
        read_image(tmp_path / "large.jpg")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_max_pixels_counts_height_times_width(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    write_image(path, torch.rand(3, 6, 7))
    assert read_image(path, max_pixels=42).shape == (3, 6, 7)
    with pytest.raises(ImageError, match=r"expected at most 41 pixels; got 7 × 6 pixels, 42 in all; raise max_pixels"):
        read_image(path, max_pixels=41)


def test_unusual_tiffs_are_refused(tmp_path):
    import tifffile

    zeros = np.zeros((4, 5), np.uint8)
    cases = {
        "pages.tif": (
            {"data": np.stack([zeros] * 3), "photometric": "minisblack"},
            "expected a TIFF of one page; got 3",
        ),
        "float.tif": ({"data": zeros.astype(np.float32)}, "expected 8 or 16 bits per channel; got 32 bits, float32"),
        "many.tif": (
            {"data": np.stack([zeros] * 6, -1), "photometric": "rgb", "planarconfig": "contig"},
            "1 to 4 channels, .*; got axes YXS with 6",
        ),
    }
    for name, (arguments, message) in cases.items():
        tifffile.imwrite(tmp_path / name, **arguments)
        with pytest.raises(ImageError, match=f"{name}: .*{message}"):
            read_image(tmp_path / name)


def test_reading_refuses_wrong_options(tmp_path):
    with pytest.raises(ValueError, match=r'mode: expected "RGB", "gray", "RGBA" or None; got \'rgb\''):
        read_image(tmp_path / "x.png", mode="rgb")
    with pytest.raises(ValueError, match=r"dtype: expected a floating point dtype; got torch\.uint8"):
        read_image(tmp_path / "x.png", dtype=torch.uint8)
    with pytest.raises(ImageError, match="expected an image file; got a folder"):
        (tmp_path / "x.png").mkdir()
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        ("a.gif", torch.zeros(3, 2, 2), {}, r"a\.gif: expected a file named \.png"),
        ("a.jpg", torch.zeros(3, 2, 2), {"bit_depth": 16}, "bit_depth: expected 8, for JPEG; got 16"),
        ("a.png", torch.zeros(3, 2, 2), {"bit_depth": 12}, "bit_depth: expected 8 or 16; got 12"),
        ("a.jpg", torch.zeros(3, 2, 2), {"quality": 0}, "quality: expected 1 to 100; got 0"),
        ("a.jpg", torch.zeros(4, 2, 2), {}, "expected 1 or 3 channels; got 4"),
        ("a.png", torch.zeros(5, 2, 2), {}, "expected 1 or 2 or 3 or 4 channels; got 5"),
        ("a.png", torch.zeros(16, 16, 3), {}, "channels come first"),
        ("a.png", torch.zeros(2, 3, 2, 2), {}, r"expected one image of shape \(C, H, W\)"),
        ("a.png", torch.zeros(3, 2, 2, dtype=torch.int16), {}, "expected a floating point tensor"),
        ("a.png", torch.zeros(3, 2, 2, dtype=torch.uint8), {"bit_depth": 16}, "bit_depth: expected 8 for grey levels"),
        ("a.png", torch.zeros(2, 2, dtype=torch.uint8), {}, "expected a floating point tensor"),
        ("a.png", torch.full((3, 2, 2), math.nan), {}, "expected finite pixels; got 12 NaN or infinite of 12"),
        ("a.png", torch.tensor([[[0.0, -math.inf]]]), {}, "expected finite pixels; got 1 NaN or infinite of 2"),
        ("a.png", torch.full((3, 2, 2), 255.0), {}, "divide 8-bit images by 255"),
        ("a.png", np.zeros((3, 2, 2), np.float32), {}, "expected a torch tensor; got ndarray"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, name, image, options, message):
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / name, image, **options)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "image.png"
    write_image(path, torch.zeros(1, 2, 2))
    with pytest.raises(FileExistsError, match=r"image\.png not to exist"):
        write_image(path, torch.ones(1, 2, 2))
    assert read_image(path).max() == 0
    write_image(path, torch.ones(1, 2, 2), overwrite=True)
    assert read_image(path).min() == 1
    with pytest.raises(FileNotFoundError, match="expected the folder"):
        write_image(tmp_path / "no" / "image.png", torch.ones(1, 2, 2))
    assert [child.name for child in tmp_path.iterdir()] == ["image.png"]


def test_a_failing_encoder_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    write_image(path, torch.zeros(1, 2, 2))

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("flowsr.images.files.write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_image(path, torch.ones(1, 2, 2), overwrite=True)
    assert [child.name for child in tmp_path.iterdir()] == ["image.png"]
    assert read_image(path).max() == 0


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_text_in_a_png_file_leaves_the_pixels_alone(tmp_path, channels):
    image = torch.randint(0, 256, (channels, 9, 7)) / 255
    (tmp_path / "plain.png").write_bytes(encode_png(image))
    (tmp_path / "text.png").write_bytes(encode_png(image, text={"key": "one", "other": "τ = 0.8"}))
    assert torch.equal(read_image(tmp_path / "text.png", mode=None), image)
    assert torch.equal(read_image(tmp_path / "plain.png", mode=None), image)
    assert [read_png_text(tmp_path / "text.png", key) for key in ("key", "other", "none")] == ["one", "τ = 0.8", None]
    assert read_png_text(tmp_path / "plain.png", "key") is None


def test_a_text_is_looked_for_in_any_image(tmp_path):
    for name in ("deep.png", "a.tif", "a.jpg"):
        write_image(tmp_path / name, torch.rand(3, 5, 6), bit_depth=16 if name == "deep.png" else 8)
        assert read_png_text(tmp_path / name, "key") is None


def test_list_images_sorts_and_filters(tmp_path):
    for name in ("b.PNG", "a.jpeg", "c.tiff", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.PNG", "c.tiff"]
    with pytest.raises(ImageError, match=r"expected files named .*; got none"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(ImageError, match="expected a folder of images; got no such folder"):
        list_images(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="expected a folder of images; got a file"):
        list_images(tmp_path / "notes.txt")


# --------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.rand(8, 8), {}, r"image: expected a non-empty image of shape \(..., C, H, W\); got shape \(8, 8\)"),
        (torch.rand(3, 0, 8), {}, "expected a non-empty image"),
        (torch.rand(3, 8, 8), {"channels": 1}, r"expected 1 channels; got 3 in shape \(3, 8, 8\)"),
        (torch.rand(8, 8, 3), {"channels": (1, 3)}, r"expected 1 or 3 channels; got 8 .*image.movedim\(-1, -3\)"),
        (
            torch.full((1, 1, 1), 1.1),
            {"name": "hr"},
            r"hr: expected values in \[0, 1\]; got values from 1.1 to 1.1; clamp",
        ),
        (torch.full((1, 1, 1), math.inf), {"tolerance": None}, "expected finite pixels; got 1 NaN or infinite of 1"),
    ],
)
def test_check_image_says_what_is_wrong(image, options, message):
    with pytest.raises(ValueError, match=message):
        check_image(image, **options)


def test_check_image_accepts_images():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        check_image(torch.rand(2, 4, 3, 5, 6).to(dtype), channels=3)
    check_image(torch.full((1, 1, 1), 1.1), tolerance=0.11)
    check_image(torch.full((1, 1, 1), -7.0), tolerance=None)
    check_image(torch.rand(3, 2, 2, requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("straight_through", [False, True])
def test_rounding_is_on_the_grid_and_idempotent(dtype, straight_through):
    image = torch.rand(3, 20, 20, dtype=dtype) * 1.4 - 0.2
    rounded = round_to_8bit(image, straight_through=straight_through)
    grid = torch.arange(256, dtype=dtype) / 255
    assert torch.isin(rounded, grid).all()
    assert torch.equal(round_to_8bit(rounded), rounded)
    assert (rounded - image.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-7
    assert torch.equal(round_to_8bit(grid[None, None]), grid[None, None])


def test_straight_through_passes_gradients_unchanged():
    image = torch.tensor([[[-0.5, 0.3, 1.5]]], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])
    (gradient,) = torch.autograd.grad((round_to_8bit(image, straight_through=True) * weight).sum(), image)
    assert torch.equal(gradient, weight[None, None])
    (gradient,) = torch.autograd.grad(round_to_8bit(image).sum(), image)
    assert gradient.abs().max() == 0


# -------------------------------------------------------------------------------------------------------- bicubic


def cubic(t):
    """Keys' kernel with a = -1/2, from its definition."""
    t = np.abs(t)
    inner = (t <= 1) * (1.5 * t**3 - 2.5 * t**2 + 1)
    return inner + ((t > 1) & (t <= 2)) * (-0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)


def imresize_matrix(length, new_length, scale, antialias):
    """MATLAB's imresize along one axis as a dense matrix, over a symmetric extension folded back onto the image."""
    width = min(scale, 1.0) if antialias else 1.0
    centre = (np.arange(new_length) + 0.5) / scale - 0.5
    reach = math.ceil(2 / width) + math.ceil(1 / scale) + 2
    position = np.arange(-reach, length + reach)
    weight = cubic(width * (centre[:, None] - position))
    weight /= weight.sum(1, keepdims=True)
    folded = position % (2 * length)
    folded = np.where(folded < length, folded, 2 * length - 1 - folded)
    matrix = np.zeros((length, new_length))
    np.add.at(matrix, folded, weight.T)
    return matrix.T


def imresize(image, size, scales, *, antialias=True):
    rows, columns = (
        imresize_matrix(old, new, scale, antialias)
        for old, new, scale in zip(image.shape[-2:], size, scales, strict=True)
    )
    return rows @ image @ columns.T


def assert_matches_matlab(image, size, scales, result, **options):
    expected = imresize(image.numpy(), size, scales, **options)
    assert result.shape == expected.shape
    assert np.abs(result.numpy() - expected).max() < 1e-12


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(data.astronaut()[:96, 180:300] / 255).movedim(-1, 0)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_bicubic_equals_matlab_on_a_photograph(photograph, factor):
    height, width = photograph.shape[-2:]
    small = (height // factor, width // factor)
    assert_matches_matlab(photograph, small, (1 / factor,) * 2, bicubic_down(photograph, factor))
    large = (height * factor, width * factor)
    assert_matches_matlab(photograph, large, (factor,) * 2, bicubic_up(photograph, factor))


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    new_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    antialias=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_bicubic_equals_matlab_at_any_size(size, new_size, antialias, seed):
    image = torch.from_numpy(np.random.default_rng(seed).random((1, *size)))
    scales = [new / old for new, old in zip(new_size, size, strict=True)]
    result = bicubic_resize(image, size=new_size, antialias=antialias)
    assert_matches_matlab(image, new_size, scales, result, antialias=antialias)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    scale=st.one_of(
        st.sampled_from([0.3, 1 / 3, 0.7, 1.5, 2.25]), st.fractions("1/10", 3, max_denominator=30).map(float)
    ),
    antialias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
@example(size=(1, 1), scale=1 / 3, antialias=False)
def test_bicubic_by_scale_keeps_the_exact_scale(size, scale, antialias):
    image = torch.from_numpy(np.random.default_rng(size[0]).random((2, *size)))
    new_size = tuple(math.ceil(length * scale - 1e-9) for length in size)
    result = bicubic_resize(image, scale=scale, antialias=antialias)
    assert_matches_matlab(image, new_size, (scale, scale), result, antialias=antialias)


@needs_shared
def test_bicubic_equals_the_golden_lr_images():
    golden = np.load(SHARED / "golden" / "bicubic_expected.npz")
    for name in golden.files:
        image = read_image(SHARED / f"data/set5_x4/{name[:7]}_SRF_4_HR.png", dtype=torch.float64)
        height, width = (length - length % 8 for length in image.shape[-2:])
        small = bicubic_down(crop_to(image, (height, width)), int(name[-1]))
        assert np.abs(small.movedim(0, -1).numpy() - golden[name]).max() < 1e-7, name  # stored as float32


@pytest.mark.parametrize(
    "options", [{"scale": 0.5}, {"scale": 1.5}, {"size": (5, 9)}, {"scale": 0.5, "antialias": False}]
)
def test_bicubic_is_differentiable_and_linear(options):
    image = torch.rand(2, 1, 8, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bicubic_resize(x, **options), image)
    ones = torch.ones_like(image)
    assert torch.allclose(bicubic_resize(ones, **options), torch.ones((), dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
def test_bicubic_keeps_dtype_and_batch(dtype, batch):
    image = torch.rand(*batch, 3, 8, 12).to(dtype)
    small = bicubic_down(image, 4)
    assert small.dtype == dtype
    assert small.shape == (*batch, 3, 2, 3)
    singles = [bicubic_down(single, 4) for single in image.reshape(-1, 3, 8, 12)]
    assert torch.equal(small.reshape(-1, 3, 2, 3), torch.stack(singles))
    assert torch.allclose(small.double(), bicubic_down(image.double(), 4), atol=torch.finfo(dtype).eps * 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: bicubic_resize(x), "expected either scale or size; got scale=None and size=None"),
        (lambda x: bicubic_resize(x, scale=2, size=(4, 4)), "expected either scale or size"),
        (lambda x: bicubic_resize(x, size=(0, 4)), r"size: expected \(H, W\) of at least one pixel each; got \(0, 4\)"),
        (lambda x: bicubic_resize(x, scale=0.0), "scale: expected a positive number; got 0.0"),
        (lambda x: bicubic_resize(x, scale=math.inf), "scale: expected a positive number; got inf"),
        (lambda x: bicubic_resize(x, scale=math.pi), r"scale: expected a ratio of whole numbers .*; pass size="),
        (
            lambda x: bicubic_down(x, 4),
            r"divisible by 4; got 13 × 10 .*; use crop_to\(image, \(8, 12\)\) or pad_to_mul",
        ),
        (lambda x: bicubic_down(x, 0), "factor: expected a whole number of at least 1; got 0"),
        (lambda x: bicubic_up(x, 1.5), "factor: expected a whole number of at least 1; got 1.5"),
        (lambda x: bicubic_up(x[0], 2), "expected a non-empty image"),
    ],
)
def test_bicubic_refuses_what_it_cannot_do(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(3, 10, 13))


# --------------------------------------------------------------------------------------------------- pairs of files


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("0001.png", "0001x4.png"),
        ("0001.png", "0001LRx4.tif"),
        ("baby_HR.png", "baby_LR.png"),
        ("img_003_SRF_4_HR.png", "img_003_SRF_4_LR.png"),
        ("img-hr.png", "img_x8.png"),
    ],
)
def test_names_pair_up_to_the_endings_of_benchmarks(hr, lr):
    hr, lr = Path("hr") / hr, Path("lr") / lr
    other, third = Path("x/other.png"), Path("x/third.png")
    assert pair_by_name([other, hr], [third, lr, other], kind="LR") == {other: other, hr: lr}
    assert pair_by_name([lr, other], [hr, other], kind="HR") == {other: other, lr: hr}


def test_the_same_name_goes_first_and_doubt_is_refused():
    whole, half = Path("a/baby.png"), Path("a/babyx2.png")  # two images, not one at two scales
    assert pair_by_name([whole, half], [Path("b/babyx2.jpg"), Path("b/baby.jpg")], kind="HR") == {
        whole: Path("b/baby.jpg"),
        half: Path("b/babyx2.jpg"),
    }
    assert pair_by_name([whole], [Path("b/truth.png")], kind="HR") == {whole: Path("b/truth.png")}
    with pytest.raises(ValueError, match=r"expected one HR image named like baby.png.*; got none in b: rename it"):
        pair_by_name([whole, half], [Path("b/bird.png"), Path("b/boat.png")], kind="HR")
    with pytest.raises(ValueError, match=r"one LR image .*; got several: b/baby_LR.png, b/babyx4.png"):
        pair_by_name([whole], [Path("b/babyx4.png"), Path("b/baby_LR.png")], kind="LR")


# ---------------------------------------------------------------------------------------------- padding and colour


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 17))
@settings(max_examples=60, deadline=None)
def test_padding_reflects_and_crops_back(height, width, multiple):
    image = torch.rand(2, 3, height, width)
    padded, size = pad_to_multiple(image, multiple)
    assert size == (height, width)
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert padded.shape[-2] - height < multiple
    assert padded.shape[-1] - width < multiple
    assert torch.equal(crop_to(padded, size), image)
    below, right = padded.shape[-2] - height, padded.shape[-1] - width
    expected = np.pad(image.numpy(), [(0, 0), (0, 0), (0, below), (0, right)], mode="reflect")
    assert np.array_equal(padded.numpy(), expected)


def test_padding_and_cropping_refuse_nonsense():
    image = torch.rand(3, 4, 5)
    with pytest.raises(ValueError, match="multiple: expected a whole number of at least 1; got 0"):
        pad_to_multiple(image, 0)
    with pytest.raises(ValueError, match=r"size: expected \(H, W\) inside an image of shape \(3, 4, 5\); got \(5, 5\)"):
        crop_to(image, (5, 5))


def test_luma_is_that_of_scikit_image(photograph):
    from skimage.color import rgb2ycbcr

    expected = rgb2ycbcr(photograph.movedim(0, -1).numpy())[..., 0] / 255
    # scikit-image rounds the coefficients differently in the ninth digit
    assert np.abs(rgb_to_y(photograph)[0].numpy() - expected).max() < 1e-9
    assert torch.allclose(255 * rgb_to_y(torch.zeros(3, 1, 1)), torch.tensor(16.0))
    assert torch.allclose(rgb_to_gray(torch.ones(2, 3, 4, 4)), torch.ones(2, 1, 4, 4))
    with pytest.raises(ValueError, match="expected 3 channels; got 1"):
        rgb_to_y(torch.rand(1, 4, 4))


def test_importing_loads_nothing_heavy():
    heavy = ["PIL", "imagecodecs", "imageio", "lpips", "matplotlib", "scipy", "simplejpeg", "skimage", "tifffile"]
    heavy += ["torchvision"]
    code = (
        "import json, sys, torch, pyro; before = set(sys.modules); import flowsr.images, flowsr.metrics; "
        f"print(json.dumps([name for name in {heavy} if name in set(sys.modules) - before]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == []


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_large_pictures_are_written_in_bands(channels, tmp_path, monkeypatch):
    monkeypatch.setattr("flowsr.images._codecs.LARGE", 0)
    monkeypatch.setattr("flowsr.images._png._BAND", 100)
    for height, width in ((1, 1), (23, 17), (5, 90)):
        levels = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8)
        levels[..., 1:, 1:] = levels[..., :1, :1] + torch.arange(width - 1, dtype=torch.uint8)  # where filters differ
        path = tmp_path / f"{height}.png"
        write_image(path, levels)
        assert torch.equal((read_image(path, mode=None) * 255).round().to(torch.uint8), levels)
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture).reshape(height, width, channels), levels.movedim(0, -1).numpy())
