"""Tiles for a stated memory: how far a model looks, measured, and how large its tiles may then be."""

import copy
import math
import weakref
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr._support.free_memory import memory_text, used_memory
from flowsr._support.shapes import add_ladj, per_pixel
from flowsr.errors import NonFiniteError, OutOfMemoryError
from flowsr.images import bicubic_up, size_text
from flowsr.models.conditional import as_conditional
from flowsr.models.image_model import ImageModel
from flowsr.models.memory import memory_budget, memory_estimate, pixels_within, surely_fits
from flowsr.models.tiling import Tiling

TileTask = Literal["encode", "draw"]

_GREY = 1e-4
"""What a draw may differ by where a tile is cut: a fortieth of a grey level."""
_ROUNDING = 64
"""How many times the precision of a dtype, relative to the largest value, counts as rounding and not as influence."""
_MARGIN = 1.25
"""What a measured reach is multiplied by, as other images reach a little further."""
_SAFE = 0.8
"""The share of the memory that tiles are planned for, as estimates are within a quarter."""
_STRIP, _LONGEST, _ACROSS = 128, 1024, 96
"""HR pixels along what is left of the first strip that a reach is measured on, and of the last, and across them."""

_HALOS: "weakref.WeakKeyDictionary[ImageModel, dict[Any, int]]" = weakref.WeakKeyDictionary()


def plan_tiles(
    model: ImageModel,
    size: tuple[int, int],
    *,
    task: TileTask,
    max_memory: int | None = None,
    held: float = 0.0,
    what: str = "a pass",
) -> Tiling:
    """Cut an image so that a pass of a model over each tile fits into memory; whole where it fits whole.

    The halo of the tiles is measured for the model once, see :func:`measured_halo`. Of all cuts that fit the one with
    the fewest pixels computed is taken. The shipped models, on photographs, differ from the whole by less than half a
    grey level in a draw, hence by one at most in a file, and by 1e-6 of the log-density; a density in float64 is that
    of the whole up to rounding. All is exact up to rounding where a halo covers all that the network's kernels reach,
    two to five times as far as they reach with any effect. On images so unlike photographs that draws run away, to
    values of thousands, they differ more, as they do from one order of rounding to another.

    Cost: none for what surely fits; else, the first time, a few passes over small images.

    Args:
        model: the model, on its device and in its dtype.
        size: height and width of the HR image.
        task: "draw", or "encode", which a likelihood takes too.
        max_memory: bytes for the process in all; by default three quarters of what is free may be taken.
        held: bytes that are taken beside the pass, for results.
        what: the work, for the message.

    Raises:
        OutOfMemoryError: if not even the smallest tile fits.
        ValueError: if the model looks at the whole image, so that no part of it can be computed by itself.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> tiling = plan_tiles(flow, (64, 80), task="draw")
        >>> len(tiling)
        1
        >>> lr, seeded = torch.rand(3, 16, 20), torch.Generator().manual_seed
        >>> whole = next(flow.stream(lr, num_samples=1, generator=seeded(0)))
        >>> tiles = Tiling(size=(64, 80), cell=4, core=(16, 4), halo=measured_halo(flow, "draw"))
        >>> tiled = next(flow.stream(lr, num_samples=1, generator=seeded(0), tiling=tiles))
        >>> len(tiles), bool((tiled - whole).abs().max() < 0.5 / 255)
        (5, True)
    """
    whole, budget = Tiling.whole(size, model.multiple), memory_budget(model.device, max_memory)
    if budget is None or surely_fits(whole.window, budget - held, task=task):
        return whole
    if held + memory_estimate(model, whole.window, task=task) <= budget:
        return whole
    cells = pixels_within(model, _SAFE * (budget - held), task=task) // model.multiple**2
    # Not measured where not even a cell fits, as that takes more.
    halo = measured_halo(model, task) if cells else _STRIP // (2 * model.multiple)
    found = _fewest(whole, cells, halo)
    if found is None:
        smallest = replace(whole, core=(1, 1), halo=halo)
        least = held + memory_estimate(model, smallest.window, task=task) / _SAFE
        left = "may be taken"
        if max_memory is not None:
            own = memory_text(used_memory(model.device))
            left = f"of {memory_text(max_memory)} are left beside the {own} that the process takes without"
        raise OutOfMemoryError(
            f"expected work that fits into memory; {what}, {size_text(size)}, takes about {memory_text(least)} at "
            f"least, in tiles, and {memory_text(budget)} {left}: take a smaller image, or give more memory"
        )
    return found


