"""Samplers to compare: every method of :func:`flowsr.posterior.solve`, exact draws, and samplers with a known fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowsr.known_posteriors.budget import PASS, Budget, Draws, Sampler
from flowsr.known_posteriors.truth import KnownPosterior
from flowsr.posterior import EnoughDraws, InverseProblem, log_evidence, solve
from flowsr.posterior.inverse_problem import isolated
from flowsr.posterior.solve import SOLVERS
from flowsr.posterior.solver_settings import Found, Method, SolverSettings

_DEFAULTS = {name: value for name, value in (solve.__kwdefaults__ or {}).items() if name != "on_step"}
_WARMUP_SHARE = 0.3
_LEAST_DRAWS = 4  # per chain, that R-hat has a value
_PER_DRAW = {"hmc": 6.0, "nuts": 12.0, "langevin": 10.0, "pcn": 20 * PASS}
"""Gradients of a chain per draw, about: to choose the length of the warm-up; the sampling ends when all are spent."""


def found_by(problem: InverseProblem, method: Method, *, on_step: Callable[[], None], **options: Any) -> Found:
    """What a method of ``solve`` finds, without the judgement of it, which would be charged to it.

    Cost and arguments: as :func:`flowsr.posterior.solve`.
    """
    settings = SolverSettings(method=method, advance=on_step, **{**_DEFAULTS, **options})
    settings.check(problem)
    with isolated(problem, settings.seed):
        return SOLVERS[method](problem, settings)


def chains_sampler(method: Method, *, num_chains: int = 8, **options: Any) -> Sampler:
    """Chains of :func:`flowsr.posterior.solve`, all in one batch, that go on until the budget is spent.

    Cost: the budget, of which a share of 0.3, about, is the warm-up.

    Args:
        method: "hmc", "langevin" or "pcn".
        num_chains: chains.
        options: of ``solve``, as ``start="laplace"``.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known, budget = known_posterior("linear deblurring"), Budget(3000)
        >>> with budget.counting(known.problem):
        ...     draws = chains_sampler("hmc")(known, budget, 100, 0)
        >>> draws.latents.shape[::2], abs(budget.left) < 300
        (torch.Size([8, 64]), True)
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        return Draws(latents=_until_spent(known.problem, method, budget, budget.left, num_chains, seed, options))

    return sampler


def nuts_sampler(*, num_chains: int = 4, **options: Any) -> Sampler:
    """NUTS of :func:`flowsr.posterior.solve`: chains one after the other, each with its share of the budget.

    Cost: the budget.

    Args:
        num_chains: chains.
        options: of ``solve``.
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        share = budget.left / num_chains
        seeds = range(num_chains * seed, num_chains * (seed + 1))
        chains = [_until_spent(known.problem, "nuts", budget, share, 1, one, options)[0] for one in seeds]
        length = min(map(len, chains))
        return Draws(latents=torch.stack([chain[-length:] for chain in chains]))

    return sampler


def _until_spent(
    problem: InverseProblem,
    method: Method,
    budget: Budget,
    share: float,
    num_chains: int,
    seed: int,
    options: dict[str, Any],
) -> Tensor:
    """Latents of chains that end when a share of the budget is spent, ``(chains, draws, dims)``."""
    most = int(share / num_chains)
    warmup = max(1, int(_WARMUP_SHARE * share / num_chains / _PER_DRAW[method]))
    floor, calls = budget.left - share, [0]

    def on_step() -> None:
        calls[0] += 1
        after = calls[0] / num_chains - warmup
        if after >= _LEAST_DRAWS and budget.left - floor < num_chains * _PER_DRAW[method] / 2:
            raise EnoughDraws

    counts = {"num_samples": max(_LEAST_DRAWS, most), "num_warmup": warmup, "num_chains": num_chains, "seed": seed}
    return found_by(problem, method, on_step=on_step, **counts, **options).latents


def guide_sampler(**options: Any) -> Sampler:
    """Draws of a guide fitted by SVI of :func:`flowsr.posterior.solve` with what the budget allows.

    Cost: the budget.

    Args:
        options: of ``solve``, as ``guide="lowrank"``.
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        particles = options.get("num_particles", _DEFAULTS["num_particles"])
        # Importance weights of the draws, and two trials of what more steps gain, a tenth of the steps each, cost too.
        steps = (budget.left - PASS * (num_samples + 192)) / particles
        counts = {"num_samples": num_samples, "steps": max(1, int(max(steps / 1.2, steps - 200))), "seed": seed}
        if steps < 240:
            counts["steps"] = max(1, int(steps) - 40)
        latents = found_by(known.problem, "svi", on_step=lambda: None, **counts, **options).latents
        return Draws(latents=latents, correlated=False)

    return sampler


