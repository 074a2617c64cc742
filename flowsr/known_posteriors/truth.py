"""A posterior whose truth is known: the inverse problem, and what exact methods or long chains say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowsr.posterior import Gaussian, InverseProblem

ExactDraws = Callable[[int, int], Tensor]
"""From a number n and a seed to n independent images of the posterior, ``(n, C, H, W)``."""

RHAT_OF_REFERENCE = 1.005
"""Largest R-hat of chains that count as a reference."""


@dataclass(frozen=True)
class Reference:
    """What is known of a posterior of images.

    Attributes:
        how: it is known: "closed form", "quadrature", or by which chains.
        mean: ``(C, H, W)`` in float64.
        std: standard deviation of each pixel, likewise.
        log_evidence: ``log p(observation | lr)`` in nats; None where it is not known.
        exact: independent draws, as many as one likes; None where there are none.
        kept: some draws ``(n, C, H, W)`` of chains, thinned; None without.
        mean_error: root mean square of the Monte Carlo errors of the mean, in units of the posterior's std; 0 if exact.
        std_error: of the std, relative to it, likewise.
        rhat: the largest R-hat of the chains; 1 if exact.
    """

    how: str
    mean: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    log_evidence: float | None = None
    exact: ExactDraws | None = field(default=None, repr=False)
    kept: Tensor | None = field(default=None, repr=False)
    mean_error: float = 0.0
    std_error: float = 0.0
    rhat: float = 1.0

    @property
    def attained(self) -> bool:
        """Whether its chains agree well enough for a reference; True if it is exact."""
        return self.rhat < RHAT_OF_REFERENCE

    def images(self, num_samples: int, seed: int) -> Tensor | None:
        """Draws to compare with, ``(n, C, H, W)``: fresh exact ones, or those kept, whose number is fixed."""
        if self.exact is not None:
            return self.exact(num_samples, seed)
        return self.kept

    def standardized(self, images: Tensor) -> Tensor:
        """Images ``(*batch, C, H, W)`` as ``(*batch, D)``: each pixel less its mean, in units of its std, float64."""
        return ((images.double().cpu() - self.mean) / self.std).flatten(-3)


@dataclass(frozen=True)
class LinearMoments:
    """What makes a linear-Gaussian problem one: all moments, of flattened images.

    Attributes:
        prior: ``p(hr | lr)``.
        matrix: of the operator, ``(K, D)``.
        posterior: ``p(hr | lr, observation)``.
    """

    prior: Gaussian
    matrix: Tensor = field(repr=False)
    posterior: Gaussian


@dataclass(frozen=True)
class KnownPosterior:
    """An inverse problem and its known posterior: what samplers are compared on.

    Attributes:
        name: for tables and the command line.
        about: the problem in a few words.
        problem: what a sampler may ask; its passes are counted, see :class:`flowsr.known_posteriors.Budget`.
        reference: the truth.
        moments: of a linear-Gaussian problem; None of others.
        mode_of: number of the mode that each image ``(n, C, H, W)`` belongs to, where there are several; else None.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known = known_posterior("linear deblurring")
        >>> known.problem.dims, known.reference.how
        (64, 'closed form')
    """

    name: str
    about: str
    problem: InverseProblem = field(repr=False)
    reference: Reference
    moments: LinearMoments | None = field(default=None, repr=False)
    mode_of: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of whitened vectors ``(n, dims)``, in batches."""
        batch = self.problem.batch(64, gradients=False)
        return torch.cat([self.problem.decode(part.to(self.problem.lr)).cpu() for part in latents.split(batch)])
