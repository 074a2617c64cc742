"""Dense blocks of ESRGAN, RRDBs made of them, and the trunk that turns LR images into features."""

from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flowsr.nn.conv import Conv2d
from flowsr.nn.prepared import channels_last, convolved_dtype, rectified

_ESRGAN = """@inproceedings{wang2018esrgan,
  title     = {{ESRGAN}: Enhanced Super-Resolution Generative Adversarial Networks},
  author    = {Wang, Xintao and Yu, Ke and Wu, Shixiang and Gu, Jinjin and Liu, Yihao and Dong, Chao and Qiao, Yu and
               Loy, Chen Change},
  booktitle = {European Conference on Computer Vision Workshops (ECCVW)},
  year      = {2018},
  url       = {https://arxiv.org/abs/1809.00219}
}"""


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
        # As the convolutions take and give them, or every concatenation would change order and dtype again.
        x = channels_last(x.to(convolved_dtype(x, cast(Conv2d, last).weight)))
        for conv in inner:
            x = torch.cat([x, rectified(conv, x, slope=0.2)], -3)
        return last(x)


class RRDB(nn.Module):
    """Residual-in-residual dense block: ``x + 0.2 · d₃(d₂(d₁(x)))`` with ``dᵢ(x) = x + 0.2 · DenseBlock(x)``.

    Args:
        channels: channels of input and output.
        growth: growth of the dense blocks.

    Attributes:
        recompute: keep only the input for the backward pass, and run again there; off by default.

    References:
        Wang et al., ESRGAN (ECCVW 2018), section 3.1.

    Example:
        >>> RRDB(8, growth=4)(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    citations: ClassVar[tuple[str, ...]] = (_ESRGAN,)

    def __init__(self, channels: int, *, growth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([DenseBlock(channels, channels, growth=growth, zero_start=False) for _ in range(3)])
        self.recompute = False

    def forward(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Apply the block; any batch shape."""
        if self.recompute and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(self._forward, x, use_reentrant=False, preserve_rng_state=False))
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        h = x
        for block in self.blocks:
            h = torch.add(h, block(h), alpha=0.2)
        return torch.add(x, h, alpha=0.2)


class RRDBEncoder(nn.Module):
    """Features of an LR image: ``f0 = conv(x)``, ``f1 = trunk0(f0)``, ``f2 = conv(trunk1(f1)) + f0``.

    Cost: dominated by the RRDBs, each three dense blocks.

    Args:
        in_channels: channels of the stacked inputs.
        channels: width nf of the trunk.
        growth: growth gc of the dense blocks.
        blocks: number of RRDBs in the first and in the second trunk.
        stack_trunks: return ``[f1, f2]`` (2·nf channels) rather than ``f2`` alone (nf channels).

    References:
        Liang et al., HCFlow (ICCV 2021), section 3 and supplement; the released code for sizes.

    Example:
        >>> RRDBEncoder(3, channels=8, growth=4, blocks=(1, 1), stack_trunks=True)(torch.zeros(3, 4, 6)).shape
        torch.Size([16, 4, 6])
    """

    def __init__(
        self, in_channels: int, *, channels: int, growth: int, blocks: tuple[int, int], stack_trunks: bool
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = 2 * channels if stack_trunks else channels
        self.stack_trunks = stack_trunks
        self.conv_first = Conv2d(in_channels, channels, gain=0.1)
        self.trunk0 = nn.Sequential(*[RRDB(channels, growth=growth) for _ in range(blocks[0])])
        self.trunk1 = nn.Sequential(*[RRDB(channels, growth=growth) for _ in range(blocks[1])])
        self.conv_last = Conv2d(channels, channels, gain=0.1)

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Compute the features; any batch shape."""
        first = self.conv_first(x)
        middle = self.trunk0(first)
        last = self.conv_last(self.trunk1(middle)) + first
        return torch.cat([middle, last], -3) if self.stack_trunks else last
