"""What a file says beside its pixels: how many there are, which way is up, and what colours its values mean.

Values are read as they are stored, as Pillow, OpenCV and MATLAB read them, because published figures are of such values
and the LR images that came with them have lost their profile. What the values mean is sRGB, in which results are
written too; a file that says otherwise gets a remark.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from flowsr._support.shapes import size_text
from flowsr.errors import ImageError

_MOST_MOVED = 3  # of 255: two profiles that are both called sRGB differ by as much in the dark
_KEPT = (
    "values are read as they are stored, and results are written as sRGB: convert it to sRGB first if colours matter"
)

PRINT_REMARK = (
    "holds inks for print (CMYK), read as R = (1 - C)(1 - K) and so on, not as a print looks: "
    "convert it to RGB in an image editor if colours matter"
)


@dataclass(frozen=True)
class Stored:
    """Pixels (H, W) or (H, W, C) as stored, uint8 or uint16, how to turn them, and what the user should be told."""

    pixels: np.ndarray
    orientation: int = 1
    remarks: tuple[str, ...] = ()

    def upright(self) -> np.ndarray:
        """The pixels (H, W, C), turned; the orientations 1 to 8 are those of EXIF and TIFF."""
        pixels = self.pixels if self.pixels.ndim == 3 else self.pixels[:, :, None]
        if self.orientation in (5, 6, 7, 8):  # the first four act on the transposed image
            pixels = pixels.swapaxes(0, 1)
        if self.orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        if self.orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


def check_count(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse an image without pixels or with too many, before it is decoded."""
    if width < 1 or height < 1:
        raise ValueError(size_text((height, width)))
    if width * height > max_pixels:
        raise ImageError(
            f"expected at most {max_pixels} pixels; got {size_text((height, width))}, {width * height} in all; "
            f"raise max_pixels if you trust the file"
        )


def profile_remark(profile: bytes | None, *, mode: str) -> str | None:
    """What to say of the profile of an image of Pillow's ``mode``; nothing if it moves no colour visibly from sRGB."""
    if not profile:
        return None
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        name = "".join(filter(str.isprintable, ImageCms.getProfileDescription(opened)))[:60].strip()
        moved = _moved(opened, mode)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return f"has a colour profile that cannot be used ({error}): {_KEPT}"
    if moved <= _MOST_MOVED:
        return None
    return f"has the colour profile {name!r}, up to {moved} of 255 levels away from sRGB: {_KEPT}"


def space_remark(space: str) -> str:
    """What to say of a file that names another colour space without a profile."""
    return f"is marked as {space}: {_KEPT}"


def _moved(profile: Any, mode: str) -> int:
    """How many levels of 255 lie at most between a colour taken by its profile, and as sRGB."""
    from PIL import Image, ImageCms

    gray, space = mode == "L", profile.profile.xcolor_space.strip()
    if space not in ({"RGB", "GRAY"} if gray else {mode}):  # gray images often keep the profile of their colours
        raise ValueError(f"it is for {space}")
    mode = "L" if space == "GRAY" else space
    levels = np.linspace(0, 255, 256 if gray else 9).round().astype(np.uint8)
    axes = [levels] * len(mode)
    grid = np.stack(axes if gray else np.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, len(mode))
    colours = Image.frombytes(mode, (grid.shape[1], 1), grid.tobytes())
    shown = ImageCms.profileToProfile(
        colours, profile, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    return int(np.abs(np.asarray(shown, np.int16) - np.asarray(colours.convert("RGB"), np.int16)).max())
