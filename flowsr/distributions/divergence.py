"""Divergence between flows: exact where they share their transforms, else by Monte Carlo, and saying so.

A bijection changes no Kullback–Leibler divergence, so that of two posteriors of one flow is the one of their normal
bases: this covers temperatures, σ and, where the LR image is a part of the latent, LR images.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from flowsr._support.shapes import sum_event
from flowsr.distributions.flow import FlowDistribution
from flowsr.distributions.packed_normal import PackedNormal, proper_scale
from flowsr.transforms.base import Conditioned

_DRAWS = 256


class Divergence(NamedTuple):
    """An estimate of a divergence in nats.

    Attributes:
        value: mean over draws, of the batch's shape.
        standard_error: of that mean.
    """

    value: Tensor
    standard_error: Tensor


def monte_carlo_kl(p: FlowDistribution, q: Any, *, num_samples: int = _DRAWS) -> Divergence:
    """Estimate ``KL(p ‖ q) = E_p[log p(x) − log q(x)]`` from draws of p, with its standard error.

    The draws are reparametrized, so that the estimate has gradients.

    Cost: per draw one decoding pass of p and one scoring of q; memory for one draw, but for gradients.

    Args:
        p: the distribution that is drawn from.
        q: a distribution of images of the same event shape.
        num_samples: draws, at least 2.

    Raises:
        ValueError: for other event shapes, or fewer than 2 draws.

    Example:
        >>> import flowsr
        >>> from torch.distributions import kl_divergence
        >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.full((3, 2, 2), 0.5)
        >>> p, q = flow.condition(lr, temperature=0.8), flow.condition(lr)
        >>> estimate = monte_carlo_kl(p, q, num_samples=50)
        >>> bool((estimate.value - kl_divergence(p, q)).abs() < 5 * estimate.standard_error)
        True
    """
    if p.event_shape != q.event_shape:
        raise ValueError(f"expected images of one shape; got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    if num_samples < 2:
        raise ValueError(f"expected num_samples >= 2; got {num_samples}")
    ratios = torch.stack([_log_ratio(p, q) for _ in range(num_samples)])
    return Divergence(ratios.mean(0), ratios.std(0) / num_samples**0.5)


def _log_ratio(p: FlowDistribution, q: Any) -> Tensor:
    x, log_p = p.rsample_and_log_prob()
    return log_p - q.log_prob(x)


@register_kl(PackedNormal, PackedNormal)
def _kl_packed(p: PackedNormal, q: PackedNormal) -> Tensor:
    """In closed form; infinite where a tensor among the arguments is no scale."""
    if p.event_shape != q.event_shape:
        raise ValueError(f"expected packed latents of one shape; got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    if not (p.has_density and q.has_density):
        raise ValueError(f"expected temperatures and σ > 0 to have a divergence; got {p} and {q}")
    proper = proper_scale(p.scale) & proper_scale(q.scale)
    a, b = (torch.where(proper, scale, 1.0) for scale in (p.scale, q.scale))
    ratio, shift = a / b, (p.mean - q.mean) / b
    terms = 0.5 * (ratio.square() + shift.square() - 1) - ratio.log()
    return sum_event(torch.where(proper, terms, torch.inf))


@register_kl(FlowDistribution, FlowDistribution)
def _kl_flows(p: FlowDistribution, q: FlowDistribution) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(f"expected images of one shape; got {tuple(p.event_shape)} and {tuple(q.event_shape)}")
    if len(p.transforms) == len(q.transforms) and all(map(_same, p.transforms, q.transforms)):
        try:
            return kl_divergence(p.base_dist, q.base_dist)
        except NotImplementedError:
            pass
    estimate = monte_carlo_kl(p, q)
    warnings.warn(
        f"this divergence has no closed form, as the flows or what they stand on differ: it is the mean of {_DRAWS} "
        f"draws, with a standard error of up to {float(estimate.standard_error.detach().max()):.2g} nats; call "
        "flowsr.distributions.monte_carlo_kl for another number of draws, and for the error",
        stacklevel=3,
    )
    return estimate.value


def _same(a: Any, b: Any) -> bool:
    """Whether two transforms are one map: the same object, or the same one conditioned on equal contexts."""
    if isinstance(a, Conditioned) and isinstance(b, Conditioned):
        return a.transform is b.transform and isinstance(a.context, Tensor) and _equal(a.context, b.context)
    return a is b or (not isinstance(a, torch.nn.Module) and a == b)


def _equal(a: Tensor, b: Any) -> bool:
    return isinstance(b, Tensor) and a.shape == b.shape and bool(torch.equal(a, b))
