"""The conditioner of Glow, SRFlow and HCFlow, whose last convolution starts at zero; and networks side by side."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsr.nn.conv import NormedConv2d, ZeroConv2d
from flowsr.nn.prepared import rectified


class FCN(nn.Module):
    """Fully convolutional conditioner: conv 3x3, ActNorm, ReLU, conv 1x1, ActNorm, ReLU, zero conv 3x3.

    Cost: about 9·(in + context + out)·hidden + hidden² multiplications per pixel.

    Args:
        in_channels: channels of the part of the image that is kept by the coupling.
        out_channels: channels of the result, shift and scale together.
        hidden_channels: width of the two inner layers.
        context_channels: channels of the features that condition the coupling; 0 for none.
        std: standard deviation of the inner layers' initial weights, 0.05 in Glow and SRFlow; None for HCFlow's start.
        mark_border: one more input channel of the 3x3 convolutions marks the border, see :func:`flowsr.nn.conv2d`.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.3; Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> net = FCN(6, 12, hidden_channels=16, context_channels=8)
        >>> net(torch.zeros(5, 2, 6, 4, 4), torch.zeros(2, 8, 4, 4)).shape
        torch.Size([5, 2, 12, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int,
        context_channels: int = 0,
        std: float | None = None,
        mark_border: bool = False,
    ) -> None:
        super().__init__()
        inputs = in_channels + context_channels
        self.conv1 = NormedConv2d(inputs, hidden_channels, std=std, mark_border=mark_border)
        self.conv2 = NormedConv2d(hidden_channels, hidden_channels, kernel_size=1, std=std)
        self.conv3 = ZeroConv2d(hidden_channels, out_channels, mark_border=mark_border)

    def forward(
        self,
        x: Float[Tensor, "*batch in height width"],
        context: Float[Tensor, "*context features height width"] | None = None,
    ) -> Float[Tensor, "*batch out height width"]:
        """Compute shift and scale; the batch of ``context`` must broadcast against that of ``x``."""
        h = rectified(self.conv1, x, context)
        return self.conv3(rectified(self.conv2, h))


class Parallel(nn.ModuleList):
    """Several networks on the same input, ``h = [f₁(x), f₂(x), …]``: a conditioner with a network for each parameter.

    Args:
        networks: modules from ``(*batch, in, H, W)`` to ``(*batch, out_i, H, W)``.

    Example:
        >>> from flowsr.nn import Conv2d
        >>> Parallel(Conv2d(3, 4), Conv2d(3, 2))(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 6, 8, 8])
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__(networks)

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Run all networks; any batch shape."""
        return torch.cat([network(x) for network in self], -3)
