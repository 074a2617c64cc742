"""Elementwise bijections whose parameters a conditioner predicts: what a coupling does to the part it changes.

Affine maps with their log-scales, additive ones, sinh-arcsinh maps with tails, and rational-quadratic splines.
"""

import math
from typing import ClassVar, Literal

import torch
from pyro.distributions.transforms.spline import _monotonic_rational_spline
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr._support.shapes import constant_ladj, full_precision, sum_event

AffineForm = Literal["shift-then-scale", "scale-then-shift", "standardize"]

_LEAST_SLOPE = 1e-3  # what Pyro's function adds to every slope

_NICE = """@inproceedings{dinh2015nice,
  title     = {{NICE}: Non-linear Independent Components Estimation},
  author    = {Dinh, Laurent and Krueger, David and Bengio, Yoshua},
  booktitle = {International Conference on Learning Representations (ICLR), Workshop Track},
  year      = {2015},
  url       = {https://arxiv.org/abs/1410.8516}
}"""

_SPLINES = """@inproceedings{durkan2019neural,
  title     = {Neural Spline Flows},
  author    = {Durkan, Conor and Bekasov, Artur and Murray, Iain and Papamakarios, George},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2019},
  url       = {https://arxiv.org/abs/1906.04032}
}"""

_SINH_ARCSINH = """@article{jones2009sinh,
  title   = {Sinh-arcsinh distributions},
  author  = {Jones, M. C. and Pewsey, Arthur},
  journal = {Biometrika},
  volume  = {96},
  number  = {4},
  pages   = {761--780},
  year    = {2009},
  url     = {https://doi.org/10.1093/biomet/asp053}
}"""


class LogScaleMap(nn.Module):
    """Elementwise map from a conditioner's raw output to a log-scale; ``LOG_SCALE_MAPS`` lists them by name."""

    name: ClassVar[str]

    def forward(self, h: Tensor) -> Tensor:
        """Return the log-scale, of the shape of ``h``."""
        raise NotImplementedError


class Exp(LogScaleMap):
    """``log_scale = h``: unbounded, as in the Gaussian heads of Glow and HCFlow."""

    name = "exp"

    def forward(self, h: Tensor) -> Tensor:
        return h


class Atan(LogScaleMap):
    """``log_scale = 0.318·atan(2h)``, within ±0.5: HCFlow's couplings (released code)."""

    name = "atan"

    def forward(self, h: Tensor) -> Tensor:
        return torch.atan(2.0 * h).mul_(0.318)


class Sigmoid(LogScaleMap):
    """``log_scale = log(σ(h + 2) + eps)``, below 0: Glow (``eps = 0``) and SRFlow (``eps = 1e-4``)."""

    name = "sigmoid"

    def __init__(self, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, h: Tensor) -> Tensor:
        if self.eps == 0:
            return F.logsigmoid(h + 2.0)
        # logaddexp(log σ, log ε) has no underflow where σ itself would round to zero.
        return torch.logaddexp(F.logsigmoid(h + 2.0), torch.full_like(h, math.log(self.eps)))


class SymmetricSigmoid(LogScaleMap):
    """``log_scale = c·(2σ(h) − 1)``, within ±c: IRN (Xiao et al., ECCV 2020, section 3.2)."""

    name = "symmetric-sigmoid"

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, h: Tensor) -> Tensor:
        return self.bound * torch.tanh(0.5 * h)


class Tanh(LogScaleMap):
    """``log_scale = a·tanh(h)`` with learned ``a``: RealNVP (Dinh et al., ICLR 2017, section 4.1)."""

    name = "tanh"

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.tensor(float(start)))

    def forward(self, h: Tensor) -> Tensor:
        return self.amplitude * torch.tanh(h)


LOG_SCALE_MAPS: dict[str, type[LogScaleMap]] = {cls.name: cls for cls in (Exp, Atan, Sigmoid, SymmetricSigmoid, Tanh)}
"""The log-scale maps by name."""


