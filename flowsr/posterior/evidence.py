"""The evidence of an observation by tempering: particles go from the prior to the posterior, weighted on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr.plots import PALETTE, plain_axes
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.inverse_problem import InverseProblem, isolated
from flowsr.posterior.kernels import HMC, ChainKernel, CrankNicolson, white_noise
from flowsr.posterior.target import LogLikelihood, Target, in_parts
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 1.0  # nats between independent runs, beyond which the mean of their evidences is that of the luckiest
_MOST_STEPS = 1000
_PILOT_STEPS = 25  # proposals from which a step size is learned


@dataclass(frozen=True)
class Evidence(Result):
    """``log p(observation | lr)`` of an inverse problem, and particles that are draws of its posterior.

    Attributes:
        log_evidence: in nats: the logarithm of the mean evidence of the runs.
        error: its standard error over the runs.
        runs: the estimate of each run, ``(runs,)``.
        exponents: β of each step, from 0 to 1.
        acceptance: mean acceptance probability at each step but the first.
        latents: whitened vectors at β = 1 on the CPU, ``(runs, particles, dims)``; those of one run share ancestors.
        seconds: wall time of the "pilot" and of the "runs".
        seed: of all randomness.
        remarks: what is wrong, and what to do; empty if nothing is.
    """

    log_evidence: float
    error: float
    runs: Tensor
    exponents: tuple[float, ...]
    acceptance: tuple[float, ...]
    latents: Tensor = field(repr=False)
    seconds: dict[str, float]
    seed: int
    remarks: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything but the particles, as JSON-ready values."""
        return {
            "log_evidence": self.log_evidence,
            "error": self.error,
            "runs": self.runs.tolist(),
            "exponents": list(self.exponents),
            "acceptance": list(self.acceptance),
            "particles": self.latents.shape[1],
            "seconds": to_plain(self.seconds),
            "seed": self.seed,
            "remarks": list(self.remarks),
        }

    def to_text(self) -> str:
        """The evidence as a table, with the remarks below."""
        runs, particles, dims = self.latents.shape
        rows = [
            ["log evidence, nats", f"{self.log_evidence:.2f} ± {self.error:.2f}"],
            ["runs", ", ".join(f"{value:.2f}" for value in self.runs.tolist())],
            ["particles", f"{runs} x {particles}, {dims} dimensions"],
            ["steps of β", str(len(self.exponents) - 1)],
            ["time, s", ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())],
        ]
        return text_table(["evidence", "sequential Monte Carlo"], rows, notes=self.remarks)

    def _draw_main(self, ax: Axes) -> None:
        """The estimate of each run, and all of them with two standard errors."""
        plain_axes(ax, keep=("left", "bottom"))
        low, high = (self.log_evidence + sign * 2 * self.error for sign in (-1, 1))
        ax.axhspan(low, high, color=PALETTE["grey"], alpha=0.18, linewidth=0, label="± 2 standard errors")
        ax.axhline(self.log_evidence, color=PALETTE["blue"], linewidth=1, label="all runs")
        ax.plot(range(1, len(self.runs) + 1), self.runs.tolist(), "o", color=PALETTE["blue"], label="one run")
        ax.locator_params(axis="x", integer=True)
        ax.set_xlabel("run", fontsize=8)
        ax.set_ylabel("log evidence, nats", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7, frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))


@dataclass(frozen=True)
class _Step:
    """One step of the schedule: β, the coordinates and the step size of the kernel there."""

    exponent: float
    coordinates: Coordinates
    step_size: float


