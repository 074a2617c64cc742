"""RealNVP's change of resolution at a split: space to depth with the sub-lattices of a checkerboard together."""

from typing import Any

import torch
from torch import Tensor

from flowsr._shapes import constant_ladj
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.pixel_shuffle import depth_from_space, depth_to_space, space_from_depth, space_to_depth

_ORDER = (0, 3, 1, 2)  # of the offsets (dy, dx) = (0, 0), (0, 1), (1, 0), (1, 1)


class CheckerboardShuffle(ImageTransform):
    """Depth to space by 2 whose channels are grouped by sub-lattice: ``(4·C, H, W) <-> (C, 2·H, 2·W)``, ``ladj = 0``.

    The sub-lattices come in the order (0, 0), (1, 1), (0, 1), (1, 0), so the first half of the channels are the even
    pixels of a checkerboard: what is factored out at a split is spread over the image.

    Cost: one copy.

    Raises:
        ValueError: if an image's sides are odd, or a latent's channels not a multiple of 4.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.6, and the released code.

    Example:
        >>> CheckerboardShuffle().inv(torch.arange(4.0).reshape(1, 2, 2)).flatten()
        tensor([0., 3., 1., 2.])
    """

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        shape = self.forward_shape(z.shape)
        back = [_ORDER.index(i) for i in range(4)]
        lattices = z.unflatten(-3, (4, shape[-3]))[..., back, :, :, :]
        return depth_to_space(lattices.transpose(-4, -3).flatten(-4, -3), 2), constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        lattices = space_to_depth(x, 2).unflatten(-3, (x.shape[-3], 4)).transpose(-4, -3)
        return lattices[..., list(_ORDER), :, :, :].flatten(-4, -3), constant_ladj(x, 0.0)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return space_from_depth(shape, 2, name="CheckerboardShuffle")

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return depth_from_space(shape, 2, name="CheckerboardShuffle")
