"""sbi: a flow as the posterior that its diagnostics draw from, and ranks from here in its layout.

In sbi's words the HR image is the parameter θ, a vector, and the LR image the observation x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowsr.calibration import simulation_based_calibration
from flowsr.calibration.held_out import HeldOut
from flowsr.distributions import FlowDistribution
from flowsr.interop.libraries import subclass
from flowsr.models import Capability, ConditionalModel, require


class _FlowPosterior:
    """A flow as an ``sbi.inference.posteriors`` posterior, see :func:`to_sbi`."""

    default_x: Any

    def __init__(self, flow: ConditionalModel, lr_shape: Sequence[int], options: dict[str, Any]) -> None:
        self.flow, self.options = flow, options
        channels, height, width = lr_shape
        self.lr_shape = torch.Size(lr_shape)
        self.image_shape = torch.Size([channels, flow.upscale * height, flow.upscale * width])
        super().__init__(self._potential, device=str(flow.device))  # type: ignore[call-arg]

    @torch.no_grad()
    def sample(
        self, sample_shape: Sequence[int] = (), x: Tensor | None = None, show_progress_bars: bool = False, **_: Any
    ) -> Tensor:
        """HR images given one LR image, as vectors: ``(*sample_shape, C·H·W)``."""
        return self.sample_batched(sample_shape, self._one(x)).squeeze(-2)

    @torch.no_grad()
    def sample_batched(
        self, sample_shape: Sequence[int], x: Tensor, show_progress_bars: bool = False, **_: Any
    ) -> Tensor:
        """HR images given each of n LR images: ``(*sample_shape, n, C·H·W)``, drawn in memory for one draw of all."""
        posterior = self._given(self._images(x))
        draws = [posterior.sample().flatten(-3) for _ in range(math.prod(sample_shape))]
        return torch.stack(draws).reshape(*sample_shape, *draws[0].shape)

    def log_prob(self, theta: Tensor, x: Tensor | None = None, *, track_gradients: bool = False, **_: Any) -> Tensor:
        """``log p(hr | lr)`` in nats of vectors ``(n, C·H·W)`` given one LR image, ``(n,)``."""
        with torch.set_grad_enabled(track_gradients):
            return self._given(self._one(x)[0]).log_prob(self._hr(theta))

    def log_prob_batched(self, theta: Tensor, x: Tensor, *, track_gradients: bool = False, **_: Any) -> Tensor:
        """``log p(hr | lr)`` of ``(*sample, n, C·H·W)`` given each of n LR images, ``(*sample, n)``."""
        with torch.set_grad_enabled(track_gradients):
            return self._given(self._images(x)).log_prob(self._hr(theta))

    def _potential(self, theta: Tensor, x_o: Tensor) -> Tensor:
        return self._given(self._one(x_o)[0]).log_prob(self._hr(theta))

    def _given(self, lr: Tensor) -> FlowDistribution:
        return self.flow.condition(lr, **self.options)

    def _hr(self, theta: Tensor) -> Tensor:
        theta = torch.as_tensor(theta, dtype=self.flow.dtype, device=self.flow.device)
        if theta.shape[-1] != self.image_shape.numel():
            raise ValueError(
                f"expected HR images as vectors of {self.image_shape.numel()} values; got shape {tuple(theta.shape)}"
            )
        return theta.unflatten(-1, self.image_shape)

    def _images(self, x: Tensor) -> Tensor:
        lr = torch.as_tensor(x, dtype=self.flow.dtype, device=self.flow.device)
        try:
            return lr.reshape(-1, *self.lr_shape)
        except RuntimeError:
            raise ValueError(
                f"expected LR images of shape {tuple(self.lr_shape)}, or such as vectors; got shape {tuple(lr.shape)}"
            ) from None

    def _one(self, x: Tensor | None) -> Tensor:
        given = self.default_x if x is None else x
        if given is None:
            raise ValueError("expected an LR image x; got none: give one, or call set_default_x")
        lr = self._images(given)
        if len(lr) != 1:
            raise ValueError(f"expected one LR image x; got {len(lr)}: use sample_batched or log_prob_batched")
        return lr


def to_sbi(flow: ConditionalModel, lr_shape: Sequence[int], **options: Any) -> Any:
    """A flow as a posterior of sbi, with ``sample(shape, x=lr)``, ``sample_batched`` and ``log_prob(θ, x=lr)``.

    For ``sbi.diagnostics``: ``run_sbc``, ``run_tarp``, and, with ``reduce_fns=posterior.log_prob``, expected coverage.
    θ is the HR image as a vector, x the LR image, as an image or a vector. Draws and densities are those of
    ``flow.condition(lr, **options)``, so that they are of one model: of the width σ of the LR image, unlike
    ``flow.sample``, whose default is the Dirac limit, which has no density. Randomness is torch's global generator's.

    sbi's default references for ``run_tarp`` ignore x; those of
    :func:`flowsr.calibration.reference_images` see a model that does so too.

    Cost: one decoding pass of all LR images per draw, one encoding pass per density.

    Args:
        flow: a model with the capability ``condition``.
        lr_shape: ``(C, h, w)`` of the LR images.
        **options: of ``flow.condition``: ``temperature``, and ``lr_log_scale`` where the model has one.

    Returns:
        An ``sbi.inference.posteriors.base_posterior.NeuralPosterior``.

    Raises:
        MissingExtraError: if sbi is not installed.
        ValueError: for a density of images alone, or a shape that is none of an image.

    References:
        Tejero-Cantero et al., sbi: a toolkit for simulation-based inference (JOSS 2020).

    Example:
        >>> posterior = to_sbi(flowsr.HCFlow.from_preset("sr-x4-small"), (3, 2, 2))
        >>> theta = posterior.sample((5,), x=torch.rand(3, 2, 2))
        >>> theta.shape, posterior.log_prob(theta, x=torch.rand(3, 2, 2)).shape
        (torch.Size([5, 192]), torch.Size([5]))
    """
    require(flow, Capability.CONDITION)
    if len(lr_shape) != 3:
        raise ValueError(f"expected lr_shape to be (channels, height, width); got {tuple(lr_shape)}")
    base = "sbi.inference.posteriors.base_posterior"
    return subclass(_FlowPosterior, base, "NeuralPosterior")(flow, lr_shape, options)


def sbi_ranks(held_out: HeldOut, *, seed: int = 0) -> dict[str, Any]:
    """Ranks and draws of :func:`flowsr.calibration.hold_out` as the arguments of ``sbi.diagnostics.check_sbc``.

    The test functions take the place of sbi's parameters. sbi is not needed for this. Ranks are those of
    :func:`flowsr.calibration.simulation_based_calibration`, with ties broken at random, where sbi's own count ties as
    above the truth.

    Cost: n·draws per function.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        seed: for ties.

    Returns:
        ``ranks`` ``(n, functions)`` from 0 to the number of draws, ``prior_samples`` (the truth) and ``dap_samples``
        (one draw of each pair), ``(n, functions)``, and ``num_posterior_samples``.

    References:
        Talts et al., Validating Bayesian inference algorithms with simulation-based calibration (arXiv 1804.06788).

    Example:
        >>> from flowsr.calibration import flow_sampler, hold_out, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 12)
        >>> found = sbi_ranks(hold_out(flow_sampler(flow), hr, lr, num_samples=19))
        >>> found["ranks"].shape == found["dap_samples"].shape, found["num_posterior_samples"]
        (True, 19)
    """
    test = simulation_based_calibration(held_out, seed=seed)
    return {
        "ranks": test.ranks.to(torch.get_default_dtype()),
        "prior_samples": held_out.truth.to(torch.get_default_dtype()),
        "dap_samples": held_out.draws[:, 0].to(torch.get_default_dtype()),
        "num_posterior_samples": held_out.num_samples,
    }


def __getattr__(name: str) -> Any:
    if name == "FlowPosterior":
        return subclass(_FlowPosterior, "sbi.inference.posteriors.base_posterior", "NeuralPosterior")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