def temper(
    log_likelihood: LogLikelihood,
    like: Tensor,
    *,
    num_particles: int = 64,
    num_runs: int = 6,
    num_steps: int = 3,
    keep: float = 0.7,
    gradients: bool = True,
    seed: int = 0,
    batch: int | None = None,
    on_step: Callable[[], None] | None = None,
) -> Evidence:
    """Sequential Monte Carlo from the prior N(0, I) to the posterior, ``Z = Π_k mean_i exp((β_{k+1} − β_k)·ℓ(u_i))``.

    A pilot run chooses the exponents, so that of equally weighted particles a share ``keep`` remains effective, and at
    each of them the scales and the step size of the kernel. The runs that count repeat it with fresh particles and
    nothing left to choose, so that the evidence (not its logarithm) has no bias; their spread gives the error.

    Cost: per step of β ``(num_runs·num_steps + 25)·num_particles`` proposals of the kernel; how many steps there are
    grows with what the data tell beyond the prior.

    Args:
        log_likelihood: ℓ, of latents ``(n, dims)``.
        like: a vector ``(dims,)`` of the right dtype and device.
        num_particles: of each run, at least 8.
        num_runs: independent estimates, at least 2, to have an error.
        num_steps: proposals of each particle per step of β, at least 1.
        keep: effective share of particles at each step, in (0, 1); nearer to 1 makes more steps and a smaller error.
        gradients: move by HMC; else by pCN.
        seed: of all randomness.
        batch: most particles to evaluate together; all by default.
        on_step: called after each step of β of the pilot and of the runs.

    Returns:
        Evidence, error and particles.

    Raises:
        ValueError: for numbers out of range, or a likelihood that is not finite at most draws of the prior.

    References:
        Neal, Annealed importance sampling (Statistics and Computing 2001); Del Moral, Doucet and Jasra, Sequential
        Monte Carlo samplers (JRSS B 2006), section 3; Dai, Heng, Jacob and Whiteley, An invitation to sequential Monte
        Carlo samplers (JASA 2022), section 3, for the choice of exponents.

    Example:
        >>> found = temper(lambda u: -2 * u.square().sum(-1), torch.zeros(2), seed=0)
        >>> abs(found.log_evidence + math.log(5)) < 4 * found.error + 0.05
        True
    """
    if num_particles < 8 or num_runs < 2 or num_steps < 1:
        raise ValueError(
            f"expected num_particles >= 8, num_runs >= 2 and num_steps >= 1; got {num_particles}, {num_runs} and "
            f"{num_steps}"
        )
    if not 0 < keep < 1:
        raise ValueError(f"expected keep in (0, 1); got {keep}")
    generator = torch.Generator(like.device).manual_seed(seed)
    advance = on_step or (lambda: None)
    swarm = _Swarm(log_likelihood, like, num_steps=num_steps, gradients=gradients, generator=generator, batch=batch)
    begin = time.perf_counter()
    schedule = swarm.pilot(num_particles, keep, advance)
    middle = time.perf_counter()
    runs, acceptance, latents = swarm.run(schedule, num_runs, num_particles, advance)
    seconds = {"pilot": middle - begin, "runs": time.perf_counter() - middle}
    weights = (runs - runs.max()).exp()
    value = float(runs.max() + weights.mean().log())
    error = float(weights.std() / weights.mean() / math.sqrt(num_runs))
    exponents = (0.0, *(step.exponent for step in schedule))
    remarks = tuple(_remarks(runs, acceptance))
    return Evidence(value, error, runs, exponents, tuple(acceptance), latents.cpu(), seconds, seed, remarks)


def log_evidence(
    problem: InverseProblem,
    *,
    num_particles: int = 64,
    num_runs: int = 6,
    num_steps: int = 3,
    keep: float = 0.7,
    gradients: bool = True,
    seed: int = 0,
    on_step: Callable[[], None] | None = None,
) -> Evidence:
    """``log p(observation | lr)`` of an inverse problem, with its error: what compares priors, operators and noises.

    The marginal density of the observation, the HR image integrated out: differences between two problems with the same
    observation are log Bayes factors.

    Cost and arguments: see ``temper``, which does it on ``problem.log_likelihood``.

    Raises:
        ValueError: as ``temper``; for an operator without gradients, for which ``gradients=False``.

    Example:
        >>> from flowsr.posterior import GaussianNoise, Identity, InverseProblem, LinearGaussianFlow
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
        >>> problem = InverseProblem(flow, lr, Identity(), torch.full((1, 4, 4), 0.5), GaussianNoise(0.1))
        >>> found = log_evidence(problem, num_particles=16, num_runs=2)
        >>> abs(found.log_evidence - 14.3) < 1.5  # in closed form
        True
    """
    if gradients:
        problem.check_differentiable("log_evidence", instead="gradients=False")
    with isolated(problem, seed):
        return temper(
            problem.latent_log_likelihood,
            torch.zeros(problem.dims, device="cpu").to(problem.lr),
            num_particles=num_particles,
            num_runs=num_runs,
            num_steps=num_steps,
            keep=keep,
            gradients=gradients,
            seed=seed,
            batch=problem.batch(num_runs * num_particles, gradients=gradients),
            on_step=on_step,
        )


def _remarks(runs: Tensor, acceptance: list[float]) -> list[str]:
    remarks = []
    spread = float(runs.std())
    if spread > _WIDE:
        remarks.append(
            f"The runs differ by {spread:.1f} nats: their mean is that of the largest, and the error too small. Raise "
            "num_particles, num_steps or keep."
        )
    if acceptance and min(acceptance) < 0.1:
        remarks.append(
            f"Particles hardly moved: {min(acceptance):.1%} of proposals were accepted at the worst step. Raise "
            "num_particles, from which step sizes are learned."
        )
    return remarks


