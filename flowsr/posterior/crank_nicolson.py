"""The preconditioned Crank-Nicolson kernel: a random walk that leaves N(0, I) invariant, in any dimension."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from flowsr.posterior.adaptive_kernel import AdaptiveKernel


class CrankNicolson(AdaptiveKernel):
    """pCN: propose ``u' = √(1 − β²)·u + β·ξ``, ``ξ ~ N(0, I)``; accept by the likelihood alone.

    The proposal leaves the prior N(0, I) invariant, so that acceptance does not fall with the number of dimensions,
    only with how much the data say. It needs no gradient, and takes many small steps where HMC takes few long ones.

    Cost: one evaluation of the program without a gradient per proposal.

    Args:
        model: a Pyro program whose latent sites are all standard normal.
        step_size: β in (0, 1] to start from.
        target_accept: acceptance probability to adapt β to while warming up.
        adapt_step_size: whether to adapt.
        num_steps: proposals per draw.

    Raises:
        ValueError: for parameters out of range, or a program whose prior is not N(0, I).

    References:
        Cotter, Roberts, Stuart and White, MCMC methods for functions (Statistical Science 2013), section 4.2.

    Example:
        >>> from pyro.infer import MCMC
        >>> import pyro.distributions as dist
        >>> def model():
        ...     u = pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...     pyro.sample("b", dist.Normal(u, 1.0).to_event(1), obs=torch.ones(2))
        >>> mcmc = MCMC(CrankNicolson(model, num_steps=5), num_samples=500, warmup_steps=200, disable_progbar=True)
        >>> mcmc.run()
        >>> bool((mcmc.get_samples()["u"].mean(0) - 0.5).abs().max() < 0.2)
        True
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 0.1,
        target_accept: float = 0.3,
        adapt_step_size: bool = True,
        num_steps: int = 1,
    ) -> None:
        super().__init__(
            model,
            step_size=step_size,
            target_accept=target_accept,
            adapt_step_size=adapt_step_size,
            num_steps=num_steps,
            largest_step=1.0,
        )

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        super().setup(warmup_steps, *args, **kwargs)
        self._energy = self._misfit(self.initial_params)
        if not math.isfinite(self._energy):
            raise ValueError(
                f"expected a finite likelihood at the start of the chain; got {-self._energy}: start elsewhere"
            )

    def check_program(self, trace: Any) -> None:
        for name, site in trace.iter_stochastic_nodes():
            fn = site["fn"]
            base = fn.base_dist if isinstance(fn, dist.Independent) else fn
            normal = isinstance(base, dist.Normal)
            if not normal or bool((base.mean != 0).any()) or bool((base.stddev != 1).any()):
                raise ValueError(
                    f"expected a standard normal prior at every latent site; got {fn} at {name!r}: whiten the program, "
                    "or use HMC"
                )

    def propose(self, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        keep = math.sqrt(1.0 - self.step_size**2)
        proposal = {key: keep * u + self.step_size * torch.randn_like(u) for key, u in params.items()}
        self._proposed_energy = self._misfit(proposal)
        return proposal, self._energy - self._proposed_energy

    def accept(self) -> None:
        self._energy = self._proposed_energy

    @torch.no_grad()
    def _misfit(self, params: dict[str, Tensor]) -> float:
        # The potential less that of the prior: minus the log-likelihood, up to a constant.
        prior = sum(float(u.double().square().sum()) for u in params.values()) / 2
        return float(self.potential(params).double()) - prior
