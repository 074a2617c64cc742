"""Super-resolution as a Pyro program, with a site for the LR image, for each latent and for the HR image."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pyro
import torch
from torch import Tensor

from flowsr.distributions import PackedNormal, ProposedNormal, Temperature, draw_noise, split_levels
from flowsr.models import Capability, Latents, require
from flowsr.models.conditional import ConditionalModel
from flowsr.transforms.pixel_shuffle import depth_to_space

__all__ = ["super_resolution"]


def super_resolution(
    flow: ConditionalModel,
    lr: Tensor,
    hr: Tensor | None = None,
    *,
    temperature: Temperature = 1.0,
    lr_log_scale: float | Tensor | None = None,
) -> Tensor:
    """The generative program ``y ~ N(lr, σ²)``, ``z_l ~ N(0, τ_l²)``, ``hr = decode(y, z)``.

    Sites: ``lr`` (the flow's LR image y), ``z_L`` … ``z_1`` (``z_1`` is the finest), ``hr`` (deterministic). Batch
    dimensions of ``lr`` are independent plates named ``batch_0``, ``batch_1``, …, the last of them innermost. The
    flow's parameters are registered under the name ``flow``. In a model without an LR image in its latent (SRFlow) the
    image is decoded given ``lr`` itself: there is no site ``lr`` then, and no σ.

    With ``hr`` given, every site is observed at its encoding and a factor ``ladj`` carries the log-determinant, so
    that the trace's ``log_prob_sum()`` is ``log p(hr | lr)`` and splits by site into its terms. To observe an image,
    pass it here: conditioning the deterministic site ``hr`` cannot invert the flow.

    At ``lr_log_scale = -inf`` (the Dirac limit) the site ``lr`` is deterministic, which leaves only the standard
    normal latents to infer: use this for HMC, as a width of e^-6 makes the posterior needlessly stiff. A latent of
    temperature 0 is deterministic too.

    Cost: one decoding pass, or one encoding pass with ``hr``.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        hr: HR image to score, ``(*batch, C, s·h, s·w)``, or None to generate.
        temperature: τ for all levels, or a tuple of one per level, coarse to fine; a tensor, as a sample site gives
            it, may be random, and its shape is one of batches.
        lr_log_scale: log σ of the LR image, a number or a tensor like τ; by default that of the model. Only for models
            that have one.

    Returns:
        The HR image.

    Raises:
        ValueError: on wrong shapes or values, if another flow is registered in Pyro's parameter store, or when an
            image is scored without a density (τ = 0 or σ = 0).

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> trace = pyro.poutine.trace(super_resolution).get_trace(flow, torch.rand(3, 4, 4))
        >>> [name for name in trace.stochastic_nodes if name != "flow"]
        ['lr', 'z_2', 'z_1']
    """
    require(flow, Capability.CONDITION)
    _register(flow)
    within = Capability.LR_LATENT in flow.capabilities
    if lr_log_scale is not None and not within:
        raise ValueError(
            f"expected no lr_log_scale for {type(flow).__name__}, which has no LR image in its latent; got "
            f"{lr_log_scale}"
        )
    # Checks lr, τ and σ with the messages users know.
    width = {"lr_log_scale": lr_log_scale} if within else {}
    base = flow.condition(lr, temperature=temperature, **width).base_dist
    assert isinstance(base, PackedNormal)
    lr, temperature = flow.as_given(lr, temperature)
    shapes = flow.latent_shapes(*lr.shape[-2:])
    temperatures = split_levels(temperature, len(shapes))
    names = [f"z_{level}" for level in flow.latent_levels()]
    encoding: Latents | None = None
    if hr is not None:
        if not base.has_density:
            raise ValueError(
                "expected temperature > 0 and a finite lr_log_scale to score an image; got "
                f"temperature {temperature} and lr_log_scale {lr_log_scale}"
            )
        encoding = flow.encode(hr, lr)
        if encoding.lr.shape != lr.shape:
            raise ValueError(f"expected an hr image for an lr of shape {tuple(lr.shape)}; got {tuple(hr.shape)}")
    sigma = base.sigma  # of y, where there is one
    with ExitStack() as plates:
        # Pyro counts batch dimensions from the right.
        for i, size in enumerate(lr.shape[:-3]):
            plates.enter_context(pyro.plate(f"batch_{i}", size, dim=i - (lr.dim() - 3)))
        batch = lr.shape[:-3]
        observed = (None,) * (1 + len(shapes)) if encoding is None else (encoding.lr, *encoding.z)
        y = _normal_site("lr", lr, sigma, observed[0], batch=batch) if within else lr
        z = [
            _normal_site(name, lr.new_zeros(shape), tau, obs, batch=batch, factor=shape[-1] // shapes[0][-1])
            for name, shape, tau, obs in zip(names, shapes, temperatures, observed[1:], strict=True)
        ]
        if encoding is None or hr is None:
            image = flow.decode_unchecked(*_broadcast(y, z))
        else:
            pyro.factor("ladj", encoding.ladj)
            image = hr
        return pyro.deterministic("hr", image, event_dim=3)


def _register(flow: ConditionalModel) -> None:
    store = pyro.get_param_store()
    for name, parameter in flow.named_parameters():
        if not parameter.is_contiguous():
            # Pyro's parameter store would copy other layouts (channels-last weights), and SVI would train the copy.
            parameter.data = parameter.data.contiguous()
        key = f"flow$$${name}"
        # The store keeps the first tensors under a name: a second flow would be scored but never trained.
        if parameter.requires_grad and key in store and store[key].data_ptr() != parameter.data_ptr():
            raise ValueError(
                "expected one flow per parameter store; another one is registered under the name flow: call "
                "pyro.clear_param_store() first"
            )
    # Of a frozen flow there is nothing to register, and Pyro would warn of each parameter.
    if any(parameter.requires_grad for parameter in flow.parameters()):
        pyro.module("flow", flow)


class Normal(ProposedNormal):  # by this name it is drawn in graphs of the program
    """A normal that takes its noise as its part of the packed latent would, so that all routes draw the same images.

    Attributes:
        factor: between the resolution of the site and that of the packed latent.
    """

    factor = 1

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        *batch, channels, height, width = self.batch_shape
        noise = draw_noise(
            (*batch, channels * self.factor**2, height // self.factor, width // self.factor),
            sample_shape=sample_shape,
            dtype=self.loc.dtype,
            device=self.loc.device,
        )
        return self.loc + self.scale * depth_to_space(noise, self.factor)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Normal":
        shape = torch.Size(batch_shape)
        new = Normal(self.loc.expand(shape), self.scale.expand(shape))
        new.factor = self.factor
        return new


def _normal_site(
    name: str, mean: Tensor, scale: float | Tensor, obs: Tensor | None, *, batch: torch.Size, factor: int = 1
) -> Tensor:
    scales = torch.as_tensor(scale, dtype=mean.dtype, device=mean.device)[..., None, None, None]
    normal = Normal(mean.expand(*batch, *mean.shape[-3:]), scales)
    normal.factor = factor
    if not isinstance(scale, Tensor) and scale == 0:
        if obs is None:
            normal.sample()  # takes its noise all the same, so that the sites after it are the same whatever σ
        return pyro.deterministic(name, normal.loc, event_dim=3)
    return pyro.sample(name, normal.to_event(3), obs=obs)


def _broadcast(y: Tensor, z: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    # Under a vectorizing plate of the caller's, sites can differ in the batch dimensions they have been given.
    batch = torch.broadcast_shapes(*(latent.shape[:-3] for latent in (y, *z)))
    return y, [latent.expand(*batch, *latent.shape[-3:]) for latent in z]
