"""Crops of photographs as pairs of HR and LR image, by a seed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flowsr.images import bicubic_down, round_to_8bit


def centre_crop(image: Tensor, size: int, *, name: str) -> Tensor:
    """The middle of an image, ``size`` pixels square.

    Raises:
        ValueError: if the image is smaller.

    Example:
        >>> centre_crop(torch.rand(3, 9, 12), 8, name="cat").shape
        torch.Size([3, 8, 8])
    """
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"expected images of at least {size}x{size}; got {name} of {height}x{width}: lower --crop")
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size].contiguous()


def random_crops(images: Mapping[str, Tensor], count: int, size: int, *, seed: int) -> Tensor:
    """Crops ``(count, C, size, size)``, image after image in turn, at places drawn by the seed.

    Raises:
        ValueError: if an image is smaller than the crops.

    Example:
        >>> random_crops({"cat": torch.rand(3, 20, 30)}, 5, 8, seed=0).shape
        torch.Size([5, 3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    crops = []
    names = list(images)
    for i in range(count):
        name = names[i % len(names)]
        image = images[name]
        height, width = image.shape[-2:]
        if min(height, width) < size:
            raise ValueError(f"expected images of at least {size}x{size}; got {name} of {height}x{width}: lower --crop")
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        crops.append(image[:, top : top + size, left : left + size])
    return torch.stack(crops)


def lr_of(hr: Tensor, upscale: int) -> Tensor:
    """The LR image as in the literature: bicubic, rounded to 8 bits."""
    return round_to_8bit(bicubic_down(hr, upscale))
