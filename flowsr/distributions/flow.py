"""A distribution of images from a base and transforms, scored in one pass."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from flowsr._support.shapes import add_ladj
from flowsr.distributions.packed_normal import PackedNormal
from flowsr.transforms import ImageTransform


class FlowDistribution(dist.TransformedDistribution):
    """Distribution of ``x = transforms(z)``, ``z ~ base``; ``log p(x) = log p_base(z) + log|det ∂z/∂x|``.

    Pyro's own ``TransformedDistribution.log_prob`` runs every conditioner twice without a cache; this one runs each
    once. Everything else (plates, ``expand``, ``TransformReparam``) is inherited.

    Cost: one encoding pass for ``log_prob``, one decoding pass for samples with or without their density.

    Args:
        base_distribution: distribution of latents with event dimension 3; any of them, another flow too.
        transforms: list of transforms, the one next to the latent first: :class:`flowsr.transforms.ImageTransform`, and
            torch's own. Values take the dtype and the device of each transform's weights.

    Attributes:
        model: name of the model that it is the posterior of, for ``repr``; empty for none.

    Raises:
        ValueError: if a value does not fit the event shape.

    References:
        Papamakarios et al. (JMLR 2021), section 2.1, equation 3.

    Example:
        >>> from flowsr.transforms import Haar
        >>> base = dist.Normal(torch.zeros(12, 2, 2), 1.0).to_event(3)
        >>> images = FlowDistribution(base, [Haar()])
        >>> x, log_prob = images.rsample_and_log_prob((5,))
        >>> torch.allclose(images.log_prob(x), log_prob, atol=1e-4)
        True
    """

    model: str = ""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, ``(*sample, *batch)``. Cost: one encoding pass."""
        self._check(value)
        terms: list[Tensor] = []
        event_dim = len(self.event_shape)
        for transform in reversed(self.transforms):
            value, ladj = _encode(transform, value)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            terms.append(_sum(ladj, event_dim - transform.domain.event_dim))
        return add_ladj((self.base_dist.log_prob(value), *terms))

    def rsample_and_log_prob(self, sample_shape: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Reparametrized samples and their log-density. Cost: one decoding pass for both."""
        if isinstance(self.base_dist, FlowDistribution):
            x, total = self.base_dist.rsample_and_log_prob(sample_shape)
        else:
            x = self.base_dist.rsample(torch.Size(sample_shape))
            total = self.base_dist.log_prob(x)
        event_dim = len(self.base_dist.event_shape)
        for transform in self.transforms:
            x, ladj = _decode(transform, x)
            total = add_ladj((total, -_sum(ladj, event_dim - transform.domain.event_dim)))
            event_dim += transform.codomain.event_dim - transform.domain.event_dim
        return x, total

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "FlowDistribution":
        wide = super().expand(torch.Size(batch_shape), _instance)
        wide.model = self.model
        return wide

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        if isinstance(self.base_dist, PackedNormal):
            return f"{self.model or 'FlowDistribution'}({shapes}, {self.base_dist.widths_text()})"
        transforms = ", ".join(type(transform).__name__ for transform in self.transforms)
        return f"FlowDistribution({shapes}, base={type(self.base_dist).__name__}, transforms=[{transforms}])"

    def _check(self, value: Tensor) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"expected a floating point image in [0, 1]; got {kind}: divide 8-bit images by 255")
        batch, event = value.shape[: -len(self.event_shape)], value.shape[-len(self.event_shape) :]
        if event != self.event_shape:
            raise ValueError(
                f"expected an image of event shape {tuple(self.event_shape)}; got shape {tuple(value.shape)}"
            )
        try:
            torch.broadcast_shapes(batch, self.batch_shape)
        except RuntimeError:
            raise ValueError(
                f"expected images whose batch broadcasts with batch_shape {tuple(self.batch_shape)}; got {tuple(batch)}"
            ) from None


def _sum(ladj: Tensor, dims: int) -> Tensor:
    # An elementwise transform of torch's gives a log-determinant for each element.
    return ladj.sum(tuple(range(-dims, 0))) if dims else ladj


def _encode(transform: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(transform, ImageTransform):
        return transform.inv_call_and_ladj(transform.as_weights(x))
    z = transform.inv(x)
    return z, -transform.log_abs_det_jacobian(z, x)


def _decode(transform: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(transform, ImageTransform):
        return transform.call_and_ladj(transform.as_weights(z))
    x = transform(z)
    return x, transform.log_abs_det_jacobian(z, x)
