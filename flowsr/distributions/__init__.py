"""Distributions of packed latents and of images."""

from flowsr.distributions.dequantization import (
    Dequantizer,
    UniformDequantizer,
    VariationalDequantizer,
    uniform_dequantize,
)
from flowsr.distributions.discretized_normal import DiscretizedNormal
from flowsr.distributions.flow import FlowDistribution
from flowsr.distributions.packed_normal import (
    PackedNormal,
    Temperature,
    draw_noise,
    level_temperatures,
    normal_log_prob,
    packed_standard_normal,
)

__all__ = [
    "Dequantizer",
    "DiscretizedNormal",
    "FlowDistribution",
    "PackedNormal",
    "Temperature",
    "UniformDequantizer",
    "VariationalDequantizer",
    "draw_noise",
    "level_temperatures",
    "normal_log_prob",
    "packed_standard_normal",
    "uniform_dequantize",
]
