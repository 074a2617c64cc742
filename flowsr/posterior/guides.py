"""Variational inference: Pyro's SVI with an automatic guide, whether it is at its end, and how good its weights are."""

from __future__ import annotations

import math
import time
from typing import Any, cast

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.inverse_problem import SITE, InverseProblem
from flowsr.posterior.modes import NATS, log_joint, runaway, still_rising
from flowsr.posterior.solver_settings import Found, SolverSettings

PARETO_LIMIT = 0.7
"""Largest k-hat of a guide whose importance weights have a mean that can be estimated."""

_FRESH_RATE = 0.03
_LEAST_WEIGHTS = 25  # whose largest fifth has a shape


def fit_guide(problem: InverseProblem, settings: SolverSettings) -> Found:
    """Fit a guide, draw from it, and say whether the ELBO still rises and whether importance weights are usable."""
    begin = time.perf_counter()
    guide = _make_guide(problem, settings)
    objective = _fit(problem, guide, settings)
    with torch.no_grad():
        draws, weights = _draws_and_weights(problem, guide, settings.num_samples)
    seconds = {"optimizing": time.perf_counter() - begin}
    gain, error, steps = _gain_left(problem, guide, settings)
    remarks = []
    if gain > max(NATS, 4 * error):
        how = f"{steps} more steps at a fresh constant rate gain (standard error {error:.1f})"
        remarks.append(still_rising(gain, settings.steps, how))
    k_hat = pareto_k(weights)
    remarks += _weight_remarks(k_hat, settings)
    facts = {"objective": objective, "pareto_k": k_hat}
    name, coordinates = f"svi ({settings.guide})", _coordinates(guide, draws)
    return Found(name, draws[None].cpu(), seconds, facts, tuple(remarks), coordinates=coordinates)


def pareto_k(log_weights: Tensor) -> float:
    """k-hat: the shape of a generalized Pareto distribution fitted to the largest importance weights.

    Weights of a tail of shape k have moments up to order 1/k. Above 0.7 their mean, by which expectations under the
    guide would be corrected, takes more draws than there can be; the guide is far from the posterior somewhere.

    Cost: a sort.

    Args:
        log_weights: ``log p(u, observation) − log q(u)`` of draws of q, ``(n,)``.

    Returns:
        k-hat; NaN for less than 25 draws, −inf for weights that are all the same, inf for weights that are not finite.

    References:
        Vehtari et al., Pareto smoothed importance sampling (JMLR 2024), sections 2 and 3; Yao et al., Yes, but did it
        work? Evaluating variational inference (ICML 2018).

    Example:
        >>> exponential = torch.distributions.Exponential(1.0).icdf(torch.linspace(0.001, 0.999, 999))
        >>> pareto_k(0.3 * exponential) < 0.5, pareto_k(1.2 * exponential) > 0.7
        (True, True)
    """
    from pyro.ops.stats import fit_generalized_pareto

    count = len(log_weights)
    if count < _LEAST_WEIGHTS:
        return math.nan
    weights = log_weights.detach().double().cpu()
    if not bool(torch.isfinite(weights).all()):
        return math.inf
    weights = (weights - weights.max()).sort().values
    if float(weights[0]) > -1e-6:
        return -math.inf
    cut = weights[-math.ceil(min(count / 5, 3 * math.sqrt(count))) - 1].clamp_min(
        math.log(torch.finfo(torch.float64).tiny)
    )
    tail = weights[weights > cut]
    return float(fit_generalized_pareto(tail.exp() - cut.exp())[0]) if len(tail) > 4 else math.inf


def _weight_remarks(k_hat: float, settings: SolverSettings) -> list[str]:
    if math.isnan(k_hat):
        return [
            f"{settings.num_samples} draws of a guide do not show whether it is near the posterior (k-hat takes "
            f"{_LEAST_WEIGHTS}): raise num_samples."
        ]
    if k_hat <= PARETO_LIMIT:
        return []
    advice = {
        "normal": "take guide='lowrank' or 'flow', which follow correlations",
        "lowrank": "raise rank, or take guide='flow'",
        "flow": "raise steps and num_particles",
    }[settings.guide]
    return [
        f"The guide is not near the posterior everywhere: k-hat {k_hat:.2f} of its importance weights, expected at "
        f"most {PARETO_LIMIT}. Its spread is not the posterior's: {advice}; or take method='hmc' with start='mode'."
    ]


def _make_guide(problem: InverseProblem, settings: SolverSettings) -> Any:
    from pyro.distributions.transforms import affine_autoregressive, iterated
    from pyro.infer import autoguide
    from pyro.infer.autoguide.initialization import init_to_value

    if settings.guide == "flow":
        # Made in the default precision, on the CPU, whatever the problem's.
        like = (problem.lr.device, problem.lr.dtype)
        return autoguide.AutoNormalizingFlow(problem, lambda dims: iterated(1, affine_autoregressive, dims).to(*like))
    where = init_to_value(values={SITE: settings.centre(problem)})
    if settings.guide == "normal":
        return autoguide.AutoDiagonalNormal(problem, init_loc_fn=where, init_scale=0.3)
    return autoguide.AutoLowRankMultivariateNormal(problem, init_loc_fn=where, init_scale=0.3, rank=settings.rank)


