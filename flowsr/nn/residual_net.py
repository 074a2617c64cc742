"""RealNVP's conditioner: a residual network of weight-normalized convolutions whose blocks all reach the output."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsr.nn.conv import WeightNormConv2d


class ResidualNet(nn.Module):
    """Residual network of a signed input: ``[relu(r), relu(−r), mask]`` with ``r = gain·norm(x)``.

    After a first 3x3 convolution come blocks of (norm, ReLU, conv 3x3) twice with a skip connection. A 1x1 convolution
    of the first layer's result and of each block's is summed; norm, ReLU and a 1x1 convolution end it.

    Cost: about 9·width²·2·blocks multiplications per pixel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        width: channels of the inner layers.
        blocks: number of residual blocks.
        norm: makes the normalization of so many channels.
        gain: factor on the normalized input; 2 where half of the input is masked.
        masked: whether :meth:`forward` gets a mask, as one more channel.
        kernel_size: odd width of the larger kernels; 1 for points.

    References:
        Dinh et al., RealNVP (ICLR 2017), sections 3.7 and 4.1, and the released code.

    Example:
        >>> from flowsr.nn import ChannelAffine
        >>> ResidualNet(3, 6, width=8, blocks=1, norm=ChannelAffine)(torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 6, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        blocks: int,
        norm: Callable[[int], nn.Module],
        gain: float = 1.0,
        masked: bool = False,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.norm_in = norm(in_channels)
        self.conv_in = WeightNormConv2d(2 * in_channels + masked, width, kernel_size=kernel_size)
        self.skip_in = WeightNormConv2d(width, width, kernel_size=1)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(
                    norm(width),
                    nn.ReLU(),
                    WeightNormConv2d(width, width, kernel_size=kernel_size),
                    norm(width),
                    nn.ReLU(),
                    WeightNormConv2d(width, width, kernel_size=kernel_size),
                )
                for _ in range(blocks)
            ]
        )
        self.skips = nn.ModuleList([WeightNormConv2d(width, width, kernel_size=1) for _ in range(blocks)])
        self.norm_out = norm(width)
        self.conv_out = WeightNormConv2d(width, out_channels, kernel_size=1, gain=0.1)

    def forward(
        self, x: Float[Tensor, "*batch in height width"], mask: Float[Tensor, "one height width"] | None = None
    ) -> Float[Tensor, "*batch out height width"]:
        """Apply the network; any batch shape."""
        r = self.gain * self.norm_in(x)
        parts = [r, -r]
        if mask is not None:
            parts.append(mask.expand(*x.shape[:-3], 1, *x.shape[-2:]))
        h = self.conv_in(torch.relu(torch.cat(parts, -3)))
        total = self.skip_in(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = h + block(h)
            total = total + skip(h)
        return self.conv_out(torch.relu(self.norm_out(total)))
