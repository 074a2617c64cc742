"""Likelihood analysis: what a log-likelihood consists of, how exact it is, and what it can be used for.

Every analysis is one function that returns a :class:`flowsr.results.Result`: named fields with units, a table, JSON,
and a figure. They ask what a model offers, not which class it is of.
"""

from flowsr.likelihood.bounds import BitsPerDim, bits_per_dim
from flowsr.likelihood.conventions import CONVENTIONS, NO_LIKELIHOOD, Convention, Noise, find_convention
from flowsr.likelihood.convert import OFFICIAL_BINS, conversions, convert, official_nll, score_as
from flowsr.likelihood.decompose import LogLikelihoodTerms, decompose
from flowsr.likelihood.inverse import inverse_stability
from flowsr.likelihood.latent_normality import LatentDiagnostics, latent_diagnostics
from flowsr.likelihood.latent_statistics import LatentStatistics
from flowsr.likelihood.outliers import PERTURBATIONS, SCORES, OutOfDistribution, auroc, out_of_distribution, perturbed
from flowsr.likelihood.stability import GROWTH_LIMIT, ROUND_TRIP_LIMIT, InverseStability, LayerStability
from flowsr.likelihood.sweep import TemperatureSweep, temperature_sweep
from flowsr.likelihood.variational import fit_dequantizer

__all__ = [
    "CONVENTIONS",
    "GROWTH_LIMIT",
    "NO_LIKELIHOOD",
    "OFFICIAL_BINS",
    "PERTURBATIONS",
    "ROUND_TRIP_LIMIT",
    "SCORES",
    "BitsPerDim",
    "Convention",
    "InverseStability",
    "LatentDiagnostics",
    "LatentStatistics",
    "LayerStability",
    "LogLikelihoodTerms",
    "Noise",
    "OutOfDistribution",
    "TemperatureSweep",
    "auroc",
    "bits_per_dim",
    "conversions",
    "convert",
    "decompose",
    "find_convention",
    "fit_dequantizer",
    "inverse_stability",
    "latent_diagnostics",
    "official_nll",
    "out_of_distribution",
    "perturbed",
    "score_as",
    "temperature_sweep",
]
