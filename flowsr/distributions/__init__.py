"""Distributions of packed latents and of images."""

from flowsr.distributions.dequantization import dequantization_nats, uniform_dequantize
from flowsr.distributions.flow import FlowDistribution
from flowsr.distributions.packed_normal import PackedNormal, level_temperatures, normal_log_prob

__all__ = [
    "FlowDistribution",
    "PackedNormal",
    "dequantization_nats",
    "level_temperatures",
    "normal_log_prob",
    "uniform_dequantize",
]
