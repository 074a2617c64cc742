"""A Gaussian that depends on nothing but the place: Glow's learned prior of the coarsest latent."""

from typing import Any

from torch import Tensor

from flowsr.nn import ZeroConv2d
from flowsr.transforms.base import SameShapeTransform
from flowsr.transforms.elementwise import AffineMap


class LearnedNormal(SameShapeTransform):
    """Learned mean and width per channel; encoding ``z = (x − mean)·exp(−logs)``, ``ladj = −Σ logs``.

    Both come from a convolution of an image of zeros, as in the released code, ``[mean | logs] = conv(0)``: that is the
    convolution's bias, and with ``mark_border`` also how far the border is. The other weights have no effect; they
    are there so that parameters are counted, and files laid out, as published.

    Cost: one 3x3 convolution for a whole batch.

    Args:
        channels: number of channels.
        mark_border: mean and width may differ at the border of the image, see :func:`flowsr.nn.conv2d`.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), released code, ``learntop``.

    Example:
        >>> LearnedNormal(3)(torch.ones(5, 3, 2, 2)).mean().item()  # N(0, 1) at the start
        1.0
    """

    def __init__(self, channels: int, *, mark_border: bool = False) -> None:
        super().__init__(channels)
        self.conditioner = ZeroConv2d(2 * channels, 2 * channels, mark_border=mark_border)
        self.map = AffineMap(form="standardize", log_scale="exp", interleaved=False)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.map.decode(z, self._mean_and_logs(z))

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.map.encode(x, self._mean_and_logs(x))

    def _mean_and_logs(self, x: Tensor) -> Tensor:
        self.inverse_shape(x.shape)
        return self.conditioner(x.new_zeros(2 * self.channels, *x.shape[-2:]))
