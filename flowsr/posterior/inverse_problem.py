"""An inverse problem as a Pyro program: the flow given LR as the prior, an observed HR image as the likelihood."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from flowsr.distributions import Temperature, level_temperatures
from flowsr.images import check_image, make_lr
from flowsr.models import Capability, ConditionalModel, require
from flowsr.models.memory import batch_that_fits
from flowsr.posterior.noise import Noise
from flowsr.posterior.operators import Mask, as_operator

SITE = "latent"
"""The program's only latent site, of shape ``(dims,)``."""


class GaussianLR:
    """A Gaussian field over LR images, ``lr = mean + std·R·u`` with white noise u.

    The correlation of two pixels at distance d is ``exp(−d_y²/2ℓ²)·exp(−d_x²/2ℓ²)``; it factors over rows and columns,
    so that its root R costs no more than two small matrices. Channels are independent.

    Cost: O(h³ + w³) once; O(h·w·(h + w)) per image.

    Args:
        mean: ``(C, h, w)`` in [0, 1].
        std: standard deviation of each pixel, in (0, 1].
        correlation: ℓ in LR pixels, at least 0; 0 for independent pixels, at most half of the longer side.

    Raises:
        ValueError: for a mean that is no image or a number out of range.

    Example:
        >>> prior = GaussianLR(torch.full((1, 4, 4), 0.5), std=0.1, correlation=1.5)
        >>> prior(torch.zeros(7, 1, 4, 4)).shape
        torch.Size([7, 1, 4, 4])
    """

    def __init__(self, mean: Tensor, *, std: float, correlation: float = 0.0) -> None:
        check_image(mean, name="the mean of the prior on lr", tolerance=0.25)
        if mean.dim() != 3:
            raise ValueError(f"expected the mean of one LR image (C, h, w); got shape {tuple(mean.shape)}")
        if not 0 < std <= 1:
            raise ValueError(
                f"expected the prior's std in (0, 1], in units of the image's range; got {std}: for a known LR image "
                "give the image itself, for grey levels divide by 255"
            )
        largest = max(mean.shape[-2:]) / 2
        if not 0 <= correlation <= largest:
            raise ValueError(
                f"expected a correlation length from 0 to {largest:g} LR pixels, half of the longer side; got "
                f"{correlation}: a longer one makes the prior all but constant"
            )
        self.mean, self.std, self.correlation = mean, float(std), float(correlation)
        self._roots = [_root(length, self.correlation).to(mean) for length in mean.shape[-2:]]

    def __call__(self, white: Tensor) -> Tensor:
        """The LR image of white noise ``(*batch, C, h, w)``."""
        rows, columns = self._roots
        return self.mean + self.std * (rows @ white @ columns.mT)

    def whiten(self, lr: Tensor) -> Tensor:
        """The white noise of an LR image, the inverse of calling."""
        rows, columns = self._roots
        half = torch.linalg.solve_triangular(rows, (lr - self.mean) / self.std, upper=False)
        return torch.linalg.solve_triangular(columns, half.mT.contiguous(), upper=False).mT

    def to(self, device: torch.device, dtype: torch.dtype) -> GaussianLR:
        """The same prior on another device, in another dtype."""
        return GaussianLR(self.mean.to(device, dtype), std=self.std, correlation=self.correlation)

    def __repr__(self) -> str:
        return f"GaussianLR(shape={tuple(self.mean.shape)}, std={self.std:g}, correlation={self.correlation:g})"


def _root(length: int, correlation: float) -> Tensor:
    eye = torch.eye(length, dtype=torch.float64, device="cpu")
    if correlation == 0:
        return eye
    position = torch.arange(length, dtype=torch.float64, device="cpu")
    kernel = torch.exp(-0.5 * ((position[:, None] - position) / correlation) ** 2)
    # A squared exponential is singular to rounding; a part in ten thousand of white noise makes it regular.
    return torch.linalg.cholesky((kernel + 1e-4 * eye) / (1 + 1e-4))


