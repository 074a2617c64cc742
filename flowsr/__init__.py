"""flowsr: HCFlow, a flow between an image and its low-resolution version, as Pyro transforms and distributions."""

from flowsr import distributions, images, likelihood, metrics, models, nn, programs, transforms
from flowsr.errors import CheckpointError, ImageError
from flowsr.models import HCFlow, HCFlowConfig, Latents, load, save

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "HCFlow",
    "HCFlowConfig",
    "ImageError",
    "Latents",
    "distributions",
    "images",
    "likelihood",
    "load",
    "metrics",
    "models",
    "nn",
    "programs",
    "save",
    "transforms",
]
