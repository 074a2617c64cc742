"""Log-scale maps: how the raw output of a conditioner becomes the log-scale of an affine map.

A bounded map keeps every layer, and so the inverse of the whole flow, well conditioned.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        return 0.318 * torch.atan(2.0 * h)


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
