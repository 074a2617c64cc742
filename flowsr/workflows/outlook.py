"""What a very large output will take, said before it is begun: pixels, size of the files, memory, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import torch

from flowsr._support.free_memory import memory_text
from flowsr.images import size_text
from flowsr.models import ConditionalModel, ImageModel, Tiling
from flowsr.models.memory import grey_pass, memory_estimate

LARGE_OUTPUT = 50e6
"""Pixels of all images that are written together from which on it is said what they will take."""
_SMALLEST, _LARGEST = 64, 1024
"""Sides of HR images that are looked at to see how long a pixel takes."""
_ENOUGH = 0.5
"""Seconds that a pass over the last of them takes at least."""


def outlook(flow: ConditionalModel, tilings: Sequence[Tiling], *, draws: int = 1) -> str | None:
    """What drawing images takes, in a sentence for people, or None for fewer than :data:`LARGE_OUTPUT` pixels.

    Files have at most three bytes a pixel, which noise comes near to and a smooth photograph stays far below. Memory is
    that of one tile. The time is that of a small image, measured now, for as many pixels as the tiles' windows have.

    Cost: none for less; else that of :func:`seconds_per_pixel`.

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
def seconds_per_pixel(flow: ImageModel, *, task: Literal["draw", "encode"] = "draw") -> float:
    """How long a pass takes for each HR pixel, on this machine as it is now.

    Small images take longer by the pixel. So larger and larger ones are measured, until one takes half a second.

    Cost: one to three seconds, or two passes over 64 x 64 pixels where those take longer.

    Args:
        flow: the model.
        task: "draw" by a model with the capability ``condition``, or "encode".

    Example:
        >>> import flowsr
        >>> 0 < seconds_per_pixel(flowsr.load("sr-x4-small")) < 1
        True
    """
    side = -(-_SMALLEST // flow.multiple) * flow.multiple
    _timed(flow, side, task)  # kernels are made ready in the first pass
    while (taken := _timed(flow, side, task)) < _ENOUGH and side < _LARGEST:
        side *= 2
    return taken / side**2


def _timed(flow: ImageModel, side: int, task: Literal["draw", "encode"]) -> float:
    work = grey_pass(flow, side, task)
    begun = time.perf_counter()
    work()
    if flow.device.type == "cuda":
        torch.cuda.synchronize(flow.device)  # until then it is only asked for
    return time.perf_counter() - begun
