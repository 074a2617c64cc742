"""Diffusion samplers of deepinv with the exact denoiser of a Gaussian: what is left is the sampler's own error.

A diffusion sampler errs by its denoiser, by its steps, and by what it takes for the likelihood of a noisy image. Of a
Gaussian prior the denoiser of least mean square error is linear and known, so that the first error is nil, the second
falls with the number of steps, and the third shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from flowsr.errors import did_you_mean
from flowsr.interop.deepinv_chains import DeepinvChains
from flowsr.interop.libraries import library, subclass
from flowsr.known_posteriors import Budget, Draws, KnownPosterior, LinearMoments, Sampler
from flowsr.posterior import Gaussian, GaussianNoise
from flowsr.posterior.inverse_problem import isolated

_COSTS = {"DPS": 1.0, "DPS annealed": 1.0, "PiGDM": 1.0, "moment matching": 2.0, "DDRM": 0.5, "DiffPIR": 0.5}
"""Gradients per step, in the measure of :class:`flowsr.known_posteriors.Budget`; one more for each of ``cg_steps``."""


class _Shrinkage(torch.autograd.Function):
    """``Q·diag(f)·Qᵀ·x`` of rows x, which tells when its gradient is taken."""

    @staticmethod
    def forward(x: Tensor, factors: Tensor, basis: Tensor, told: Callable[[int], None]) -> Tensor:
        return (x @ basis * factors) @ basis.T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, factors, basis, ctx.told = inputs
        ctx.save_for_backward(factors, basis)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        factors, basis = ctx.saved_tensors
        ctx.told(len(slope))
        return (slope @ basis * factors) @ basis.T, None, None, None


class _GaussianDenoiser:
    """The denoiser of least mean square error of a Gaussian, see :func:`to_deepinv_denoiser`."""

    mean: Tensor
    values: Tensor
    basis: Tensor

    def __init__(self, prior: Gaussian, image_shape: Sequence[int], budget: Budget) -> None:
        super().__init__()
        values, basis = torch.linalg.eigh(prior.covariance)
        # What is negative by rounding is a direction without spread.
        values = torch.where(values > 1e-9 * values[-1], values, 0.0)
        self.image_shape, self.budget = tuple(image_shape), budget
        for name, value in (("mean", prior.mean), ("values", values), ("basis", basis)):
            self.register_buffer(name, value.float())  # type: ignore[attr-defined]

    def forward(self, x: Tensor, sigma: float | Tensor, **_kwargs: Any) -> Tensor:
        """The mean of the image given the noisy one, ``(n, C, H, W)``."""
        self.budget.passes += len(x)
        variance = torch.as_tensor(sigma, device=x.device).to(x).reshape(-1, 1).square()
        factors = self.values.to(x) / (self.values.to(x) + variance).clamp_min(1e-30)
        mean = self.mean.to(x)
        centred = x.reshape(len(x), -1) - mean
        return (mean + _Shrinkage.apply(centred, factors, self.basis.to(x), self._went_back)).reshape(x.shape)

    def _went_back(self, images: int) -> None:
        self.budget.taken += images


def to_deepinv_denoiser(prior: Gaussian, image_shape: Sequence[int], *, budget: Budget | None = None) -> Any:
    """The exact denoiser of a Gaussian as a ``deepinv.models.Denoiser``, for diffusion samplers and ``ScorePrior``.

    ``D(x, σ) = m + P·(P + σ²)⁻¹·(x − m)``, and by Tweedie's formula ``(D(x, σ) − x)/σ²`` is the score of the prior with
    noise σ. P may be singular: D then keeps to the images that there are.

    Cost: an eigendecomposition of P once; two products with a D x D matrix per image.

    Args:
        prior: moments of flattened images.
        image_shape: ``(C, H, W)``.
        budget: charged a pass for each image denoised, and the way back for each gradient taken through it.

    Returns:
        A module that is a ``deepinv.models.Denoiser``.

    Raises:
        MissingExtraError: if deepinv is not installed.
        ValueError: for a shape that the prior does not have.

    References:
        Efron, Tweedie's formula and selection bias (JASA 2011).

    Example:
        >>> prior = Gaussian(torch.zeros(4).double(), 3 * torch.eye(4).double())
        >>> to_deepinv_denoiser(prior, (1, 2, 2))(torch.ones(1, 1, 2, 2), 1.0).flatten()
        tensor([0.7500, 0.7500, 0.7500, 0.7500])
    """
    if torch.Size(image_shape).numel() != prior.mean.numel():
        raise ValueError(f"expected the shape of images of {prior.mean.numel()} values; got {tuple(image_shape)}")
    return subclass(_GaussianDenoiser, "deepinv.models", "Denoiser")(prior, image_shape, budget or Budget(1))


def to_deepinv_physics(matrix: Tensor, image_shape: Sequence[int], *, noise_std: float) -> Any:
    """A linear operator with Gaussian noise as a ``deepinv.physics.DecomposablePhysics``, by its singular values.

    For all samplers of deepinv, of which some need the singular values. Measurements are vectors ``(n, K)``.

    Cost: a singular value decomposition once.

    Args:
        matrix: A, ``(K, D)``, see :func:`flowsr.posterior.operator_matrix`.
        image_shape: ``(C, H, W)``, D values.
        noise_std: of a measured value, > 0.

    Raises:
        MissingExtraError: if deepinv is not installed.
        ValueError: for a shape that the matrix does not have.

    Example:
        >>> physics = to_deepinv_physics(torch.tensor([[1.0, 0.0]]), (1, 1, 2), noise_std=0.1)
        >>> physics.A(torch.tensor([[[[3.0, 4.0]]]])).round(decimals=4)
        tensor([[3.]])
    """
    dims = torch.Size(image_shape).numel()
    if matrix.dim() != 2 or matrix.shape[1] != dims:
        raise ValueError(f"expected a matrix (K, {dims}) for images {tuple(image_shape)}; got {tuple(matrix.shape)}")
    physics = library("deepinv.physics")
    left, found, right = torch.linalg.svd(matrix.double(), full_matrices=True)
    rank = len(found)
    singular = torch.cat([found, found.new_zeros(dims - rank)]).float()
    left, right = left[:, :rank].float(), right.float()

    def padded(coefficients: Tensor) -> Tensor:
        return torch.nn.functional.pad(coefficients, (0, dims - rank)).reshape(-1, *image_shape)

    return physics.DecomposablePhysics(
        U=lambda c, **_: c.reshape(len(c), -1)[:, :rank].float() @ left.T,
        U_adjoint=lambda y, **_: padded(y.float() @ left),
        V=lambda c, **_: (c.reshape(len(c), -1).float() @ right).reshape(-1, *image_shape),
        V_adjoint=lambda x, **_: (x.reshape(len(x), -1).float() @ right.T).reshape(-1, *image_shape),
        mask=singular.reshape(1, *image_shape),
        noise_model=physics.GaussianNoise(noise_std),
    )


@dataclass(frozen=True)
class DeepinvDiffusion:
    """A diffusion sampler of deepinv as a sampler of linear-Gaussian posteriors, with their exact denoiser.

    "DPS", "DPS annealed", "PiGDM" and "moment matching" are deepinv's ``PosteriorDiffusion`` with its data term of that
    name: what they take for ``log p(b | x + σξ)``. They start from noise of ``sigma_max``, fall to ``sigma_min`` in
    equal ratios by its ancestral (DDPM) solver, and end with a denoising step. Moment matching is exact for a Gaussian
    prior, as far as its conjugate gradients go; the others leave out, or guess, how the image spreads given the noisy
    one. "DDRM" and "DiffPIR" are deepinv's, with their own noise levels. Nothing is clipped, but by
    DiffPIR, which does so itself.

    Cost: the budget: of as many steps for each draw as it gives, at least ``least_steps``; where it gives fewer, there
    are fewer draws. A pass of an image through the denoiser and back is a gradient, and one without the way back half.

    Args:
        method: a name above.
        sigma_max: noise at the start, in units of [0, 1]; large beside the spread of the images.
        sigma_min: noise at the end, small beside the posterior's std.
        least_steps: per draw.
        cg_steps: of the conjugate gradients of moment matching, each a way back through the denoiser.

    Raises:
        MissingExtraError: when called, if deepinv is not installed.
        ValueError: for an unknown method or noise levels out of range; when called for a problem that is not
            linear-Gaussian, or a budget too small for two draws.

    References:
        Chung et al., Diffusion posterior sampling for general noisy inverse problems (ICLR 2023); Song et al.,
        Pseudoinverse-guided diffusion models for inverse problems (ICLR 2023); Rozet et al., Learning diffusion priors
        from observations by expectation maximization (NeurIPS 2024), section 4; Kawar et al., Denoising diffusion
        restoration models (NeurIPS 2022); Zhu et al., Denoising diffusion models for plug-and-play image restoration
        (CVPR Workshops 2023).

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known, budget = known_posterior("linear deblurring"), Budget(1000)
        >>> draws = DeepinvDiffusion("PiGDM")(known, budget, 40, 0)
        >>> draws.images.shape, budget.spent
        (torch.Size([40, 1, 8, 8]), 980.0)
    """

    method: str = "moment matching"
    sigma_max: float = 3.0
    sigma_min: float = 0.003
    least_steps: int = 20
    cg_steps: int = 3

    def __post_init__(self) -> None:
        if self.method not in _COSTS:
            near = did_you_mean(self.method, _COSTS)
            raise ValueError(f"expected a method among {', '.join(_COSTS)}; got {self.method!r}{near}")
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"expected 0 < sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}")
        if self.least_steps < 2 or self.cg_steps < 1:
            raise ValueError(f"expected least_steps >= 2 and cg_steps >= 1; got {self.least_steps} and {self.cg_steps}")

    def fits(self, known: KnownPosterior) -> bool:
        """Whether the denoiser is known: of a linear-Gaussian problem."""
        return known.moments is not None and isinstance(known.problem.noise, GaussianNoise)

    def __call__(self, known: KnownPosterior, budget: Budget, num_samples: int, seed: int) -> Draws:
        """Independent draws, see :data:`flowsr.known_posteriors.Sampler`."""
        moments, noise = known.moments, known.problem.noise
        if moments is None or not isinstance(noise, GaussianNoise):
            raise ValueError(
                f"expected a linear-Gaussian problem, whose denoiser is known; got {known.name!r}: take DeepinvChains"
            )
        count, steps = self._within(budget.left, num_samples)
        shape = known.problem.image_shape
        with isolated(known.problem, seed), torch.no_grad():
            images = self._drawn(moments, shape, known.problem.observation.flatten(), noise, (count, steps), budget)
        return Draws(images=images.to(known.problem.lr), correlated=False)

    def _within(self, gradients: float, num_samples: int) -> tuple[int, int]:
        """Draws and steps; a pass is left for the last denoising."""
        cost = _COSTS[self.method] + (self.cg_steps if self.method == "moment matching" else 0)
        count = min(num_samples, int(gradients // (cost * self.least_steps + 0.5)))
        if count < 2:
            raise ValueError(
                f"expected a budget of at least {2 * cost * self.least_steps + 1:g} gradients, for two draws of "
                f"{self.least_steps} steps; got {gradients:g}: give more"
            )
        return count, int((gradients / count - 0.5) // cost)

    def _drawn(
        self,
        moments: LinearMoments,
        shape: tuple[int, int, int],
        observation: Tensor,
        noise: GaussianNoise,
        size: tuple[int, int],
        budget: Budget,
    ) -> Tensor:
        count, steps = size
        denoiser = to_deepinv_denoiser(moments.prior, shape, budget=budget)
        physics = to_deepinv_physics(moments.matrix, shape, noise_std=noise.std)
        y = observation.float().expand(count, -1).clone()
        sampling = library("deepinv.sampling")
        if self.method == "DDRM":
            return sampling.DDRM(denoiser, sigmas=torch.linspace(1, 0, steps, device="cpu").numpy())(y, physics)
        if self.method == "DiffPIR":
            fidelity = library("deepinv.optim.data_fidelity").L2()
            return sampling.DiffPIR(denoiser, fidelity, sigma=noise.std, max_iter=steps)(y, physics)
        diffusion = sampling.PosteriorDiffusion(
            data_fidelity=self._data_term(),
            denoiser=denoiser,
            sde=sampling.VarianceExplodingDiffusion(sigma_min=self.sigma_min, sigma_max=self.sigma_max),
            solver=sampling.DDPMSolver(timesteps=torch.linspace(1, 0, steps + 1, device="cpu")),
            minus_one_one=False,
        )
        # From about where the images lie, so that the start need not be far out.
        start = 0.5 + self.sigma_max * torch.randn(count, *shape, dtype=torch.float64, device="cpu")
        return diffusion(y, physics, x_init=start)

    def _data_term(self) -> Any:
        terms = library("deepinv.sampling.noisy_datafidelity")
        if self.method == "PiGDM":
            return terms.PiGDMDataFidelity()
        if self.method == "moment matching":
            return terms.MomentMatchingDataFidelity(cg_max_iter=self.cg_steps)
        return terms.DPSDataFidelity(guidance="annealed" if self.method == "DPS annealed" else "norm")


DEEPINV_SAMPLERS: dict[str, DeepinvChains | DeepinvDiffusion] = {
    "deepinv-ula": DeepinvChains("ULA"),
    "deepinv-skrock": DeepinvChains("SKRock"),
    "deepinv-ula-images": DeepinvChains("ULA", space="images"),
    "deepinv-skrock-images": DeepinvChains("SKRock", space="images"),
    "deepinv-dps": DeepinvDiffusion("DPS"),
    "deepinv-dps-annealed": DeepinvDiffusion("DPS annealed"),
    "deepinv-pigdm": DeepinvDiffusion("PiGDM"),
    "deepinv-moment-matching": DeepinvDiffusion("moment matching"),
    "deepinv-ddrm": DeepinvDiffusion("DDRM"),
    "deepinv-diffpir": DeepinvDiffusion("DiffPIR"),
}
"""Samplers of deepinv by name, for :func:`flowsr.known_posteriors.contest`."""


def deepinv_samplers(known: KnownPosterior) -> dict[str, Sampler]:
    """What of :data:`DEEPINV_SAMPLERS` can compete on a known posterior; nothing where deepinv is not installed.

    Chains in latent space always; in image space where images have a density; diffusion samplers where the problem is
    linear-Gaussian, so that the denoiser is known.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> list(deepinv_samplers(known_posterior("two modes")))
        ['deepinv-ula', 'deepinv-skrock']
    """
    if find_spec("deepinv") is None:
        return {}
    return {name: sampler for name, sampler in DEEPINV_SAMPLERS.items() if sampler.fits(known)}


def __getattr__(name: str) -> Any:
    if name == "GaussianDenoiser":
        return subclass(_GaussianDenoiser, "deepinv.models", "Denoiser")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
