"""The Haar transform: a fixed linear change of resolution whose first band is the average of 2x2 pixels."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowsr._support.shapes import constant_ladj, full_precision
from flowsr.nn import channels_last
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.pixel_shuffle import depth_from_space, depth_to_space, space_from_depth, space_to_depth

# Rows: average, left − right, top − bottom, diagonal; columns: the pixels a b / c d of a 2x2 block.
_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


_HAAR = """@article{ardizzone2019guided,
  title   = {Guided Image Generation with Conditional Invertible Neural Networks},
  author  = {Ardizzone, Lynton and L{\\"u}th, Carsten and Kruse, Jakob and Rother, Carsten and K{\\"o}the, Ullrich},
  journal = {arXiv preprint arXiv:1907.02392},
  year    = {2019},
  url     = {https://arxiv.org/abs/1907.02392}
}"""


class Haar(ImageTransform):
    """Haar wavelets on 2x2 blocks; encoding ``(C, H, W) -> (4·C, H/2, W/2)``, ``ladj = −C·H·W·ln 2``.

    For the pixels ``a b / c d`` of a block the four bands are ``(a+b+c+d)/4``, ``(a−b+c−d)/4``, ``(a+b−c−d)/4`` and
    ``(a−b−c+d)/4``. Channels are grouped by band: the averages of all channels come first, and are the image
    downscaled by a box filter.

    Cost: a few additions per pixel.

    Raises:
        ValueError: if an image's sides are odd, or a latent's channels not a multiple of 4.

    References:
        Xiao et al., IRN (ECCV 2020), section 3.2; Ardizzone et al., arXiv 1907.02392, section 3.2.

    Example:
        >>> Haar().inv(torch.ones(3, 4, 4))[:3].mean().item()
        1.0
    """

    citations: ClassVar[tuple[str, ...]] = (_HAAR,)

    signs: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Not persistent: a constant of the definition, no part of a checkpoint.
        self.register_buffer("signs", torch.tensor(_SIGNS, dtype=torch.get_default_dtype()), persistent=False)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        shape = self.forward_shape(z.shape)
        bands = z.unflatten(-3, (4, shape[-3]))
        with full_precision(z):
            blocks = torch.einsum("kp,...kchw->...cphw", self.signs.to(z.dtype), bands)
        ladj = constant_ladj(z, math.log(2.0) * math.prod(z.shape[-3:]))
        return depth_to_space(channels_last(blocks.flatten(-4, -3)), 2), ladj

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        blocks = space_to_depth(x, 2).unflatten(-3, (x.shape[-3], 4))
        with full_precision(x):
            bands = torch.einsum("kp,...cphw->...kchw", self.signs.to(x.dtype) / 4, blocks)
        return channels_last(bands.flatten(-4, -3)), constant_ladj(x, -math.log(2.0) * math.prod(x.shape[-3:]))

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return space_from_depth(shape, 2, name="Haar")

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return depth_from_space(shape, 2, name="Haar")
