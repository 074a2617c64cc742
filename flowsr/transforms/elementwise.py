"""Elementwise bijections whose parameters a conditioner predicts: what a coupling does to the part it changes."""

from typing import Literal

from torch import Tensor, nn

from flowsr._shapes import constant_ladj, sum_event
from flowsr.transforms.log_scale import LogScaleMap, log_scale_map

AffineForm = Literal["shift-then-scale", "scale-then-shift", "standardize"]


class ElementwiseMap(nn.Module):
    """An elementwise bijection with ``params_per_channel`` conditioner outputs for each channel it changes."""

    params_per_channel: int

    def check_parameters(self, x: Tensor, h: Tensor) -> None:
        """Raise ValueError unless ``h`` has ``params_per_channel`` channels for each of ``x``."""
        wanted = self.params_per_channel * x.shape[-3]
        if h.shape[-3] != wanted:
            raise ValueError(
                f"expected the conditioner to give {wanted} channels, {self.params_per_channel} for each of "
                f"{x.shape[-3]}; got {h.shape[-3]}"
            )

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Image side to latent side: ``(z, log|det ∂z/∂x|)`` given the conditioner's output ``h``."""
        raise NotImplementedError

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Latent side to image side: ``(x, log|det ∂x/∂z|)`` given the conditioner's output ``h``."""
        raise NotImplementedError


class AffineMap(ElementwiseMap):
    """Affine map; with ``shift, scale = h[0::2], h[1::2]`` and ``s = log_scale(scale)`` encoding is

    - ``"shift-then-scale"``: ``z = (x + shift)·exp(s)`` (Glow, SRFlow, HCFlow);
    - ``"scale-then-shift"``: ``z = x·exp(s) + shift`` (IRN);
    - ``"standardize"``: ``z = (x − shift)·exp(−s)``, so that x is Gaussian with mean ``shift`` and standard
      deviation ``exp(s)`` (the Gaussian heads).

    Args:
        log_scale: name or instance of a log-scale map, see ``LOG_SCALE_MAPS``.
        form: which of the three.
        interleaved: shift and scale alternate in the channels of ``h``; otherwise they are its two halves.

    Raises:
        ValueError: for an unknown form or log-scale map.

    Example:
        >>> import torch
        >>> z, ladj = AffineMap(form="standardize", log_scale="exp").encode(torch.ones(1, 2, 2), torch.zeros(2, 2, 2))
        >>> z.mean().item(), abs(ladj.item())
        (1.0, 0.0)
    """

    params_per_channel = 2

    def __init__(
        self,
        *,
        log_scale: str | LogScaleMap = "atan",
        form: AffineForm = "shift-then-scale",
        interleaved: bool = True,
    ) -> None:
        super().__init__()
        if form not in ("shift-then-scale", "scale-then-shift", "standardize"):
            raise ValueError(f"expected form shift-then-scale, scale-then-shift or standardize; got {form!r}")
        self.log_scale = log_scale_map(log_scale)
        self.form = form
        self.interleaved = interleaved

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(x, h)
        if self.form == "shift-then-scale":
            return (x + shift) * log_scale.exp(), sum_event(log_scale)
        if self.form == "scale-then-shift":
            return x * log_scale.exp() + shift, sum_event(log_scale)
        return (x - shift) * (-log_scale).exp(), -sum_event(log_scale)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(z, h)
        if self.form == "shift-then-scale":
            return z * (-log_scale).exp() - shift, -sum_event(log_scale)
        if self.form == "scale-then-shift":
            return (z - shift) * (-log_scale).exp(), -sum_event(log_scale)
        return z * log_scale.exp() + shift, sum_event(log_scale)

    def _shift_and_log_scale(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.check_parameters(x, h)
        # The conditioner may have run in bfloat16; the bijection does not. A context shared by many images
        # gives parameters with fewer batch dimensions than x.
        h = h.to(x.dtype).expand(*x.shape[:-3], *h.shape[-3:])
        if self.interleaved:
            shift, scale = h[..., 0::2, :, :], h[..., 1::2, :, :]
        else:
            shift, scale = h.chunk(2, -3)
        return shift, self.log_scale(scale)

    def extra_repr(self) -> str:
        return f"form={self.form!r}, interleaved={self.interleaved}"


class AdditiveMap(ElementwiseMap):
    """Additive map; encoding ``z = x + h``, ``ladj = 0``.

    References:
        Dinh et al., NICE (ICLR workshop 2015), section 3.2.

    Example:
        >>> import torch
        >>> AdditiveMap().encode(torch.ones(1, 2, 2), torch.ones(1, 2, 2))[0].mean().item()
        2.0
    """

    params_per_channel = 1

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.check_parameters(x, h)
        return x + h.to(x.dtype), constant_ladj(x, 0.0)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.check_parameters(z, h)
        return z - h.to(z.dtype), constant_ladj(z, 0.0)