def log_scale_map(name_or_map: str | LogScaleMap) -> LogScaleMap:
    """A log-scale map by its name, with its default parameters; a map passes through.

    Raises:
        ValueError: for a name that is not in ``LOG_SCALE_MAPS``.

    Example:
        >>> print(f"{log_scale_map('atan')(torch.tensor(1e9)).item():.3f}")
        0.500
    """
    if isinstance(name_or_map, LogScaleMap):
        return name_or_map
    if name_or_map not in LOG_SCALE_MAPS:
        raise ValueError(f"expected a log-scale map among {', '.join(LOG_SCALE_MAPS)}; got {name_or_map!r}")
    return LOG_SCALE_MAPS[name_or_map]()


class ElementwiseMap(nn.Module):
    """An elementwise bijection with ``params_per_channel`` conditioner outputs for each channel it changes."""

    params_per_channel: int
    family: ClassVar[str] = "Gaussian"  # what x is of which z is a standard normal latent, as heads are called

    def check_parameters(self, x: Tensor, h: Tensor) -> None:
        """Raise ValueError unless ``h`` has ``params_per_channel`` channels for each of ``x``."""
        wanted = self.params_per_channel * x.shape[-3]
        if h.shape[-3] != wanted:
            raise ValueError(
                f"expected the conditioner to give {wanted} channels, {self.params_per_channel} for each of "
                f"{x.shape[-3]}; got {h.shape[-3]}"
            )

    def fitted(self, x: Tensor, h: Tensor) -> Tensor:
        """The conditioner's output checked, in the dtype and with the batch of ``x``.

        The conditioner may have run in bfloat16; the bijection does not. A context shared by many images gives
        parameters with fewer batch dimensions than x.
        """
        self.check_parameters(x, h)
        return h.to(x.dtype).expand(*x.shape[:-3], *h.shape[-3:])

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
            return (x * log_scale.exp()).add_(shift), sum_event(log_scale)
        return (x - shift) * (-log_scale).exp_(), -sum_event(log_scale)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(z, h)
        if self.form == "shift-then-scale":
            return (z * (-log_scale).exp_()).sub_(shift), -sum_event(log_scale)
        if self.form == "scale-then-shift":
            return (z - shift) * (-log_scale).exp_(), -sum_event(log_scale)
        return (z * log_scale.exp()).add_(shift), sum_event(log_scale)

    def _shift_and_log_scale(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.fitted(x, h)
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

    citations: ClassVar[tuple[str, ...]] = (_NICE,)

    params_per_channel = 1

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.check_parameters(x, h)
        return x + h.to(x.dtype), constant_ladj(x, 0.0)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        self.check_parameters(z, h)
        return z - h.to(z.dtype), constant_ladj(z, 0.0)


class SinhArcsinhMap(ElementwiseMap):
    """Sinh-arcsinh map: a location, a scale, a skewness and a weight of the tails for each value.

    With ``μ, s, a, b = h[0::4], h[1::4], h[2::4], h[3::4]``, ``ε = tanh(a)`` and ``log δ = tanh(b)`` encoding is::

        z = sinh(δ·asinh((x − μ)·exp(−s)) − ε),

    so that x of a standard normal z is skewed to the right for ε > 0, and its tails are heavier than a Gaussian's for
    δ < 1: at large z, x grows as z to the power of 1/δ, from 1/e to e. At zero it is the identity. Both directions have
    a closed form, and slopes that are never zero.

    Cost: a few elementwise functions per value; some five times an affine map.

    Args:
        log_scale: name or instance of a log-scale map of s, see ``LOG_SCALE_MAPS``.

    Raises:
        ValueError: for an unknown log-scale map.

    References:
        Jones and Pewsey, Sinh-arcsinh distributions (Biometrika 2009), section 2.

    Example:
        >>> tails = torch.tensor([0.0, 0.0, 0.0, -1.0]).reshape(4, 1, 1)
        >>> x, _ = SinhArcsinhMap().decode(torch.full((1, 1, 1), 3.0), tails)
        >>> z, _ = SinhArcsinhMap().encode(x, tails)
        >>> f"three standard deviations of noise are {x.item():.1f} of the image, and back {z.item():.1f}"
        'three standard deviations of noise are 24.6 of the image, and back 3.0'
    """

    citations: ClassVar[tuple[str, ...]] = (_SINH_ARCSINH,)

    params_per_channel = 4
    family = "sinh-arcsinh"

    def __init__(self, *, log_scale: str | LogScaleMap = "exp") -> None:
        super().__init__()
        self.log_scale = log_scale_map(log_scale)

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale, skew, log_tail = self._split(x, h)
        wide = torch.asinh((x - shift) * (-log_scale).exp())
        narrow = wide * log_tail.exp() - skew
        return torch.sinh(narrow), sum_event(_log_cosh(narrow) - _log_cosh(wide) + log_tail - log_scale)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale, skew, log_tail = self._split(z, h)
        narrow = torch.asinh(z)
        wide = (narrow + skew) * (-log_tail).exp()
        ladj = sum_event(_log_cosh(wide) - _log_cosh(narrow) - log_tail + log_scale)
        return torch.sinh(wide) * log_scale.exp() + shift, ladj

    def _split(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h = self.fitted(x, h)
        shift, log_scale, skew, log_tail = (h[..., part::4, :, :] for part in range(4))
        return shift, self.log_scale(log_scale), skew.tanh(), log_tail.tanh()


def _log_cosh(x: Tensor) -> Tensor:
    # cosh itself overflows where its logarithm is nearly |x|; written with |x|, the second derivative at 0 would be 0.
    # The threshold is where float64 no longer sees what softplus leaves out.
    return x + F.softplus(-2.0 * x, threshold=40.0) - math.log(2.0)


class SplineMap(ElementwiseMap):
    """Monotonic rational-quadratic spline on ``[−bound, bound]``, the identity outside ("linear tails").

    Of the ``3·bins − 1`` parameters per channel the first ``bins`` give the widths of the bins (softmax), the next
    their heights (softmax), the rest the slopes at the knots between them (softplus). At zero all bins are equal and
    all inner slopes are 1, the identity to within 1e-3. Outside the interval values cannot grow at all, inside each
    bin's slope is bounded: the published cure for inverses that explode on images unlike the training data.

    Cost: O(bins) per value, with a search for the bin; several times an affine map.

    Args:
        bins: number of bins, at least 2.
        bound: where the tails begin; activations behind an ActNorm have standard deviation 1.

    Raises:
        ValueError: for fewer bins, more than a thousand of them, or a bound that is not positive.

    References:
        Durkan et al., Neural Spline Flows (NeurIPS 2019), section 3.1.

    Example:
        >>> spline = SplineMap(bins=4, bound=3.0)
        >>> z, ladj = spline.encode(torch.full((1, 1, 1), 7.0), torch.randn(11, 1, 1))
        >>> z.item(), ladj.item()
        (7.0, 0.0)
    """

    citations: ClassVar[tuple[str, ...]] = (_SPLINES,)

    def __init__(self, *, bins: int = 8, bound: float = 5.0) -> None:
        super().__init__()
        if not 2 <= bins < 1000:
            raise ValueError(f"expected from 2 to 999 bins; got {bins}")
        if not (bound > 0 and math.isfinite(bound)):
            raise ValueError(f"expected a positive bound; got {bound}")
        self.bins, self.bound = bins, float(bound)
        self.params_per_channel = 3 * bins - 1

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_spline(x, h, inverse=False)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_spline(z, h, inverse=True)

    def _apply_spline(self, x: Tensor, h: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            h = self.fitted(x, h).unflatten(-3, (x.shape[-3], self.params_per_channel)).movedim(-3, -1)
            widths, heights, slopes = h.split((self.bins, self.bins, self.bins - 1), -1)
            unit_slope = math.log(math.expm1(1.0 - _LEAST_SLOPE))
            # Outside of the interval the spline's own formula gives NaN in second derivatives: it is not asked there.
            inside = (x > -self.bound) & (x < self.bound)
            y, log_slope = _monotonic_rational_spline(
                torch.where(inside, x, 0.0),
                widths.softmax(-1),
                heights.softmax(-1),
                F.softplus(slopes + unit_slope),
                inverse=inverse,
                bound=self.bound,
                min_derivative=_LEAST_SLOPE,
            )
        return torch.where(inside, y, x), sum_event(torch.where(inside, log_slope, 0.0))

    def extra_repr(self) -> str:
        return f"bins={self.bins}, bound={self.bound}"
