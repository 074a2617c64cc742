"""The Metropolis-adjusted Langevin kernel: one gradient step with noise, corrected by a Metropolis test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro.ops.integrator import potential_grad
from torch import Tensor

from flowsr.posterior.adaptive_kernel import AdaptiveKernel


class Langevin(AdaptiveKernel):
    """MALA: propose ``u' = u − (ε²/2)·∇U(u) + ε·ξ``, ``ξ ~ N(0, I)``; accept by Metropolis and Hastings.

    HMC with one leapfrog step. Its step must be as small as the narrowest direction of the posterior, and the number of
    steps to cross the widest grows with the square of the ratio.

    Cost: one evaluation of the program with its gradient per proposal.

    Args:
        model: a Pyro program.
        step_size: ε > 0 to start from.
        target_accept: acceptance probability to adapt ε to while warming up.
        adapt_step_size: whether to adapt.
        num_steps: proposals per draw.

    Raises:
        ValueError: for parameters out of range.

    References:
        Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations
        (Bernoulli 1996), section 1.4; Roberts and Rosenthal (JRSS B 1998) for the acceptance of 0.574.

    Example:
        >>> from pyro.infer import MCMC
        >>> import pyro.distributions as dist
        >>> model = lambda: pyro.sample("u", dist.Normal(torch.ones(2), 2.0).to_event(1))
        >>> mcmc = MCMC(Langevin(model, num_steps=5), num_samples=500, warmup_steps=200, disable_progbar=True)
        >>> mcmc.run()
        >>> bool((mcmc.get_samples()["u"].mean(0) - 1).abs().max() < 0.6)
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 0.1,
        target_accept: float = 0.574,
        adapt_step_size: bool = True,
        num_steps: int = 1,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            target_accept=target_accept,
            adapt_step_size=adapt_step_size,
            num_steps=num_steps,
        )

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self._here = self._slope(self.initial_params)
        if not math.isfinite(self._here[1]):
            raise ValueError("expected a finite density at the start of the chain; got another: start elsewhere")

    def propose(self, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        gradient, energy = self._here
        step = self.step_size
        noise = {key: torch.randn_like(u) for key, u in params.items()}
        proposal = {key: u - 0.5 * step**2 * gradient[key] + step * noise[key] for key, u in params.items()}
        self._there = self._slope(proposal)
        back, proposed_energy = self._there
        log_ratio = energy - proposed_energy
        for key, u in params.items():
            # The noise that would lead back, minus the noise that led here.
            returning = (u - proposal[key] + 0.5 * step**2 * back[key]) / step
            log_ratio += 0.5 * float((noise[key].double().square() - returning.double().square()).sum())
        return proposal, log_ratio

    def accept(self) -> None:
        self._here = self._there

    def _slope(self, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        gradient, energy = potential_grad(self.potential, {key: u.detach().clone() for key, u in params.items()})
        return gradient, float(energy)
