"""Posterior-sampling studies: summaries of many draws, latent surgery, and inverse problems in latent space."""

from flowsr.posterior.arviz_export import to_arviz
from flowsr.posterior.consistency import LRConsistency, lr_consistency
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.diagnostics import Diagnostics
from flowsr.posterior.evidence import Evidence, log_evidence
from flowsr.posterior.guides import pareto_k
from flowsr.posterior.inverse_problem import GaussianLR, InverseProblem
from flowsr.posterior.kernels import HMC, CrankNicolson, Langevin
from flowsr.posterior.linear_gaussian import Gaussian, LinearGaussianFlow, gaussian_posterior, operator_matrix
from flowsr.posterior.noise import GaussianNoise, LaplaceNoise, Noise, PoissonNoise
from flowsr.posterior.operators import Blur, Downscale, Identity, Mask, as_operator
from flowsr.posterior.samplers import ChainRun, EnoughDraws, sample_chains
from flowsr.posterior.solution import Solution
from flowsr.posterior.solve import solve
from flowsr.posterior.streaming import DrawSummary, StreamingSummary
from flowsr.posterior.summarize import summarize_draws
from flowsr.posterior.surgery import interpolate, resample, restore, sample_with_temperature_map, transfer
from flowsr.posterior.uncertainty import UncertaintyQuality, uncertainty_quality

__all__ = [
    "HMC",
    "Blur",
    "ChainRun",
    "Coordinates",
    "CrankNicolson",
    "Diagnostics",
    "Downscale",
    "DrawSummary",
    "EnoughDraws",
    "Evidence",
    "Gaussian",
    "GaussianLR",
    "GaussianNoise",
    "Identity",
    "InverseProblem",
    "LRConsistency",
    "Langevin",
    "LaplaceNoise",
    "LinearGaussianFlow",
    "Mask",
    "Noise",
    "PoissonNoise",
    "Solution",
    "StreamingSummary",
    "UncertaintyQuality",
    "as_operator",
    "gaussian_posterior",
    "interpolate",
    "log_evidence",
    "lr_consistency",
    "operator_matrix",
    "pareto_k",
    "resample",
    "restore",
    "sample_chains",
    "sample_with_temperature_map",
    "solve",
    "summarize_draws",
    "to_arviz",
    "transfer",
    "uncertainty_quality",
]