class InverseProblem:
    """``p(hr | lr, observation) ∝ p(hr | lr)·p(observation | operator(hr))`` as a Pyro program in latent space.

    Calling it runs the program, so it can be given to any of Pyro's engines, ``MCMC(NUTS(problem), …)``; sites are
    ``latent`` and ``observation``, and ``hr`` is deterministic. :func:`flowsr.posterior.solve` does the rest.

    Cost: one decoding pass and one application of the operator per evaluation.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image ``(C, h, w)`` in [0, 1], or a :class:`GaussianLR`, if it is unknown (blind use).
        operator: function of images ``(n, C, H, W)``, or a physics of deepinv.
        observation: what was observed, of the shape of ``operator(hr[None])[0]``.
        noise: :class:`GaussianNoise`, :class:`LaplaceNoise` or :class:`PoissonNoise`.
        temperature: τ > 0 of the prior, or one per level; other than 1 it is not the model's posterior.
        lr_log_scale: log σ of the flow's LR image around ``lr``, at most 0; ``-inf`` is the Dirac limit, in which
            HCFlow samples. A small finite one makes the posterior stiff, and samplers slow. Only for models with an LR
            image in their latent.

    Attributes:
        dims: number of latent dimensions.
        image_shape: ``(C, H, W)`` of the HR image.

    Raises:
        ValueError: for a density of images alone, an observation of another shape than the operator's result, values
            that are not finite, or parameters out of range; each message says what to do.

    References:
        Asim et al., Invertible generative models for inverse problems (ICML 2020), section 3, for MAP in the latent
        space of a flow; Ardizzone et al., Analyzing inverse problems with invertible neural networks (ICLR 2019).

    Example:
        >>> from flowsr.posterior import GaussianNoise, Mask
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> left = Mask(torch.arange(16).expand(16, 16) < 8)
        >>> problem = InverseProblem(flow, torch.rand(3, 4, 4), left, torch.rand(3 * 16 * 8), GaussianNoise(0.1))
        >>> problem.dims
        720
        >>> pyro.poutine.trace(problem).get_trace().nodes["hr"]["value"].shape
        torch.Size([3, 16, 16])
    """

    def __init__(
        self,
        flow: ConditionalModel,
        lr: Tensor | GaussianLR,
        operator: Any,
        observation: Tensor,
        noise: Noise,
        *,
        temperature: Temperature = 1.0,
        lr_log_scale: float = -math.inf,
    ) -> None:
        if not isinstance(noise, Noise):
            raise ValueError(f"expected noise to be GaussianNoise, LaplaceNoise or PoissonNoise; got {noise!r}")
        require(flow, Capability.CONDITION)
        dirac = lr_log_scale == -math.inf
        if not dirac:
            require(flow, Capability.LR_LATENT)
            if not -40 <= lr_log_scale <= 0:
                raise ValueError(f"expected lr_log_scale from -40 to 0, or -inf (the Dirac limit); got {lr_log_scale}")
        if isinstance(lr, GaussianLR):
            if not dirac:
                raise ValueError("expected either a prior on lr or lr_log_scale; got both: the prior has its own std")
            self.lr_prior: GaussianLR | None = lr.to(flow.device, flow.dtype)
            self.lr = self.lr_prior.mean
        else:
            check_image(lr, name="lr", tolerance=0.25)
            if lr.dim() != 3:
                raise ValueError(f"expected one LR image (C, h, w); got shape {tuple(lr.shape)}: solve one by one")
            self.lr = lr.to(flow.device, flow.dtype)
            self.lr_prior = None if dirac else GaussianLR(self.lr, std=math.exp(lr_log_scale))
        if not isinstance(observation, Tensor):
            raise ValueError(f"expected the observation to be a tensor; got {type(observation).__name__}")
        self.flow, self.noise = flow, noise
        self.operator = as_operator(operator)
        self.observation = observation.to(flow.device, flow.dtype)
        self.shapes = flow.latent_shapes(*self.lr.shape[-2:])
        self.temperatures = level_temperatures(temperature, len(self.shapes))
        if min(self.temperatures) <= 0:
            raise ValueError(
                f"expected temperatures > 0, as the prior needs a density; got {self.temperatures}: for one "
                "deterministic image decode zeros"
            )
        sizes = [shape.numel() for shape in self.shapes]
        self._sizes = ([self.lr.numel()] if self.lr_prior is not None else []) + sizes
        self.dims = sum(self._sizes)
        channels, height, width = self.lr.shape
        self.image_shape = (channels, height * flow.upscale, width * flow.upscale)
        self._check_operator()

    def __call__(self) -> Tensor:
        """The Pyro program; returns the HR image."""
        zeros = torch.zeros(self.dims, device=self.lr.device, dtype=self.lr.dtype)
        u = pyro.sample(SITE, dist.Normal(zeros, 1.0, validate_args=False).to_event(1))
        hr = pyro.deterministic("hr", self.decode(u), event_dim=3)
        event_dim = self.observation.dim()
        pyro.sample("observation", self.noise.distribution(self.observe(hr), event_dim=event_dim), obs=self.observation)
        return hr

    def unwhiten(self, u: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """LR image and latents of whitened vectors ``(*batch, dims)``."""
        parts = list(u.split(self._sizes, -1))
        lr = self.lr
        if self.lr_prior is not None:
            lr = self.lr_prior(parts.pop(0).unflatten(-1, self.lr.shape))
        z = [
            tau * part.unflatten(-1, tuple(shape))
            for tau, part, shape in zip(self.temperatures, parts, self.shapes, strict=True)
        ]
        return lr, tuple(z)

    def decode(self, u: Tensor) -> Tensor:
        """HR images ``(*batch, C, H, W)`` of whitened vectors; NaN where those are not finite or too far out."""
        lr, z = self.unwhiten(u)
        # A diverging trajectory is for the kernel to reject; the flow would refuse such latents with an error.
        usable = torch.isfinite(u.detach()).all(-1) & (lr.detach().abs().amax((-3, -2, -1)) < 8)
        if bool(usable.all()):
            return self.flow.decode(lr, z)
        kept = self.unwhiten(torch.where(usable[..., None], u, 0.0))
        return torch.where(usable[..., None, None, None], self.flow.decode(*kept), math.nan)

    def whiten(self, hr: Tensor) -> Tensor:
        """The whitened vector of an HR image; its own LR image is dropped where ``lr`` is known. Cost: one pass.

        SRFlow makes an HR image of any LR image: where ``lr`` is unknown, this is the vector of the bicubic one.
        """
        known = self.lr_prior is None
        encoding = self.flow.encode(hr, self.lr if known else make_lr(hr, self.flow.upscale))
        parts = [z.flatten(-3) / tau for z, tau in zip(encoding.z, self.temperatures, strict=True)]
        if self.lr_prior is not None:
            parts.insert(0, self.lr_prior.whiten(encoding.lr).flatten(-3))
        return torch.cat(parts, -1)

    def observe(self, hr: Tensor) -> Tensor:
        """What the operator makes of HR images ``(*batch, C, H, W)``, ``(*batch, *observation.shape)``."""
        clean = self.operator(hr.reshape(-1, *hr.shape[-3:]))
        return clean.reshape(hr.shape[:-3] + clean.shape[1:])

    def observed_picture(self) -> Tensor | None:
        """The observation as an image ``(C, H', W')``, NaN where nothing was observed; None if it is no picture.

        Counts are divided by the peak of their noise.
        """
        observation = self.observation
        if isinstance(self.operator, Mask):
            observation = self.operator.picture(observation, self.image_shape, fill=math.nan)
        if observation.dim() != 3 or observation.shape[0] != self.image_shape[0]:
            return None
        return self.noise.to_image(observation)

    def residual_rms(self, hr: Tensor) -> Tensor:
        """Root mean square of ``(observation − mean)/std``, one per image: about 1 where noise alone is left.

        Values that tell nothing of the image, see :attr:`informative`, do not count.
        """
        residual = self.noise.residual(self.observe(hr), self.observation)
        return residual.reshape(*hr.shape[:-3], -1)[..., self.informative.flatten()].square().mean(-1).sqrt()

    @cached_property
    def informative(self) -> Tensor:
        """Which values of the observation depend on the image, boolean: not those that an operator fills with zeros.

        Found by applying the operator to a few images whose pixels all differ; all, if none did.

        Cost: four applications of the operator, once.
        """
        noise = torch.rand(4, *self.image_shape, generator=torch.Generator().manual_seed(0), device="cpu").to(self.lr)
        with torch.no_grad():
            made = self.observe(noise)
        told = (made[1:] != made[:1]).any(0)
        return told if bool(told.any()) else torch.ones_like(told)

    def log_likelihood(self, hr: Tensor) -> Tensor:
        """``log p(observation | hr)`` in nats, one per image."""
        distribution = self.noise.distribution(self.observe(hr), event_dim=self.observation.dim())
        return distribution.log_prob(self.observation)

    def latent_log_likelihood(self, u: Tensor) -> Tensor:
        """``log p(observation | hr)`` in nats of the HR images of whitened vectors ``(n, dims)``, one per image.

        Cost: a decoding pass of n images.
        """
        return self.log_likelihood(self.decode(u))

    def batch(self, most: int, *, gradients: bool = True) -> int:
        """How many images of ``most`` fit into the free memory at once, with the way back to their latents or without.

        Cost: see ``flowsr.models.memory.batch_that_fits``.
        """
        height, width = self.image_shape[-2:]
        return batch_that_fits(self.flow, (height, width), most=most, task="infer" if gradients else "draw")

    def check_differentiable(self, asker: str, *, instead: str = "'pcn'") -> None:
        """Refuse an operator through which no finite gradient flows.

        Args:
            asker: what needs it, as "method 'hmc'".
            instead: what needs none.

        Raises:
            ValueError: saying what needs none.
        """
        u = torch.full((self.dims,), 0.01, device=self.lr.device, dtype=self.lr.dtype, requires_grad=True)
        with torch.enable_grad():
            clean = self.observe(self.decode(u))
            advice = f"{asker} needs gradients: write the operator in differentiable torch functions, or use {instead}"
            if not clean.requires_grad:
                raise ValueError(f"expected a differentiable operator; got one without a gradient: {advice}")
            # Of the operator, seen from a random direction: that of a likelihood may vanish by symmetry.
            direction = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(clean)
            (gradient,) = torch.autograd.grad((direction * clean).sum(), u)
        if not bool(torch.isfinite(gradient).all()):
            raise ValueError(f"expected a finite gradient through the operator; got NaN or infinity: {advice}")
        if not bool(gradient.any()):
            raise ValueError(
                f"expected an operator that depends on the image; got a gradient of zero everywhere (rounding has "
                f"none): {advice}"
            )

    @torch.no_grad()
    def _check_operator(self) -> None:
        if not bool(torch.isfinite(self.observation).all()):
            raise ValueError(
                "expected finite observations; got NaN or infinity: leave unobserved values out with flowsr.posterior"
                ".Mask"
            )
        self.noise.check(self.observation)
        images = self.decode(torch.zeros(2, self.dims, device=self.lr.device, dtype=self.lr.dtype))
        before = images.clone()
        try:
            clean, again = self.operator(images), self.operator(before.clone())
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(
                f"expected an operator on images (n, C, H, W), here {tuple(images.shape)}; it failed with: {error}"
            ) from error
        if not isinstance(clean, Tensor):
            raise ValueError(f"expected the operator to return a tensor; got {type(clean).__name__}")
        if not clean.is_floating_point():
            raise ValueError(f"expected floating point values from the operator; got {clean.dtype}: leave out rounding")
        if not torch.equal(images, before):
            raise ValueError(
                "expected an operator that leaves its images as they are; got one that changes them in place: let it "
                "work on a copy"
            )
        if clean.shape != again.shape or not torch.allclose(clean, again, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                "expected an operator that makes the same of the same image; got other values at the second call: "
                "describe noise by the argument noise, and call .eval() on a network"
            )
        wanted = (2, *self.observation.shape)
        if clean.shape != wanted:
            raise ValueError(
                f"expected the operator to make {wanted} of two images {tuple(images.shape)}, as the observation has "
                f"shape {tuple(self.observation.shape)}; got {tuple(clean.shape)}: give the observation without a "
                "batch dimension, and the operator one that keeps it"
            )
        if not bool(torch.isfinite(clean).all()):
            raise ValueError(
                "expected finite values from the operator; got NaN or infinity for an ordinary image: look for a "
                "division by zero or the logarithm of a negative value in it"
            )
        if not bool(torch.isfinite(self.noise.distribution(clean, event_dim=1).log_prob(self.observation)).all()):
            raise ValueError("expected a finite likelihood of the observation; got another: check the noise's width")


@contextmanager
def isolated(problem: InverseProblem, seed: int) -> Iterator[None]:
    """Own random state and parameter store; weights without gradients, which nobody asks for here."""
    parameters = [p for p in getattr(problem.flow, "parameters", list)() if p.requires_grad]
    devices = [problem.lr.device] if problem.lr.device.type == "cuda" else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        with (
            torch.random.fork_rng(devices=devices),
            pyro.get_param_store().scope(),
            torch.enable_grad(),
            warnings.catch_warnings(),
        ):
            # Of diverging trajectories, which are counted instead.
            warnings.filterwarnings("ignore", message="Encountered NaN|Encountered inf", category=UserWarning)
            torch.manual_seed(seed)
            yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
