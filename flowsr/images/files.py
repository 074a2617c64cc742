"""Image files in and out: every value kept, every refusal explained, no file ever half written.

A picture that reads a little wrong (16 bits cut to 8, a palette taken for gray, a rotated photograph) spoils a
likelihood without a message. So what cannot be read faithfully is refused, by :class:`flowsr.ImageError`.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flowsr._support.atomic import atomic_path
from flowsr.errors import ImageError, what_is_at
from flowsr.images._codecs import OTHER_SUFFIXES, SUFFIXES, decode, encode, encode_with_text, read_text, write
from flowsr.images.colour import rgb_to_gray
from flowsr.images.values import check_image, to_levels

_ENDING = re.compile(r"(x2|x4|x8|x16|[_-]?(lr|hr)|_srf_[248]|[_-])$", re.IGNORECASE)


def read_image(
    path: str | PathLike[str],
    *,
    mode: Literal["RGB", "gray", "RGBA"] | None = "RGB",
    dtype: torch.dtype = torch.float32,
    max_pixels: int = 178_956_970,
) -> Float[Tensor, "channel height width"]:
    """Read a PNG, JPEG or TIFF file of 8 or 16 bits as values v / 255 or v / 65535.

    The values are those that libpng, Pillow or libtiff give. Palettes are resolved, photographs turned upright (EXIF),
    colours that were multiplied by alpha divided by it, and inks for print (CMYK) made R = (1 - C)(1 - K) and so on.
    Colour profiles are not applied. The content decides the format, not the suffix. Gray from colour is
    :func:`rgb_to_gray`, not rounded.

    Warns (UserWarning) of what is read but may not be what was meant: a colour profile that is not sRGB, inks, and a
    JPEG whose decoder warns that its scan is damaged, which it notices of about three flipped bits in ten.

    Cost: decodes on the CPU, a JPEG twice; a header with too many pixels, or more than the file can hold, is refused
    before.

    Args:
        path: The file.
        mode: "RGB" (3 channels), "gray" (1), "RGBA" (4), or None for what is stored: 1 gray, 2 gray and alpha,
            3 RGB, 4 RGBA. "RGB" and "gray" drop an opaque alpha and refuse a transparent one.
        dtype: A floating dtype.
        max_pixels: The most H·W accepted, against decompression bombs. Pillow's own limit, which is the default, holds
            for JPEG even if this is larger.

    Returns:
        Shape ``(C, H, W)``, values in [0, 1], on the CPU.

    Raises:
        ImageError: If the file is missing, empty, damaged, not such an image, or too large.
        ValueError: If ``mode`` or ``dtype`` is not one of those above.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> write_image(path, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 4))
        >>> read_image(path).shape, read_image(path, mode="gray")[0, 0, 0]
        (torch.Size([3, 2, 4]), tensor(0.2990))
    """
    path = Path(path)
    if mode not in ("RGB", "gray", "RGBA", None):
        raise ValueError(f'mode: expected "RGB", "gray", "RGBA" or None; got {mode!r}')
    if not dtype.is_floating_point:
        raise ValueError(f"dtype: expected a floating point dtype; got {dtype}")
    if path.suffix.lower() not in SUFFIXES:
        hint = ": save it as PNG" if path.suffix.lower() in OTHER_SUFFIXES else ""
        got = f"{path.suffix or 'no suffix'!r}{hint}"
        raise ImageError(f"{path}: expected a file named {', '.join(SUFFIXES)}; got {got}")
    if not path.is_file():
        raise ImageError(f"{path}: expected an image file; got {what_is_at(path)}")
    stored = decode(path, max_pixels=max_pixels)
    for remark in stored.remarks:
        warnings.warn(f"{path} {remark}", stacklevel=2)
    pixels = stored.upright()
    integers = torch.from_numpy(pixels.astype(np.int32)).movedim(-1, 0)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    image = integers.to(exact) / float(np.iinfo(pixels.dtype).max)
    return _to_mode(image, mode, path).to(dtype).contiguous()


def write_image(
    path: str | PathLike[str],
    image: Tensor,
    *,
    bit_depth: Literal[8, 16] = 8,
    quality: int = 95,
    overwrite: bool = False,
) -> None:
    """Write one image as PNG, JPEG or TIFF: clamp to [0, 1], multiply by 255 or 65535, round (halves to even).

    The file appears complete or not at all, and nothing is overwritten unasked.

    Cost: encodes on the CPU, without loss except for JPEG.

    Args:
        path: The file; its suffix (.png, .jpg, .jpeg, .tif, .tiff) chooses the format. The folder must exist.
        image: Shape ``(C, H, W)``; 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA; JPEG has no alpha. Small excursions out of
            [0, 1], as samples have, are clamped; values below -1 or above 2 are taken for another scale and refused.
            Grey levels, ``torch.uint8`` from 0 to 255, are written as they are.
        bit_depth: 8 or 16; JPEG has only 8.
        quality: Of JPEG, 1 to 100; its colour is not subsampled.
        overwrite: Replace an existing file.

    Raises:
        ImageError: If the suffix is not one of these.
        ValueError: If the image or an option is not one of the above.
        FileExistsError: If the file exists and ``overwrite`` is False.
        FileNotFoundError: If the folder does not exist.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "noise.tif"
        >>> image = torch.rand(4, 5, 6)
        >>> write_image(path, image, bit_depth=16)
        >>> bool((read_image(path, mode="RGBA") - image).abs().max() <= 0.51 / 65535)
        True
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImageError(f"{path}: expected a file named {', '.join(SUFFIXES)}; got {suffix or 'no suffix'!r}")
    lossy = suffix in (".jpg", ".jpeg")
    if bit_depth not in ((8,) if lossy else (8, 16)):
        raise ValueError(f"bit_depth: expected {'8, for JPEG' if lossy else '8 or 16'}; got {bit_depth}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100; got {quality}")
    # A few grey levels as floating values show whether the shape is one of an image.
    shown = image[..., :1, :1].float() / 255 if image.dtype == torch.uint8 and image.ndim == 3 else image
    check_image(shown, channels=(1, 3) if lossy else (1, 2, 3, 4), tolerance=1.0)
    if image.ndim != 3:
        raise ValueError(f"image: expected one image of shape (C, H, W); got shape {tuple(image.shape)}; write each")
    if image.dtype == torch.uint8 and bit_depth == 16:
        raise ValueError("bit_depth: expected 8 for grey levels of 8 bits; got 16")
    pixels = _to_levels(image, bit_depth)
    with atomic_path(path, overwrite=overwrite) as temporary:
        write(temporary, pixels, suffix=suffix, quality=quality)


