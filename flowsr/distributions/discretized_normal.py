"""A normal distribution on grey levels: what a density says about 8-bit values."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.utils import broadcast_all

from flowsr.distributions.packed_normal import proper_scale


class DiscretizedNormal(TorchDistribution):
    """Normal distribution collected on the levels 0, 1/(n−1), …, 1: each takes the mass of the interval nearest to it.

    ``P(v) = Φ((v + h − loc)/scale) − Φ((v − h − loc)/scale)`` with ``h = 1/(2(n − 1))``; the first and the last level
    also take the tails, so the masses sum to 1.

    Cost: two normal distribution functions per element.

    Mean and scale may be random: what inference proposes and cannot be, a scale that is none or a mean that is not
    finite, has log-probability −inf, with gradient zero.

    Args:
        loc: mean of the normal.
        scale: its standard deviation, positive; a number, or a tensor.
        levels: number n of levels, 256 for 8-bit values.

    Raises:
        ValueError: for fewer than 2 levels, or a number that is no scale; from ``log_prob`` for values that are no
            levels.

    References:
        Salimans et al., PixelCNN++ (ICLR 2017), section 2.1, for another base distribution.

    Example:
        >>> grey = DiscretizedNormal(torch.tensor(0.5), torch.tensor(0.01))
        >>> print(f"{grey.log_prob(torch.arange(256) / 255).exp().sum():.4f}")
        1.0000
    """

    arg_constraints: ClassVar = {}  # pyright: ignore[reportAssignmentType]
    support = constraints.unit_interval  # pyright: ignore[reportAssignmentType]

    def __init__(
        self, loc: Tensor, scale: Tensor | float, *, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        if levels < 2:
            raise ValueError(f"expected at least 2 levels; got {levels}")
        if not isinstance(scale, Tensor) and not 0 < scale < math.inf:
            raise ValueError(f"expected a positive, finite scale; got {scale}")
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        level = value * (self.levels - 1)
        inside = (level > -0.5) & (level < self.levels - 0.5)
        if not bool((((level - level.round()).abs() < 1e-3) & inside).all()):
            raise ValueError(
                f"expected values among the {self.levels} levels from 0 to 1; got others: round them first"
            )
        proper = proper_scale(self.scale) & torch.isfinite(self.loc)
        # What is no argument is replaced before, not after: its gradient would be NaN.
        loc, scale = torch.where(proper, self.loc, 0.5), torch.where(proper, self.scale, 1.0)
        return torch.where(proper, self._log_mass(value, loc, scale), -torch.inf)

    def _log_mass(self, value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        half = 0.5 / (self.levels - 1)
        inf = torch.tensor(torch.inf, dtype=self.loc.dtype, device=self.loc.device)
        upper = torch.where(value > 1 - half, inf, (value + half - loc) / scale)
        lower = torch.where(value < half, -inf, (value - half - loc) / scale)
        # In the upper tail both distribution functions are near 1: mirrored, they are near 0, and keep their digits.
        flip = lower > 0
        upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
        above, below = _log_ndtr(upper), _log_ndtr(lower)
        width = 2 * half / scale
        ends = (value > 1 - half) | (value < half)
        narrow = (width < 1e-2) & ~ends
        # Where the difference is not used it may be zero, whose logarithm has no gradient.
        mass = above + torch.log(-torch.expm1(torch.where(narrow, -1.0, below - above)))
        # A bin that is narrow beside the scale: the density at its middle, as the difference would lose its digits.
        middle = (value - loc) / scale
        density = -0.5 * middle.square() - 0.5 * math.log(2 * math.pi) + width.log()
        return torch.where(narrow, density, mass)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size([*sample_shape, *self.batch_shape])
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        value = (self.loc + self.scale * noise).clamp(0, 1)
        return (value * (self.levels - 1)).round() / (self.levels - 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "DiscretizedNormal":
        shape = torch.Size(batch_shape)
        return DiscretizedNormal(
            self.loc.expand(shape), self.scale.expand(shape), levels=self.levels, validate_args=self._validate_args
        )


def _log_ndtr(x: Tensor) -> Tensor:
    """``log Φ(x)``; far below zero its asymptote, equal to rounding, where torch's gradient overflows."""
    far = x < -1e5
    asymptote = torch.where(far, x, -1.0)
    asymptote = -0.5 * asymptote.square() - (-asymptote).log() - 0.5 * math.log(2 * math.pi)
    return torch.where(far, asymptote, torch.special.log_ndtr(torch.where(far, -1.0, x)))
