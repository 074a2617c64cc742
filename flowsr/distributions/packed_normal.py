"""The base distribution of HCFlow: a normal over the packed latent, tight around the LR image, standard elsewhere."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, SupportsFloat, TypeAlias

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from flowsr._support.shapes import sum_event

Temperature: TypeAlias = SupportsFloat | Sequence[float]
"""One temperature for all levels, a number of any library, or one per level from coarse to fine."""


def normal_log_prob(x: Tensor, *, log_scale: float | Tensor = 0.0) -> Tensor:
    """Elementwise ``log N(x; 0, exp(log_scale)²)`` in nats, in at least float32."""
    # Squares of what σ = e^-6 divides are soon too large for half precision.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    log_scale = torch.as_tensor(log_scale, dtype=x.dtype, device=x.device)
    return -0.5 * ((x * (-log_scale).exp()) ** 2 + math.log(2.0 * math.pi)) - log_scale


def level_temperatures(temperature: Temperature, levels: int) -> tuple[float, ...]:
    """One temperature per level, coarse to fine, from a number for all or a sequence.

    Raises:
        ValueError: for a negative or non-finite temperature, or a wrong number of them.
    """
    try:
        if isinstance(temperature, str | set):
            raise TypeError
        several = isinstance(temperature, Sequence) or (isinstance(temperature, Tensor) and temperature.dim() > 0)
        # float() takes the numbers of any library.
        values = tuple(map(float, temperature)) if several else (float(temperature),) * levels  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected a temperature, or one for each level; got {temperature!r}") from None
    if len(values) != levels:
        raise ValueError(f"expected one temperature or {levels}, one per level from coarse to fine; got {len(values)}")
    if any(not math.isfinite(t) or t < 0 for t in values):
        raise ValueError(f"expected finite temperatures >= 0; got {temperature}")
    return values


def packed_standard_normal(
    like: Tensor, *, latent_channels: Sequence[int], size: tuple[int, int], temperature: Temperature = 1.0
) -> "PackedNormal":
    """The base of a flow without an LR image in its latent: ``z_l ~ N(0, τ_l²)``, a packed normal of no LR channels.

    Args:
        like: a tensor ``(*batch, …, …, …)`` that gives batch shape, dtype and device.
        latent_channels: channels of each latent at the coarsest resolution, coarse to fine.
        size: height and width of the coarsest latent.
        temperature: τ ≥ 0 for all levels, or one per level, coarse to fine.

    Example:
        >>> packed_standard_normal(torch.zeros(5, 3, 4, 4), latent_channels=(6, 6), size=(2, 2)).sample().shape
        torch.Size([5, 12, 2, 2])
    """
    none = like.new_zeros(*like.shape[:-3], 0, *size)
    return PackedNormal(none, latent_channels=latent_channels, temperature=temperature)


class PackedNormal(TorchDistribution):
    """Normal over packed latents ``[y | z_L | … | z_1]``: ``y ~ N(lr, σ²)``, ``z_l ~ N(0, τ_l²)``, independent.

    ``σ = exp(lr_log_scale)``. At σ = 0 (``lr_log_scale = -inf``) y equals the LR image exactly, the Dirac limit, and
    at τ = 0 a latent is exactly zero; sampling works there, but there is no density. When all temperatures are zero
    sampling is deterministic: y is the LR image whatever σ.

    Cost: O(number of elements).

    Args:
        lr: LR image, ``(*batch, C, h, w)``, the centre of the first C channels.
        latent_channels: channels of each latent at LR resolution, coarse to fine.
        temperature: τ ≥ 0 for all levels, or one per level, coarse to fine. τ = 1 is the model.
        lr_log_scale: log σ; −6 in HCFlow, 2.5e-3 of the range of the image. A tensor of one number may be learned.

    Raises:
        ValueError: for bad temperatures or scale; from ``log_prob`` when σ or some τ is 0.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> base = PackedNormal(torch.full((3, 2, 2), 0.5), latent_channels=(9,), temperature=0.8)
        >>> base.event_shape, base.log_prob(base.sample((5,))).shape
        (torch.Size([12, 2, 2]), torch.Size([5]))
    """

    arg_constraints: ClassVar = {}  # pyright: ignore[reportAssignmentType]
    support = constraints.independent(constraints.real, 3)  # pyright: ignore[reportAssignmentType]
    has_rsample = True

    def __init__(
        self,
        lr: Tensor,
        *,
        latent_channels: Sequence[int],
        temperature: Temperature = 1.0,
        lr_log_scale: float | Tensor = -6.0,
        validate_args: bool | None = None,
    ) -> None:
        value = lr_log_scale.detach().item() if isinstance(lr_log_scale, Tensor) else lr_log_scale
        if not isinstance(value, int | float) or not (value == -math.inf or -40 <= value <= 40):
            raise ValueError(f"expected lr_log_scale from -40 to 40, or -inf for the Dirac limit; got {value!r}")
        self.lr = lr
        self.latent_channels = tuple(latent_channels)
        self.temperature = level_temperatures(temperature, len(self.latent_channels))
        self.lr_log_scale = lr_log_scale if isinstance(lr_log_scale, Tensor) else float(lr_log_scale)
        sigma = 0.0 if not any(self.temperature) else math.exp(value)
        widths = (lr.shape[-3], *self.latent_channels)
        scales = torch.tensor((sigma, *self.temperature), dtype=lr.dtype, device=lr.device)
        if isinstance(lr_log_scale, Tensor) and any(self.temperature):
            scales = torch.cat([lr_log_scale.exp().reshape(1).to(scales), scales[1:]])
        self.scale = scales.repeat_interleave(torch.tensor(widths, device=lr.device))[:, None, None]
        event_shape = torch.Size([sum(widths), *lr.shape[-2:]])
        super().__init__(lr.shape[:-3], event_shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        padding = self.lr.new_zeros(*self.batch_shape, sum(self.latent_channels), *self.event_shape[1:])
        return torch.cat([self.lr, padding], -3)

    @property
    def variance(self) -> Tensor:
        return (self.scale**2).expand(*self.batch_shape, *self.event_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size([*sample_shape, *self.batch_shape, *self.event_shape])
        noise = torch.randn(shape, dtype=self.lr.dtype, device=self.lr.device)
        return self.mean + noise * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        if not bool((self.scale > 0).all()):
            raise ValueError(
                "expected temperature > 0 on every level and a finite lr_log_scale to have a density; got "
                f"temperature {self.temperature} and lr_log_scale {self.lr_log_scale}: sampling at temperature 0 or "
                "in the Dirac limit is deterministic there. Score with temperature=1.0, lr_log_scale=-6.0."
            )
        if value.shape[-3:] != self.event_shape:
            raise ValueError(
                f"expected a packed latent of event shape {tuple(self.event_shape)}; got shape {tuple(value.shape)}"
            )
        return sum_event(normal_log_prob(value - self.mean, log_scale=self.scale.log()))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "PackedNormal":
        lr = self.lr.expand(*batch_shape, *self.lr.shape[-3:])
        return PackedNormal(
            lr,
            latent_channels=self.latent_channels,
            temperature=self.temperature,
            lr_log_scale=self.lr_log_scale,
            validate_args=self._validate_args,
        )
