"""What an image holds beyond the next coarser one, made a latent: given its features (HCFlow), or as it is (IRN)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowsr._support.shapes import check_image_shape, constant_ladj
from flowsr.nn import RRDBEncoder, ZeroConv2d, upsample_nearest
from flowsr.transforms.base import ImageTransform, SameShapeTransform
from flowsr.transforms.compose import Compose
from flowsr.transforms.coupling import ConditionalAffine
from flowsr.transforms.elementwise import AffineMap, ElementwiseMap


class ConditionalLevel(SameShapeTransform):
    """Conditional flow with its own features: encoding is features, conditional steps, head.

    With features ``u = encoder(context)`` encoding maps the details ``a`` of a level to a standard normal latent,
    ``z = head(steps(a; u); u)``, by default the Gaussian head ``(steps(a; u) − mean(u))·exp(−logs(u))``.

    Cost: the encoder once, then one conditioner per step.

    Args:
        channels: channels of the details ``a``.
        encoder: network from the stacked images of this and the coarser levels to features.
        steps: conditional transforms, the one next to the latent first, as in :class:`Compose`.
        head: elementwise map whose parameters a convolution reads off the features; a Gaussian head by default.
        prior: a further affine map of the latent given the features; None for a standard normal latent behind the head.

    Raises:
        ValueError: on wrong channels, or a context that is missing or does not fit.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> encoder = RRDBEncoder(3, channels=4, growth=2, blocks=(1, 1), stack_trunks=True)
        >>> level = ConditionalLevel(9, encoder=encoder, steps=[])
        >>> level.inv_call_and_ladj(torch.zeros(2, 9, 4, 4), torch.zeros(2, 3, 4, 4))[0].shape
        torch.Size([2, 9, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        *,
        encoder: RRDBEncoder,
        steps: Iterable[ImageTransform],
        head: ElementwiseMap | None = None,
        prior: ConditionalAffine | None = None,
    ) -> None:
        super().__init__(channels)
        self.encoder = encoder
        self.steps = Compose(steps)
        if head is None:
            head = AffineMap(form="standardize", log_scale="exp")
        self.head = ConditionalAffine(
            channels,
            ZeroConv2d(encoder.out_channels, head.params_per_channel * channels),
            map=head,
            context_channels=encoder.out_channels,
        )
        self.prior = prior

    @property
    def family(self) -> str:
        """What distribution the head gives what the steps leave, in words: Gaussian, sinh-arcsinh."""
        return self.head.map.family

    def features(self, context: Tensor | None) -> Tensor:
        """Features of the stacked context, ``(*batch, in, h, w) -> (*batch, out, h, w)``. Cost: the encoder."""
        if context is None:
            raise ValueError(f"expected a context of {self.encoder.in_channels} channels; got none")
        check_image_shape(context.shape, channels=self.encoder.in_channels, name="the context of ConditionalLevel")
        return self.encoder(context)

    def call_and_ladj(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.call_with_features(z, self.features(context))

    def inv_call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, steps_ladj, head_ladj = self.inv_call_with_features(x, self.features(context))
        return z, steps_ladj + head_ladj

    def call_with_features(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Generate the details from latent and features: ``(a, ladj)``."""
        prior_ladj = constant_ladj(z, 0.0)
        if self.prior is not None:
            z, prior_ladj = self.prior.call_and_ladj(z, features)
        a, head_ladj = self.head.call_and_ladj(z, features)
        a, steps_ladj = self.steps.call_and_ladj(a, features)
        return a, prior_ladj + head_ladj + steps_ladj

    def inv_call_with_features(self, a: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the details given features: ``(z, ladj of the steps, ladj of head and prior)``."""
        a, steps_ladj = self.steps.inv_call_and_ladj(a, features)
        z, head_ladj = self.head.inv_call_and_ladj(a, features)
        if self.prior is not None:
            z, prior_ladj = self.prior.inv_call_and_ladj(z, features)
            head_ladj = head_ladj + prior_ladj
        return z, steps_ladj, head_ladj


def stack_context(image: Tensor, coarser: Sequence[Tensor]) -> Tensor:
    """The encoder's input: ``[image, up2(u₁), up4(u₂), …]`` with nearest-neighbour upsampling, nearest level first.

    Args:
        image: what the level keeps, ``(*batch, C, h, w)``.
        coarser: features of the coarser levels, nearest first; their batch may be a trailing part of the image's.
    """
    parts = [image]
    for distance, features in enumerate(coarser, start=1):
        upsampled = upsample_nearest(features, 2**distance)
        parts.append(upsampled.expand(*image.shape[:-3], *upsampled.shape[-3:]))
    return torch.cat(parts, -3)


class UnconditionalLevel(SameShapeTransform):
    """The identity in the place of a :class:`ConditionalLevel`: ``z = a``, ``ladj = 0``.

    With it a hierarchy says that the details do not depend on the LR image, as IRN does.

    Cost: none.

    Args:
        channels: channels of the details.

    References:
        Xiao et al., IRN (ECCV 2020), section 3.1: the case-agnostic latent.

    Example:
        >>> UnconditionalLevel(9)(torch.ones(9, 2, 2)).mean().item()
        1.0
    """

    def features(self, context: Tensor) -> Tensor:
        """No features: the first zero channels of the context."""
        return context[..., :0, :, :]

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return z, constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.call_and_ladj(x)

    def call_with_features(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`ConditionalLevel.call_with_features`; the features are not looked at."""
        return self.call_and_ladj(z)

    def inv_call_with_features(self, a: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`ConditionalLevel.inv_call_with_features`, with two log-determinants of zero."""
        z, ladj = self.call_and_ladj(a)
        return z, ladj, ladj
