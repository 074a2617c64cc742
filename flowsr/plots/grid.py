"""Images side by side, each under its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.images import check_image
from flowsr.plots.style import PALETTE, new_figure, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


@dataclass(frozen=True)
class Panel:
    """An image with a caption.

    Args:
        image: ``(C, H, W)`` with 1 or 3 channels; values are clamped to [0, 1] for display.
        caption: what it is; a second line, after a newline, is set smaller and grey.
        heat: None for a picture; else show the mean over channels as a heat map from 0 to this value.
        unit: of the heat map's scale, whose values are multiplied by 255 to be grey levels.
    """

    image: Tensor
    caption: str
    heat: float | None = None
    unit: str = "grey levels of 255"


def image_grid(panels: Sequence[Panel], *, columns: int = 4, width: float = 10.0, title: str = "") -> Figure:
    """A figure of images in rows.

    Pixels are shown as squares, never interpolated: what looks blocky is.

    Args:
        panels: images with captions.
        columns: images per row, at least 1.
        width: of the figure, in inches.
        title: one line over all.

    Raises:
        ValueError: without panels or columns, or for something that is not an image.

    Example:
        >>> import torch
        >>> figure = image_grid([Panel(torch.rand(3, 8, 8), "noise"), Panel(torch.zeros(1, 8, 8), "black")])
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['noise', 'black']
    """
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column; got {len(panels)} panels, {columns} columns")
    columns = min(columns, len(panels))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [panel_row_height(row, width / columns) for row in rows]
    figure = new_figure(width, sum(heights) + (0.3 if title else 0.0))
    if title:
        figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=11, color=PALETTE["ink"])
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw one image with its caption.

    Raises:
        ValueError: for something that is not one image of 1 or 3 channels.
    """
    check_image(panel.image, name="panel", channels=(1, 3), tolerance=None)
    if panel.image.ndim != 3:
        raise ValueError(f"expected one image (C, H, W) per panel; got shape {tuple(panel.image.shape)}")
    image = panel.image.detach().cpu().float()
    if panel.heat is not None:
        limit = 255 * panel.heat
        shown = axes.imshow(255 * image.mean(0).numpy(), cmap="cividis", vmin=0, vmax=limit, interpolation="nearest")
        _draw_scale(axes, shown, unit=panel.unit)
    else:
        pixels = image.clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
        axes.imshow(pixels, interpolation="nearest")
    title, _, remark = panel.caption.partition("\n")
    axes.set_title(plain_text(title), loc="left", fontsize=9, color=PALETTE["ink"], pad=14 if remark else 4)
    if remark:
        axes.text(0, 1.02, remark, transform=axes.transAxes, fontsize=7, color=PALETTE["grey"], va="bottom")
    axes.set_axis_off()


def heat_limit(image: Tensor) -> float:
    """A limit for :class:`Panel`'s ``heat``: the 99th percentile over pixels, so that one does not darken all others.

    Example:
        >>> import torch
        >>> heat_limit(torch.full((3, 4, 4), 0.25))
        0.25
    """
    return float(image.mean(0).flatten().quantile(0.99).clamp_min(1e-6))


def panel_row_height(panels: Sequence[Panel], width: float) -> float:
    """Inches that a row of panels takes, each ``width`` inches wide: the tallest image, captions, and a scale if any.

    Example:
        >>> import torch
        >>> round(panel_row_height([Panel(torch.rand(3, 8, 16), "wide")], 4.0), 2)
        2.45
    """
    height = width * max(panel.image.shape[-2] / panel.image.shape[-1] for panel in panels)
    scale = 0.085 * height + 0.25 if any(panel.heat is not None for panel in panels) else 0.0
    return height + 0.45 + scale


def _draw_scale(axes: Axes, shown: AxesImage, *, unit: str) -> None:
    """A colour bar under the image: one beside it would make this image smaller than its neighbours."""
    from matplotlib.ticker import MaxNLocator

    bar = axes.inset_axes((0.0, -0.085, 1.0, 0.04))
    axes.figure.colorbar(shown, cax=bar, orientation="horizontal")
    bar.set_xlabel(unit, fontsize=7, labelpad=1, color=PALETTE["ink"])
    bar.tick_params(labelsize=7, length=2, pad=1, colors=PALETTE["ink"])
    low, high = shown.get_clim()
    marks = [mark for mark in MaxNLocator(5).tick_values(low, high) if low <= mark <= high * (1 + 1e-9)]
    bar.set_xticks(marks)
    # Labels at the ends stay within the image's width: wider ones would push its neighbours away.
    for mark, label in zip(marks, bar.get_xticklabels(), strict=True):
        place = (mark - low) / (high - low)
        label.set_horizontalalignment("left" if place < 0.06 else "right" if place > 0.94 else "center")