def _fit(problem: InverseProblem, guide: Any, settings: SolverSettings) -> Tensor:
    """The ELBO at each step."""
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import ClippedAdam

    several = settings.num_particles > 1
    loss = Trace_ELBO(num_particles=settings.num_particles, vectorize_particles=several, max_plate_nesting=0)
    adam = ClippedAdam({"lr": settings.learning_rate, "lrd": 0.01 ** (1 / settings.steps), "clip_norm": 1e3})
    svi = SVI(problem, guide, adam, loss)
    objective = []
    for step in range(1, settings.steps + 1):
        try:
            value = -float(cast(float, svi.step()))
        except ValueError as error:
            # Pyro refuses the parameters of a guide that has run away.
            raise ValueError(runaway(step)) from error
        if not math.isfinite(value):
            raise ValueError(runaway(step))
        objective.append(value)
        settings.advance()
    return torch.tensor(objective, device="cpu")


def _coordinates(guide: Any, draws: Tensor) -> Coordinates:
    """In which a Gaussian guide is white noise; of another, the means and standard deviations of its draws."""
    found = guide.get_posterior()
    found = getattr(found, "base_dist", found)
    if isinstance(found, torch.distributions.LowRankMultivariateNormal):
        parts = (found.loc, found.cov_diag.sqrt(), found.cov_factor)
        return Coordinates.of_low_rank(*(part.detach() for part in parts))
    if isinstance(found, torch.distributions.Normal):
        return Coordinates(found.loc.detach(), found.scale.detach())
    return Coordinates(draws.mean(0), draws.std(0))


def _log_weights(problem: InverseProblem, guide: Any, count: int) -> tuple[Tensor, Tensor]:
    posterior = guide.get_posterior()
    u = posterior.rsample((count,))
    # At once: a flow knows the inverse of its own last draws.
    log_guide = posterior.log_prob(u)
    u = u.to(problem.lr)
    return u, log_joint(problem, u) - log_guide


def _draws_and_weights(problem: InverseProblem, guide: Any, count: int) -> tuple[Tensor, Tensor]:
    most = problem.batch(16, gradients=False)
    parts = [_log_weights(problem, guide, min(most, count - first)) for first in range(0, count, most)]
    return torch.cat([u for u, _ in parts]), torch.cat([weights for _, weights in parts])


def _gain_left(problem: InverseProblem, guide: Any, settings: SolverSettings) -> tuple[float, float, int]:
    """What more steps gain of the ELBO, its standard error, and how many steps were tried.

    The rate of the fit falls to a hundredth, so that its objective lies still at the end wherever that is. So the fit
    goes on at constant rates, from where it ended, and the average of the second half of the parameters is compared
    with where it began, on the same noise. The guide is left as it was.

    References:
        Dhaka et al., Robust, accurate stochastic optimization for variational inference (NeurIPS 2020), section 3.
    """
    parameters = [parameter for parameter in guide.parameters() if parameter.requires_grad]
    ended = [parameter.detach().clone() for parameter in parameters]
    steps, rate = min(100, max(20, settings.steps // 10)), max(_FRESH_RATE, settings.learning_rate)
    before = _elbo(problem, guide)
    best = (0.0, 0.0)
    for fresh in (rate, rate / 10):
        _set(parameters, _averaged(problem, guide, parameters, steps, fresh, settings.num_particles))
        rise = _elbo(problem, guide) - before
        gain, error = float(rise.mean()), float(rise.std() / math.sqrt(len(rise)))
        if math.isfinite(gain) and gain > best[0]:
            best = (gain, error)
        _set(parameters, ended)
    return (*best, steps)


def _averaged(
    problem: InverseProblem, guide: Any, parameters: list[Any], steps: int, rate: float, particles: int
) -> list[Tensor]:
    adam = torch.optim.Adam(parameters, lr=rate)
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    for step in range(steps):
        adam.zero_grad()
        (-_log_weights(problem, guide, particles)[1].mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1e3)
        adam.step()
        if step >= steps // 2:
            for total, parameter in zip(sums, parameters, strict=True):
                total += parameter.detach() / (steps - steps // 2)
    return sums


@torch.no_grad()
def _set(parameters: list[Any], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def _elbo(problem: InverseProblem, guide: Any) -> Tensor:
    """One value per draw, always of the same noise."""
    with torch.random.fork_rng(devices=[problem.lr.device] if problem.lr.device.type == "cuda" else []):
        torch.manual_seed(0)
        return _draws_and_weights(problem, guide, 64)[1].double()
