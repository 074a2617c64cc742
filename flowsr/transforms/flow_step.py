"""The flow step of Glow, SRFlow and HCFlow: normalize, mix the channels, couple."""

from typing import Any

import torch
from torch import Tensor

from flowsr.transforms.actnorm import ActNorm
from flowsr.transforms.base import ImageTransform


class FlowStep(ImageTransform):
    """One flow step; encoding is ActNorm, then ``mixing`` (if any), then ``coupling``, which alone sees the context.

    Cost: nearly all of it is the coupling's conditioner.

    Args:
        channels: channels of the image.
        coupling: the bijection that does the work.
        mixing: what lets channels change places, usually an invertible 1x1 convolution; None for nothing.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), figure 2a; Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> from flowsr.nn import FCN
        >>> from flowsr.transforms import InvertibleConv1x1, affine_coupling
        >>> coupling = affine_coupling(6, FCN(3, 6, hidden_channels=8), kept_channels=3)
        >>> FlowStep(6, coupling=coupling, mixing=InvertibleConv1x1(6)).inv(torch.zeros(6, 4, 4)).shape
        torch.Size([6, 4, 4])
    """

    def __init__(self, channels: int, *, coupling: ImageTransform, mixing: ImageTransform | None = None) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = mixing
        self.coupling = coupling

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        x, ladj = self.coupling.call_and_ladj(z, context)
        if self.mixing is not None:
            x, mixing_ladj = self.mixing.call_and_ladj(x)
            ladj = ladj + mixing_ladj
        x, norm_ladj = self.actnorm.call_and_ladj(x)
        return x, ladj + norm_ladj

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = self.actnorm.inv_call_and_ladj(x)
        if self.mixing is not None:
            z, mixing_ladj = self.mixing.inv_call_and_ladj(z)
            ladj = ladj + mixing_ladj
        z, coupling_ladj = self.coupling.inv_call_and_ladj(z, context)
        return z, ladj + coupling_ladj

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.actnorm.inverse_shape(shape)
