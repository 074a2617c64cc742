"""Real photographs that scikit-image ships in its wheel, so that nothing is downloaded."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsr.images import crop_to

TRAINING = ("astronaut", "coffee", "rocket", "stereo_motorcycle")
"""Names in ``skimage.data`` of the photographs the demonstration trains on."""

UNSEEN = "chelsea"
"""Name in ``skimage.data`` of the photograph it is shown on: Chelsea the cat."""


def training_photographs() -> dict[str, Tensor]:
    """The photographs to train on, by name, each ``(3, H, W)`` in [0, 1].

    Cost: decoding four files.

    Example:
        >>> {name: tuple(image.shape) for name, image in training_photographs().items()}["coffee"]
        (3, 400, 600)
    """
    return {name: _photograph(name) for name in TRAINING}


def unseen_photograph(*, multiple: int, largest: int | None = None) -> Tensor:
    """The photograph to look at, cropped at the bottom and the right to sides that are multiples of a number.

    Args:
        multiple: what both sides must be divisible by: the upscale factor.
        largest: keep at most this many pixels of each side, from the cat's eyes on.

    Returns:
        RGB image ``(3, H, W)`` in [0, 1].

    Example:
        >>> unseen_photograph(multiple=4).shape, unseen_photograph(multiple=4, largest=50).shape
        (torch.Size([3, 300, 448]), torch.Size([3, 48, 48]))
    """
    image = _photograph(UNSEEN)
    if largest is not None:
        image = image[:, 80:, 130:]
    height, width = (min(side, largest or side) for side in image.shape[-2:])
    return crop_to(image, (height - height % multiple, width - width % multiple)).contiguous()


def _photograph(name: str) -> Tensor:
    from skimage import data

    pixels = getattr(data, name)()
    # A stereo pair comes as (left, right, disparity).
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255
