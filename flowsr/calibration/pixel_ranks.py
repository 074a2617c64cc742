"""Ranks of the truth and of each draw among all images of a pair, pixel by pixel, and what the LR image shows there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_PLACES = 32
"""Along each side; larger images are averaged over square cells, so that ranks of many pairs fit into memory."""

CONTENT = {
    "brightness": "mean of 3x3 LR pixels, of 1",
    "texture": "standard deviation of 3x3 LR pixels, of 1",
    "slope": "length of the LR image's gradient, of 1 per LR pixel",
    "spread": "standard deviation of the draws and the truth, of 1",
}
"""What a place can be like, and in which unit; all but the last are known from the LR image."""


@dataclass(frozen=True)
class PixelRanks:
    """Ranks at each place of each pair, and what is there.

    Attributes:
        ranks: of the truth (first) and each draw among all of them, 0 to the number of draws,
            ``(n, draws + 1, C, h, w)``; a place is a pixel, or a cell of a larger image.
        content: by the names of ``CONTENT``, ``(n, h, w)``. The same whichever image is the truth.
        cell: side of a place in HR pixels.
    """

    ranks: Tensor
    content: dict[str, Tensor]
    cell: int

    def normal_scores(self) -> Tensor:
        """The standard normal quantile of each rank: a table from rank to score, ``(draws + 1,)``."""
        images = self.ranks.shape[1]
        levels = (torch.arange(images, dtype=torch.float64, device="cpu") + 0.5) / images
        return torch.special.ndtri(levels)


def rank_pixels(images: Tensor, lr: Tensor, *, generator: torch.Generator) -> PixelRanks:
    """Ranks and content of one pair, the truth first; ties are broken at random.

    Cost: one sort per pixel.

    Args:
        images: the truth and its draws ``(draws + 1, C, H, W)``.
        lr: their LR image ``(C, h, w)``.
        generator: for ties.

    Returns:
        Ranks of a single pair.

    Example:
        >>> found = rank_pixels(torch.rand(20, 3, 8, 8), torch.rand(3, 2, 2), generator=torch.Generator())
        >>> found.ranks.shape, found.cell
        (torch.Size([1, 20, 3, 8, 8]), 1)
    """
    cell = math.ceil(max(images.shape[-2:]) / MOST_PLACES)
    # Cells that would hang over the edge are cut off there.
    places = F.avg_pool2d(images.double().cpu(), cell, ceil_mode=True)
    ranks = joint_ranks(places[None], generator=generator)
    found = {**_content(lr.double().cpu()), "spread": places.std(0).mean(0)}
    height, width = places.shape[-2:]
    content = {name: F.adaptive_avg_pool2d(values[None], (height, width)) for name, values in found.items()}
    return PixelRanks(ranks, content, cell)


def joint_ranks(values: Tensor, *, generator: torch.Generator) -> Tensor:
    """The rank of each value among all along dimension 1, ties broken at random, as 16-bit whole numbers.

    Args:
        values: ``(n, images, *)``.
        generator: for ties.

    Example:
        >>> joint_ranks(torch.tensor([[0.5, 0.1, 0.9]]), generator=torch.Generator())
        tensor([[1, 0, 2]], dtype=torch.int16)
    """
    pairs, images, *rest = values.shape
    mixed = torch.rand((pairs, images), generator=generator, device=generator.device).argsort(1)
    mixed = mixed.reshape(pairs, images, *[1] * len(rest)).expand_as(values)
    order = mixed.gather(1, values.gather(1, mixed).argsort(dim=1, stable=True))
    places = torch.arange(images, dtype=torch.int16, device=values.device)
    places = places.reshape(-1, *[1] * len(rest)).expand_as(values)
    return torch.empty_like(values, dtype=torch.int16).scatter_(1, order, places)


def gather_pixels(pairs: list[PixelRanks]) -> PixelRanks:
    """Ranks of single pairs as one."""
    content = {name: torch.cat([pair.content[name] for pair in pairs]) for name in pairs[0].content}
    return PixelRanks(torch.cat([pair.ranks for pair in pairs]), content, pairs[0].cell)


def _content(lr: Tensor) -> dict[str, Tensor]:
    grey = F.pad(lr.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    mean, square = F.avg_pool2d(grey, 3, stride=1), F.avg_pool2d(grey.square(), 3, stride=1)
    across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    return {
        "brightness": mean[0, 0],
        "texture": (square - mean.square()).clamp_min(0).sqrt()[0, 0],
        "slope": (across.square() + down.square()).sqrt()[0, 0] / 2,
    }
