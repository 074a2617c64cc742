"""What chains sample: the energy of latents in coordinates, and its slope, for many chains at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates

LogLikelihood = Callable[[Tensor], Tensor]
"""Of latents ``(n, dims)``: n values in nats; what is not finite is impossible."""


def in_parts(function: LogLikelihood, u: Tensor, batch: int | None) -> Tensor:
    """What a function gives of vectors ``(n, dims)``, asked for so many of them at once; for all without a number."""
    return torch.cat([function(part) for part in u.split(batch or len(u))])


class Target:
    """The energy ``U(u) = |u|²/2 − β·ℓ(u)`` of latents with prior N(0, I), in coordinates v.

    Cost: an evaluation of the likelihood per chain, in one batch or, above ``batch`` chains, in several.

    Args:
        log_likelihood: ℓ, of latents ``(n, dims)``.
        coordinates: of the chains.
        exponent: β in [0, 1], 1 for the posterior and 0 for the prior.
        batch: most chains to evaluate together; all by default.

    Attributes:
        evaluations: how often the likelihood of a chain was asked for.

    Example:
        >>> target = Target(lambda u: -u.square().sum(-1), Coordinates.standard(torch.zeros(2)))
        >>> energy, slope = target.slope(torch.ones(3, 2))
        >>> energy.tolist(), slope[0].tolist()
        ([3.0, 3.0, 3.0], [3.0, 3.0])
    """

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        coordinates: Coordinates,
        *,
        exponent: float = 1.0,
        batch: int | None = None,
    ) -> None:
        self.log_likelihood, self.coordinates = log_likelihood, coordinates
        self.exponent, self.batch, self.evaluations = exponent, batch, 0

    def energy(self, v: Tensor) -> Tensor:
        """U of each chain, ``(chains,)`` in float64; infinite where the likelihood is not finite."""
        with torch.no_grad():
            return in_parts(self._energy, v, self.batch)

    def slope(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """U and its gradient with respect to v, ``(chains,)`` and ``(chains, dims)``; zero where U is infinite."""
        energies, slopes = zip(*map(self._slope, v.split(self.batch or len(v))), strict=True)
        return torch.cat(energies), torch.cat(slopes)

    def _slope(self, v: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = v.detach().requires_grad_()
            energy = self._energy(leaf)
            usable = energy.isfinite()
            (slope,) = torch.autograd.grad(torch.where(usable, energy, 0.0).sum(), leaf)
        return energy.detach(), torch.where(usable[:, None] & slope.isfinite(), slope, 0.0)

    def _energy(self, v: Tensor) -> Tensor:
        self.evaluations += len(v)
        u = self.coordinates.to_latents(v)
        energy = 0.5 * u.double().square().sum(-1)
        if self.exponent:
            energy = energy - self.exponent * self.log_likelihood(u).double()
        return torch.where(energy.isfinite(), energy, math.inf)
