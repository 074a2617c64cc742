"""Posteriors of a few bent dimensions: all integrals on a grid, and independent draws by rejection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from flowsr.known_posteriors.truth import KnownPosterior, Reference
from flowsr.posterior import GaussianNoise, InverseProblem, LinearGaussianFlow

_REACH = 4.5  # standard deviations of the prior, beyond which there is no mass to speak of
_AT_ONCE = 1 << 16


def grid_reference(problem: InverseProblem, points: Sequence[int]) -> Reference:
    """Mean, standard deviations and evidence by the trapezoid rule on a grid of latents; draws by rejection.

    The rule is exact but for terms that vanish faster than any power of the spacing, once that is about the width of
    what is integrated.

    Cost: a decoding pass of as many images as the grid has points; of a draw, of as many as are rejected.

    Args:
        problem: of two to four latents, with Gaussian noise.
        points: of the grid along each latent, at least 2.

    Returns:
        The reference; its draws share nothing with the grid.

    Raises:
        ValueError: for numbers of points that do not fit the problem, or noise that is not Gaussian.

    References:
        Trefethen and Weideman, The exponentially convergent trapezoidal rule (SIAM Review 2014), section 2.

    Example:
        >>> from flowsr.posterior import Identity
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)).double(), torch.full((1, 1, 1), 0.5).double()
        >>> problem = InverseProblem(flow, lr, Identity(), torch.full((1, 2, 2), 0.5), GaussianNoise(0.1))
        >>> float(grid_reference(problem, (31, 31, 31)).std[0, 0, 0] * 100)  # in closed form: 10·√(1/5 + 1/5 + 1/8)...
        7.24...
    """
    if len(points) != problem.dims or min(points) < 2:
        raise ValueError(f"expected at least 2 points along each of {problem.dims} latents; got {tuple(points)}")
    if not isinstance(problem.noise, GaussianNoise):
        raise ValueError(f"expected Gaussian noise, whose likelihood has a known bound; got {problem.noise!r}")
    axes = [torch.linspace(-_REACH, _REACH, count, dtype=torch.float64, device="cpu") for count in points]
    u = torch.cartesian_prod(*axes)
    log_cell = sum(math.log(2 * _REACH / (count - 1)) for count in points) - 0.5 * len(points) * math.log(2 * math.pi)
    parts = [_joint(problem, part) for part in u.split(_AT_ONCE)]
    images, joint = (torch.cat(column) for column in zip(*parts, strict=True))
    weights = joint.softmax(0)
    mean = torch.einsum("n,n...->...", weights, images)
    std = torch.einsum("n,n...->...", weights, (images - mean).square()).sqrt()
    evidence = float(joint.logsumexp(0)) + log_cell
    return Reference("quadrature", mean, std, evidence, lambda count, seed: _rejection(problem, count, seed))


@torch.no_grad()
def _joint(problem: InverseProblem, u: Tensor) -> tuple[Tensor, Tensor]:
    images = problem.decode(u)
    return images, problem.log_likelihood(images) - 0.5 * u.square().sum(-1)


@torch.no_grad()
def _rejection(problem: InverseProblem, count: int, seed: int) -> Tensor:
    """Draws of the prior, each kept with the probability that its likelihood is of the largest there can be."""
    generator = torch.Generator().manual_seed(seed)
    best = problem.noise.distribution(problem.observation, event_dim=problem.observation.dim())
    bound = best.log_prob(problem.observation)
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        u = torch.randn(_AT_ONCE, problem.dims, generator=generator, dtype=torch.float64, device=generator.device)
        images = problem.decode(u)
        chance = torch.rand(_AT_ONCE, generator=generator, dtype=torch.float64, device=generator.device)
        kept.append(images[chance.log() < problem.log_likelihood(images) - bound])
    return torch.cat(kept)[:count]


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Half the difference of left and right, and of top and bottom, of images of 2x2 pixels."""
    left, top = images[:, 0, :, 0].mean(-1), images[:, 0, 0].mean(-1)
    mean = images.mean((1, 2, 3))
    return left - mean, top - mean


def _contrast(images: Tensor) -> Tensor:
    across, down = _slopes(images)
    return torch.stack([across.square() / 0.15, 0.25 * across, down], -1)


def _steepness(images: Tensor) -> Tensor:
    across, down = _slopes(images)
    return torch.stack([(across.square() + down.square()) / 0.15, 0.1 * across], -1)


def _bent(
    name: str, about: str, operator: Callable[[Tensor], Tensor], observation: Sequence[float], noise: float
) -> KnownPosterior:
    """An image of 2x2 pixels whose mean is known: three latents, seen through an operator that is not linear."""
    flow = LinearGaussianFlow(detail_std=(0.15,)).double()
    lr = torch.full((1, 1, 1), 0.5, dtype=torch.float64, device="cpu")
    seen = torch.tensor(observation, dtype=torch.float64, device="cpu")
    problem = InverseProblem(flow, lr, operator, seen, GaussianNoise(noise))
    return KnownPosterior(name, about, problem, grid_reference(problem, (121, 121, 31)))


def two_modes() -> KnownPosterior:
    """The squared contrast of an image of 2x2 pixels, and little of its sign: two modes of different weight.

    Cost: a decoding pass of 450 000 images of four pixels.
    """
    known = _bent("two modes", "2x2, contrast squared", _contrast, (0.16, 0.04, 0.05), 0.05)
    return replace(known, mode_of=lambda images: (_slopes(images)[0] > 0).long())


def ring() -> KnownPosterior:
    """The steepness of an image of 2x2 pixels, and little of its direction: a thin ring.

    Cost: a decoding pass of 450 000 images of four pixels.
    """
    return _bent("ring", "2x2, slope of unknown direction", _steepness, (0.27, 0.015), 0.04)
