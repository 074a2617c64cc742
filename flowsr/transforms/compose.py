"""Composition of transforms: each works on the result of the one before, and log-determinants add up."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowsr._shapes import constant_ladj
from flowsr.transforms.base import ImageTransform


class Compose(ImageTransform):
    """Composition from latent to image: ``Compose([a, b])(z) = b(a(z))``, as in Pyro.

    The context goes to every part; parts without one ignore it.

    Cost: the sum of the parts'.

    Args:
        parts: transforms, the one next to the latent first; none gives the identity.

    References:
        ``torch.distributions.ComposeTransform``, for the order.

    Example:
        >>> from flowsr.transforms import Haar, PixelShuffle
        >>> Compose([Haar(), PixelShuffle(2)])(torch.zeros(48, 2, 2)).shape
        torch.Size([3, 8, 8])
    """

    def __init__(self, parts: Iterable[ImageTransform]) -> None:
        super().__init__()
        self.parts = cast("Sequence[ImageTransform]", nn.ModuleList(parts))

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        total = constant_ladj(z, 0.0)
        for part in self.parts:
            z, ladj = part.call_and_ladj(z, context)
            total = total + ladj
        return z, total

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        total = constant_ladj(x, 0.0)
        for part in reversed(self.parts):
            x, ladj = part.inv_call_and_ladj(x, context)
            total = total + ladj
        return x, total

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape
