"""Pictures of a run: how validation images look at a step, and the curve at the end."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.evaluation.encoded import encoded_lr
from flowsr.images import bicubic_up, crop_to, make_lr, write_image
from flowsr.models import Capability, ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.models.unconditional import UnconditionalModel
from flowsr.plots import new_figure, save_figure
from flowsr.training.journal import label_of, read_csv
from flowsr.training.validation import Named

_LOGS = ("train.csv", "validation.csv")
_TRAINING: dict[str, Any] = {"color": "C0", "linewidth": 0.6, "alpha": 0.6}
_VALIDATION: dict[str, Any] = {"color": "C1", "marker": "."}
_PANELS = (
    ("bits_per_dim", "bits_per_dim"),
    ("encoded_lr_psnr", "encoded_lr_psnr"),
    ("psnr", "psnr_mean"),
)


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


def draw_curve(out: Path) -> Path | None:
    """Draw ``curve.png`` from the logs of a run: what was measured in training and in validation against the step.

    Returns:
        The picture's path, or None if there is nothing to draw.
    """
    from matplotlib.ticker import MaxNLocator

    training, validation = (read_csv(out / name) if (out / name).exists() else [] for name in _LOGS)
    panels = [
        (ours, theirs)
        for ours, theirs in _PANELS
        if any(ours in row for row in training) or any(theirs in row for row in validation)
    ]
    if not panels:
        return None
    figure = new_figure(4.5 * len(panels), 3.2)
    for number, (ours, theirs) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set(xlabel="step", ylabel=label_of(theirs))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        for rows, key, style in ((training, ours, _TRAINING), (validation, theirs, _VALIDATION)):
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), label="training" if rows is training else "validation", **style)
        if theirs == "bits_per_dim":
            best = min((row[theirs] for row in validation if theirs in row), default=4.0)
            axes.set_ylim(best - 0.5, best + 4)  # the first steps are far above
        axes.legend()
    save_figure(figure, out / "curve.png", overwrite=True, dpi=110)
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
