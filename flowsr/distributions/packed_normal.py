"""The base of all models, a normal over the packed latent: its temperatures, its noise, and scales that may be random.

Tight around the LR image where that is a part of the latent (HCFlow, IRN), standard elsewhere.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, SupportsFloat, TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from flowsr._support.shapes import sum_event
from flowsr.distributions.noise_field import NoiseField, draw_noise

Temperature: TypeAlias = SupportsFloat | Sequence[SupportsFloat]
"""One temperature for all levels, a number of any library, or a tuple or list of one per level from coarse to fine.

Where a distribution takes it, a tensor keeps its gradient, and its shape is one of batches: τ of shape ``(P, 1)`` with
LR images of batch ``(B,)`` gives a batch ``(P, B)``. Random temperatures per level are a tuple of tensors,
``tau.unbind(-1)``.
"""

_LARGEST_LOG_SCALE = 40.0  # what e^40 multiplies still has a square in float32


def normal_log_prob(x: Tensor, *, log_scale: float | Tensor = 0.0) -> Tensor:
    """Elementwise ``log N(x; 0, exp(log_scale)²)`` in nats, in at least float32."""
    # Squares of what σ = e^-6 divides are soon too large for half precision.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    log_scale = torch.as_tensor(log_scale, dtype=x.dtype, device=x.device)
    return -0.5 * ((x * (-log_scale).exp()) ** 2 + math.log(2.0 * math.pi)) - log_scale


def proper_scale(scale: Tensor) -> Tensor:
    """Where a scale is one: a number from e^-40 to e^40, not zero, negative, or NaN.

    What an inference proposes may be no scale. A density is −inf there: the proposal is rejected, and the run goes on.
    """
    largest = math.exp(_LARGEST_LOG_SCALE + 1e-3)
    return (scale > 1 / largest) & (scale < largest)


class ProposedNormal(dist.Normal):
    """Normal whose scale an inference may propose: where it is none, the density is −inf, and nothing is raised.

    Args:
        loc: mean.
        scale: standard deviation; the density is −inf, with gradient zero, where it is not from e^-40 to e^40.

    Example:
        >>> scale = torch.tensor([1.0, -1.0, torch.nan], requires_grad=True)
        >>> log_prob = ProposedNormal(torch.zeros(3), scale).log_prob(torch.ones(3))
        >>> log_prob[1:], torch.autograd.grad(log_prob[0], scale)[0]
        (tensor([-inf, -inf], grad_fn=<SliceBackward0>), tensor([0., 0., 0.]))
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.real}  # pyright: ignore[reportAssignmentType]

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        # A NaN is no real number, and a proposal all the same: arguments are never validated.
        super().__init__(loc, scale, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return scaled_log_prob(value - self.loc, self.scale)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.rsample(torch.Size(sample_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "ProposedNormal":
        shape = torch.Size(batch_shape)
        return ProposedNormal(self.loc.expand(shape), self.scale.expand(shape))


def scaled_log_prob(x: Tensor, scale: Tensor) -> Tensor:
    """Elementwise ``log N(x; 0, scale²)`` in nats; −inf, with gradient zero, where the scale is none.

    See :func:`proper_scale`.
    """
    proper = proper_scale(scale)
    # Twice: the gradient of log at zero, times zero, would be NaN.
    density = normal_log_prob(x, log_scale=torch.where(proper, scale, 1.0).log())
    return torch.where(proper, density, -torch.inf)


def split_levels(temperature: Temperature, levels: int) -> tuple[float | Tensor, ...]:
    """One temperature per level, coarse to fine: tensors as they are, with their gradients, and numbers checked.

    Raises:
        ValueError: for a number that is negative or not finite, or a wrong number of them.
    """
    if isinstance(temperature, Sequence) and not isinstance(temperature, str):
        values = tuple(temperature)
    else:
        values = (temperature,) * levels
    if len(values) != levels:
        raise ValueError(f"expected one temperature or {levels}, one per level from coarse to fine; got {len(values)}")
    try:
        if any(isinstance(value, str) for value in values):
            raise TypeError
        # float() takes the numbers of any library.
        values = tuple(value if isinstance(value, Tensor) else float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"expected a temperature, or one for each level; got {temperature!r}") from None
    if any(not isinstance(value, Tensor) and not 0 <= value < math.inf for value in values):
        raise ValueError(f"expected finite temperatures >= 0; got {temperature}")
    return values


def level_temperatures(temperature: Temperature, levels: int) -> tuple[float, ...]:
    """One temperature per level, coarse to fine, as plain numbers, from a number for all or a sequence.

    Raises:
        ValueError: for a negative or non-finite temperature, a wrong number of them, or a batch of them.
    """
    numbers = []
    for value in split_levels(temperature, levels):
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(
                f"expected one number for each level; got a tensor of shape {tuple(value.shape)}: give one per level "
                "as a list, temperature.tolist(); batches of temperatures are for flow.condition"
            )
        numbers.append(float(value.detach()) if isinstance(value, Tensor) else value)
    if any(not 0 <= number < math.inf for number in numbers):
        raise ValueError(f"expected finite temperatures >= 0; got {temperature}")
    return tuple(numbers)


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

    Temperatures and log σ may be random: a tensor keeps its gradient, and its shape broadcasts with the batch. One that
    is no temperature, or out of range, as inference may propose it, has the density 0: ``log_prob`` is −inf there,
    with gradients that are zero, where for a number it raises ValueError.

    Cost: O(number of elements).

    Args:
        lr: LR image, ``(*batch, C, h, w)``, the centre of the first C channels.
        latent_channels: channels of each latent at LR resolution, coarse to fine.
        temperature: τ ≥ 0 for all levels, or a tuple of one per level, coarse to fine; numbers, or tensors whose
            shape broadcasts with that of the batch. τ = 1 is the model.
        lr_log_scale: log σ from −40 to 40, or −inf; −6 in HCFlow, 2.5e-3 of the range of the image. A number, or a
            tensor whose shape broadcasts with that of the batch.

    Raises:
        ValueError: for numbers that are no temperatures or log-scale, or tensors whose shape does not fit; from
            ``log_prob`` when a number says that σ or some τ is 0.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> base = PackedNormal(torch.full((3, 2, 2), 0.5), latent_channels=(9,), temperature=0.8)
        >>> base.event_shape, base.log_prob(base.sample((5,))).shape
        (torch.Size([12, 2, 2]), torch.Size([5]))
        >>> PackedNormal(torch.zeros(3, 2, 2), latent_channels=(9,), temperature=torch.rand(7, requires_grad=True))
        PackedNormal(batch_shape=(7,), event_shape=(12, 2, 2), temperature=tensor of shape (7,), lr_log_scale=-6)
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
        self.lr = lr
        self.latent_channels = tuple(latent_channels)
        self.temperature = split_levels(temperature, len(self.latent_channels))
        self.lr_log_scale = _checked_log_scale(lr_log_scale)
        widths = (lr.shape[-3], *self.latent_channels)
        self.scale = _scales(self.lr_log_scale, self.temperature, widths=widths, like=lr)
        try:
            batch_shape = torch.broadcast_shapes(lr.shape[:-3], self.scale.shape[:-3])
        except RuntimeError:
            raise ValueError(
                f"expected temperature and lr_log_scale whose shapes broadcast with the batch {tuple(lr.shape[:-3])}; "
                f"got a batch of scales {tuple(self.scale.shape[:-3])}"
            ) from None
        event_shape = torch.Size([sum(widths), *lr.shape[-2:]])
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"PackedNormal({shapes}, {self.widths_text()})"

    def widths_text(self) -> str:
        """Temperature and log σ, the latter where there is an LR image in the latent, for ``repr``."""
        shown = [_shown(tau) for tau in self.temperature]
        text = shown[0] if len(set(shown)) == 1 else f"({', '.join(shown)})"
        width = f", lr_log_scale={_shown(self.lr_log_scale)}" if self.lr.shape[-3] else ""
        return f"temperature={text}{width}"

    @property
    def sigma(self) -> float | Tensor:
        """σ: a number, 0 where all temperatures are zero too, or a tensor of the batch if log σ is one."""
        if isinstance(self.lr_log_scale, Tensor):
            return _exp(self.lr_log_scale)
        cold = self.temperature and not any(isinstance(tau, Tensor) or tau for tau in self.temperature)
        return 0.0 if cold else math.exp(self.lr_log_scale)

    @property
    def has_density(self) -> bool:
        """Whether no number among temperatures and σ says that a part of the latent is fixed."""
        dirac = not isinstance(self.lr_log_scale, Tensor) and self.lr_log_scale == -math.inf
        fixed = any(not isinstance(tau, Tensor) and tau == 0 for tau in self.temperature)
        return not fixed and not (dirac and self.lr.shape[-3])

    @property
    def mean(self) -> Tensor:
        lr = self.lr.expand(*self.batch_shape, *self.lr.shape[-3:])
        padding = self.lr.new_zeros(*self.batch_shape, sum(self.latent_channels), *self.event_shape[1:])
        return torch.cat([lr, padding], -3)

    @property
    def variance(self) -> Tensor:
        return (self.scale**2).expand(*self.batch_shape, *self.event_shape)

    def rsample(self, sample_shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Reparametrized samples; y takes its noise at σ = 0 too, so that the latents are the same whatever σ."""
        return self.from_noise(self.draw_noise(sample_shape, generator=generator))

    def draw_noise(self, sample_shape: Sequence[int] = (), *, generator: torch.Generator | None = None) -> Tensor:
        """The standard normal noise of :meth:`rsample`, see :func:`flowsr.distributions.draw_noise`."""
        return draw_noise(sample_shape=sample_shape, generator=generator, **self._noise)

    def from_noise(self, noise: Tensor) -> Tensor:
        """What :meth:`rsample` makes of standard normal noise, ``mean + scale·noise``."""
        return self.mean + noise * self.scale

    def noise_field(self, *, generator: torch.Generator | None = None, on_disk: bool = False) -> NoiseField:
        """The noise of one draw of :meth:`rsample`, to be read in windows, see :class:`NoiseField`."""
        return NoiseField(generator=generator, on_disk=on_disk, **self._noise)

    @property
    def _noise(self) -> dict[str, Any]:
        """What the noise of a draw is like."""
        shape, parts = (*self.batch_shape, *self.event_shape), (self.lr.shape[-3], *self.latent_channels)
        return {"shape": shape, "parts": parts, "dtype": self.lr.dtype, "device": self.lr.device}

    def log_prob(self, value: Tensor) -> Tensor:
        if not self.has_density:
            raise ValueError(
                "expected temperature > 0 on every level and a finite lr_log_scale to have a density; got "
                f"temperature {self.temperature} and lr_log_scale {self.lr_log_scale}: sampling at temperature 0 or "
                "in the Dirac limit is deterministic there. Score with temperature=1.0, lr_log_scale=-6.0."
            )
        if value.shape[-3:] != self.event_shape:
            raise ValueError(
                f"expected a packed latent of event shape {tuple(self.event_shape)}; got shape {tuple(value.shape)}"
            )
        # One LR image may have many widths: it is not repeated for each.
        padding = self.lr.new_zeros(*self.lr.shape[:-3], sum(self.latent_channels), *self.event_shape[1:])
        return sum_event(scaled_log_prob(value - torch.cat([self.lr, padding], -3), self.scale))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "PackedNormal":
        lr = self.lr.expand(*batch_shape, *self.lr.shape[-3:])
        return PackedNormal(
            lr,
            latent_channels=self.latent_channels,
            temperature=self.temperature,
            lr_log_scale=self.lr_log_scale,
            validate_args=self._validate_args,
        )


def _checked_log_scale(value: float | Tensor) -> float | Tensor:
    """A log-scale that is a number in range, or a tensor, which may be random, and is not looked at."""
    if isinstance(value, Tensor):
        return value
    largest = _LARGEST_LOG_SCALE
    if not isinstance(value, int | float) or not (value == -math.inf or -largest <= value <= largest):
        raise ValueError(f"expected lr_log_scale from -40 to 40, or -inf for the Dirac limit; got {value!r}")
    return float(value)


def _scales(
    log_sigma: float | Tensor, temperature: Sequence[float | Tensor], *, widths: Sequence[int], like: Tensor
) -> Tensor:
    """The scale of each channel, ``(*batch, channels, 1, 1)``, from that of the LR image and those of the latents."""
    values = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in (log_sigma, *temperature)]
    try:
        log_scale, *taus = torch.broadcast_tensors(*values)
    except RuntimeError:
        shapes = ", ".join(str(tuple(value.shape)) for value in values)
        raise ValueError(f"expected temperatures and lr_log_scale of one batch; got shapes {shapes}") from None
    sigma = _exp(log_scale)
    if taus:
        sigma = torch.where(torch.stack(taus).eq(0).all(0), 0.0, sigma)
    parts = [value[..., None].expand(*value.shape, width) for value, width in zip((sigma, *taus), widths, strict=True)]
    return torch.cat(parts, -1)[..., None, None]


def _exp(log_scale: Tensor) -> Tensor:
    """σ of log σ: 0 below −40, where it is no more than the Dirac limit, and NaN above 40; without a slope there."""
    proper = log_scale.abs() <= _LARGEST_LOG_SCALE
    limit = torch.where(log_scale < 0, 0.0, torch.nan).to(log_scale)
    return torch.where(proper, torch.where(proper, log_scale, 0.0).exp(), limit)


def _shown(value: float | Tensor) -> str:
    if isinstance(value, Tensor) and value.dim():
        return f"tensor of shape {tuple(value.shape)}"
    return f"{float(value.detach() if isinstance(value, Tensor) else value):g}"
