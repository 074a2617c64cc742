"""Transforms of transforms: chains, in which log-determinants add up, and a transform of some of the channels."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flowsr.transforms.base import ImageTransform, SameShapeTransform
from flowsr.transforms.reversible import Memory, run_chain


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


class Partial(SameShapeTransform):
    """Apply a transform to all but the kept channels: RealNVP normalizes what a coupling has changed.

    Cost: the transform's.

    Args:
        channels: channels of the image.
        transform: transform of ``channels − kept_channels`` channels.
        kept_channels: how many channels pass through.
        keep: whether these are the first or the last ones.

    Raises:
        ValueError: if nothing would be kept or changed.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.7.

    Example:
        >>> from flowsr.transforms import ActNorm
        >>> Partial(5, ActNorm(2), kept_channels=3)(torch.ones(5, 2, 2)).shape
        torch.Size([5, 2, 2])
    """

    def __init__(
        self, channels: int, transform: ImageTransform, *, kept_channels: int, keep: Literal["first", "last"] = "first"
    ) -> None:
        super().__init__(channels)
        check_kept(channels, kept_channels, keep=keep)
        self.transform = transform
        self.kept_channels, self.keep = kept_channels, keep

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        kept, changed = self._split(z)
        changed, ladj = self.transform.call_and_ladj(changed, context)
        return self._join(kept, changed), ladj

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        kept, changed = self._split(x)
        changed, ladj = self.transform.inv_call_and_ladj(changed, context)
        return self._join(kept, changed), ladj

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return split_kept(x, self.kept_channels, keep=self.keep)

    def _join(self, kept: Tensor, changed: Tensor) -> Tensor:
        return join_kept(kept, changed, keep=self.keep)

    def extra_repr(self) -> str:
        return f"{self.channels}, kept_channels={self.kept_channels}, keep={self.keep!r}"


def check_kept(channels: int, kept_channels: int, *, keep: str) -> None:
    """Raise ValueError unless something is kept, something is changed, and it is said which."""
    if not 0 < kept_channels < channels:
        raise ValueError(f"expected kept_channels between 1 and {channels - 1}; got {kept_channels}")
    if keep not in ("first", "last"):
        raise ValueError(f"expected keep to be first or last; got {keep!r}")


def split_kept(x: Tensor, kept_channels: int, *, keep: str) -> tuple[Tensor, Tensor]:
    """The kept channels and the others, where the kept ones are the first or the last."""
    if keep == "first":
        return x[..., :kept_channels, :, :], x[..., kept_channels:, :, :]
    return x[..., -kept_channels:, :, :], x[..., :-kept_channels, :, :]


def join_kept(kept: Tensor, changed: Tensor, *, keep: str) -> Tensor:
    """The inverse of :func:`split_kept`."""
    return torch.cat([kept, changed] if keep == "first" else [changed, kept], -3)
