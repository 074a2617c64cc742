"""A learned change of resolution: one invertible matrix on the pixels of a block, the same for every channel."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from flowsr._support.shapes import constant_ladj, full_precision
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.pixel_shuffle import depth_from_space, depth_to_space, space_from_depth, space_to_depth


class LearnedDownsampling(ImageTransform):
    """Learned linear map of r x r blocks; encoding ``(C, H, W) -> (C·r², H/r, W/r)``, bands grouped as in Haar.

    Each block of each channel is multiplied by one matrix ``W`` of r² rows; ``ladj = C·H·W/r²·log|det W|``. At the
    start row 0 is the average of the block and the other rows pick single pixels, so the first C channels are the
    image downscaled by a box filter.

    Cost: O(r²) per pixel, and O(r⁶) for determinant and inverse.

    Args:
        factor: r ≥ 2.

    Raises:
        ValueError: if an image's sides are not multiples of the factor, or a latent's channels not of its square.

    References:
        Xiao et al., IRN (ECCV 2020), released code for x3, where the Haar transform does not apply.

    Example:
        >>> LearnedDownsampling(3).inv(torch.ones(3, 6, 6))[:3].mean().item()
        1.0
    """

    def __init__(self, factor: int = 3) -> None:
        super().__init__()
        if factor < 2:
            raise ValueError(f"expected factor >= 2; got {factor}")
        self.factor = factor
        weight = torch.eye(factor**2)
        weight[0] = 1 / factor**2
        self.weight = nn.Parameter(weight)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        shape = self.forward_shape(z.shape)
        weight = self.weight.double()
        bands = z.unflatten(-3, (self.factor**2, shape[-3]))
        with full_precision(z):
            blocks = torch.einsum("pk,...kchw->...cphw", torch.linalg.inv(weight).to(z.dtype), bands)
        return depth_to_space(blocks.flatten(-4, -3), self.factor), -self._ladj(z, weight)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        blocks = space_to_depth(x, self.factor).unflatten(-3, (x.shape[-3], self.factor**2))
        with full_precision(x):
            bands = torch.einsum("kp,...cphw->...kchw", self.weight.to(x.dtype), blocks)
        return bands.flatten(-4, -3), self._ladj(x, self.weight.double())

    def _ladj(self, x: Tensor, weight: Tensor) -> Tensor:
        return constant_ladj(x, math.prod(x.shape[-3:]) // self.factor**2 * torch.linalg.slogdet(weight)[1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return space_from_depth(shape, self.factor, name="LearnedDownsampling")

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return depth_from_space(shape, self.factor, name="LearnedDownsampling")

    def extra_repr(self) -> str:
        return f"{self.factor}"
