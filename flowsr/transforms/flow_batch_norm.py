"""Batch normalization as a bijection."""

from typing import Any

from torch import Tensor

from flowsr._support.shapes import pixelwise_ladj
from flowsr.nn import BatchStatistics
from flowsr.transforms.base import SameShapeTransform


class FlowBatchNorm(SameShapeTransform):
    """Batch normalization; encoding ``z = (x − mean)/√(var + eps)``, ``ladj = −½·H·W·Σ ln(var + eps)``.

    It uses running statistics, in both directions, so it is a fixed bijection of one image whatever its batch. Only
    inside :func:`flowsr.nn.batch_statistics`, for the loss of a training step, does encoding use the batch's own.

    Cost: O(C·H·W); the log-determinant is O(C).

    Args:
        channels: number of channels.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.7, equation 10.

    Example:
        >>> import torch
        >>> FlowBatchNorm(3).inv(torch.ones(2, 3, 4, 4)).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.statistics = BatchStatistics(channels)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        mean, log_std = self.statistics()
        return z * log_std.exp() + mean, pixelwise_ladj(z, log_std.sum())

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        mean, log_std = self.statistics(x)
        return (x - mean) * (-log_std).exp(), -pixelwise_ladj(x, log_std.sum())
