"""Distributions of packed latents and of images."""

from flowsr.distributions.dequantization import (
    Dequantizer,
    UniformDequantizer,
    VariationalDequantizer,
    uniform_dequantize,
)
from flowsr.distributions.discretized_normal import DiscretizedNormal
from flowsr.distributions.divergence import Divergence, monte_carlo_kl
from flowsr.distributions.flow import FlowDistribution
from flowsr.distributions.noise_field import NoiseField, draw_noise
from flowsr.distributions.packed_normal import (
    PackedNormal,
    ProposedNormal,
    Temperature,
    level_temperatures,
    normal_log_prob,
    packed_standard_normal,
    proper_scale,
    split_levels,
)

__all__ = [
    "Dequantizer",
    "DiscretizedNormal",
    "Divergence",
    "FlowDistribution",
    "NoiseField",
    "PackedNormal",
    "ProposedNormal",
    "Temperature",
    "UniformDequantizer",
    "VariationalDequantizer",
    "draw_noise",
    "level_temperatures",
    "monte_carlo_kl",
    "normal_log_prob",
    "packed_standard_normal",
    "proper_scale",
    "split_levels",
    "uniform_dequantize",
]
