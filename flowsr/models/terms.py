"""The terms that a log-likelihood is the sum of, as models name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from flowsr._shapes import sum_event
from flowsr.distributions import DiscretizedNormal, normal_log_prob
from flowsr.transforms import Multiscale, MultiscaleEncoding

TermKind = Literal["lr", "latent", "main", "conditional", "head", "preprocessing", "dequantization"]

LRLikelihood = Literal["density", "mass"]

_NAMES: dict[str, str] = {
    "lr": "LR image",
    "latent": "latent z_{}",
    "main": "main flow {}",
    "conditional": "conditional steps {}",
    "head": "Gaussian head {}",
    "preprocessing": "preprocessing",
    "dequantization": "dequantization",
}


@dataclass(frozen=True)
class Term:
    """One term of a log-likelihood.

    Args:
        kind: lr (log-density of the LR image), latent (of a latent), main, conditional, head, preprocessing
            (log-determinants of parts of the flow), dequantization (minus the log-density of the noise).
        value: in nats, ``(*batch)``; within :func:`flowsr.transforms.per_pixel` a map ``(*batch, h, w)``.
        level: number of the level, 1 the finest, as in the paper; None where levels have no meaning.

    Example:
        >>> Term("latent", torch.zeros(()), level=2).name
        'latent z_2'
    """

    kind: TermKind
    value: Tensor
    level: int | None = None

    @property
    def name(self) -> str:
        """What the term is called in tables."""
        return _NAMES[self.kind].format(self.level)


@runtime_checkable
class HasTerms(Protocol):
    """A model that can say what its log-likelihood consists of."""

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float = -6.0,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``, or of ``log p(hr)`` for a model without LR image. Cost: one encoding."""
        ...


def latent_terms(z: Sequence[Tensor]) -> list[Tensor]:
    """``log N(z_l; 0, 1)`` of each latent, in nats."""
    return [sum_event(normal_log_prob(latent)) for latent in z]


def level_terms(parts: Mapping[TermKind, Sequence[Tensor]]) -> tuple[Term, ...]:
    """Terms from the values of each kind, coarse to fine, numbered so that the finest level is 1."""
    return tuple(Term(kind, value, len(values) - i) for kind, values in parts.items() for i, value in enumerate(values))


def multiscale_terms(flow: Multiscale, encoding: MultiscaleEncoding) -> tuple[Term, ...]:
    """The terms of a multiscale flow with standard normal latents, from what it has found in an image."""
    terms = level_terms({"latent": latent_terms(encoding.z), "main": encoding.ladj_main, "head": encoding.ladj_head})
    # A level without a head, such as the coarsest one, has no term for it.
    without = {number for number, head in enumerate(flow.heads, start=1) if not any(True for _ in head.parameters())}
    return tuple(term for term in terms if term.kind != "head" or term.level not in without)


def lr_term(y: Tensor, lr: Tensor, *, log_scale: float | Tensor, likelihood: LRLikelihood = "density") -> Term:
    """The term of the LR image: the density of ``N(lr, σ²)`` at y, or its mass on the grey level that y falls into.

    Args:
        y: the flow's LR image, ``(*batch, C, h, w)``.
        lr: the LR image given, in [0, 1].
        log_scale: log σ.
        likelihood: "density" or "mass".

    Raises:
        ValueError: for another likelihood.
    """
    if likelihood == "density":
        return Term("lr", sum_event(normal_log_prob(y - lr, log_scale=log_scale)))
    if likelihood == "mass":
        scale = torch.as_tensor(log_scale, dtype=y.dtype, device=y.device).exp()
        levels = DiscretizedNormal(lr.expand_as(y), scale)
        return Term("lr", sum_event(levels.log_prob((y.clamp(0, 1) * 255).round() / 255)))
    raise ValueError(f"expected lr_likelihood to be density or mass; got {likelihood!r}")
