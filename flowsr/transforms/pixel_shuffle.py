"""Pixel shuffle: space to depth and back, the flow's way to change resolution without losing anything."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr._support.shapes import check_image_shape, constant_ladj
from flowsr.transforms.base import ImageTransform


class PixelShuffle(ImageTransform):
    """Depth to space by a factor r: ``(C·r², H, W) -> (C, r·H, r·W)``; a permutation, so ``ladj = 0``.

    Channel ``c·r² + dy·r + dx`` of the latent holds the pixels at offset ``(dy, dx)`` of channel ``c``. Glow and
    HCFlow call the inverse "squeeze".

    Cost: one copy.

    Args:
        factor: r ≥ 1.

    Raises:
        ValueError: if an image's sides are not multiples of the factor, or a latent's channels not of its square.

    References:
        Shi et al., Real-Time Single Image and Video Super-Resolution (CVPR 2016), section 3.2.

    Example:
        >>> PixelShuffle(2)(torch.zeros(2, 12, 4, 4)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"expected factor >= 1; got {factor}")
        self.factor = factor

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return depth_to_space(z, self.factor), constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return space_to_depth(x, self.factor), constant_ladj(x, 0.0)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return space_from_depth(shape, self.factor, name="PixelShuffle")

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return depth_from_space(shape, self.factor, name="PixelShuffle")

    def extra_repr(self) -> str:
        return f"{self.factor}"


def depth_to_space(z: Tensor, factor: int) -> Tensor:
    """``(*batch, C·r², H, W) -> (*batch, C, r·H, r·W)``; torch forgets the new shape of an empty batch."""
    shape = space_from_depth(z.shape, factor, name="PixelShuffle")
    return F.pixel_shuffle(z, factor).reshape(shape)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """``(*batch, C, r·H, r·W) -> (*batch, C·r², H, W)``; torch forgets the new shape of an empty batch."""
    shape = depth_from_space(x.shape, factor, name="PixelShuffle")
    return F.pixel_unshuffle(x, factor).reshape(shape)


def space_from_depth(shape: torch.Size, factor: int, *, name: str) -> torch.Size:
    """``(*batch, C·r², H, W) -> (*batch, C, r·H, r·W)``, refusing channels that are not a multiple of r²."""
    check_image_shape(shape, name=f"the latent of {name}")
    *batch, channels, height, width = shape
    if channels % factor**2:
        raise ValueError(f"expected a latent of {name} with a multiple of {factor**2} channels; got {tuple(shape)}")
    return torch.Size([*batch, channels // factor**2, height * factor, width * factor])


def depth_from_space(shape: torch.Size, factor: int, *, name: str) -> torch.Size:
    """``(*batch, C, r·H, r·W) -> (*batch, C·r², H, W)``, refusing sides that are not multiples of r."""
    check_image_shape(shape, multiple=factor, name=f"the image of {name}")
    *batch, channels, height, width = shape
    return torch.Size([*batch, channels * factor**2, height // factor, width // factor])


def pack_latents(parts: Sequence[Tensor], factors: Sequence[int]) -> Tensor:
    """Stack the parts along the channels, part i after space-to-depth by ``factors[i]``; their batches broadcast.

    Example:
        >>> pack_latents([torch.zeros(3, 2, 2), torch.zeros(2, 4, 4)], [1, 2]).shape
        torch.Size([11, 2, 2])
    """
    batch = torch.broadcast_shapes(*(part.shape[:-3] for part in parts))
    coarse = [space_to_depth(part, factor) for part, factor in zip(parts, factors, strict=True)]
    return torch.cat([part.expand(*batch, *part.shape[-3:]) for part in coarse], -3)


def unpack_latents(packed: Tensor, channels: Sequence[int], factors: Sequence[int]) -> tuple[Tensor, ...]:
    """The inverse of :func:`pack_latents`, for parts of ``channels[i]`` channels before their space-to-depth."""
    sizes = [c * factor**2 for c, factor in zip(channels, factors, strict=True)]
    parts = packed.split(sizes, -3)
    return tuple(depth_to_space(part, factor) for part, factor in zip(parts, factors, strict=True))
