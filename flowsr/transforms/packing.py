"""Packing: latents of several resolutions as one tensor at the coarsest of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowsr.transforms.pixel_shuffle import depth_to_space, space_to_depth


def pack_latents(parts: Sequence[Tensor], factors: Sequence[int]) -> Tensor:
    """Stack the parts along the channels, part i after space-to-depth by ``factors[i]``; their batches broadcast.

    Example:
        >>> pack_latents([torch.zeros(3, 2, 2), torch.zeros(2, 4, 4)], [1, 2]).shape
        torch.Size([11, 2, 2])
    """
    batch = torch.broadcast_shapes(*(part.shape[:-3] for part in parts))
    coarse = [space_to_depth(part, factor) for part, factor in zip(parts, factors, strict=True)]
    return torch.cat([part.expand(*batch, *part.shape[-3:]) for part in coarse], -3)


def unpack_latents(packed: Tensor, channels: Sequence[int], factors: Sequence[int]) -> tuple[Tensor, ...]:
    """The inverse of :func:`pack_latents`, for parts of ``channels[i]`` channels before their space-to-depth."""
    sizes = [c * factor**2 for c, factor in zip(channels, factors, strict=True)]
    parts = packed.split(sizes, -3)
    return tuple(depth_to_space(part, factor) for part, factor in zip(parts, factors, strict=True))
