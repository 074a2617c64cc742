"""Pictures of a run: how validation images look at a step, and the curve at the end."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.evaluation.encoded import encoded_lr
from flowsr.images import bicubic_up, crop_to, make_lr, write_image
from flowsr.models import Capability, ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.models.unconditional import UnconditionalModel
from flowsr.plots import Curves, Line, curve_grid, save_figure
from flowsr.training.journal import label_of, read_csv
from flowsr.training.validation import Named

_LOGS = ("train.csv", "validation.csv")
_PANELS = (
    ("bits_per_dim", "bits_per_dim", "lower is better"),
    ("encoded_lr_psnr", "encoded_lr_psnr", "higher is better"),
    ("psnr", "psnr_mean", "higher is better"),
)
"""What is drawn: its column in the log of training, its column in that of validation, and which way is better."""
_START = 0.1
"""Share of a run whose steps do not set the scale of its curve: the first ones are far off."""
_AVERAGED = 25
"""A noisy line of training has a mean over windows of a twenty-fifth of it beside it."""


@torch.no_grad()
def validation_grid(
    flow: ImageModel,
    images: list[Named],
    path: Path,
    *,
    temperature: float = DRAW_TEMPERATURE,
    side: int = 128,
    rows: int = 4,
    seed: int = 0,
) -> None:
    """Write a picture with a row per image: bicubic, decoding at temperature 0, one draw, the image itself.

    Of a density of images alone a row holds decoding at temperature 0, one draw of the size, and the image. Headings
    over the columns say so.

    Args:
        flow: the model.
        images: names, HR images in [0, 1] and, where they are not bicubic, LR images; their middles are shown.
        path: of the PNG; its folder is made.
        temperature: of the draw.
        side: width of each part in pixels.
        rows: at most this many images.
        seed: of the draw of each image, which is that of ``flow.sample``.
    """
    names = ["τ = 0", f"a draw, τ = {temperature:g}", "image"]
    if as_conditional(flow) is not None:
        names.insert(0, "bicubic")
    lines = [_headings(names, side=side).expand(flow.config.image_channels, -1, -1)]
    for _, whole, *given in images[:rows]:
        parts = _parts(flow, whole, *given, side=side, temperature=temperature, seed=seed)
        hr = parts[-1]
        canvas = torch.ones(hr.shape[-3], side, side * len(parts), device="cpu")
        for column, part in enumerate(parts):
            part = part.float().clamp(0, 1).cpu()
            canvas[:, : part.shape[-2], column * side : column * side + part.shape[-1]] = part
        lines.append(canvas)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, torch.cat(lines, -2), overwrite=True)


def _headings(names: list[str], *, side: int) -> Tensor:
    """A line with a name in the middle of each column, black on white, ``(1, height, columns * side)``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, dpi = max(side // 7, 8), 100
    figure = Figure(figsize=(side * len(names) / dpi, height / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    for column, name in enumerate(names):
        # A point is 1/72 inch; letters of half the line leave room for a draw's name in its column.
        figure.text((column + 0.5) / len(names), 0.5, name, ha="center", va="center", fontsize=0.6 * height * 72 / dpi)
    canvas.draw()
    return torch.tensor(np.asarray(canvas.buffer_rgba())[..., 0], device="cpu").div(255.0).unsqueeze(0)


def _parts(
    flow: ImageModel,
    whole: Tensor,
    given: Tensor | None = None,
    *,
    side: int,
    temperature: float,
    seed: int,
) -> list[Tensor]:
    """What a row shows: the image last."""
    conditional, multiple = as_conditional(flow), flow.multiple
    taus, generator = (0.0, temperature), torch.Generator()
    if conditional is None:
        density = cast(UnconditionalModel, flow)
        hr, _ = _middle(whole, side=side, multiple=multiple, upscale=1)
        size = (hr.shape[-2], hr.shape[-1])
        draws = [density.sample(size, temperature=tau, generator=generator.manual_seed(seed))[0] for tau in taus]
        return [*draws, hr]
    s = conditional.upscale
    hr, lr = _middle(whole, given, side=side, multiple=multiple, upscale=s)
    source = encoded_lr(conditional, hr) if Capability.DOWNSCALE in flow.capabilities else lr.to(flow.device)
    draws = [conditional.sample(source, temperature=tau, generator=generator.manual_seed(seed))[0] for tau in taus]
    return [bicubic_up(lr, s), *draws, hr]


def run_curves(out: Path, *, levels: Mapping[str, Mapping[str, float]] | None = None) -> list[Curves]:
    """What was measured in training and in validation against the step, from the logs of a run.

    A panel's scale is that of the run from a tenth of its steps on, and of the validation. Of the steps before, those
    that are off the scale are left out, and the panel says how many and how far off.

    Args:
        out: folder of the run, with ``train.csv`` and ``validation.csv``; one of them may be missing.
        levels: values to compare with, by column of ``validation.csv`` and then by name.

    Returns:
        A panel for each quantity that a log has, for :func:`flowsr.plots.curve_grid`.
    """
    training, validation = (read_csv(out / name) if (out / name).exists() else [] for name in _LOGS)
    panels = []
    for ours, theirs, better in _PANELS:
        logged = [(row["step"], row[ours]) for row in training if ours in row]
        measured = [(row["step"], row[theirs]) for row in validation if theirs in row]
        if logged or measured:
            panels.append(_curves(logged, measured, label_of(theirs), better, (levels or {}).get(theirs, {})))
    return panels


Points = list[tuple[float, float]]


def _curves(logged: Points, measured: Points, label: str, better: str, levels: Mapping[str, float]) -> Curves:
    kept, remark = _on_the_scale(logged, measured)
    lines = []
    if kept:
        lines.append(_line(kept, "training crops", "grey", faint=True))
    if len(kept) > 2 * _AVERAGED:
        size = len(kept) // _AVERAGED
        means = [np.mean(kept[i : i + size], 0).tolist() for i in range(0, len(kept) - size + 1, size)]
        lines.append(_line(means, f"mean of {size} of them", "sky", marks=False))
    if measured:
        lines.append(_line(measured, "validation", "blue"))
    return Curves(f"{label}: {better}{remark}", "step", label, lines, levels=levels)


def _line(points: Points, label: str, colour: str, *, faint: bool = False, marks: bool = True) -> Line:
    x, y = zip(*points, strict=True)
    return Line(x, y, label, colour, faint=faint, marks=marks)


def _on_the_scale(logged: Points, measured: Points) -> tuple[Points, str]:
    """The points of training within the range of the later ones, and what to say of the others."""
    last = max((step for step, _ in logged), default=0.0)
    settled = [value for step, value in [*((s, v) for s, v in logged if s >= _START * last), *measured]]
    settled = [value for value in settled if math.isfinite(value)]
    if not settled:
        return logged, ""
    room = 0.1 * (max(settled) - min(settled))
    low, high = min(settled) - room, max(settled) + room
    kept = [(step, value) for step, value in logged if low <= value <= high]
    off = [(step, value) for step, value in logged if value < low or value > high]
    if not off:
        return kept, ""
    worst = max((value for _, value in off), key=lambda value: max(low - value, value - high))
    many = f"{len(off)} point{'s' if len(off) > 1 else ''}"
    return kept, f"\n{many} until step {off[-1][0]:g} off the scale, the farthest at {worst:.3g}"


def draw_curve(out: Path) -> Path | None:
    """Draw ``curve.png`` from the logs of a run: what was measured in training and in validation against the step.

    Returns:
        The picture's path, or None if there is nothing to draw.
    """
    panels = run_curves(out)
    if not panels:
        return None
    save_figure(curve_grid(panels, columns=1), out / "curve.png", overwrite=True, dpi=110)
    return out / "curve.png"


def _middle(hr: Tensor, lr: Tensor | None = None, *, side: int, multiple: int, upscale: int) -> tuple[Tensor, Tensor]:
    """The middle of an HR image and of its LR image, the bicubic one unless another is given."""
    height, width = (min(side, length) // multiple * multiple for length in hr.shape[-2:])
    top, left = (
        (length - size) // 2 // upscale * upscale for length, size in zip(hr.shape[-2:], (height, width), strict=True)
    )
    hr = crop_to(hr[..., top:, left:], (height, width))
    if lr is None:
        return hr, make_lr(hr, upscale)
    return hr, crop_to(lr[..., top // upscale :, left // upscale :], (height // upscale, width // upscale))
