"""Modes of a posterior: finding them from many places at once, and saying whether what was found is one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowsr.posterior.inverse_problem import InverseProblem
from flowsr.posterior.solver_settings import Found, SolverSettings

NATS = 1.0
"""A gain of the log joint density, or a dip of it, too small to matter."""

_RIVAL_NATS = 10.0  # a mode that much lower than the best has no mass to speak of
_LANCZOS = 20
_WIDER = 2.0  # by how much starts scatter more than the posterior of a linear problem


def log_joint(
    problem: InverseProblem, u: Tensor, *, centre: Tensor | float = 0.0, observation: Tensor | None = None
) -> Tensor:
    """``log p(u) + log p(observation | u)`` in nats, one per whitened vector ``(n, dims)``.

    Cost: one decoding pass.

    Args:
        problem: the inverse problem.
        u: whitened vectors.
        centre: of the prior, if not zero.
        observation: another one than the problem's, or one per vector.
    """
    observed = problem.observation if observation is None else observation
    noise = problem.noise.distribution(problem.observe(problem.decode(u)), event_dim=problem.observation.dim())
    prior = -0.5 * (u - centre).square().sum(-1) - 0.5 * problem.dims * math.log(2 * math.pi)
    return noise.log_prob(observed) + prior


def antithetic_draws(problem: InverseProblem, count: int) -> Tensor:
    """Draws of the prior ``(count, dims)``, each followed by its mirror image.

    Each is a draw of N(0, I); of a pair, one lies on either side of any plane through the prior's mean, so that two
    basins that part there are both started from.
    """
    half = torch.randn((count + 1) // 2, problem.dims, device="cpu")
    return torch.stack([half, -half], 1).flatten(0, 1)[:count].to(problem.lr)


def ascend(
    problem: InverseProblem,
    starts: Tensor,
    *,
    steps: int,
    learning_rate: float,
    centre: Tensor | float = 0.0,
    observation: Tensor | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Climb the log joint density from several places in one batch, by Adam, the rate falling to a hundredth.

    Cost: one decoding pass of ``len(starts)`` images with its gradient per step.

    Returns:
        Ends ``(n, dims)``, and the log joint density before each step, ``(steps, n)`` on the CPU.

    Raises:
        ValueError: if no density is finite.
    """
    u = starts.detach().clone().requires_grad_()
    adam = torch.optim.Adam([u], lr=learning_rate)
    decay = torch.optim.lr_scheduler.ExponentialLR(adam, 0.01 ** (1 / steps))
    values = []
    batch = problem.batch(len(u))
    rows = [torch.arange(len(u), device=u.device)[first : first + batch] for first in range(0, len(u), batch)]
    for step in range(1, steps + 1):
        parts = [_value_and_slope(problem, u, row, centre, observation) for row in rows]
        value, slope = (torch.cat(column) for column in zip(*parts, strict=True))
        if not bool(torch.isfinite(value).any()):
            raise ValueError(runaway(step))
        # One that has left the domain must not stop the others.
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        u.grad = slope * (1e3 / slope.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
        adam.step()
        decay.step()
        values.append(value.cpu())
        on_step()
    return u.detach(), torch.stack(values)


def _value_and_slope(
    problem: InverseProblem, u: Tensor, rows: Tensor, centre: Tensor | float, observation: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The log joint density of some rows, and the slope of minus it."""
    part = u.detach()[rows].requires_grad_()
    centre = centre[rows] if isinstance(centre, Tensor) else centre
    observation = observation if observation is None else observation[rows]
    value = log_joint(problem, part, centre=centre, observation=observation)
    return value.detach(), torch.autograd.grad(-value.sum(), part)[0]


def runaway(step: int) -> str:
    """The message of an optimization whose objective is not finite."""
    return f"expected a finite objective; got another at step {step} of the optimization: lower learning_rate"


def scattered_modes(problem: InverseProblem, count: int, *, steps: int, learning_rate: float) -> Tensor:
    """Places near the modes that scatter more than the posterior does, ``(count, dims)``.

    Each is the mode of a problem whose prior is centred at a draw of the prior, and whose observation has noise added,
    both twice as wide as they are. For a linear operator and Gaussian noise these are draws of a Gaussian with the
    posterior's mean and four times its covariance. Each search begins at a place of its own, so that several modes are
    found.

    Cost: as :func:`ascend`.

    References:
        Gelman and Rubin, Inference from iterative simulation using multiple sequences (Statistical Science 1992),
        section 2.1, for starts around all modes, wider than the target; Bardsley et al., Randomize-then-optimize
        (SIAM J. Sci. Comput. 2014), section 2, for the draws.
    """
    draws = antithetic_draws(problem, count)
    observed = problem.observation.expand(count, *problem.observation.shape)
    noisy = torch.stack([problem.noise.simulate(problem.noise.to_image(one)) for one in observed])
    moved = observed + _WIDER * (noisy - observed)
    # Counts stay counts.
    moved = moved.clamp_min(0.0) if bool((problem.noise.to_image(observed) != observed).any()) else moved
    ends, _ = ascend(problem, draws, steps=steps, learning_rate=learning_rate, centre=_WIDER * draws, observation=moved)
    return ends


def find_mode(problem: InverseProblem, settings: SolverSettings) -> Found:
    """MAP in latent space, from the mean of the prior or the start given, with what tells whether it is a mode."""
    begin = time.perf_counter()
    start = settings.centre(problem)[None]
    ends, values = ascend(
        problem, start, steps=settings.steps, learning_rate=settings.learning_rate, on_step=settings.advance
    )
    seconds = {"optimizing": time.perf_counter() - begin}
    norm, gain = slope_left(problem, ends[0])
    remarks = []
    if gain > _least_gain(float(values[-1, 0]), ends):
        remarks.append(still_rising(gain, settings.steps, f"a few steps of L-BFGS gain, gradient {norm:.2g}"))
    rise = saddle_rise(problem, ends[0])
    if rise > 0:
        remarks.append(
            f"The optimization ended at a saddle: along one direction the log joint density rises to both sides, by "
            f"{rise:.2g} nats at least. Start beside it: start=0.1*torch.randn(problem.dims)."
        )
    return Found("map", ends[None].cpu(), seconds, {"objective": values[:, 0], "gradient_norm": norm}, tuple(remarks))


def still_rising(gain: float, steps: int, how: str) -> str:
    """The remark on an optimization that is not at its end."""
    return (
        f"The objective was still rising after {steps} steps: by {gain:.1f} nats, which {how}. Raise steps, or "
        "learning_rate if it hardly moved."
    )


def _least_gain(value: float, u: Tensor) -> float:
    return max(NATS, 100 * torch.finfo(u.dtype).eps * abs(value))


def slope_left(problem: InverseProblem, u: Tensor) -> tuple[float, float]:
    """Norm of the gradient at a whitened vector ``(dims,)``, and the nats that 20 steps of L-BFGS gain from there.

    The gain is what counts: a gradient is large at every kink of a Laplace likelihood, and in stiff directions.
    """
    point = u.detach()[None].clone().requires_grad_()
    values: list[float] = []
    norms: list[float] = []
    lbfgs = torch.optim.LBFGS([point], max_iter=20, max_eval=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value = -log_joint(problem, point).sum()
        (point.grad,) = torch.autograd.grad(value, point)
        values.append(float(value.detach()))
        norms.append(float(point.grad.norm()))
        return value.detach()

    lbfgs.step(closure)
    return norms[0], values[0] - min(value for value in values if math.isfinite(value))


def saddle_rise(problem: InverseProblem, u: Tensor) -> float:
    """By how many nats the density rises to both sides of a whitened vector ``(dims,)``; 0 where no such line is found.

    The line is the direction of least curvature that 20 steps of Lanczos find. Products with the Hessian are
    differences of gradients, as reversible models have no second derivatives; whether the density does rise is
    measured. A weak negative curvature among strong positive ones is not found.

    Cost: 40 decoding passes with gradients.

    References:
        Golub and van Loan, Matrix Computations (2013), section 10.1.
    """
    line = _softest_direction(problem, u)
    if line is None:
        return 0.0
    lengths = torch.tensor([0.03, 0.1, 0.3, 1.0], device="cpu").to(u)[:, None]
    with torch.no_grad():
        here, up, down = (
            log_joint(problem, points).double() for points in (u[None], u + lengths * line, u - lengths * line)
        )
    rises = (torch.minimum(up, down) - here).nan_to_num(-math.inf)
    rise = float(rises.max())
    return rise if rise > 0.01 + 100 * torch.finfo(u.dtype).eps * abs(float(here)) else 0.0


def _softest_direction(problem: InverseProblem, u: Tensor) -> Tensor | None:
    basis = torch.zeros(0, len(u), device="cpu").to(u)
    # Of the program's own random state, which the seed fixes.
    vector = torch.randn(len(u), device="cpu").to(u)
    images = []
    for _ in range(min(_LANCZOS, len(u))):
        vector = vector - basis.T @ (basis @ vector)
        vector = vector - basis.T @ (basis @ vector)
        if float(vector.norm()) < 1e-6:
            break
        basis = torch.cat([basis, (vector / vector.norm())[None]])
        images.append(_curvature(problem, u, basis[-1]))
        vector = images[-1]
    small = basis.double() @ torch.stack(images).double().T
    if not bool(torch.isfinite(small).all()):
        return None
    values, vectors = torch.linalg.eigh(0.5 * (small + small.T))
    return (vectors[:, 0].to(u) @ basis) if float(values[0]) < 0 else None


def _curvature(problem: InverseProblem, u: Tensor, direction: Tensor) -> Tensor:
    """The Hessian of minus the log joint density times a direction, by a central difference of gradients."""
    step = 1e-4 if u.dtype == torch.float64 else 1e-2
    points = torch.stack([u + step * direction, u - step * direction]).requires_grad_()
    (slopes,) = torch.autograd.grad(-log_joint(problem, points).sum(), points)
    return (slopes[0] - slopes[1]) / (2 * step)


def unvisited_modes(problem: InverseProblem, latents: Tensor, *, steps: int) -> Tensor:
    """Modes that no draw is near, ``(n, dims)`` on the CPU, highest first: climbed to from four draws of the prior.

    A mode counts if it is less than 10 nats below the best, and if on the way to each of the five nearest draws the
    density dips below that of both. Few steps may miss one, or end short of it, and then say nothing.

    Cost: ``steps`` passes of four images with gradients.

    Args:
        problem: the inverse problem.
        latents: draws ``(n, dims)``.
        steps: of the climb.
    """
    try:
        problem.check_differentiable("the search for modes")
        ends, _ = ascend(problem, antithetic_draws(problem, 4), steps=steps, learning_rate=0.1)
    except ValueError:
        # Without gradients, or a finite density at the start, there is no way up.
        return torch.zeros(0, problem.dims, device="cpu")
    with torch.no_grad():
        heights = log_joint(problem, ends).cpu().nan_to_num(-math.inf)
        some = latents[torch.linspace(0, len(latents) - 1, min(16, len(latents)), device="cpu").long()].to(problem.lr)
        best = max(float(heights.max()), float(log_joint(problem, some).max()))
        found: list[Tensor] = []
        for number in heights.argsort(descending=True):
            known = torch.cat([latents, *(one[None] for one in found)]).to(problem.lr)
            if heights[number] > best - _RIVAL_NATS and _apart(problem, ends[number], known):
                found.append(ends[number].cpu())
    return torch.stack(found) if found else torch.zeros(0, problem.dims, device="cpu")


def _apart(problem: InverseProblem, end: Tensor, draws: Tensor) -> bool:
    near = draws[(draws - end).square().sum(-1).topk(min(5, len(draws)), largest=False).indices]
    weights = torch.linspace(0, 1, 9, device="cpu").to(end)[:, None]
    # Line by line, to hold the images of one line at a time.
    ways = torch.stack([log_joint(problem, end + weights * (draw - end)) for draw in near])
    dips = torch.minimum(ways[:, 0], ways[:, -1]) - ways[:, 1:-1].nan_to_num(-math.inf).amin(-1)
    return bool((dips > NATS).all())
