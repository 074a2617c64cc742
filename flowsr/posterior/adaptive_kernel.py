"""The base of kernels with one step size: what does not depend on how a proposal is made."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.dual_averaging import DualAveraging
from torch import Tensor


class AdaptiveKernel(MCMCKernel):
    """What kernels with one step size share: set-up by Pyro, adaptation while warming up, counts of acceptance.

    A subclass defines :meth:`propose`.

    Args:
        model: a Pyro program.
        step_size: to start from, > 0.
        target_accept: acceptance probability to adapt the step size to.
        adapt_step_size: whether to adapt while warming up.
        num_steps: proposals per draw, at least 1: thinning that costs no memory.
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

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        step_size: float,
        target_accept: float,
        adapt_step_size: bool = True,
        num_steps: int = 1,
        largest_step: float = math.inf,
    ) -> None:
        if not (math.isfinite(step_size) and 0 < step_size <= largest_step):
            raise ValueError(f"expected a step_size in (0, {largest_step:g}]; got {step_size}")
        if not 0 < target_accept < 1:
            raise ValueError(f"expected target_accept in (0, 1); got {target_accept}")
        if num_steps < 1:
            raise ValueError(f"expected num_steps >= 1; got {num_steps}")
        self.model = model
        self.step_size = float(step_size)
        self.target_accept = target_accept
        self.adapt_step_size = adapt_step_size
        self.num_steps = num_steps
        self.largest_step = largest_step
        self._initial_params: dict[str, Tensor] | None = None
        centre = math.log(min(largest_step, 10 * step_size))
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
