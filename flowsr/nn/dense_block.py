"""The densely connected block of ESRGAN, IRN and HCFlow's rescaling couplings."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr.nn.conv import Conv2d


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees the input and all earlier results; LeakyReLU 0.2 after the first four.

    Cost: about 9·(4·in·growth + 6·growth² + (in + 4·growth)·out) multiplications per pixel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        growth: channels that each inner convolution adds.
        zero_start: start the last convolution at zero, as a coupling's conditioner should.

    References:
        Wang et al., ESRGAN (ECCVW 2018), section 3.1; Xiao et al., IRN (ECCV 2020), section 3.2.

    Example:
        >>> DenseBlock(3, 18, growth=8)(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 18, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, *, growth: int, zero_start: bool = True) -> None:
        super().__init__()
        inner = [Conv2d(in_channels + i * growth, growth, gain=0.1) for i in range(4)]
        last = Conv2d(in_channels + 4 * growth, out_channels, gain=0.0 if zero_start else 0.1)
        self.convs = nn.ModuleList([*inner, last])

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Apply the block; any batch shape."""
        *inner, last = self.convs
        for conv in inner:
            x = torch.cat([x, F.leaky_relu(conv(x), 0.2)], -3)
        return last(x)
