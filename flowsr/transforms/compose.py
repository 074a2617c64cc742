"""Composition of transforms: each works on the result of the one before, and log-determinants add up."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowsr.transforms._reversible import Memory, run_chain
from flowsr.transforms.base import ImageTransform


class Compose(ImageTransform):
    """Composition from latent to image: ``Compose([a, b])(z) = b(a(z))``, as in Pyro.

    The context goes to every part; parts without one ignore it.

    Cost: the sum of the parts'; see ``memory`` for what training keeps.

    Args:
        parts: transforms, the one next to the latent first; none gives the identity.

    Attributes:
        memory: what is kept for the backward pass: "full" (all activations), "checkpoint" (the input of each part) or
            "reversible" (the result alone; each part's input is recomputed from its output).

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
        self.memory: Memory = "full"

    @property
    def codomain(self) -> Any:
        """The images of the last part: of all images, or of those with bounded values."""
        return self.parts[-1].codomain if len(self.parts) else ImageTransform.codomain

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return run_chain(tuple(self.parts), z, context, encode=False, memory=self.memory)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return run_chain(tuple(reversed(self.parts)), x, context, encode=True, memory=self.memory)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        for part in self.parts:
            shape = part.forward_shape(shape)
        return shape

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return shape

    def extra_repr(self) -> str:
        return "" if self.memory == "full" else f"memory={self.memory!r}"
