"""The logit: from the unit interval of pixel values to the real line."""

import math
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn import functional as F

from flowsr._support.shapes import check_image_shape, sum_event
from flowsr.transforms.base import ImageTransform


class Logit(ImageTransform):
    """Logit of pixel values; encoding ``v = logit(α + (1 − 2α)·x)``,
    ``ladj = Σ softplus(v) + softplus(−v) + ln(1 − 2α)``.

    α keeps the values 0 and 1 away from infinity. An image must lie strictly between ``−α/(1 − 2α)`` and
    ``1 + α/(1 − 2α)``, which holds for [0, 1] with the noise of a dequantization; outside, the result is NaN.

    Cost: elementwise.

    Args:
        alpha: α between 0 and 0.5.

    Raises:
        ValueError: for another α.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 4.1.

    Example:
        >>> Logit().inv(torch.full((1, 1, 1), 0.5)).item()
        0.0
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"expected alpha from 0 to 0.5; got {alpha}")
        self.alpha = alpha

    @property
    def codomain(self) -> Any:
        """The images there are: the interval that alpha leaves."""
        margin = self.alpha / (1 - 2 * self.alpha)
        return constraints.independent(constraints.interval(-margin, 1 + margin), 3)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.forward_shape(z.shape)
        return (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha), -self._ladj(z)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        z = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        return z, self._ladj(z)

    def _ladj(self, v: Tensor) -> Tensor:
        return sum_event(F.softplus(v) + F.softplus(-v) + math.log(1 - 2 * self.alpha))

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, name="the image of Logit")
        return shape

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
