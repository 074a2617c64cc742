"""Kernels that leave the posterior of latents invariant: pCN, a random walk for any dimension, and MALA."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.dual_averaging import DualAveraging
from pyro.ops.integrator import potential_grad
from torch import Tensor


class AdaptiveKernel(MCMCKernel):
    """What kernels with one step size share: set-up by Pyro, adaptation while warming up, counts of acceptance.

    A subclass defines :meth:`propose` and ``usual_accept``.

    Args:
        model: a Pyro program.
        step_size: to start from, > 0.
        target_accept: acceptance probability to adapt the step size to; by default ``usual_accept``.
        adapt_step_size: whether to adapt while warming up.
        num_steps: proposals per draw, at least 1: thinning that costs no memory.

    Attributes:
        usual_accept: the acceptance probability at which the kernel is known to do best.
        largest_step: of the step size, if it has a bound.

    Raises:
        ValueError: for numbers out of range.

    References:
        Hoffman and Gelman, The No-U-Turn Sampler (JMLR 2014), section 3.2, for the adaptation by dual averaging.

    Example:
        >>> class Prior(AdaptiveKernel):  # independent draws of the prior, all of which are accepted without data
        ...     def propose(self, params):
        ...         return {name: torch.randn_like(u) for name, u in params.items()}, 0.0
        >>> import pyro
        >>> from pyro.infer import MCMC
        >>> import pyro.distributions as dist
        >>> model = lambda: pyro.sample("u", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        >>> kernel = Prior(model, step_size=1.0, target_accept=0.5)
        >>> MCMC(kernel, num_samples=10, warmup_steps=5, disable_progbar=True).run()
        >>> kernel.diagnostics()["acceptance rate"]
        1.0
    """

    usual_accept: ClassVar[float]
    largest_step: ClassVar[float] = math.inf

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float = 0.1,
        target_accept: float | None = None,
        adapt_step_size: bool = True,
        num_steps: int = 1,
    ) -> None:
        if not (math.isfinite(step_size) and 0 < step_size <= self.largest_step):
            raise ValueError(f"expected a step_size in (0, {self.largest_step:g}]; got {step_size}")
        target_accept = self.usual_accept if target_accept is None else target_accept
        if not 0 < target_accept < 1:
            raise ValueError(f"expected target_accept in (0, 1); got {target_accept}")
        if num_steps < 1:
            raise ValueError(f"expected num_steps >= 1; got {num_steps}")
        self.model = model
        self.step_size = float(step_size)
        self.target_accept = target_accept
        self.adapt_step_size = adapt_step_size
        self.num_steps = num_steps
        self._initial_params: dict[str, Tensor] | None = None
        centre = math.log(min(self.largest_step, 10 * step_size))
        self._adapter = DualAveraging(prox_center=centre)  # pyright: ignore[reportArgumentType]
        self._warming = True
        self._accepted, self._proposed = 0.0, 0

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Trace the program and take its potential; Pyro calls this at the start of a run."""
        self._warmup_steps, self._drawn, self._warming = warmup_steps, 0, True
        initial, self.potential, self.transforms, trace = initialize_model(
            self.model, args, kwargs, initial_params=self._initial_params
        )
        if self._initial_params is None:
            self._initial_params = initial
        self.check_program(trace)

    def check_program(self, trace: Any) -> None:
        """Refuse programs that the kernel is not for; any will do by default."""

    def propose(self, params: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        """A proposal and its log acceptance ratio."""
        raise NotImplementedError

    def accept(self) -> None:
        """Called when the last proposal was accepted."""

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """The next draw."""
        if self._drawn == self._warmup_steps:
            self.end_warmup()
        self._drawn += 1
        for _ in range(self.num_steps):
            proposal, log_ratio = self.propose(params)
            probability = 0.0 if math.isnan(log_ratio) else math.exp(min(0.0, log_ratio))
            if float(torch.rand(())) < probability:
                params = proposal
                self.accept()
            if not self._warming:
                self._accepted += probability
                self._proposed += 1
            elif self.adapt_step_size:
                self._adapter.step(self.target_accept - probability)
                self.step_size = min(self.largest_step, math.exp(self._adapter.get_state()[0]))
        return dict(params)

    def end_warmup(self) -> None:
        """Fix the step size at its average while warming up."""
        if self.adapt_step_size and self._warming and self._drawn:
            self.step_size = min(self.largest_step, math.exp(self._adapter.get_state()[1]))
        self._warming = False

    @property
    def initial_params(self) -> dict[str, Tensor]:
        """Where the chain starts."""
        assert self._initial_params is not None, "setup comes first"
        return self._initial_params

    @initial_params.setter
    def initial_params(self, params: dict[str, Tensor]) -> None:
        self._initial_params = params

    def logging(self) -> OrderedDict[str, str]:
        """For Pyro's progress bar."""
        return OrderedDict(
            [("step size", f"{self.step_size:.2e}"), ("acc. prob", f"{self._accepted / max(1, self._proposed):.3f}")]
        )

    def diagnostics(self) -> dict[str, float]:
        """Mean acceptance probability after the warm-up, and the step size."""
        return {"acceptance rate": self._accepted / max(1, self._proposed), "step size": self.step_size}


class CrankNicolson(AdaptiveKernel):
    """pCN: propose ``u' = √(1 − β²)·u + β·ξ``, ``ξ ~ N(0, I)``; accept by the likelihood alone.

    The proposal leaves the prior N(0, I) invariant, so that acceptance does not fall with the number of dimensions,
    only with how much the data say. It needs no gradient, and takes many small steps where HMC takes few long ones.

    Cost: one evaluation of the program without a gradient per proposal.

    Args:
        model: a Pyro program whose latent sites are all standard normal.
        step_size: β in (0, 1] to start from.
        target_accept: acceptance probability to adapt β to while warming up, 0.3 by default.
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

    usual_accept = 0.3
    largest_step = 1.0

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


class Langevin(AdaptiveKernel):
    """MALA: propose ``u' = u − (ε²/2)·∇U(u) + ε·ξ``, ``ξ ~ N(0, I)``; accept by Metropolis and Hastings.

    HMC with one leapfrog step. Its step must be as small as the narrowest direction of the posterior, and the number of
    steps to cross the widest grows with the square of the ratio.

    Cost: one evaluation of the program with its gradient per proposal.

    Args:
        model: a Pyro program.
        step_size: ε > 0 to start from.
        target_accept: acceptance probability to adapt ε to while warming up, 0.574 by default.
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

    usual_accept = 0.574

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
