"""What an image is under a model: its latents, coarse to fine, and the terms that its log-likelihood is the sum of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from flowsr._support.shapes import sum_event
from flowsr.distributions import DiscretizedNormal, normal_log_prob
from flowsr.images import check_image
from flowsr.transforms import Compose, Multiscale, MultiscaleEncoding


@dataclass(frozen=True)
class Latents:
    """What an image is under a model of images given their LR image.

    Attributes:
        lr: the LR image, ``(*batch, C, H/s, W/s)``: the flow's own, which is close to the bicubic one after training
            (HCFlow, IRN), or the one that was given (SRFlow).
        z: latents, coarsest level first.
        ladj: ``log|det ∂(lr, z)/∂hr|`` in nats, of the batch's shape; for SRFlow ``log|det ∂z/∂hr|``.
        size: height and width of the image before padding.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageLatents:
    """What an image is under a model of images alone.

    Attributes:
        z: latents, coarsest level first.
        ladj: ``log|det ∂z/∂hr|`` in nats, of the batch's shape.
        size: height and width of the image before padding.
    """

    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


def check_num_samples(num_samples: int) -> None:
    """Raise ValueError unless this is a number of draws."""
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples < 1:
        raise ValueError(f"expected an integer num_samples >= 1; got {num_samples!r}")


def check_latents(z: Sequence[Tensor], shapes: Sequence[torch.Size], *, batch: Sequence[int]) -> None:
    """Raise ValueError unless latents have these event shapes and one batch, which ends in ``batch``."""
    for latent in z:
        check_image(latent, name="z", tolerance=None)
    got = [tuple(latent.shape) for latent in z]
    batches = {shape[:-3] for shape in got}
    own = tuple(batch)
    fits = len(batches) == 1 and next(iter(batches))[len(next(iter(batches))) - len(own) :] == own
    if [shape[-3:] for shape in got] != [tuple(shape) for shape in shapes] or not fits:
        raise ValueError(
            f"expected z to be latents of event shapes {[tuple(s) for s in shapes]}, coarsest first, with a batch "
            f"that ends in that of lr, {own}; got shapes {got}"
        )


TermKind = Literal["lr", "latent", "main", "conditional", "head", "preprocessing", "dequantization"]

LRLikelihood = Literal["density", "mass"]

_NAMES: dict[str, str] = {
    "lr": "LR image",
    "latent": "latent z_{}",
    "main": "main flow {}",
    "conditional": "conditional steps {}",
    "head": "{family} head {}",
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
        family: of the distribution that a head gives what the steps leave.

    Example:
        >>> Term("latent", torch.zeros(()), level=2).name
        'latent z_2'
    """

    kind: TermKind
    value: Tensor
    level: int | None = None
    family: str = "Gaussian"

    @property
    def name(self) -> str:
        """What the term is called in tables."""
        return _NAMES[self.kind].format("" if self.level is None else self.level, family=self.family).strip(" _")


@runtime_checkable
class HasTerms(Protocol):
    """A model that can say what its log-likelihood consists of."""

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``, or of ``log p(hr)`` for a model without LR image. Cost: one encoding."""
        ...


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


def multiscale_terms(transform: Multiscale, encoding: MultiscaleEncoding) -> tuple[Term, ...]:
    """The terms of a multiscale flow: latents, then log-determinants of main flows and Gaussian heads, by level."""
    latents = [
        Term("latent", sum_event(normal_log_prob(z)), level)
        for level, z in zip(transform.latent_levels, encoding.z, strict=True)
    ]
    levels = range(len(encoding.ladj_main), 0, -1)
    mains = [Term("main", value, level) for level, value in zip(levels, encoding.ladj_main, strict=True)]
    heads = [
        Term("head", value, level)
        for level, value, head in zip(levels, encoding.ladj_head, reversed(transform.heads), strict=True)
        if not (isinstance(head, Compose) and not len(head.parts))  # levels that factor nothing out have none
    ]
    return (*latents, *mains, *heads)


def multiscale_noise(transform: Multiscale, encoding: MultiscaleEncoding) -> dict[str, Tensor]:
    """The latents of a multiscale flow by name, coarsest first."""
    return {f"z_{level}": z for level, z in zip(transform.latent_levels, encoding.z, strict=True)}


def pooled(features: Tensor) -> Tensor:
    """Mean and standard deviation over space of features ``(*batch, F, h, w)``: ``(*batch, 2·F)``."""
    return torch.cat([features.mean((-2, -1)), features.std((-2, -1), correction=0)], -1)
