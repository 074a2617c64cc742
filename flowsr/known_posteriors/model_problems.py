"""Inverse problems of the shipped model, whose posterior long chains have measured: their files and how to read them.

A file holds what was observed and the statistics of the chains, with their Monte Carlo errors; what made it is
``python -m benchmarks.posterior.references``.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsr.errors import CheckpointError
from flowsr.known_posteriors.truth import KnownPosterior, Reference
from flowsr.models import ConditionalModel
from flowsr.models.storage import load
from flowsr.posterior import Blur, Downscale, GaussianNoise, Identity, InverseProblem, Mask, Noise, PoissonNoise

MODEL = "sr-x4-small-v1"
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


def read_reference(path: Path) -> KnownPosterior:
    """The problem and the statistics of a file of ``python -m benchmarks.posterior.references``.

    Cost: reading it, and loading the model once.

    Args:
        path: of the file.

    Raises:
        CheckpointError: if the references are of other weights than those that are installed.

    """
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "about"}
        about = json.loads(str(file["about"]))
    flow = shipped_model()
    if (found := digest(flow)) != about["digest"]:
        raise CheckpointError(
            f"expected the weights of {MODEL} that {path.name} is of, digest {about['digest']}; got {found}: make it "
            f"anew with python -m benchmarks.posterior.references {about['name']}, or install the version it came with"
        )
    task, size = about["name"].rsplit("-", 1)
    operator, noise = task_of(task, int(size))
    problem = InverseProblem(flow, arrays["lr"], operator, arrays["observation"], noise)
    return KnownPosterior(about["name"], f"{size}x{size} of a photograph, {_ABOUT[task]}", problem, _of(arrays, about))


_ABOUT = {
    "inpainting": "right half hidden",
    "deblurring": "blurred",
    "downscaling": "halved",
    "poisson": "counts of photons",
}


def _of(arrays: dict[str, Tensor], about: dict[str, Any]) -> Reference:
    std = arrays["std"].double()
    return Reference(
        how=f"HMC, {about['chains']} chains of {about['draws']} draws",
        mean=arrays["mean"].double(),
        std=std,
        kept=arrays["draws"].double() if len(arrays["draws"]) else None,
        mean_error=float((arrays["mean_error"] / std).square().mean().sqrt()),
        std_error=float((arrays["std_error"] / std).square().mean().sqrt()),
        rhat=about["rhat"],
    )


def reference_names() -> tuple[str, ...]:
    """The problems of the shipped model whose references are there."""
    found = {path.name.removesuffix(".npz") for path in _folder().iterdir() if path.name.endswith(".npz")}
    return tuple(f"{task}-{size}" for size in SIZES for task in TASKS if f"{task}-{size}" in found)


def shipped_problem(name: str) -> KnownPosterior:
    """A problem of :func:`reference_names`."""
    with as_file(_folder() / f"{name}.npz") as path:
        return read_reference(path)


def _folder() -> Any:
    return files("flowsr").joinpath("known_posteriors", "references")
