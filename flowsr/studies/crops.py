"""Crops of photographs as pairs of HR and LR image: the middle, where most is to see, or by a seed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr.images import bicubic_down, round_to_8bit


def centre_crop(image: Tensor, size: int, *, name: str) -> Tensor:
    """The middle of an image, ``size`` pixels square.

    Raises:
        ValueError: if the image is smaller.

    Example:
        >>> centre_crop(torch.rand(3, 9, 12), 8, name="cat").shape
        torch.Size([3, 8, 8])
    """
    height, width = _checked(image, size, name)
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size].contiguous()


def varied_crop(image: Tensor, size: int, *, name: str) -> Tensor:
    """The square of ``size`` pixels whose values vary most: edges and texture rather than sky.

    The variance within the square, summed over channels, is largest; of equals the first in reading order is taken.

    Cost: two box filters.

    Raises:
        ValueError: if the image is smaller.

    Example:
        >>> image = torch.zeros(3, 9, 12)
        >>> image[:, 2, 7] = 1
        >>> varied_crop(image, 8, name="dot").sum()
        tensor(3.)
    """
    _checked(image, size, name)
    values = image.double() - image.double().mean()

    def box(values: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(values, (size, 1), stride=1), (1, size), stride=1)

    variance = (box(values.square()) - box(values).square()).sum(0)
    # Rounded, so that the sums' last bits do not choose among equals.
    place = int(variance.mul(1e9).round().argmax())
    top, left = divmod(place, variance.shape[1])
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
        height, width = _checked(image, size, name)
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        crops.append(image[:, top : top + size, left : left + size])
    return torch.stack(crops)


def lr_of(hr: Tensor, upscale: int) -> Tensor:
    """The LR image as in the literature: bicubic, rounded to 8 bits."""
    return round_to_8bit(bicubic_down(hr, upscale))


def _checked(image: Tensor, size: int, name: str) -> tuple[int, int]:
    """Height and width of an image from which a crop can be taken."""
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"expected images of at least {size}x{size}; got {name} of {height}x{width}: lower --crop")
    return height, width
