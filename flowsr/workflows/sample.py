"""Files of LR images in, files of draws out: what ``flowsr sample`` does, for use from Python too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsr._support.free_memory import give_back_freed_memory
from flowsr._support.json import size_of
from flowsr._support.names import output_stem, printable
from flowsr._support.temperatures import DRAW_TEMPERATURE, check_temperatures
from flowsr.errors import ImageError, NonFiniteError
from flowsr.evaluation import fidelity_figures
from flowsr.images import bicubic_up, size_text, write_image
from flowsr.models import ConditionalModel, Tiling, plan_tiles
from flowsr.results import Card
from flowsr.statistics.moments import RunningMoments
from flowsr.workflows.pairs import read_for

STD_GAIN = 4.0
"""Images of a standard deviation are brightened by this factor, as few pixels reach a quarter of the range."""


@dataclass(frozen=True, kw_only=True)
class DrawPlan:
    """What to draw for each image.

    Args:
        num_samples: draws per temperature; at temperature 0, where all would be the same, one is made.
        temperatures: τ ≥ 0, all different.
        moments: mean and standard deviation over the draws too, but at temperature 0.
        seed: of the noise of every image, so that an image's draws do not depend on the other images.

    Raises:
        ValueError: for values out of range, or moments of a single draw.

    Example:
        >>> DrawPlan(num_samples=2, temperatures=(0.8,), moments=True).names(Path("baby.png"))
        ['baby_tau0.8_0.png', 'baby_tau0.8_1.png', 'baby_tau0.8_mean.png', 'baby_tau0.8_std.png']
    """

    num_samples: int = 1
    temperatures: tuple[float, ...] = (DRAW_TEMPERATURE,)
    moments: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_temperatures(self.temperatures)
        least = 2 if self.moments else 1
        if self.num_samples < least:
            why = " for mean and standard deviation" if self.moments else ""
            raise ValueError(f"expected at least {least} draws{why}; got {self.num_samples}")

    @property
    def draws(self) -> int:
        """Decoding passes per image."""
        return sum(map(self.draws_at, self.temperatures))

    def draws_at(self, temperature: float) -> int:
        """Decoding passes per image at a temperature."""
        return self.num_samples if temperature > 0 else 1

    def names(self, path: Path) -> list[str]:
        """The names of all files written for an LR image."""
        names = []
        for tau in self.temperatures:
            parts = [*map(str, range(self.draws_at(tau))), *(("mean", "std") if self.moments and tau > 0 else ())]
            names.extend(f"{output_stem(path)}_tau{tau:g}_{part}.png" for part in parts)
        return names

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        record = {"num_samples": self.num_samples, "temperatures": list(self.temperatures), "seed": self.seed}
        return {**record, "moments": self.moments, "std_gain": STD_GAIN if self.moments else None}


@dataclass(frozen=True)
class Draws:
    """What was written for one LR image, and how good it is if the truth is known."""

    source: Path
    files: tuple[str, ...]
    size: tuple[int, int]
    card: Card | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values; size is that of the HR image."""
        files = [printable(name) for name in self.files]
        record = {"source": printable(self.source), "files": files, "size": size_of(self.size)}
        card = None if self.card is None else self.card.to_dict()
        return {**record, "card": card, "reasons": {} if card else {"card": "needs the true HR image: --hr"}}


