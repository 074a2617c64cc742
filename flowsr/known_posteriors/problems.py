"""Problems whose posterior is known exactly: linear-Gaussian ones in closed form, and small bent ones by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flowsr.errors import did_you_mean
from flowsr.known_posteriors.model_problems import reference_names, shipped_problem
from flowsr.known_posteriors.quadrature import ring, two_modes
from flowsr.known_posteriors.truth import KnownPosterior, LinearMoments, Reference
from flowsr.posterior import (
    Blur,
    Gaussian,
    GaussianNoise,
    InverseProblem,
    LinearGaussianFlow,
    Mask,
    gaussian_posterior,
    operator_matrix,
)

_LR_LOG_SCALE = math.log(0.05)  # finite, so that images have a density


def linear_problem(name: str, about: str, operator: Any, *, noise: float, seed: int = 0) -> KnownPosterior:
    """A linear observation with Gaussian noise of an 8x8 image of a :class:`flowsr.posterior.LinearGaussianFlow`.

    Cost: a solution of 64 linear equations.

    Args:
        name: of the problem.
        about: it, in words.
        operator: linear function of images ``(n, 1, 8, 8)``.
        noise: its standard deviation, > 0.
        seed: of the true image and of the noise.

    References:
        Bishop, Pattern Recognition and Machine Learning (2006), section 2.3.3.
    """
    flow = LinearGaussianFlow(detail_std=(0.08, 0.04)).double()
    lr = torch.tensor([[[0.3, 0.6], [0.5, 0.7]]], dtype=torch.float64, device="cpu")
    prior = flow.posterior(lr, lr_log_scale=_LR_LOG_SCALE)
    shape = (1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    hr = _gaussian_draws(prior, 1, generator).reshape(shape)
    operator = operator.double()
    observation = GaussianNoise(noise).simulate(operator(hr[None])[0], generator=generator)
    problem = InverseProblem(flow, lr, operator, observation, GaussianNoise(noise), lr_log_scale=_LR_LOG_SCALE)
    matrix = operator_matrix(operator, shape)
    posterior = gaussian_posterior(prior, matrix, observation, noise_std=noise)
    evidence = gaussian_evidence(prior, matrix, observation, noise_std=noise)

    def exact(num_samples: int, seed: int) -> Tensor:
        drawn = _gaussian_draws(posterior, num_samples, torch.Generator().manual_seed(seed))
        return drawn.reshape(num_samples, *shape)

    reference = Reference("closed form", posterior.mean.reshape(shape), posterior.std.reshape(shape), evidence, exact)
    return KnownPosterior(name, about, problem, reference, LinearMoments(prior, matrix, posterior))


def gaussian_evidence(prior: Gaussian, matrix: Tensor, observation: Tensor, *, noise_std: float) -> float:
    """``log N(b; A·m, A·P·Aᵀ + s²)`` in nats: the evidence of a linear observation of x ~ N(m, P).

    Cost: O(K³) for K observed values.

    Args:
        prior: moments of x.
        matrix: A, ``(K, D)``.
        observation: b, any shape with K elements.
        noise_std: s > 0.

    References:
        Bishop, Pattern Recognition and Machine Learning (2006), equation 2.115.

    Example:
        >>> prior = Gaussian(torch.zeros(1).double(), torch.eye(1).double())
        >>> round(gaussian_evidence(prior, torch.ones(1, 1), torch.zeros(1), noise_std=1.0), 4)  # N(0; 0, 2)
        -1.2655
    """
    a = matrix.double()
    covariance = a @ prior.covariance @ a.T + noise_std**2 * torch.eye(len(a), dtype=torch.float64, device="cpu")
    root = torch.linalg.cholesky(covariance)
    off = torch.linalg.solve_triangular(root, (observation.double().flatten() - a @ prior.mean)[:, None], upper=False)
    return float(-0.5 * off.square().sum() - root.diagonal().log().sum() - 0.5 * len(a) * math.log(2 * math.pi))


def _gaussian_draws(gaussian: Gaussian, count: int, generator: torch.Generator) -> Tensor:
    # A covariance may be singular to rounding, which a Cholesky root refuses.
    values, vectors = torch.linalg.eigh(gaussian.covariance)
    white = torch.randn(count, len(values), generator=generator, dtype=torch.float64, device=generator.device)
    return gaussian.mean + (white * values.clamp_min(0).sqrt()) @ vectors.T


def _linear_deblurring() -> KnownPosterior:
    return linear_problem("linear deblurring", "8x8, Gaussian, blurred", Blur.gaussian(1.0), noise=0.03)


def _linear_inpainting() -> KnownPosterior:
    left = Mask(torch.arange(8, device="cpu").expand(8, 8) < 4)
    return linear_problem("linear inpainting", "8x8, Gaussian, right half hidden", left, noise=0.03)


PROBLEMS: dict[str, Callable[[], KnownPosterior]] = {
    "linear deblurring": _linear_deblurring,
    "linear inpainting": _linear_inpainting,
    "two modes": two_modes,
    "ring": ring,
    **{name: partial(shipped_problem, name) for name in reference_names()},
}
"""What makes each problem, by name; those named after a task and a size are of the shipped model."""


def known_posterior(name: str) -> KnownPosterior:
    """A problem of :data:`PROBLEMS` by its name, in which hyphens may stand for blanks.

    Cost: a closed form, a quadrature, or reading a file.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> known_posterior("linear-inpainting").reference.mean.shape
        torch.Size([1, 8, 8])
    """
    found = name if name in PROBLEMS else name.replace("-", " ")
    if found not in PROBLEMS:
        raise ValueError(f"expected a problem among {', '.join(PROBLEMS)}; got {name!r}{did_you_mean(found, PROBLEMS)}")
    return PROBLEMS[found]()
