"""Posterior samplers against posteriors whose truth is known: problems, budgets of gradients, contenders, figures."""

from flowsr.known_posteriors.budget import Budget, Draws, Sampler
from flowsr.known_posteriors.contenders import FAULTS, SAMPLERS
from flowsr.known_posteriors.known import KnownPosterior, LinearMoments, Reference
from flowsr.known_posteriors.problems import PROBLEMS, known_posterior

__all__ = [
    "FAULTS",
    "PROBLEMS",
    "SAMPLERS",
    "Budget",
    "Draws",
    "KnownPosterior",
    "LinearMoments",
    "Reference",
    "Sampler",
    "known_posterior",
]
