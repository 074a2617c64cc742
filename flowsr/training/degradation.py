"""LR images that are not bicubic: blur, noise and JPEG, and the protocol for your own."""

import io
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr.images import bicubic_down, round_to_8bit


class Degradation(Protocol):
    """Makes an LR image ``(C, H/s, W/s)`` from an HR crop ``(C, H, W)``, both in [0, 1].

    It must be random through ``generator`` only, or a resumed run will see other images.
    """

    def __call__(self, hr: Tensor, *, upscale: int, generator: torch.Generator) -> Tensor:
        """Return the LR image in [0, 1]; it is rounded to 8 bits afterwards."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlurNoiseJPEG:
    """Gaussian blur of the HR image, bicubic downscaling, Gaussian noise, JPEG; each strength uniform in a range.

    Args:
        blur: range of the blur's standard deviation in HR pixels.
        noise: range of the noise's standard deviation, in units of [0, 1].
        jpeg: range of the JPEG quality, 1 to 100; None for no JPEG.

    Raises:
        ValueError: for ranges that are empty or out of bounds.

    Example:
        >>> degrade = BlurNoiseJPEG(blur=(0.5, 1.5), noise=(0.0, 0.02), jpeg=(60, 95))
        >>> degrade(torch.rand(3, 32, 32), upscale=4, generator=torch.Generator()).shape
        torch.Size([3, 8, 8])
    """

    blur: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        ranges = {"blur": (self.blur, 0.0, 100.0), "noise": (self.noise, 0.0, 1.0)}
        if self.jpeg is not None:
            ranges["jpeg"] = (self.jpeg, 1, 100)
        for name, ((low, high), least, most) in ranges.items():
            if not least <= low <= high <= most:
                raise ValueError(f"expected {name} to be a range within {least} to {most}; got ({low}, {high})")

    def __call__(self, hr: Tensor, *, upscale: int, generator: torch.Generator) -> Tensor:
        """Degrade one image ``(C, H, W)``."""
        lr = bicubic_down(gaussian_blur(hr, _uniform(self.blur, generator)), upscale)
        lr = lr + _uniform(self.noise, generator) * torch.randn(lr.shape, dtype=lr.dtype, generator=generator)
        lr = round_to_8bit(lr)
        return lr if self.jpeg is None else jpeg(lr, quality=round(_uniform(self.jpeg, generator)))


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur ``(C, H, W)`` with a Gaussian of standard deviation ``sigma`` pixels; the image continues by its edge."""
    if sigma <= 0:
        return image
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def jpeg(image: Tensor, *, quality: int) -> Tensor:
    """Encode ``(C, H, W)``, C = 1 or 3, as JPEG in memory and decode it."""
    from PIL import Image

    pixels = image.mul(255).round().to(torch.uint8).movedim(0, -1).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        data = torch.frombuffer(bytearray(decoded.tobytes()), dtype=torch.uint8)
    return data.view(*image.shape[-2:], -1).movedim(-1, 0).float().div(255.0)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))
