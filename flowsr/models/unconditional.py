"""What models of images alone share: Glow and RealNVP are multiscale flows with a standard normal latent."""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr._support.shapes import size_text
from flowsr.distributions import FlowDistribution, PackedNormal, Temperature, packed_standard_normal
from flowsr.images import check_image, crop_to, pad_to_multiple
from flowsr.models.capabilities import Capability
from flowsr.models.image_model import ImageModel, distribution_of
from flowsr.models.latents import (
    ImageLatents,
    LRLikelihood,
    Term,
    check_latents,
    check_num_samples,
    multiscale_noise,
    multiscale_terms,
)
from flowsr.transforms import Multiscale


class UnconditionalModel(ImageModel):
    """Base of the models of images alone, ``p(x) = Π_l N(z_l; 0, 1) · |det ∂z/∂x|``."""

    transform: Multiscale
    calls = "flow.sample((height, width)) for images, flow.log_prob(hr) for their density, or flow.encode(hr)"
    instead: ClassVar[dict[str, str]] = {
        "condition": "flow.distribution((height, width)), as this is a density of images alone, without LR images",
    }

    @property
    def capabilities(self) -> frozenset[Capability]:
        """A density of images alone."""
        return frozenset({Capability.DENSITY})

    @property
    def multiple(self) -> int:
        """What height and width of an image must be multiples of."""
        return self.transform.scale

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an image of this height and width."""
        if height < 1 or width < 1 or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"expected a size of multiples of {self.multiple}; got {size_text((height, width))}: pad an image with "
                "flowsr.images.pad_to_multiple, or encode with pad=True"
            )
        return self.transform.latent_shapes(height // self.transform.scale, width // self.transform.scale)

    def encode(self, hr: Float[Tensor, "*batch channels height width"], *, pad: bool = False) -> ImageLatents:
        """Latents of an image, with the log-determinant.

        Cost: one pass through the flow.

        Args:
            hr: image, in [0, 1] if it is one (points are not).
            pad: pad sides that are not multiples of ``multiple`` at the bottom and the right by reflection;
                :meth:`decode` crops back. The log-determinant is then that of the padded image.

        Raises:
            ValueError: on wrong shape, dtype or values.
        """
        self._check_image(hr)
        size = (hr.shape[-2], hr.shape[-1])
        if pad:
            hr = pad_to_multiple(hr, self.multiple)[0]
        self.latent_shapes(*hr.shape[-2:])
        encoding = self.transform.encode(hr.to(self.dtype))
        return ImageLatents(encoding.z, encoding.ladj, size)

    def decode(self, z: ImageLatents | Sequence[Tensor]) -> Tensor:
        """Image from latents, the exact inverse of :meth:`encode`.

        Cost: one pass through the flow.

        Args:
            z: latents, coarsest first, or the result of :meth:`encode`, which is cropped back to its size.

        Returns:
            Image ``(*batch, C, H, W)``, not clamped.

        Raises:
            ValueError: on wrong shapes, dtype or values.
        """
        if isinstance(z, ImageLatents):
            return crop_to(self.decode(z.z), z.size)
        z = list(z)
        size = z[0].shape[-2:] if z and z[0].dim() >= 3 else (1, 1)
        check_latents(z, self.transform.latent_shapes(*size), batch=())
        return self.transform.decode([latent.to(self.dtype) for latent in z])[0]

    def distribution(self, size: tuple[int, int], *, temperature: Temperature = 1.0) -> FlowDistribution:
        """The model as a Pyro distribution over images of a size.

        Cost: nothing until it is sampled or scored.

        Args:
            size: height and width of the images.
            temperature: τ ≥ 0 of the latents, global or, as a tuple, per level, coarse to fine; τ = 1 is the model. A
                tensor keeps its gradient, and its shape becomes the distribution's batch.

        Returns:
            Distribution with ``batch_shape = ()``, or that of the temperature, and ``event_shape = (C, H, W)``.

        Raises:
            ValueError: for a size that does not fit; from ``log_prob`` where there is no density.
        """
        shapes = self.latent_shapes(*size)
        like = next(self.parameters()).new_zeros(1, 1, 1)
        base = packed_standard_normal(
            like,
            latent_channels=[
                channels * factor**2
                for channels, factor in zip(self.transform.latent_channels, self.transform.factors, strict=True)
            ],
            size=(shapes[0][-2], shapes[0][-1]),
            temperature=temperature,
        )
        return distribution_of(self, base, self.transform)

    def log_prob(self, hr: Float[Tensor, "*batch channels height width"]) -> Float[Tensor, "*batch"]:
        """Log-density of images in nats. Cost: one pass through the flow."""
        self._check_image(hr)
        return self.distribution((hr.shape[-2], hr.shape[-1])).log_prob(hr)

    def draw_latents(
        self,
        size: tuple[int, int],
        *,
        sample_shape: Sequence[int] = (),
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Draw latents for images of a size, ``z_l ~ N(0, τ_l²)``, coarsest first, for :meth:`decode`."""
        base = cast(PackedNormal, self.distribution(size, temperature=temperature).base_dist)
        return self.transform.unpack(base.rsample(sample_shape, generator=generator))

    def sample(
        self,
        size: tuple[int, int],
        *,
        num_samples: int = 1,
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "num_samples channels height width"]:
        """Draw images of a size.

        Draw k of a seed is the same image however many are asked for, and from :meth:`distribution` too.

        Cost: one decoding pass for all draws together; memory grows with their number.

        Args:
            size: height and width.
            num_samples: number of draws.
            temperature: τ ≥ 0 of the latents, global or per level, coarse to fine.
            generator: source of randomness; the global one by default.

        Returns:
            Images ``(num_samples, C, H, W)``, not clamped.

        Raises:
            ValueError: for a size that does not fit, fewer than one draw, or a negative temperature.
        """
        check_num_samples(num_samples)
        z = self.draw_latents(size, sample_shape=(num_samples,), temperature=temperature, generator=generator)
        return self.transform.decode(z)[0]

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr)``, see :func:`flowsr.likelihood.decompose`; there is no LR image in this model."""
        self._refuse_lr(hr, lr)
        return multiscale_terms(self.transform, self.transform.encode(hr.to(self.dtype)))

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float | None = None) -> dict[str, Tensor]:
        """The latents an image would be made from: standard normal under the model, by name. Cost: one pass."""
        self._refuse_lr(hr, lr)
        return multiscale_noise(self.transform, self.transform.encode(hr.to(self.dtype)))

    def _refuse_lr(self, hr: Tensor, lr: Tensor | None) -> None:
        self._check_image(hr)
        if lr is not None:
            raise ValueError("expected no LR image, as this model is a density of images alone; got one")

    def _check_image(self, hr: Tensor) -> None:
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=16.0)
