"""Models: configurations, HCFlow and its family, and the files that hold their weights."""

from flowsr.models.config import PRESETS, HCFlowConfig, preset
from flowsr.models.hcflow import HCFlow
from flowsr.models.irn import IRN, IRNConfig
from flowsr.models.latents import ImageLatents, Latents
from flowsr.models.registry import REGISTRY, from_preset, presets
from flowsr.models.srflow import SRFlow, SRFlowConfig
from flowsr.models.storage import load, save

__all__ = [
    "IRN",
    "PRESETS",
    "REGISTRY",
    "HCFlow",
    "HCFlowConfig",
    "IRNConfig",
    "ImageLatents",
    "Latents",
    "SRFlow",
    "SRFlowConfig",
    "from_preset",
    "load",
    "preset",
    "presets",
    "save",
]