def encode_png(image: Tensor, *, text: Mapping[str, str] | None = None) -> bytes:
    """One image as the bytes of an 8-bit PNG file: clamp to [0, 1], multiply by 255, round (halves to even).

    Cost: one compression on the CPU.

    Args:
        image: Shape ``(C, H, W)``; 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA.
        text: Facts about the image that travel with it, by their keys; :func:`read_png_text` reads them.

    Raises:
        ValueError: If it is not one such image.

    Example:
        >>> encode_png(torch.zeros(3, 4, 4))[1:4]
        b'PNG'
    """
    check_image(image, channels=(1, 2, 3, 4), tolerance=1.0)
    if image.ndim != 3:
        raise ValueError(f"image: expected one image of shape (C, H, W); got shape {tuple(image.shape)}")
    levels = _to_levels(image, 8)
    return encode_with_text(levels, text) if text else encode(levels, suffix=".png", quality=95)


def read_png_text(path: str | PathLike[str], key: str) -> str | None:
    """A fact about an image that travels with it: the text under a key in a PNG file, or None.

    Cost: one pass over the file; the picture is not decoded.

    Raises:
        ImageError: If it is a damaged PNG file, or none is there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.png"
        >>> _ = path.write_bytes(encode_png(torch.rand(3, 2, 2), text={"size": "13x16"}))
        >>> read_png_text(path, "size"), read_png_text(path, "date")
        ('13x16', None)
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: expected an image file; got {what_is_at(path)}")
    return read_text(path, key)


def list_images(folder: str | PathLike[str]) -> list[Path]:
    """The image files directly in a folder, sorted by name; hidden files are left out.

    Images of other formats (WebP, GIF, HEIC, BMP and so on, by their suffix) are named in a warning.

    Cost: one directory listing; no file is opened.

    Args:
        folder: Where to look.

    Returns:
        Paths with the suffixes .png, .jpg, .jpeg, .tif and .tiff in any case.

    Raises:
        ImageError: If there is no such folder or no image in it: an average over nothing is always a mistake.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_image(folder / "a.png", torch.rand(3, 2, 2))
        >>> [path.name for path in list_images(folder)]
        ['a.png']
    """
    folder = Path(folder)
    if not folder.is_dir():
        got = what_is_at(folder)
        raise ImageError(
            f"{folder}: expected a folder of images; got {'no such folder' if got == 'no such file' else got}"
        )
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = _name_some([path for path in files if path.suffix.lower() in OTHER_SUFFIXES])
    if not images:
        got = f"only {others}: save as PNG what you want" if others else "none"
        raise ImageError(f"{folder}: expected files named {', '.join(SUFFIXES)}; got {got}")
    if others:
        warnings.warn(f"{folder}: left out {others}: save as PNG what you want", stacklevel=2)
    return images


def _name_some(paths: Sequence[Path]) -> str:
    """The first names and how many more there are; empty if there are none."""
    names = ", ".join(repr(path.name)[1:-1] for path in paths[:3])  # as repr has it: names may hold control characters
    return f"{names} and {len(paths) - 3} more" if len(paths) > 3 else names


def _to_levels(image: Tensor, bit_depth: int) -> np.ndarray:
    if bit_depth == 8:
        return np.ascontiguousarray(to_levels(image.cpu()).movedim(0, -1).numpy())
    levels = image.detach().cpu().double().clamp(0, 1).mul(2**bit_depth - 1).round().movedim(0, -1)
    return np.ascontiguousarray(levels.numpy().astype(np.uint16))


def _to_mode(image: Tensor, mode: str | None, path: Path) -> Tensor:
    """Add, drop or mix channels; (C, H, W) with C = 1 to 4 as stored."""
    if mode is None:
        return image
    has_alpha = len(image) in (2, 4)
    colour, alpha = (image[:-1], image[-1:]) if has_alpha else (image, torch.ones_like(image[:1]))
    if mode == "RGBA":
        return torch.cat([colour.expand(3, -1, -1), alpha])
    if (alpha < 1).any():
        raise ImageError(
            f"{path}: expected an opaque image; got transparent pixels: put it on a background first, in an image "
            f'editor or, from Python, read with mode="RGBA"'
        )
    if mode == "RGB":
        return colour.expand(3, -1, -1)
    return colour if len(colour) == 1 else rgb_to_gray(colour)


def pair_by_name(files: Sequence[Path], others: Sequence[Path], *, kind: str) -> dict[Path, Path]:
    """For each file the other one of the same name, up to endings of either such as ``x4``, ``_LR``, ``_HR``.

    A name that is the same as it stands goes before one that is the same without endings. One file and one other make
    a pair whatever their names.

    Cost: looks at names only.

    Args:
        files: what others are looked for.
        others: where they are looked for.
        kind: what the others are, "HR" or "LR", for the message.

    Raises:
        ValueError: if some file has no other, or several.

    Example:
        >>> pair_by_name([Path("lr/babyx4.png")], [Path("hr/baby.png"), Path("hr/bird.png")], kind="HR")
        {PosixPath('lr/babyx4.png'): PosixPath('hr/baby.png')}
    """
    if len(files) == len(others) == 1:
        return {files[0]: others[0]}
    exact: dict[str, list[Path]] = {}
    bare: dict[str, list[Path]] = {}
    for path in others:
        exact.setdefault(path.stem, []).append(path)
        bare.setdefault(_bare(path.stem), []).append(path)
    pairs = {}
    for path in files:
        found = exact.get(path.stem) or bare.get(_bare(path.stem), [])
        if len(found) != 1:
            got = f"several: {', '.join(sorted(str(other) for other in found))}" if found else "none"
            where = f" in {others[0].parent}" if others and not found else ""
            raise ValueError(
                f"expected one {kind} image named like {path.name}, up to endings such as x4, _LR and _HR; "
                f"got {got}{where}: rename it, or take it out"
            )
        pairs[path] = found[0]
    return pairs


def _bare(stem: str) -> str:
    """A name without the endings that benchmarks put on LR and HR files."""
    while (shorter := _ENDING.sub("", stem)) not in ("", stem):
        stem = shorter
    return stem