def superresolve_file(
    flow: ConditionalModel,
    path: Path,
    folder: Path,
    *,
    plan: DrawPlan,
    hr: Path | None = None,
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> Draws:
    """Draw HR images of one LR file and write them as 8-bit PNG, replacing files of those names.

    Cost: one decoding pass per draw. Memory for the grey levels of a draw and a pass over a tile; with moments or the
    truth for floating values, of all draws if the truth is given.

    Args:
        flow: the model.
        path: the LR image, of any size.
        folder: where to write; it must exist.
        plan: what to draw.
        hr: the truth, for metrics.
        tiling: how to cut the image, as :func:`check_file` says; by default so that three quarters of the free memory
            suffice.
        on_tile: called after each tile of each draw.

    Raises:
        ImageError: if a file is not an image that can be used, or the truth is not s times as large.
        OutOfMemoryError: if not even a tile fits into memory.
        ValueError: if a draw is not finite.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_image(folder / "baby.png", torch.rand(3, 6, 8))
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> drawn = superresolve_file(flow, folder / "baby.png", folder, plan=DrawPlan(temperatures=(0.0, 0.8)))
        >>> drawn.files, drawn.size
        (('baby_tau0_0.png', 'baby_tau0.8_0.png'), (24, 32))
    """
    lr = read_for(flow, path)
    size = (lr.shape[-2] * flow.upscale, lr.shape[-1] * flow.upscale)
    truth = read_for(flow, hr) if hr is not None else None
    if truth is not None and hr is not None:
        _check_truth(truth, hr, path, size, flow.upscale)
    if tiling is None:
        tiling = _tiling(flow, size, path, plan=plan, compared=truth is not None)
    names = iter(plan.names(path))
    columns = {} if truth is None else {"bicubic": bicubic_up(lr, flow.upscale)}
    levels = truth is None and not plan.moments
    for tau in plan.temperatures:
        moments, kept = RunningMoments(), []
        noise = torch.Generator().manual_seed(plan.seed)
        draws = flow.stream(
            lr,
            num_samples=plan.draws_at(tau),
            temperature=tau,
            generator=noise,
            tiling=tiling,
            levels=levels,
            on_tile=on_tile,
        )
        for draw in _finite(draws, path):
            draw = draw.cpu()
            _write(folder / next(names), draw)
            if plan.moments:
                moments.add(draw)
            if truth is not None:
                kept.append(draw)
        if kept:
            columns[f"τ={tau:g}"] = torch.stack(kept)
        if plan.moments and tau > 0:
            _write(folder / next(names), moments.mean)
            _write(folder / next(names), (STD_GAIN * moments.std).clamp(0, 1))
            if truth is not None:
                columns[f"mean τ={tau:g}"] = moments.mean.to(truth.dtype)
    card = None
    if truth is not None:
        title = (
            f"{printable(path.name)}: averages over {plan.num_samples} draw{'s' if plan.num_samples > 1 else ''} per τ"
        )
        card = Card(title, fidelity_figures(columns, truth, lr, upscale=flow.upscale))
    return Draws(path, tuple(plan.names(path)), size, card)


def check_file(
    flow: ConditionalModel, path: Path, *, plan: DrawPlan, hr: Path | None = None, max_memory: int | None = None
) -> Tiling:
    """Raise now, before hours of drawing, if an LR image or its truth cannot be used, or there is too little memory.

    Cost: reading the files once more; for large images what :func:`flowsr.models.plan_tiles` costs.

    Args:
        flow: the model.
        path: the LR image.
        plan: what to draw.
        hr: the truth.
        max_memory: bytes for the process in all; by default three quarters of what is free may be taken.

    Returns:
        How the image is cut to fit into memory.

    Raises:
        ImageError: for a file that cannot be used.
        OutOfMemoryError: if not even a tile fits into memory.
    """
    lr = read_for(flow, path)
    size = (lr.shape[-2] * flow.upscale, lr.shape[-1] * flow.upscale)
    if hr is not None:
        _check_truth(read_for(flow, hr), hr, path, size, flow.upscale)
    return _tiling(flow, size, path, plan=plan, compared=hr is not None, max_memory=max_memory)


def _tiling(
    flow: ConditionalModel,
    size: tuple[int, int],
    path: Path,
    *,
    plan: DrawPlan,
    compared: bool,
    max_memory: int | None = None,
) -> Tiling:
    """How to cut an image, beside what is held of its draws."""
    each = 1.0  # byte for each value of a draw: grey levels
    if plan.moments or compared:
        each = flow.dtype.itemsize * (4.0 + compared * plan.draws)  # values, a copy to write, sums, sums of squares
    held = each * flow.config.image_channels * size[0] * size[1]
    return plan_tiles(flow, size, task="draw", max_memory=max_memory, held=held, what=f"drawing for {printable(path)}")


def _finite(draws: Iterator[Tensor], source: Path) -> Iterator[Tensor]:
    """The draws; one that is not finite is refused, with its source and what to do."""
    try:
        for draw in draws:
            if draw.is_floating_point() and not bool(torch.isfinite(draw).all()):
                raise NonFiniteError("NaN or infinity")
            give_back_freed_memory()  # to what writes it
            yield draw
    except NonFiniteError:
        raise ValueError(
            f"expected finite draws of {printable(source)}; got NaN or infinity: lower --temperature or use float64"
        ) from None


def _check_truth(truth: Tensor, hr: Path, path: Path, size: tuple[int, int], upscale: int) -> None:
    if tuple(truth.shape[-2:]) != size:
        got = size_text(truth.shape[-2:])
        raise ImageError(
            f"expected {printable(hr)} to be {upscale} times {printable(path)}, {size_text(size)}; got {got}"
        )


def _write(path: Path, image: Tensor) -> None:
    """Write a draw; one that ran away (high τ, LR images unlike the training data) is clamped, not refused."""
    write_image(path, image.clamp(0, 1) if image.is_floating_point() else image, overwrite=True)
