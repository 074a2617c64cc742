"""Activation normalization: a per-channel affine map whose start is taken from data."""

from typing import Any

from torch import Tensor

from flowsr._support.shapes import pixelwise_ladj
from flowsr.nn import ChannelAffine
from flowsr.transforms.base import SameShapeTransform


class ActNorm(SameShapeTransform):
    """Per-channel affine bijection; encoding ``z = (x + bias) · exp(logs)``, ``ladj = H·W·Σ logs``.

    Its parameters are set from data only inside :func:`flowsr.nn.initialize_from_data`, never while scoring.

    Cost: O(C·H·W); the log-determinant is O(C).

    Args:
        channels: number of channels.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.

    Example:
        >>> ActNorm(3).inv(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.affine = ChannelAffine(channels)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return self.affine.inverse(z), -pixelwise_ladj(z, self.affine.log_det())

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        z = self.affine(x)  # before the log-determinant: this call may initialize the parameters
        return z, pixelwise_ladj(x, self.affine.log_det())
