"""What a very large output will take, said before it is begun: pixels, size of the files, memory, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from flowsr._support.free_memory import memory_text
from flowsr.images import size_text
from flowsr.models import ConditionalModel, ImageModel, Tiling
from flowsr.models.conditional import as_conditional
from flowsr.models.memory import memory_estimate

LARGE_OUTPUT = 50e6
"""Pixels of all images that are written together from which on it is said what they will take."""
_TIMED = 128
"""Side of the HR image that is drawn to see how long a pixel takes."""


def outlook(flow: ConditionalModel, tilings: Sequence[Tiling], *, draws: int = 1) -> str | None:
    """What drawing images takes, in a sentence for people, or None for fewer than :data:`LARGE_OUTPUT` pixels.

    Files have at most three bytes a pixel, which noise comes near to and a smooth photograph stays far below. Memory is
    that of one tile. The time is that of a small image, measured now, for as many pixels as the tiles' windows have.

    Cost: none for less; else that of two draws of 128 x 128 pixels.

    Args:
        flow: the model.
        tilings: how each HR image is cut, which says how large it is.
        draws: of each image.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> print(outlook(flow, [Tiling.whole((12000, 16000), 4)]).split(" memory")[0])
        Note: a large output, of 16000 × 12000 pixels, 192 megapixels in all: up to 576.0 MB of files, ...
        >>> outlook(flow, [Tiling.whole((480, 640), 4)]) is None
        True
    """
    pixels = draws * sum(tiling.size[0] * tiling.size[1] for tiling in tilings)
    if pixels < LARGE_OUTPUT:
        return None
    largest = max(tilings, key=lambda tiling: tiling.size[0] * tiling.size[1])
    memory = max(memory_estimate(flow, tiling.window, task="draw") for tiling in tilings)
    computed = draws * sum(len(tiling) * tiling.window[0] * tiling.window[1] for tiling in tilings)
    images = draws * len(tilings)
    many = f"{images} images of up to " if images > 1 else ""
    return (
        f"Note: a large output, of {many}{size_text(largest.size)}, {pixels / 1e6:.0f} megapixels in all: up to "
        f"{memory_text(flow.config.image_channels * pixels)} of files, about {memory_text(memory)} of memory besides "
        f"the weights, about {duration(computed * seconds_per_pixel(flow))} of computing on {flow.device}"
    )


def duration(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> [duration(seconds) for seconds in (12.3, 300, 7200, 200_000)]
        ['12 seconds', '5 minutes', '2.0 hours', '2.3 days']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} seconds" if seconds >= 1.5 else "1 second"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


@torch.no_grad()
def seconds_per_pixel(flow: ImageModel, *, task: Literal["draw", "encode"] = "draw", side: int = _TIMED) -> float:
    """How long a pass takes for each HR pixel, on this machine as it is now.

    Cost: two passes over a small image, the first of which is not counted.

    Args:
        flow: the model.
        task: "draw" by a model with the capability ``condition``, or "encode".
        side: of the image, in pixels, at least 1.

    Example:
        >>> import flowsr
        >>> seconds_per_pixel(flowsr.load("sr-x4-small")) < 1e-3
        True
    """
    side = -(-side // flow.multiple) * flow.multiple
    hr = torch.full((flow.config.image_channels, side, side), 0.5, dtype=flow.dtype, device=flow.device)
    for _ in range(2):
        begun = time.perf_counter()
        _passed(flow, hr, task).sum().item()  # which waits for an accelerator
        taken = time.perf_counter() - begun
    return taken / side**2


def _passed(flow: ImageModel, hr: Tensor, task: str) -> Tensor:
    conditional = as_conditional(flow)
    lr = None if conditional is None else hr[..., :: conditional.upscale, :: conditional.upscale]
    if task == "draw" and conditional is not None and lr is not None:
        return conditional.sample(lr, num_samples=1, temperature=0.0, generator=torch.Generator().manual_seed(0))
    return torch.stack([term.value.sum() for term in flow.log_likelihood_terms(hr, lr)])
