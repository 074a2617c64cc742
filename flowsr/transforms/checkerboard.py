"""The checkerboard: an image as its pixels of one colour and those of the other, for couplings between them."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from flowsr._support.shapes import check_image_shape, constant_ladj
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.pixel_shuffle import depth_from_space, depth_to_space, space_from_depth, space_to_depth

_ORDER = (0, 3, 1, 2)  # of the sub-lattices of a shuffle, among the offsets (dy, dx) = (0, 0), (0, 1), (1, 0), (1, 1)


class Checkerboard(ImageTransform):
    """Checkerboard permutation ``(2·C, H, W/2) <-> (C, H, W)``; ``ladj = 0``.

    The first C channels of the latent are the pixels with even ``row + column``, the last C those with odd. A coupling
    that keeps one half of the channels is then a coupling with a checkerboard mask.

    Cost: one copy.

    Raises:
        ValueError: if an image's width is odd, or a latent's number of channels.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.4.

    Example:
        >>> Checkerboard().inv(torch.arange(4.0).reshape(1, 2, 2)).flatten()
        tensor([0., 3., 1., 2.])
    """

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.forward_shape(z.shape)
        return merge_checkerboard(z), constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return split_checkerboard(x), constant_ladj(x, 0.0)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, name="the latent of Checkerboard")
        *batch, channels, height, width = shape
        if channels % 2:
            raise ValueError(f"expected a latent of Checkerboard with an even number of channels; got {tuple(shape)}")
        return torch.Size([*batch, channels // 2, height, 2 * width])

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, name="the image of Checkerboard")
        *batch, channels, height, width = shape
        if width % 2:
            raise ValueError(f"expected an image of Checkerboard of even width; got {tuple(shape)}")
        return torch.Size([*batch, 2 * channels, height, width // 2])


class CheckerboardConditioner(nn.Module):
    """Lets a network see the kept half of a checkerboard in place: ``net(x·mask, mask)``, read at the other pixels.

    Args:
        net: module from the masked image ``(*batch, C, H, W)`` and the mask ``(1, H, W)`` to ``(*batch, P, H, W)``.
        keep: which half is kept, "first" (even ``row + column``) or "last".

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.4, equation 9.
    """

    def __init__(self, net: nn.Module, *, keep: Literal["first", "last"] = "first") -> None:
        super().__init__()
        self.net = net
        self.keep = keep

    def forward(self, kept: Tensor) -> Tensor:
        """Parameters for the changed pixels, ``(*batch, P, H, W/2)``, from the kept ones, ``(*batch, C, H, W/2)``."""
        one = kept.new_ones(1, *kept.shape[-2:])
        h = self.net(self._in_place(kept), self._in_place(one))
        even, odd = split_checkerboard(h).chunk(2, -3)
        return odd if self.keep == "first" else even

    def _in_place(self, kept: Tensor) -> Tensor:
        none = torch.zeros_like(kept)
        return merge_checkerboard(torch.cat([kept, none] if self.keep == "first" else [none, kept], -3))

    def extra_repr(self) -> str:
        return f"keep={self.keep!r}"


def split_checkerboard(x: Tensor) -> Tensor:
    """``(*batch, C, H, W) -> (*batch, 2·C, H, W/2)``: pixels of even ``row + column``, then those of odd."""
    pairs = _swap_odd_rows(x.unflatten(-1, (-1, 2)))
    return torch.cat([pairs[..., 0], pairs[..., 1]], -3)


def merge_checkerboard(z: Tensor) -> Tensor:
    """The inverse of :func:`split_checkerboard`."""
    return _swap_odd_rows(torch.stack(z.chunk(2, -3), -1)).flatten(-2)


def _swap_odd_rows(pairs: Tensor) -> Tensor:
    odd = torch.arange(pairs.shape[-3], device=pairs.device) % 2 == 1
    return torch.where(odd[:, None, None], pairs.flip(-1), pairs)


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
