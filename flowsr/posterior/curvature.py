"""What data add to the precision of latents: leading directions of the Gauss-Newton matrix, by Jacobian products."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.inverse_problem import InverseProblem
from flowsr.posterior.target import Target

_DIRECTIONS = 256  # by default: as many as a second observed image of 32x32 tells more of than the prior
_MORE = 10  # directions looked at beyond those kept
_POINTS = 4  # at most, at which the curvature is averaged
_STEPS = 5  # to the mode, at most
_AT_ONCE = 16  # images per pass, at most


def laplace_coordinates(
    problem: InverseProblem, mean: Tensor, points: Tensor, *, rank: int | None = None
) -> Coordinates:
    """Those of ``N(m, (I + H)⁻¹)``, H the Gauss-Newton matrix averaged over points.

    At one mode this is Laplace's approximation. Averaged over draws of the posterior it is the better metric of chains:
    a flow bends, and at its mode it is smoother than where the draws are. The mean m is what Gauss-Newton steps make of
    the one given: for a linear problem, the posterior's.

    Cost: as :func:`informed_directions`, and ten gradients.

    Args:
        problem: with gradients.
        mean: whitened vector ``(dims,)`` near a mode.
        points: whitened vectors ``(n, dims)``, of which up to four count, evenly spaced.
        rank: see :func:`informed_directions`.
    """
    coordinates = Coordinates.of_precision(mean, *informed_directions(problem, points, rank=rank))
    target = Target(problem.latent_log_likelihood, coordinates)
    return replace(coordinates, mean=coordinates.to_latents(_lowest(target, torch.zeros_like(mean)[None]))[0])


def _lowest(target: Target, v: Tensor) -> Tensor:
    """Down from ``(1, dims)`` by steps along the slope, which in fitted coordinates are those of Gauss and Newton."""
    for _ in range(_STEPS):
        energy, slope = target.slope(v)
        tried = v - slope * v.new_tensor([1.0, 0.3, 0.1])[:, None]
        energies = target.energy(tried)
        if not bool(energies.min() < energy):
            break
        v = tried[energies.argmin()][None]
    return v


def informed_directions(problem: InverseProblem, points: Tensor, *, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors and eigenvalues of ``H = mean_j J_jᵀ·W_j·J_j``: where the data tell more than the prior.

    J is the Jacobian of what the operator makes of the decoded image, W the Fisher information of the noise: H is what
    the data add to the precision I of the prior. Its range is found from products with random vectors, ``Jᵀ·W^½·ω``;
    in it H is computed by products J·q, which are differences, as reversible models have no forward derivatives.

    Cost: ``rank + 10`` gradients, and for each point ``2·(rank + 10)`` decoding passes, 16 at once if these fit into
    memory.

    Args:
        problem: with gradients.
        points: whitened vectors ``(n, dims)``, of which up to four count, evenly spaced.
        rank: directions to keep, at least 1; by default 256, or all there are.

    Returns:
        Orthonormal directions ``(dims, rank)``, and eigenvalues ``(rank,)``, falling, at least 0.

    References:
        Halko, Martinsson and Tropp, Finding structure with randomness (SIAM Review 2011), sections 4 and 5; Cui et al.,
        Likelihood-informed dimension reduction for nonlinear inverse problems (Inverse Problems 2014), section 3, for
        the average over the posterior.

    Example:
        >>> from flowsr.posterior import GaussianNoise, Identity, LinearGaussianFlow
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
        >>> problem = InverseProblem(flow, lr, Identity(), torch.rand(1, 4, 4), GaussianNoise(0.1))
        >>> directions, values = informed_directions(problem, torch.zeros(1, 12), rank=3)
        >>> directions.shape, [round(value, 3) for value in values.tolist()]
        (torch.Size([12, 3]), [4.0, 4.0, 4.0])
    """
    places = torch.linspace(0, len(points) - 1, min(_POINTS, len(points)), device=points.device).long()
    points = points[places].to(problem.lr)
    kept = min(rank or _DIRECTIONS, problem.dims)
    looked = min(kept + _MORE, problem.dims)
    range_ = torch.cat([_pulled_back(problem, part) for part in _dealt(points, looked).split(problem.batch(_AT_ONCE))])
    basis = torch.linalg.qr(range_.double().T)[0].to(points)
    small = sum(_within(problem, point, basis) for point in points) / len(points)
    values, vectors = torch.linalg.eigh(small)
    values, vectors = values.flip(0)[:kept].clamp_min(0.0), vectors.flip(1)[:, :kept]
    return (basis.double() @ vectors).to(points), values.to(points)


def _dealt(points: Tensor, count: int) -> Tensor:
    """The points in turn, ``(count, dims)``."""
    return points[torch.arange(count, device=points.device) % len(points)]


def _pulled_back(problem: InverseProblem, u: Tensor) -> Tensor:
    """``Jᵀ·W^½·ω`` with white noise ω, at each whitened vector ``(n, dims)``."""
    with torch.enable_grad():
        leaf = u.detach().clone().requires_grad_()
        clean = problem.observe(problem.decode(leaf))
        # Of the program's own random state, which the seed fixes.
        white = torch.randn(clean.shape, device="cpu").to(clean)
        weights = problem.noise.information(clean.detach()).sqrt()
        (pulled,) = torch.autograd.grad((weights * white * clean).sum(), leaf)
    return pulled.nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def _within(problem: InverseProblem, u: Tensor, basis: Tensor) -> Tensor:
    """``Bᵀ·W·B`` in float64 with ``B = J·basis`` at a whitened vector ``(dims,)``, by central differences."""
    step = 1e-5 if u.dtype == torch.float64 else 1e-2
    weights = problem.noise.information(problem.observe(problem.decode(u[None]))).sqrt().flatten().double()
    pushed = []
    for part in (step * basis.T).split(max(1, problem.batch(_AT_ONCE, gradients=False) // 2)):
        up, down = problem.observe(problem.decode(torch.cat([u + part, u - part]))).flatten(1).double().chunk(2)
        pushed.append(weights * (up - down) / (2 * step))
    product = torch.cat(pushed).nan_to_num(0.0, 0.0, 0.0)
    return product @ product.T
