"""Scalar summaries of images, on which chains and calibration are judged: projections, bands, patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def image_summaries(hr: Tensor, *, projections: int = 4, patches: int = 2, bands: int = 3) -> dict[str, Tensor]:
    """Named scalars of each image: random projections, energies of frequency bands, means of patches.

    - ``projection i``: inner product with a fixed random image of unit norm;
    - ``band i``: log of the mean square of the difference between box averages over ``2^i`` and ``2^(i+1)`` pixels; the
      names of the first and the last say that they are the finest and the coarsest;
    - ``patch i,j``: mean over one cell of a ``patches x patches`` grid.

    Cost: O(projections·C·H·W) per image.

    Args:
        hr: images ``(n, C, H, W)``.
        projections: how many; the same for all images of one shape.
        patches: cells per side; at most the shorter side.
        bands: how many, as far as the sides allow.

    Example:
        >>> sorted(image_summaries(torch.rand(5, 1, 8, 8), projections=1, patches=1, bands=2))
        ['band 0, finest', 'band 1, coarsest', 'patch 0,0', 'projection 0']
    """
    summaries: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(20210805)
    for i in range(projections):
        direction = torch.randn(hr.shape[-3:], generator=generator, device=generator.device)
        summaries[f"projection {i}"] = hr.flatten(1) @ (direction / direction.norm()).to(hr).flatten()
    image, energies = hr, []
    for _ in range(bands):
        if min(image.shape[-2:]) < 2 or any(side % 2 for side in image.shape[-2:]):
            break
        coarser = F.avg_pool2d(image, 2)
        details = image - coarser.repeat_interleave(2, -1).repeat_interleave(2, -2)
        energies.append(details.flatten(1).square().mean(-1).clamp_min(1e-20).log())
        image = coarser
    for i, energy in enumerate(energies):
        scale = ", finest" if i == 0 else ", coarsest" if i == len(energies) - 1 else ""
        summaries[f"band {i}{scale}"] = energy
    cells = F.adaptive_avg_pool2d(hr.mean(-3, keepdim=True), patches)[:, 0]
    for i in range(patches):
        for j in range(patches):
            summaries[f"patch {i},{j}"] = cells[:, i, j]
    return summaries