class _Swarm:
    """Particles of some runs, moved, weighted and resampled together; those of one run stand side by side."""

    def __init__(
        self,
        log_likelihood: LogLikelihood,
        like: Tensor,
        *,
        num_steps: int,
        gradients: bool,
        generator: torch.Generator,
        batch: int | None,
    ) -> None:
        self.log_likelihood, self.like, self.generator, self.batch = log_likelihood, like, generator, batch
        self.num_steps, self.gradients = num_steps, gradients

    def pilot(self, num_particles: int, keep: float, advance: Callable[[], None]) -> list[_Step]:
        """The schedule: exponents, coordinates and step sizes."""
        u, steps, exponent, size = self._prior(num_particles), list[_Step](), 0.0, 0.3
        while exponent < 1:
            if len(steps) == _MOST_STEPS:
                raise ValueError(
                    f"expected at most {_MOST_STEPS} steps of β; got {exponent:.3g} after them: lower keep"
                )
            values = self._likelihoods(u)
            exponent = _next_exponent(values, exponent, keep)
            u = u[self._ancestors(((exponent - (steps[-1].exponent if steps else 0.0)) * values)[None])[0]]
            coordinates = Coordinates(torch.zeros_like(self.like), _scale(u))
            kernel = self._kernel(size)
            target = Target(self.log_likelihood, coordinates, exponent=exponent, batch=self.batch)
            state = kernel.begin(target, coordinates.from_latents(u))
            kernel.restart(target, state, self.generator)
            for _ in range(_PILOT_STEPS):
                state = kernel.step(target, state, self.generator, warming=True).state
            kernel.end_warmup()
            u, size = coordinates.to_latents(state.position), kernel.step_size
            steps.append(_Step(exponent, coordinates, size))
            advance()
        return steps

    def run(
        self, schedule: list[_Step], num_runs: int, num_particles: int, advance: Callable[[], None]
    ) -> tuple[Tensor, list[float], Tensor]:
        """Log evidence of each run, acceptance at each step, and the particles at the end."""
        u = self._prior(num_runs * num_particles)
        total, before, acceptance = torch.zeros(num_runs, dtype=torch.float64, device="cpu"), 0.0, []
        for step in schedule:
            weights = ((step.exponent - before) * self._likelihoods(u)).reshape(num_runs, num_particles)
            total += (weights.logsumexp(1) - math.log(num_particles)).cpu()
            chosen = self._ancestors(weights) + num_particles * torch.arange(num_runs, device=u.device)[:, None]
            u, accepted = self._move(u[chosen.flatten()], step)
            acceptance.append(accepted)
            before = step.exponent
            advance()
        return total, acceptance, u.reshape(num_runs, num_particles, -1)

    def _move(self, u: Tensor, step: _Step) -> tuple[Tensor, float]:
        kernel = self._kernel(step.step_size)
        target = Target(self.log_likelihood, step.coordinates, exponent=step.exponent, batch=self.batch)
        state = kernel.begin(target, step.coordinates.from_latents(u))
        accepted = 0.0
        for _ in range(self.num_steps):
            move = kernel.step(target, state, self.generator, warming=False)
            state, accepted = move.state, accepted + float(move.probability.mean()) / self.num_steps
        return step.coordinates.to_latents(state.position), accepted

    def _kernel(self, step_size: float) -> ChainKernel:
        if self.gradients:
            return HMC(trajectory=1.5, adapt_trajectory=False, step_size=step_size)
        return CrankNicolson(step_size=min(1.0, step_size))

    def _prior(self, count: int) -> Tensor:
        return white_noise(self.like.expand(count, -1), self.generator)

    @torch.no_grad()
    def _likelihoods(self, u: Tensor) -> Tensor:
        """In float64; an impossible particle has weight zero."""
        values = in_parts(self.log_likelihood, u, self.batch).double()
        values = torch.where(values.isnan(), -math.inf, values)
        if float(values.isfinite().double().mean()) < 0.1:
            raise ValueError(
                "expected a finite likelihood at most draws of the prior; got infinity or NaN at nine tenths: look for "
                "a division by zero or the logarithm of a negative value in the operator"
            )
        return values

    def _ancestors(self, weights: Tensor) -> Tensor:
        """Systematic resampling within each run: ``(runs, particles)`` indices from log weights of that shape."""
        runs, count = weights.shape
        offset = torch.rand(runs, 1, generator=self.generator, device=weights.device, dtype=torch.float64)
        points = (torch.arange(count, device=weights.device) + offset) / count
        return torch.searchsorted(weights.softmax(1).cumsum(1), points).clamp(max=count - 1)


def _next_exponent(values: Tensor, exponent: float, keep: float) -> float:
    """The β up to which a share ``keep`` of the particles stays effective, by bisection; 1 if it is reached."""

    def share(step: float) -> float:
        weights = (step * values).softmax(0)
        return float(1 / (weights.square().sum() * len(values)))

    low, high = 0.0, 1.0 - exponent
    if share(high) >= keep:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) >= keep else (low, middle)
    return exponent + high


def _scale(u: Tensor) -> Tensor:
    """Standard deviations over particles, their logarithms shrunk towards the prior's 0."""
    return u.std(0).clamp_min(1e-6) ** (len(u) / (len(u) + 20))
