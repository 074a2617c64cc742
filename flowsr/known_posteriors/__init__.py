"""Posterior samplers against posteriors whose truth is known: problems, budgets of gradients, contenders, figures."""

from flowsr.known_posteriors.accuracy import accuracy
from flowsr.known_posteriors.budget import Budget, Draws, Sampler
from flowsr.known_posteriors.contenders import (
    FAULTS,
    SAMPLERS,
    chains_sampler,
    guide_sampler,
    mode_sampler,
    nuts_sampler,
    smc_sampler,
)
from flowsr.known_posteriors.contest import Contest, Score, Standing, contest
from flowsr.known_posteriors.problems import PROBLEMS, known_posterior
from flowsr.known_posteriors.truth import KnownPosterior, LinearMoments, Reference

__all__ = [
    "FAULTS",
    "PROBLEMS",
    "SAMPLERS",
    "Budget",
    "Contest",
    "Draws",
    "KnownPosterior",
    "LinearMoments",
    "Reference",
    "Sampler",
    "Score",
    "Standing",
    "accuracy",
    "chains_sampler",
    "contest",
    "guide_sampler",
    "known_posterior",
    "mode_sampler",
    "nuts_sampler",
    "smc_sampler",
]
