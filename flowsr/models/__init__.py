"""Models: configurations, HCFlow, and the files that hold their weights."""

from flowsr.models.config import PRESETS, HCFlowConfig, preset
from flowsr.models.hcflow import HCFlow, Latents
from flowsr.models.storage import load, save
from flowsr.models.terms import HasTerms, LRLikelihood, Term

__all__ = [
    "PRESETS",
    "HCFlow",
    "HCFlowConfig",
    "HasTerms",
    "LRLikelihood",
    "Latents",
    "Term",
    "load",
    "preset",
    "save",
]
