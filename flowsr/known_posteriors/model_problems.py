"""Inverse problems of the shipped model, whose posterior long chains have measured: their files and how to read them.

A file holds what was observed and the statistics of the chains, with their Monte Carlo errors; what made it is
``python -m benchmarks.posterior.references``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import torch
from torch import nn

from flowsr.models import ConditionalModel
from flowsr.models.storage import load
from flowsr.posterior import Blur, Downscale, GaussianNoise, Identity, Mask, Noise, PoissonNoise

MODEL = "sr-x4-small"
"""The weights that the references are of; others have other posteriors, and are told by their digest."""

TASKS = ("inpainting", "deblurring", "downscaling", "poisson")
SIZES = (16, 32)


def task_of(name: str, size: int) -> tuple[Any, Noise]:
    """Operator and noise of a task on crops of ``size`` pixels.

    The noise is wide enough for chains to mix: a standard deviation of 0.1, or 50 photons where the image is 1.
    """
    if name == "inpainting":
        return Mask(torch.arange(size, device="cpu").expand(size, size) < size // 2), GaussianNoise(0.1)
    operators: dict[str, nn.Module] = {
        "deblurring": Blur.gaussian(1.5),
        "downscaling": Downscale(2),
        "poisson": Identity(),
    }
    return operators[name], PoissonNoise(50.0) if name == "poisson" else GaussianNoise(0.1)


def digest(model: nn.Module) -> str:
    """What tells weights apart: the first 16 digits of the SHA-256 of all of them, in order of their names."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


@cache
def shipped_model() -> ConditionalModel:
    """The model that the references are of, loaded once."""
    return load(MODEL)
