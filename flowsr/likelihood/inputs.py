"""What the analyses of several images take, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from flowsr.images import check_image

Pair: TypeAlias = tuple[Tensor, Tensor | None]
"""An HR image and its LR image; None where the model has none."""

_ROUNDING = 0.01
"""How far from a grey level a value may be, in grey levels; float32 rounds to less."""


def check_pairs(pairs: Sequence[Pair], *, name: str = "pairs") -> None:
    """Refuse anything but a list of pairs of single images.

    Args:
        pairs: HR images ``(C, H, W)`` with their LR images, or None for the latter.
        name: what the caller calls them, for the message.

    Raises:
        ValueError: without images, for a pair that was not put into a list, and for batches.
    """
    single = isinstance(pairs, Tensor) or any(isinstance(pair, Tensor) for pair in pairs)
    if single or any(len(pair) != 2 or not isinstance(pair[0], Tensor) for pair in pairs):
        raise ValueError(f"expected {name} as a list [(hr, lr), …]; got other things: a single pair needs [ ] too")
    if not len(pairs):
        raise ValueError(f"expected at least one pair of images in {name}; got none")
    if any(hr.dim() != 3 or (lr is not None and lr.dim() != 3) for hr, lr in pairs):
        shapes = ", ".join(str(tuple(hr.shape)) for hr, _ in pairs[:4])
        raise ValueError(f"expected images (C, H, W) in {name}, one by one; got hr of shapes {shapes}: unbind batches")


def check_8bit(hr: Tensor, *, name: str = "hr") -> Tensor:
    """The image itself; refuses values that are no multiples of 1/255, as bits are counted.

    Raises:
        ValueError: for something that is no image, or none of 8 bits.
    """
    check_image(hr, name=name)
    if hr.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"expected an 8-bit {name} in float32 or float64; got {hr.dtype}, which cannot hold multiples of 1/255: "
            f"give flowsr.images.round_to_8bit({name}.float())"
        )
    levels = hr * 255
    if float((levels - levels.round()).abs().max()) > _ROUNDING:
        raise ValueError(
            f"expected an 8-bit {name}, multiples of 1/255, to count its bits; got other values: round it with "
            "flowsr.images.round_to_8bit, or score the density with flowsr.likelihood.decompose"
        )
    return hr
