"""SRFlow's network of the LR image: one RRDB trunk, and its features at several resolutions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr._support.shapes import size_text
from flowsr.nn.conv import Conv2d
from flowsr.nn.rrdb import RRDB, DenseBlock


class RRDBPyramid(nn.Module):
    """Features of an LR image for each level of a flow, finest first: ``u_l = [feature map, stacked block outputs]``.

    With ``t = trunk(conv(lr))`` and ``f = t + conv(t)``: the maps above LR resolution are
    ``m_2k = lrelu(conv(up2(m_k)))`` with ``m₁ = f``, and the one below is f averaged over 2x2 pixels. The outputs of
    some RRDBs join each map, resized to it by the nearest neighbour. That the flow sees the maps after the LeakyReLU,
    not before, is what reproduces the numbers of the authors' code.

    Cost: dominated by the RRDBs, run once at LR resolution.

    Args:
        in_channels: channels of the LR image.
        channels: width nf of the trunk.
        growth: growth gc of the dense blocks.
        blocks: number of RRDBs.
        stacked: which RRDBs' outputs are stacked, counted from 0.
        levels: number of levels of the flow, at least 2: the first has half of HR resolution, the last half of LR
            resolution.

    Raises:
        ValueError: for a stacked block that is not there; for an LR image with an odd side.

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 3.3 and figure 4; the released configurations.

    Example:
        >>> net = RRDBPyramid(3, channels=8, growth=4, blocks=2, stacked=(0, 1), levels=3)
        >>> [tuple(u.shape) for u in net(torch.zeros(3, 4, 6))]
        [(24, 8, 12), (24, 4, 6), (24, 2, 3)]
    """

    def __init__(
        self, in_channels: int, *, channels: int, growth: int, blocks: int, stacked: Sequence[int], levels: int
    ) -> None:
        super().__init__()
        if any(not 0 <= index < blocks for index in stacked):
            raise ValueError(f"expected stacked blocks between 0 and {blocks - 1}; got {tuple(stacked)}")
        self.in_channels = in_channels
        self.out_channels = channels * (1 + len(stacked))
        self.stacked = tuple(stacked)
        self.conv_first = Conv2d(in_channels, channels, gain=0.1)
        self.trunk = nn.ModuleList([RRDB(channels, growth=growth) for _ in range(blocks)])
        _kaiming_start(self.trunk)
        self.conv_trunk = Conv2d(channels, channels, gain=0.1)
        self.upconvs = nn.ModuleList([Conv2d(channels, channels, gain=0.1) for _ in range(levels - 2)])

    def forward(self, lr: Float[Tensor, "*batch in height width"]) -> tuple[Tensor, ...]:
        """The features of each level, finest first; any batch shape."""
        if lr.shape[-2] % 2 or lr.shape[-1] % 2:
            raise ValueError(
                f"expected an LR image with even sides, as the coarsest level has half of them; got "
                f"{size_text(lr.shape[-2:])}: pad it with flowsr.images.pad_to_multiple"
            )
        maps, outputs = self.maps(lr)
        below = torch.stack([maps[0][..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]).mean(0)
        features = [torch.cat([below, outputs[..., ::2, ::2]], -3)]
        for exponent, finer in enumerate(maps):
            features.append(torch.cat([finer, upsample_nearest(outputs, 2**exponent)], -3))
        return tuple(reversed(features))

    def maps(self, lr: Tensor) -> tuple[list[Tensor], Tensor]:
        """The feature maps from LR resolution upwards, and the stacked outputs of RRDBs."""
        h = self.conv_first(lr)
        outputs = []
        for index, block in enumerate(self.trunk):
            h = block(h)
            if index in self.stacked:
                outputs.append(h)
        maps = [h + self.conv_trunk(h)]
        for conv in self.upconvs:
            maps.append(F.leaky_relu(conv(upsample_nearest(maps[-1], 2)), 0.2))
        return maps, torch.cat(outputs, -3) if outputs else maps[0][..., :0, :, :]


@torch.no_grad()
def _kaiming_start(trunk: nn.Module) -> None:
    """ESRGAN's and SRFlow's start of the dense blocks: Kaiming's distribution times 0.1; HCFlow has Xavier's."""
    for block in trunk.modules():
        if isinstance(block, DenseBlock):
            for conv in block.convs:
                nn.init.kaiming_normal_(conv.weight).mul_(0.1)  # type: ignore[arg-type, union-attr]


class RegressionHead(nn.Module):
    """From the finest map of an :class:`RRDBPyramid` to the HR image: what the trunk is pretrained with, by L1.

    Cost: three convolutions at HR resolution.

    Args:
        channels: width of the maps.
        image_channels: channels of the image.

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 4.1; Wang et al., ESRGAN (ECCVW 2018), section 3.1.

    Example:
        >>> RegressionHead(8, 3)(torch.zeros(8, 4, 6)).shape
        torch.Size([3, 8, 12])
    """

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.upconv = Conv2d(channels, channels, gain=0.1)
        self.conv_hr = Conv2d(channels, channels, gain=0.1)
        self.conv_last = Conv2d(channels, image_channels, gain=0.1)

    def forward(self, finest: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """The image, at twice the resolution of the map; any batch shape."""
        h = F.leaky_relu(self.upconv(upsample_nearest(finest, 2)), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(h), 0.2))


def upsample_nearest(x: Tensor, factor: int) -> Tensor:
    """Repeat each pixel ``factor`` times in both directions; any batch shape."""
    return x if factor == 1 else x.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
