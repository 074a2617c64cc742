"""Chains of deepinv, ULA and SK-ROCK, on posteriors of inverse problems here: contenders where the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsr.errors import did_you_mean
from flowsr.interop.libraries import library, subclass
from flowsr.known_posteriors import Budget, Draws, KnownPosterior
from flowsr.posterior import InverseProblem
from flowsr.posterior.inverse_problem import isolated

_METHODS = ("ULA", "SKRock")
_SPACES = ("latents", "images")
_POINTS, _ROUNDS = 4, 8  # at which, and by how many products, the largest curvature is found
_DAMPING = 0.05  # of SK-ROCK, as its authors have it
_KEPT = 20_000  # states of all chains together, at most


class _Potential:
    """``−log p(x)`` up to a constant as a ``deepinv.optim.Prior``, whose ``grad`` is minus the score."""

    def __init__(self, energy: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.energy, self.explicit_prior = energy, True

    def fn(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """The energy of each state; the noise level that algorithms pass is that of a denoiser, and not needed."""
        return self.energy(x)


@dataclass(frozen=True)
class DeepinvChains:
    """A chain of deepinv as a sampler of known posteriors, with an exact score: what is left is its own error.

    ULA moves by ``x ← x − η·∇U(x) + √(2η)·ξ`` and rejects nothing, so that its draws are not of the posterior; SK-ROCK
    makes each step of several gradients, and stays stable at steps that grow with the square of their number.
    :meth:`std_ratio` says how far off both are for a Gaussian. deepinv is given the whole energy U as its prior, no
    data term, and no clipping; the chain's start, which it keeps as a draw, is left out.

    Cost: the budget. 64 gradients of it find the largest curvature L.

    Args:
        method: "ULA" or "SKRock".
        space: "latents", whitened, with the prior N(0, I); "images" where these have a density, that is for a known LR
            image with a finite ``lr_log_scale``.
        num_chains: chains, evaluated in one batch, from draws of the prior.
        step: ``η·L`` for each gradient of a step. ULA is stable below 2, SK-ROCK of 10 gradients below 17; what is
            wrong with both grows with it.
        inner_steps: gradients per step of SK-ROCK.
        burn_in: share of the steps left out, in [0, 1).

    Raises:
        MissingExtraError: when called, if deepinv is not installed.
        ValueError: for an unknown method or space, numbers out of range, and when called for a budget too small, or
            images that have no density.

    References:
        Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations
        (Bernoulli 1996); Pereyra, Vargas Mieles and Zygalakis, Accelerating proximal Markov chain Monte Carlo by using
        an explicit stabilized method (SIAM J. Imaging Sci. 2020), algorithm 3.1.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known, budget = known_posterior("linear deblurring"), Budget(1000)
        >>> with budget.counting(known.problem):
        ...     draws = DeepinvChains("ULA", num_chains=8)(known, budget, 100, 0)
        >>> draws.latents.shape, 900 < budget.spent <= 1000
        (torch.Size([8, 58, 64]), True)
    """

    method: str = "ULA"
    space: str = "latents"
    num_chains: int = 20
    step: float = 1.0
    inner_steps: int = 10
    burn_in: float = 0.5

    def __post_init__(self) -> None:
        for name, value, known in (("method", self.method, _METHODS), ("space", self.space, _SPACES)):
            if value not in known:
                raise ValueError(
                    f"expected a {name} among {', '.join(known)}; got {value!r}{did_you_mean(value, known)}"
                )
        if min(self.num_chains, self.inner_steps - 1) < 1 or not 0 <= self.burn_in < 1:
            raise ValueError(
                "expected num_chains >= 1, inner_steps >= 2 and burn_in in [0, 1); got "
                f"{self.num_chains}, {self.inner_steps} and {self.burn_in}"
            )
        if not (math.isfinite(self.step) and self.step > 0):
            raise ValueError(f"expected a finite step > 0, in units of 1/L; got {self.step}")

    def fits(self, known: KnownPosterior) -> bool:
        """Whether the space has a density that the model computes: images of an LR image of finite width."""
        prior = known.problem.lr_prior
        return self.space == "latents" or (prior is not None and not prior.correlation)

    def __call__(self, known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        """Draws of the chains, all after burn-in, see :data:`flowsr.known_posteriors.Sampler`."""
        problem = known.problem
        if not self.fits(known):
            prior = problem.lr_prior
            raise ValueError(
                "expected a problem whose images have a density, with a known LR image and a finite lr_log_scale; got "
                f"{'the Dirac limit' if prior is None else repr(prior)}: take space='latents'"
            )
        energy, scale = self._energy(problem)
        with isolated(problem, seed):
            start = torch.randn(self.num_chains, problem.dims, device="cpu").to(problem.lr)
            start = start if self.space == "latents" else problem.decode(start)
            largest = largest_curvature(energy, start[:_POINTS], scale=scale)
            states = self._run(energy, start, self.step * self._gradients / largest, self._steps_within(budget))
        if self.space == "latents":
            return Draws(latents=states)
        return Draws(images=states.flatten(0, 1), chains=self.num_chains)

    def std_ratio(self, z: Tensor) -> Tensor:
        """The std of the chain over the right one, in directions of a Gaussian whose curvature h makes ``z = ηh``.

        ``1/√(1 − z/2)`` for ULA. A step of SK-ROCK multiplies by ``A = T_s(ω₀ − ω₁z)/T_s(ω₀)`` and adds √(2η) times
        ``B = (1 − ω₁z/2)·U_{s−1}(ω₀ − ω₁z)/U_{s−1}(ω₀)``: ``√(2z·B²/(1 − A²))``, nil where B is.

        Args:
            z: any shape, > 0 and within stability, else the ratio is infinite or NaN.

        Example:
            >>> DeepinvChains("ULA").std_ratio(torch.tensor([0.1, 1.0]))
            tensor([1.0260, 1.4142])
            >>> DeepinvChains("SKRock").std_ratio(torch.tensor([0.1, 1.0, 5.0]))
            tensor([0.9991, 0.9880, 0.2174])
        """
        if self.method == "ULA":
            return (1 - z / 2).rsqrt()
        s, first = self.inner_steps, 1 + _DAMPING / self.inner_steps**2
        chebyshev = np.polynomial.Chebyshev.basis(s)
        second = chebyshev(first) / chebyshev.deriv()(first)
        at = first - second * z.double().cpu().numpy()
        kept = chebyshev(at) / chebyshev(first)
        added = chebyshev.deriv()(at) / chebyshev.deriv()(first) * (1 - (first - at) / 2)
        squared = 2 * z.double().cpu() * torch.as_tensor(added**2 / (1 - kept**2), device="cpu")
        return squared.sqrt().to(z)

    @property
    def _gradients(self) -> int:
        """Of each step of a chain."""
        return self.inner_steps if self.method == "SKRock" else 1

    def _energy(self, problem: InverseProblem) -> tuple[Callable[[Tensor], Tensor], float]:
        """The energy, and the differences that curvatures are found by."""
        if self.space == "latents":
            return lambda u: 0.5 * u.square().sum(-1) - problem.latent_log_likelihood(u), 1e-2
        prior = problem.lr_prior
        assert prior is not None, "fits"
        density = problem.flow.condition(  # type: ignore[call-arg]
            problem.lr, temperature=problem.temperatures, lr_log_scale=math.log(prior.std)
        )
        return lambda x: -density.log_prob(x) - problem.log_likelihood(x), 1e-3

    def _steps_within(self, budget: Budget) -> int:
        each = self.num_chains * self._gradients
        steps = int(budget.left // each)
        if steps < 10:
            raise ValueError(
                f"expected a budget of at least {int(budget.spent) + 10 * each} gradients, for ten steps of "
                f"{self.num_chains} chains; got {budget.gradients}: give more, or fewer chains"
            )
        return steps

    def _run(self, energy: Callable[[Tensor], Tensor], start: Tensor, step: float, num_steps: int) -> Tensor:
        """States ``(chains, n, …)`` after burn-in."""
        settings = {"step_size": step, "alpha": 1.0, "sigma": 0.0}
        if self.method == "SKRock":
            settings |= {"inner_iter": self.inner_steps, "eta": _DAMPING}
        sampler = library("deepinv.sampling").sampling_builder(
            self.method,
            library("deepinv.optim.data_fidelity").ZeroFidelity(),
            subclass(_Potential, "deepinv.optim", "Prior")(energy),
            settings,
            max_iter=num_steps,
            burnin_ratio=self.burn_in,
            thinning=math.ceil((1 - self.burn_in) * num_steps * len(start) / _KEPT),
            history_size=True,
        )
        sampler.sample(start, library("deepinv.physics").Physics(), x_init=start)
        return torch.stack([state["x"].detach() for state in sampler.get_chain()[1:]], 1)


def largest_curvature(energy: Callable[[Tensor], Tensor], points: Tensor, *, scale: float) -> float:
    """The largest eigenvalue, in size, of the energy's Hessian at some points: L, by which steps are chosen.

    By power iteration on differences of gradients, ``(∇U(x + εv) − ∇U(x − εv))/2ε``; what it finds is a little below
    L, by a few per cent after eight rounds where eigenvalues lie close.

    Cost: 16 gradients per point.

    Args:
        energy: of states ``(n, …)``, n values.
        points: ``(n, …)``.
        scale: ε, the difference of one coordinate.

    Example:
        >>> round(largest_curvature(lambda x: 2 * x[:, 0] ** 2 + x[:, 1] ** 2, torch.zeros(1, 2), scale=1e-2), 3)
        4.0
    """
    direction, found = torch.randn(points.shape, device="cpu").to(points), points.new_zeros(len(points))
    for _ in range(_ROUNDS):
        norms = direction.flatten(1).norm(dim=1).clamp_min(1e-30)
        # Of the length of white noise: each coordinate moves by about the scale.
        v = direction / (norms / math.sqrt(direction[0].numel())).reshape(-1, *[1] * (points.dim() - 1))
        up, down = (_slope(energy, points + sign * scale * v) for sign in (1, -1))
        direction = (up - down) / (2 * scale)
        found = direction.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)
    return float(found.max())


def _slope(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(energy(leaf).sum(), leaf)[0]
