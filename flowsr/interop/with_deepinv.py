"""deepinv: its physics as operators of inverse problems here, and flows as its priors and samplers.

deepinv's observations carry a batch dimension, its noise belongs to the physics, and its samplers return the mean and
the variance of their draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from flowsr.distributions import Temperature
from flowsr.images import check_image
from flowsr.interop.libraries import library, subclass
from flowsr.models import Capability, ConditionalModel, require
from flowsr.models.image_model import ImageModel
from flowsr.posterior import GaussianLR, GaussianNoise, InverseProblem, LaplaceNoise, Noise, PoissonNoise, solve
from flowsr.posterior.operators import joined
from flowsr.posterior.solution import Solution

_NOISES = {
    "GaussianNoise": lambda model: GaussianNoise(_number(model, "sigma")),
    "LaplaceNoise": lambda model: LaplaceNoise(_number(model, "b")),
    "PoissonNoise": lambda model: PoissonNoise(1 / _number(model, "gain")),
}


def from_deepinv(
    flow: ConditionalModel,
    lr: Tensor | GaussianLR,
    physics: Any,
    y: Any,
    *,
    noise: Noise | None = None,
    temperature: Temperature = 1.0,
    lr_log_scale: float = -math.inf,
) -> InverseProblem:
    """The inverse problem of a physics of deepinv and what it measured, for :func:`flowsr.posterior.solve`.

    The measurements of a stacked physics, a TensorList, become one vector. Values that a physics fills in where it
    measures nothing, as the zeros of ``Inpainting``, tell nothing of the image, and the residual leaves them out: see
    :attr:`flowsr.posterior.InverseProblem.informative`.

    Cost: that of :class:`flowsr.posterior.InverseProblem`.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image ``(C, h, w)`` in [0, 1], or a prior on it.
        physics: a ``deepinv.physics.Physics``.
        y: its measurement of one image, with deepinv's batch dimension of 1: a tensor or a TensorList.
        noise: of the measurements; by default that of the physics, if it is Gaussian, Laplace or Poisson, and the same
            for all of a stack.
        temperature: see :class:`flowsr.posterior.InverseProblem`, as for ``lr_log_scale``.
        lr_log_scale: log σ of the LR image.

    Raises:
        ValueError: for measurements of several images, for another noise, or one that differs within a stack, and as
            :class:`flowsr.posterior.InverseProblem` does.

    References:
        Tachella et al., DeepInverse: a Python package for solving imaging inverse problems with deep learning (2025).

    Example:
        >>> from flowsr.interop import library
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> deepinv = library("deepinv.physics")
        >>> flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 4, 4), 0.5)
        >>> noisy = deepinv.GaussianNoise(0.05)
        >>> physics = deepinv.Inpainting((1, 8, 8), mask=(torch.rand(1, 8, 8) < 0.5).float(), noise_model=noisy)
        >>> problem = from_deepinv(flow, lr, physics, physics(flow.sample(lr)))
        >>> problem.noise, problem.dims
        (GaussianNoise(std=0.05...), 48)
    """
    together = joined(y)
    if not isinstance(together, Tensor) or together.dim() < 2 or len(together) != 1:
        got = tuple(together.shape) if isinstance(together, Tensor) else type(y).__name__
        raise ValueError(
            f"expected measurements of one image, with a batch dimension of 1; got {got}: take y[i : i + 1]"
        )
    observation, model = together[0], noise_of(physics) if noise is None else noise
    if isinstance(model, PoissonNoise) and noise is None:
        scaled = bool(getattr(_members(physics)[0].noise_model, "normalize", False))
        observation = (model.peak * observation).round() if scaled else observation
    widths: dict[str, Any] = {"temperature": temperature, "lr_log_scale": lr_log_scale}
    return InverseProblem(flow, lr, physics, observation, model, **widths)


def noise_of(physics: Any) -> Noise:
    """The noise of a physics of deepinv, or of all members of a stacked one.

    Poisson noise of gain γ is that of the peak 1/γ; its measurements are counts times γ if it is ``normalize``.

    Raises:
        ValueError: for no noise, another than Gaussian, Laplace or Poisson, or one that differs within a stack.

    Example:
        >>> from flowsr.interop import library
        >>> deepinv = library("deepinv.physics")
        >>> noise_of(deepinv.Denoising(deepinv.LaplaceNoise(0.5)))
        LaplaceNoise(scale=0.5)
    """
    models = [member.noise_model for member in _members(physics)]
    if unknown := [name for name in (type(model).__name__ for model in models) if name not in _NOISES]:
        raise ValueError(
            f"expected a physics whose noise_model is {', '.join(_NOISES)}; got {unknown[0]}: give the noise, for "
            "example noise=flowsr.posterior.GaussianNoise(0.05)"
        )
    noises = [_NOISES[type(model).__name__](model) for model in models]
    if len(set(noises)) > 1:
        raise ValueError(
            f"expected the same noise for all of a stacked physics; got {', '.join(map(str, noises))}: divide each "
            "output by its standard deviation, in an operator of your own, and give noise=GaussianNoise(1.0)"
        )
    return noises[0]


def _members(physics: Any) -> list[Any]:
    return list(getattr(physics, "physics_list", [physics]))


def _number(model: Any, name: str) -> float:
    value = torch.as_tensor(getattr(model, name), device="cpu")
    if value.numel() != 1:
        raise ValueError(f"expected one {name} of {type(model).__name__}; got {value.numel()}: solve image by image")
    return float(value)


class _FlowPrior:
    """A flow as a ``deepinv.optim.Prior``, see :func:`to_deepinv_prior`."""

    lr: Tensor | None

    def __init__(self, flow: ImageModel, lr: Tensor | None, options: dict[str, Any]) -> None:
        super().__init__()
        self.flow, self.options = flow, options
        self.explicit_prior = True
        self.register_buffer("lr", lr)  # type: ignore[attr-defined]

    def fn(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """``−log p(x)``, ``(n,)``; what algorithms pass to a denoiser is not needed."""
        model: Any = self.flow
        if self.lr is None:
            return -model.distribution(tuple(x.shape[-2:]), **self.options).log_prob(x)
        return -model.condition(self.lr, **self.options).log_prob(x)


def to_deepinv_prior(flow: ImageModel, lr: Tensor | None = None, **options: Any) -> Any:
    """A flow as an explicit ``deepinv.optim.Prior``: ``g(x) = −log p(x | lr)``, whose ``grad`` is minus the score.

    For deepinv's gradient methods, such as ULA. The score is exact, with no noise level; where a flow has an LR image
    in its latent, its density is as narrow as σ around images of that LR image, and a step must be about as small as
    σ²: raise ``lr_log_scale``, or sample by :func:`to_deepinv_sampler`, whose chains move in latent space.

    Cost: one encoding pass for g, and its gradient for the score.

    Args:
        flow: any model; with the capability ``condition`` it needs ``lr``.
        lr: LR image ``(C, h, w)`` or one per image ``(n, C, h, w)``; None for a density of images alone.
        **options: ``temperature``, and ``lr_log_scale`` where the model has one, of ``flow.condition``.

    Returns:
        A module that is a ``deepinv.optim.Prior``.

    Raises:
        MissingExtraError: if deepinv is not installed.
        ValueError: for a missing or superfluous LR image.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small").requires_grad_(False)
        >>> prior = to_deepinv_prior(flow, torch.rand(3, 2, 2), lr_log_scale=-3.0)
        >>> prior(torch.rand(5, 3, 8, 8)).shape, prior.grad(torch.rand(5, 3, 8, 8)).shape
        (torch.Size([5]), torch.Size([5, 3, 8, 8]))
    """
    conditional = Capability.CONDITION in flow.capabilities
    if conditional != (lr is not None):
        needs = "an LR image, as the model's density is of images given one" if conditional else "no LR image"
        raise ValueError(f"expected {needs}; got {'none' if lr is None else 'one'}")
    return subclass(_FlowPrior, "deepinv.optim", "Prior")(flow, lr, options)


class _FlowIterator:
    """Draws of a flow's posterior as the states of a chain of deepinv's, see :func:`to_deepinv_sampler`."""

    lr: Tensor | None

    def __init__(self, flow: ConditionalModel, lr: Tensor | None, num_samples: int, options: dict[str, Any]) -> None:
        super().__init__({})  # type: ignore[call-arg]
        self.flow, self.num_samples, self.options = flow, num_samples, options
        self.register_buffer("lr", lr)  # type: ignore[attr-defined]
        self.solutions: list[Solution] = []
        self._draws: Iterator[Tensor] = iter(())

    def initialize_latent_variables(self, x_init: Tensor, y: Any, physics: Any, *_args: Any) -> dict[str, Tensor]:
        """The first draw: the chain starts in the posterior."""
        self._draws = self._posterior(y, physics)
        return {"x": next(self._draws)}

    def forward(self, X: dict[str, Tensor], y: Any, physics: Any, *_args: Any, **_kwargs: Any) -> dict[str, Tensor]:
        """The next draw."""
        return {"x": next(self._draws)}

    def _posterior(self, y: Any, physics: Any) -> Iterator[Tensor]:
        if self.lr is None:
            if not isinstance(y, Tensor):
                raise ValueError(f"expected LR images as measurements, as no lr is given; got {type(y).__name__}")
            return self.flow.stream(y, num_samples=self.num_samples, **self.options)
        count = len(joined(y))
        lr = self.lr if self.lr.dim() == 4 else self.lr.expand(count, *self.lr.shape)
        if len(lr) != count:
            raise ValueError(f"expected one LR image, or one for each of the {count} measurements; got {len(lr)}")
        method = self.options.get("method", "hmc")
        chains = 1 if method == "svi" else self.options.get("num_chains", 4)
        each = max(4, math.ceil(self.num_samples / chains))
        self.solutions = [self._solved(lr[i], physics, _item(y, i), each) for i in range(count)]
        # Draw by draw, a draw of every chain: neighbours are independent.
        found = [s.images().unflatten(0, s.latents.shape[:2]).transpose(0, 1).flatten(0, 1) for s in self.solutions]
        return iter(torch.stack(found, 1)[: self.num_samples].to(lr))

    def _solved(self, lr: Tensor, physics: Any, y: Any, num_samples: int) -> Solution:
        options = {"method": "hmc", **self.options}
        own = {name: options.pop(name) for name in ("noise", "temperature", "lr_log_scale") if name in options}
        problem = from_deepinv(self.flow, lr, physics, y, **own)
        # From torch's generator, which deepinv's seed has set.
        seed = int(torch.randint(2**31, (), device="cpu"))
        return solve(problem, num_samples=num_samples, seed=seed, **options)


def _item(y: Any, i: int) -> Any:
    return y[i : i + 1] if isinstance(y, Tensor) else [y[k][i : i + 1] for k in range(len(y))]


def to_deepinv_sampler(
    flow: ConditionalModel, lr: Tensor | None = None, *, num_samples: int = 100, **options: Any
) -> Any:
    """A flow's posterior as a ``deepinv.sampling.BaseSampling``, in place of deepinv's own chains.

    ``sampler(y, physics)`` gives the mean of the draws, as every reconstructor of deepinv one image,
    ``sampler.sample(y, physics, seed=0)`` mean and variance, of functions of the image too, and
    ``sampler.get_chain()`` the draws.

    Without ``lr`` the measurements are the LR images themselves, and the draws are those of ``flow.sample``: the flow
    has learnt the posterior of the downscaling it was trained on, and what the physics says of it is not used. With
    ``lr`` the posterior is that of :func:`from_deepinv`, given the LR image and the measurements, by
    :func:`flowsr.posterior.solve` for each image; ``sampler.iterator.solutions`` has its diagnostics, and says whether
    chains have mixed.

    Cost: one decoding pass per draw, or that of :func:`flowsr.posterior.solve` per image, with its images in memory.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image ``(C, h, w)``, or one per measurement ``(n, C, h, w)``.
        num_samples: draws, at least 2.
        **options: of ``flow.stream`` without ``lr`` (``temperature``, ``lr_log_scale``); with it of
            :func:`from_deepinv` (``noise``) and :func:`flowsr.posterior.solve` (``method``, by default "hmc",
            ``num_warmup``, …).

    Returns:
        A module that is a ``deepinv.sampling.BaseSampling``.

    Raises:
        MissingExtraError: if deepinv is not installed.
        ValueError: for a density of images alone, fewer than two draws, or a method that draws none.

    Example:
        >>> from flowsr.interop import library
        >>> physics = library("deepinv.physics").DownsamplingMatlab(factor=4)
        >>> sampler = to_deepinv_sampler(flowsr.HCFlow.from_preset("sr-x4-small"), num_samples=3, temperature=0.8)
        >>> mean, var = sampler.sample(torch.rand(2, 3, 4, 4), physics, seed=0)
        >>> mean.shape, var.shape, len(sampler.get_chain())
        (torch.Size([2, 3, 16, 16]), torch.Size([2, 3, 16, 16]), 3)
    """
    require(flow, Capability.CONDITION)
    if not isinstance(num_samples, int) or num_samples < 2:
        raise ValueError(f"expected num_samples >= 2, as there is a variance to tell; got {num_samples!r}")
    if options.get("method") == "map":
        raise ValueError("expected a method that draws; got 'map', which finds one image")
    if lr is not None:
        check_image(lr, name="lr", channels=flow.config.image_channels, tolerance=0.25)
    sampling = library("deepinv.sampling")
    iterator = subclass(_FlowIterator, "deepinv.sampling", "SamplingIterator")(flow, lr, num_samples, options)
    # The chain starts at a draw, so that one step less gives as many; nothing is thrown away.
    return sampling.BaseSampling(
        iterator, None, None, max_iter=num_samples - 1, burnin_ratio=0.0, thinning=1, history_size=num_samples
    ).eval()


def __getattr__(name: str) -> Any:
    if name == "FlowPrior":
        return subclass(_FlowPrior, "deepinv.optim", "Prior")
    if name == "FlowIterator":
        return subclass(_FlowIterator, "deepinv.sampling", "SamplingIterator")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
