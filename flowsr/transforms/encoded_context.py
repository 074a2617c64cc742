"""A flow conditioned on an image: an encoder turns the image into the features that the flow works with."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from flowsr._support.shapes import check_image_shape, size_text
from flowsr.transforms.base import ImageTransform
from flowsr.transforms.multiscale import Multiscale


class EncodedContext(ImageTransform):
    """``transform(z; encoder(lr))``: a multiscale flow whose context is an LR image.

    The batches of the LR image and of what is transformed broadcast with each other: many LR images for one HR image,
    as in a mixture over them, give a log-determinant for each.

    Cost: the encoder, then the transform. A batch of draws for one LR image shares its features.

    Args:
        encoder: module from an LR image to the features of each level, finest first.
        transform: the flow that takes these features.
        upscale: the factor between LR and HR image.

    Raises:
        ValueError: for a context that is missing, or is not the LR image of an image of this size.

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 3.2; Winkler et al., arXiv 1912.00042, section 3.

    Example:
        >>> import flowsr
        >>> flow = flowsr.SRFlow.from_preset("srflow-x4-small").transform
        >>> flow.call_and_ladj(torch.zeros(192, 2, 3), torch.rand(3, 4, 6))[0].shape
        torch.Size([3, 16, 24])
    """

    def __init__(self, encoder: nn.Module, transform: Multiscale, *, upscale: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.transform = transform
        self.upscale = upscale

    @property
    def codomain(self) -> Any:
        """What the flow gives."""
        return self.transform.codomain

    def features(self, lr: Tensor) -> Sequence[Tensor]:
        """Features of an LR image for each level, finest first. Cost: the encoder."""
        return cast("Sequence[Tensor]", self.encoder(lr))

    def call_and_ladj(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lr, batch = self._check(self.forward_shape(z.shape), context)
        return self.transform.call_and_ladj(z.expand(*batch, *z.shape[-3:]), self.features(lr.to(z)))

    def inv_call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        lr, batch = self._check(x.shape, context)
        return self.transform.inv_call_and_ladj(x.expand(*batch, *x.shape[-3:]), self.features(lr.to(x)))

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.forward_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.inverse_shape(shape)

    def _check(self, hr: torch.Size, lr: Tensor | None) -> tuple[Tensor, torch.Size]:
        """The LR image, and the batch that it makes with that of the HR image or latent."""
        if lr is None:
            raise ValueError("expected an LR image as the context; got none")
        check_image_shape(lr.shape, channels=self.transform.image_channels, name="the LR image")
        size = tuple(side // self.upscale for side in hr[-2:])
        if tuple(lr.shape[-2:]) != size:
            raise ValueError(f"expected an lr of {size_text(size)} for this hr; got {size_text(lr.shape[-2:])}")
        try:
            return lr, torch.broadcast_shapes(hr[:-3], lr.shape[:-3])
        except RuntimeError:
            raise ValueError(
                f"expected an lr whose batch broadcasts with that of hr, {tuple(hr[:-3])}; got {tuple(lr.shape[:-3])}"
            ) from None

    def extra_repr(self) -> str:
        return f"upscale={self.upscale}"