def mode_sampler(*, steps: int = 400) -> Sampler:
    """The mode of :func:`flowsr.posterior.solve` as the only draw: a point has no spread.

    Cost: ``steps`` gradients, or as many as the budget has, and some 120 to see whether it is a mode.

    Args:
        steps: of the climb.
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        count = max(1, min(steps, int(budget.left) - 120))
        found = found_by(known.problem, "map", on_step=lambda: None, steps=count, seed=seed)
        return Draws(latents=found.latents, correlated=False)

    return sampler


def smc_sampler(*, num_runs: int = 2, num_steps: int = 3) -> Sampler:
    """Sequential Monte Carlo of :func:`flowsr.posterior.log_evidence`, with its evidence: as many particles as fit.

    What a particle costs is learned from a first run with 8 of them, which is charged too.

    Cost: the budget, about.

    Args:
        num_runs: independent runs.
        num_steps: moves of each particle at each step of β.
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        before, count = budget.spent, 8
        found = log_evidence(known.problem, num_particles=count, num_runs=num_runs, num_steps=num_steps, seed=seed)
        fits = int(0.9 * budget.left / (budget.spent - before) * count)
        if fits > count:
            found = log_evidence(known.problem, num_particles=fits, num_runs=num_runs, num_steps=num_steps, seed=seed)
        return Draws(latents=found.latents, log_evidence=found.log_evidence, correlated=False)

    return sampler


def exact_sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
    """Independent draws of the posterior, where there are any: the floor of every figure.

    Raises:
        ValueError: for a problem whose posterior has been measured by chains.
    """
    if known.reference.exact is None:
        raise ValueError(f"expected a problem with exact draws; got {known.name}, known by {known.reference.how}")
    images = known.reference.exact(num_samples, _EXACT_STREAM + seed)
    return Draws(images=images, log_evidence=known.reference.log_evidence, correlated=False)


_EXACT_STREAM = 1 << 20  # that an exact sampler's draws are not those that it is compared with


def faulty(change: Callable[[KnownPosterior, Tensor], Tensor]) -> Sampler:
    """Exact draws with a fault.

    Args:
        change: of exact images ``(n, C, H, W)`` into others.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known = known_posterior("linear deblurring")
        >>> black = faulty(lambda known, images: 0 * images)
        >>> black(known, Budget(1), 5, 0).images.abs().max().item()
        0.0
    """

    def sampler(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        images = exact_sampler(known, budget, num_samples, seed).images
        assert images is not None
        return Draws(images=change(known, images), correlated=False)

    return sampler


def _wider(known: KnownPosterior, images: Tensor) -> Tensor:
    return known.reference.mean + 1.3 * (images - known.reference.mean)


def _shifted(known: KnownPosterior, images: Tensor) -> Tensor:
    return images + 0.3 * known.reference.std


def _one_mode(known: KnownPosterior, images: Tensor) -> Tensor:
    if known.mode_of is None:
        raise ValueError(f"expected a problem with several modes; got {known.name}")
    kept = images[known.mode_of(images) == known.mode_of(images).mode().values]
    return kept[torch.arange(len(images), device="cpu") % len(kept)]


def _prior(known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(1, num_samples, known.problem.dims, generator=generator, device="cpu")
    return Draws(latents=white, correlated=False)


FAULTS: dict[str, Sampler] = {
    "std 1.3 times too wide": faulty(_wider),
    "mean shifted by 0.3 std": faulty(_shifted),
    "one mode forgotten": faulty(_one_mode),
    "prior draws": _prior,
}
"""Samplers with a known fault, which a benchmark must find; all but the last need exact draws."""

SAMPLERS: dict[str, Sampler] = {
    "exact": exact_sampler,
    "hmc": chains_sampler("hmc"),
    "nuts": nuts_sampler(),
    "langevin": chains_sampler("langevin"),
    "pcn": chains_sampler("pcn"),
    "smc": smc_sampler(),
    "svi": guide_sampler(guide="lowrank", num_particles=8),
    "map": mode_sampler(),
}
"""The contenders by name."""