def _fewest(whole: Tiling, most: int, halo: int) -> Tiling | None:
    """The tiling with the fewest cells computed whose windows have no more than so many; None if there is none."""
    best, fewest = None, math.inf
    height, width = whole.cells
    for count in range(1, height + 1):
        rows = -(-height // count)
        columns = most // min(height, rows + 2 * halo)
        columns = width if columns >= width else columns - 2 * halo
        if columns < 1:
            continue
        columns = -(-width // -(-width // columns))
        tiling = Tiling(size=whole.size, cell=whole.cell, core=(rows, columns), halo=halo)
        computed = len(tiling) * math.prod(tiling.window)
        if computed < fewest:
            best, fewest = tiling, computed
    return best


@torch.no_grad()
def measured_halo(model: ImageModel, task: TileTask) -> int:
    """How far, in cells of ``multiple`` HR pixels, the cut of an image is felt in what a model makes of it.

    A strip of an image is decoded or scored whole, and once more with its ends cut off. What differs, by 1e-4 in an HR
    image, or in the map of a log-density by more than rounding, was reached by the cut. A quarter is added. Both
    directions are measured, on a made-up photograph and on white noise, and on longer strips until the reach ends
    within; of models in half precision, whose rounding hides it, on a copy in float32.

    Cost: passes over a few strips, of 96x256 pixels and more, the first time for these weights.

    Args:
        model: the model, on its device and in its dtype.
        task: "draw" or "encode".

    Raises:
        NonFiniteError: if the model gives NaN or infinity for a photograph.
        ValueError: if the reach does not end within 384 HR pixels.

    Example:
        >>> import flowsr
        >>> measured_halo(flowsr.load("sr-x4-small"), "draw") < 20
        True
    """
    known, key = _HALOS.setdefault(model, {}), (task, model.dtype, model.device, _version(model))
    if key not in known:
        reach, cells = None, max(4, _STRIP // model.multiple // 4 * 4)
        measured = copy.deepcopy(model).float() if model.dtype.itemsize < 4 else model
        while reach is None:
            if cells * model.multiple > _LONGEST:
                raise ValueError(
                    f"expected a model whose pixels depend on what is near them, to work in tiles; those of this "
                    f"{type(model).__name__} reach further than {3 * _LONGEST // 8} pixels: take a smaller image, or "
                    "give more memory"
                )
            reach = _reach(measured, task, cells)
            cells *= 2
        known[key] = math.ceil(_MARGIN * reach) + (reach > 0)
    return known[key]


def _version(model: ImageModel) -> int:
    """A number that is another one when weights have changed: a hash of their sums."""
    # Not of autograd's counts, which do not know of writes into ``parameter.data``.
    sums = [weight.detach().double().sum() for weight in model.state_dict(keep_vars=True).values()]
    return hash(tuple(torch.stack(sums).tolist()))


def _reach(model: ImageModel, task: TileTask, cells: int) -> int | None:
    """How many cells a cut reaches on strips twice as long as this; None if further than such strips tell."""
    reaches = []
    for turned, rough in product((False, True), repeat=2):
        whole, part = (_strip(model, task, cells, cut=cut, turned=turned, rough=rough) for cut in (False, True))
        middle = whole.narrow(-1, part.shape[-1] // 2, part.shape[-1])
        if not bool(middle.isfinite().all()):
            if rough:  # which is unlike what the model knows
                continue
            raise NonFiniteError(
                f"expected finite values of {type(model).__name__} for a photograph, to see how far it looks; got NaN "
                "or infinity: check its weights, or use float64"
            )
        differs = (middle - part).abs().nan_to_num(math.inf)
        floor = _ROUNDING * torch.finfo(model.dtype).eps * float(middle.abs().max())
        far = differs.amax((0, 1)).reshape(cells, -1).amax(1) > max(floor, _GREY if task == "draw" else 0.0)
        from_cut = torch.minimum(
            *(torch.arange(*steps, device=far.device) for steps in ((1, cells + 1), (cells, 0, -1)))
        )
        reaches.append(int((from_cut * far).max()))
    return max(reaches) if max(reaches) <= 3 * cells // 8 else None


def _strip(model: ImageModel, task: TileTask, cells: int, *, cut: bool, turned: bool, rough: bool) -> Tensor:
    """What a model makes of a strip, or of its middle half: an HR image, or a map of log-density ``(1, h, w)``."""
    conditional, upscale = as_conditional(model), getattr(model, "upscale", 1)
    rows, columns = max(4, _ACROSS // model.multiple), 2 * cells
    made_up = _rough if rough else _photograph
    hr = made_up(model.config.image_channels, rows * model.multiple, columns * model.multiple)
    noise = torch.randn(
        hr.numel() // (rows * columns), rows, columns, generator=_seeded(), dtype=torch.float64, device="cpu"
    )
    hr, noise = (part.narrow(-1, part.shape[-1] // 4, part.shape[-1] // 2) if cut else part for part in (hr, noise))
    hr, noise = (part.mT.contiguous() if turned else part for part in (hr, noise))
    hr, noise = (part.to(model.device, model.dtype) for part in (hr, noise))
    lr = None if conditional is None else F.avg_pool2d(hr, upscale)
    if task == "draw" and conditional is not None and lr is not None:
        made = conditional.decode_noise(lr, noise)
    else:
        with per_pixel():
            made = add_ladj(term.value for term in model.log_likelihood_terms(hr, lr))[None]
    return made.mT if turned else made


def _photograph(channels: int, height: int, width: int) -> Tensor:
    """Noise of all scales, as photographs have it, from 0 to 1, and brighter in the middle than at the ends."""
    image = torch.zeros(channels, height, width, dtype=torch.float64, device="cpu")
    for scale in (1, 2, 4, 8, 16):
        rough = torch.rand(
            channels, -(-height // scale), -(-width // scale), generator=_seeded(), dtype=torch.float64, device="cpu"
        )
        image += scale * bicubic_up(rough, scale)[:, :height, :width]
    image = (image - image.min()) / (image.max() - image.min())
    return 0.7 * image + 0.3 * (1 - torch.linspace(-1, 1, width, dtype=torch.float64, device="cpu") ** 2)


def _rough(channels: int, height: int, width: int) -> Tensor:
    """White noise of LR pixels, of half the contrast there is: what reaches furthest without running away."""
    small = torch.rand(
        channels, -(-height // 4), -(-width // 4), generator=_seeded(), dtype=torch.float64, device="cpu"
    )
    return 0.25 + 0.5 * small.repeat_interleave(4, -1).repeat_interleave(4, -2)[:, :height, :width]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
