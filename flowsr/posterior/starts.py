"""Where chains start, and in which coordinates: draws of the prior, places around modes, or what a solution found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.curvature import laplace_coordinates
from flowsr.posterior.inverse_problem import InverseProblem
from flowsr.posterior.modes import antithetic_draws, ascend, scattered_modes
from flowsr.posterior.solution import Solution
from flowsr.posterior.solver_settings import SolverSettings

_NEAR = 0.1  # of a prior's standard deviation: how far chains that start at one place are moved apart

Refit = Callable[[Tensor], Coordinates]
"""Coordinates for chains that have come to whitened vectors ``(chains, dims)``."""


@dataclass(frozen=True)
class Start:
    """Where chains start.

    Attributes:
        places: whitened vectors ``(chains, dims)``.
        coordinates: in which the kernels move; those of the prior, scaled while warming up, if None.
        refit: of the coordinates while warming up; None keeps those given.
        one_place: whether all start near one place.
    """

    places: Tensor
    coordinates: Coordinates | None = None
    refit: Refit | None = None
    one_place: bool = False


def make_start(problem: InverseProblem, settings: SolverSettings) -> Start:
    """The start that the settings ask for: wider apart than the posterior, but for the places a caller chose."""
    count, start = settings.num_chains, settings.start
    if isinstance(start, Solution):
        return _from_solution(problem, settings, start)
    if isinstance(start, Tensor):
        given = start.detach().to(problem.lr)
        if given.dim() == 2:
            return Start(given)
        return Start(given + _NEAR * torch.randn(count, problem.dims, device="cpu").to(problem.lr), one_place=True)
    if start == "draw":
        return Start(antithetic_draws(problem, count))
    places = scattered_modes(problem, count, steps=settings.steps, learning_rate=settings.learning_rate)
    return Start(places) if start == "mode" else _laplace(problem, settings, places)


def _laplace(problem: InverseProblem, settings: SolverSettings, places: Tensor) -> Start:
    """At places around the modes; the proposals of pCN need a centre too, which is the mode above the prior's mean."""
    mean = problem.lr.new_zeros(1, problem.dims)
    mode, _ = ascend(problem, mean, steps=settings.steps, learning_rate=settings.learning_rate)
    refit = _curvature_around(problem, settings, mode[0])
    return Start(places, refit(places), refit)


def _from_solution(problem: InverseProblem, settings: SolverSettings, solution: Solution) -> Start:
    draws = solution.latents[0].to(problem.lr)
    if solution.method != "map":
        fitted = solution.coordinates
        return Start(draws[: settings.num_chains], fitted and fitted.to(problem.lr))
    refit = _curvature_around(problem, settings, draws[0])
    found = refit(draws)
    white = torch.randn(settings.num_chains, problem.dims, device="cpu").to(problem.lr)
    return Start(found.to_latents(white), found, refit)


def _curvature_around(problem: InverseProblem, settings: SolverSettings, mean: Tensor) -> Refit:
    return lambda u: laplace_coordinates(problem, mean, u, rank=settings.rank)
