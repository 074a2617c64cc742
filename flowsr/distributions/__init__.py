"""Distributions of packed latents and of images."""

from flowsr.distributions.dequantization import uniform_dequantize
from flowsr.distributions.flow import FlowDistribution
from flowsr.distributions.packed_normal import (
    PackedNormal,
    Temperature,
    level_temperatures,
    normal_log_prob,
    packed_standard_normal,
)

__all__ = [
    "FlowDistribution",
    "PackedNormal",
    "Temperature",
    "level_temperatures",
    "normal_log_prob",
    "packed_standard_normal",
    "uniform_dequantize",
]
