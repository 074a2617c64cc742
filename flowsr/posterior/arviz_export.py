"""Draws of an inverse problem in ArviZ's format, for its plots and diagnostics; ArviZ is an optional dependency."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import torch

from flowsr._support.extras import import_extra
from flowsr.posterior.solution import Solution


@torch.no_grad()
def to_arviz(solution: Solution, *, images: bool = True) -> Any:
    """A solution as ArviZ's InferenceData (ArviZ 0.x) or DataTree (1.x).

    Groups: ``posterior`` with a latent ``z_l`` per level, ``(chain, draw, channel, y, x)`` with coordinates of its own
    for each level, ``lr`` if it was uncertain, and ``hr``; ``log_likelihood`` with one number per draw, ``joint``;
    ``sample_stats`` with the log prior and the residual in units of the noise; ``observed_data``. Method, seed,
    acceptance, divergences and remarks are attributes of ``posterior``.

    Cost: decoding all draws; with ``images``, memory for them.

    Args:
        solution: from :func:`flowsr.posterior.solve`.
        images: whether to include the HR images.

    Raises:
        MissingExtraError: if ArviZ is not installed.

    Example:
        >>> from flowsr.posterior import GaussianNoise, Identity, InverseProblem, LinearGaussianFlow, solve
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
        >>> problem = InverseProblem(flow, lr, Identity(), torch.rand(1, 4, 4), GaussianNoise(0.1))
        >>> data = to_arviz(solve(problem, "pcn", num_samples=10, num_warmup=5, num_chains=2))
        >>> dict(data.posterior.sizes)["draw"]
        10
    """
    with warnings.catch_warnings():
        # ArviZ 0.23 announces version 1 whenever it is imported; both are supported here.
        warnings.simplefilter("ignore", FutureWarning)
        arviz = import_extra("arviz", to="hand over the draws")
    problem = solution.problem
    chains, draws, _ = solution.latents.shape
    lr, z = problem.unwhiten(solution.latents.to(problem.lr))
    posterior, dims = {}, {}
    for level, latent in zip(problem.flow.latent_levels(), z, strict=True):
        name = f"z_{level}"
        posterior[name] = _array(latent)
        dims[name] = [f"{name}_channel", f"{name}_y", f"{name}_x"]
    if problem.lr_prior is not None:
        posterior["lr"] = _array(lr)
        dims["lr"] = ["channel", "lr_y", "lr_x"]
    hr, likelihood, residual = [], [], []
    for batch in solution.image_batches():
        likelihood.append(problem.log_likelihood(batch).cpu())
        residual.append(problem.residual_rms(batch).cpu())
        if images:
            hr.append(batch.cpu())
    if images:
        posterior["hr"] = _array(torch.cat(hr).unflatten(0, (chains, draws)))
        dims["hr"] = ["channel", "y", "x"]
    latents = solution.latents.double()
    prior = -0.5 * (latents.square() + np.log(2 * np.pi)).sum(-1)
    groups = {
        "posterior": posterior,
        "log_likelihood": {"joint": _array(torch.cat(likelihood).unflatten(0, (chains, draws)))},
        "sample_stats": {
            "log_prior": _array(prior),
            "residual": _array(torch.cat(residual).unflatten(0, (chains, draws))),
        },
        "observed_data": {"observation": _array(problem.observation)},
    }
    attributes = {
        "method": solution.method,
        "seed": solution.seed,
        "divergences": solution.diagnostics.divergences,
        "acceptance": list(solution.diagnostics.acceptance),
        "remarks": " ".join(solution.diagnostics.remarks),
        "inference_library": "flowsr",
    }
    return _from_dict(arviz, groups, dims, attributes)


def _from_dict(arviz: Any, groups: dict[str, Any], dims: dict[str, Any], attributes: dict[str, Any]) -> Any:
    """Call ``from_dict`` as this version of ArviZ wants it: one argument per group (0.x), or a dict of groups (1.x)."""
    dims = {**dims, "observation": [f"observation_{i}" for i in range(groups["observed_data"]["observation"].ndim)]}
    if "posterior" in inspect.signature(arviz.from_dict).parameters:
        return arviz.from_dict(**groups, dims=dims, save_warmup=False, posterior_attrs=attributes)
    return arviz.from_dict(groups, dims=dims, attrs={"posterior": attributes})


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
