"""Likelihood analysis: what a log-likelihood consists of, how exact it is, and what it can be used for.

Every analysis is one function that returns a :class:`flowsr.results.Result`: named fields with units, a table, JSON,
and a figure. They ask what a model offers, not which class it is of.
"""

from flowsr.likelihood.bounds import OFFICIAL_BINS, BitsPerDim, bits_per_dim, official_nll
from flowsr.likelihood.decompose import LogLikelihoodTerms, decompose
from flowsr.likelihood.inverse import inverse_stability
from flowsr.likelihood.latent_normality import LatentDiagnostics, latent_diagnostics
from flowsr.likelihood.latent_statistics import LatentStatistics
from flowsr.likelihood.outliers import PERTURBATIONS, SCORES, OutOfDistribution, auroc, out_of_distribution, perturbed
from flowsr.likelihood.stability import GROWTH_LIMIT, ROUND_TRIP_LIMIT, InverseStability, LayerStability
from flowsr.likelihood.sweep import TemperatureSweep, temperature_sweep
from flowsr.likelihood.variational import fit_dequantizer

__all__ = [
    "GROWTH_LIMIT",
    "OFFICIAL_BINS",
    "PERTURBATIONS",
    "ROUND_TRIP_LIMIT",
    "SCORES",
    "BitsPerDim",
    "InverseStability",
    "LatentDiagnostics",
    "LatentStatistics",
    "LayerStability",
    "LogLikelihoodTerms",
    "OutOfDistribution",
    "TemperatureSweep",
    "auroc",
    "bits_per_dim",
    "decompose",
    "fit_dequantizer",
    "inverse_stability",
    "latent_diagnostics",
    "official_nll",
    "out_of_distribution",
    "perturbed",
    "temperature_sweep",
]
