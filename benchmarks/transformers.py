"""Couplings whose conditioner is a transformer, as in Jet, to compare with convolutions: no option of the package."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr.models import HCFlow


class PatchTransformer(nn.Module):
    """Conditioner of a coupling: pre-norm transformer layers on patches, then a linear layer that starts at zero.

    Cost: per image O(patches²·width) for attention and O(patches·width²) for the rest.

    Args:
        in_channels: channels that the coupling keeps.
        out_channels: channels of the result.
        context_channels: channels of the features.
        width: of the layers; heads have 16 channels, feed-forward networks twice the width.
        layers: how many.
        patch: side of the patches; height and width must be multiples of it.

    Raises:
        ValueError: for a width that heads do not divide.

    References:
        Kolesnikov et al., Jet: a modern transformer-based normalizing flow (arXiv 2412.15129), section 3.

    Example:
        >>> net = PatchTransformer(4, 8, context_channels=6, width=32, layers=1)
        >>> net(torch.rand(5, 4, 8, 12), torch.rand(1, 6, 8, 12)).shape
        torch.Size([5, 8, 8, 12])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, context_channels: int, width: int, layers: int, patch: int = 2
    ) -> None:
        super().__init__()
        if width < 16 or width % 16:
            raise ValueError(f"expected a width that is a multiple of 16, the width of a head; got {width}")
        self.width, self.patch = width, patch
        self.embed = nn.Linear((in_channels + context_channels) * patch**2, width)
        layer = nn.TransformerEncoderLayer(
            width, width // 16, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, out_channels * patch**2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Shift and scale, ``(*batch, out, H, W)``."""
        both = torch.cat([x, context.expand(*x.shape[:-3], *context.shape[-3:])], -3)
        patches = F.pixel_unshuffle(both.reshape(-1, *both.shape[-3:]), self.patch)
        tokens = self.embed(patches.flatten(-2).mT) + positions(patches.shape[-2], patches.shape[-1], self.width).to(
            patches
        )
        grid = self.out(self.layers(tokens)).mT.unflatten(-1, patches.shape[-2:])
        result = F.pixel_shuffle(grid, self.patch)
        return result.reshape(*x.shape[:-3], *result.shape[-3:])


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of row and column, ``(height·width, channels)``, at wavelengths from 6 patches on, below 6000.

    Example:
        >>> positions(2, 3, 16).shape
        torch.Size([6, 16])
    """
    rates = torch.exp(-math.log(1000.0) * torch.arange(channels // 4) / (channels // 4))
    row, column = (torch.arange(side)[:, None] * rates for side in (height, width))
    waves = [torch.cat([angle.sin(), angle.cos()], -1) for angle in (row, column)]
    both = [waves[0][:, None].expand(-1, width, -1), waves[1][None].expand(height, -1, -1)]
    return torch.cat(both, -1).flatten(0, 1)


def with_transformers(flow: HCFlow, *, width: int, layers: int) -> HCFlow:
    """The model with transformers in the place of the conditioners of its conditional steps."""
    for level in flow.transform.conditionals:
        parts: Any = level
        for step in parts.steps.parts:
            coupling, features = step.coupling, parts.encoder.out_channels
            changed = coupling.map.params_per_channel * (coupling.channels - coupling.kept_channels)
            coupling.conditioner = PatchTransformer(
                coupling.kept_channels, changed, context_channels=features, width=width, layers=layers
            )
    return flow
