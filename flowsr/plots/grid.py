"""Images side by side, each under its caption: photographs, heat maps of them, and parts of them enlarged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr.images import check_image
from flowsr.plots.style import PALETTE, WIDTH, new_figure, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

Window = tuple[float, float, float, float]
"""A part of an image: its top row, left column, height and width in pixels."""

_CAPTION, _REMARK = 9, 7.5
_INSET = 0.46
"""Share of a panel's width that the enlarged part takes."""


@dataclass(frozen=True)
class Panel:
    """An image with a caption.

    Args:
        image: ``(C, H, W)`` with 1 or 3 channels; values are clamped to [0, 1] for display. Where a value is NaN
            nothing is known, and the panel is hatched.
        caption: what it is; a second line, after a newline, is set smaller and grey.
        heat: None for a picture; else show the mean over channels as a heat map from 0 to this value, or between two
            values. Between opposite ones, ``(-a, a)``, the scale has two sides and is white at zero, unless over a
            photograph.
        unit: of the heat map's scale.
        scale: what values of a heat map are multiplied by to be in this unit: 255 for grey levels.
        photograph: what a heat map is of, of its size ``(C, H, W)``: drawn in grey beneath it, and the larger a value,
            the less one sees of the photograph.
        zoom: a part that is framed where it is, and shown enlarged in the lower right corner; in the lower left one
            where it would cover itself.
    """

    image: Tensor
    caption: str
    heat: float | tuple[float, float] | None = None
    unit: str = "grey levels of 255"
    scale: float = 255.0
    photograph: Tensor | None = None
    zoom: Window | None = None


def image_grid(
    panels: Sequence[Panel] | Mapping[str, Tensor],
    *,
    columns: int = 4,
    width: float = WIDTH,
    title: str = "",
    zoom: Window | None = None,
    into: Figure | SubFigure | None = None,
) -> Figure:
    """A figure of images in rows.

    Pixels are shown as squares, never interpolated: what looks blocky is. Long captions are broken into lines.

    Cost: drawing.

    Args:
        panels: images with captions; or images ``(C, H, W)`` in [0, 1] by caption.
        columns: images per row, at least 1.
        width: of the figure, in inches.
        title: one line over all.
        zoom: the same part of all panels, see :class:`Panel`, in pixels of the largest one: of a panel that is smaller
            it is what lies at the same place.
        into: draw into this figure or part of one, for example into one of ``figure.subfigures(2, 1)``, in place of a
            new one; it should have the layout "constrained".

    Returns:
        The figure drawn into.

    Raises:
        ValueError: without panels or columns, or for something that is not an image.

    Example:
        >>> import torch
        >>> figure = image_grid({"noise": torch.rand(3, 8, 8), "black": torch.zeros(1, 8, 8)})
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['noise', 'black']
    """
    if isinstance(panels, Mapping):
        panels = [Panel(image, caption) for caption, image in panels.items()]
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column; got {len(panels)} panels, {columns} columns")
    columns = min(columns, len(panels))
    if into is not None:
        width = into.bbox.width / into.get_figure(root=True).dpi  # type: ignore[union-attr]
    heights = _row_heights(panels, columns, width)
    figure = into or new_figure(width, sum(heights) + (0.3 if title else 0.0))
    if title:
        figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=10, color=PALETTE["ink"])
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
    largest = max(panel.image.shape[-1] for panel in panels)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, _zoomed(panel, zoom, largest=largest), width=width / columns)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    return figure.get_figure(root=True)  # type: ignore[return-value]


def draw_panel(axes: Axes, panel: Panel, *, width: float | None = None) -> None:
    """Draw one image with its caption.

    Args:
        axes: where.
        panel: the image.
        width: of the panel in inches, to break its caption into lines that fit.

    Raises:
        ValueError: for something that is not one image of 1 or 3 channels, or a part that is not within it.
    """
    check_image(panel.image.nan_to_num(0.0), name="panel", channels=(1, 3), tolerance=None)
    if panel.image.ndim != 3:
        raise ValueError(f"expected one image (C, H, W) per panel; got shape {tuple(panel.image.shape)}")
    shown = _draw_pixels(axes, panel)
    if shown is not None:
        _draw_scale(axes, shown, unit=panel.unit)
    if panel.zoom is not None:
        _draw_zoom(axes, panel, panel.zoom)
    title, remark = _caption_lines(panel.caption, width)
    pad = 4 + 10 * len(remark)
    axes.set_title(plain_text("\n".join(title)), loc="left", fontsize=_CAPTION, color=PALETTE["ink"], pad=pad)
    if remark:
        style: dict[str, Any] = {"fontsize": _REMARK, "color": PALETTE["grey"], "va": "bottom"}
        axes.text(0, 1.02, plain_text("\n".join(remark)), transform=axes.transAxes, **style)
    axes.set_axis_off()


def heat_limit(image: Tensor) -> float:
    """A limit for :class:`Panel`'s ``heat``: the 99th percentile over pixels, so that one does not darken all others.

    Example:
        >>> import torch
        >>> heat_limit(torch.full((3, 4, 4), 0.25))
        0.25
    """
    return float(image.mean(0).flatten().quantile(0.99).clamp_min(1e-6))


def zoom_window(spread: Tensor, *, side: int) -> Window:
    """The part of an image in which a map is largest in the mean: for a standard deviation, where draws differ.

    Cost: one average pooling.

    Args:
        spread: map ``(C, H, W)`` or ``(H, W)``.
        side: of the square part, in pixels, at least 1 and at most the map's sides.

    Returns:
        Top, left, height and width, for ``zoom`` of :func:`image_grid`; of equal parts the first.

    Raises:
        ValueError: for a side that the map does not have.

    Example:
        >>> import torch
        >>> spread = torch.zeros(8, 8)
        >>> spread[5, 3] = 1.0
        >>> zoom_window(spread, side=1)
        (5, 3, 1, 1)
    """
    if not 1 <= side <= min(spread.shape[-2:]):
        raise ValueError(f"expected a side from 1 to {min(spread.shape[-2:])}, the map's smaller one; got {side}")
    values = spread.detach().reshape(-1, 1, *spread.shape[-2:]).double().mean(0, keepdim=True)
    means = F.avg_pool2d(values, side, stride=1)[0, 0]
    top, left = divmod(int(means.argmax()), means.shape[-1])
    return top, left, side, side


def grid_height(panels: Sequence[Panel], *, columns: int = 4, width: float = WIDTH) -> float:
    """Inches that :func:`image_grid` takes without a title, for one who draws it into a part of a figure.

    Args:
        panels: images with captions.
        columns: images per row, at least 1.
        width: of the figure or its part, in inches.

    Example:
        >>> import torch
        >>> round(grid_height([Panel(torch.rand(3, 8, 16), "wide")], width=4.0), 2)
        2.35
    """
    return sum(_row_heights(panels, min(columns, len(panels)), width))


def _row_heights(panels: Sequence[Panel], columns: int, width: float) -> list[float]:
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    return [_row_height(row, width / columns) for row in rows]


def _row_height(panels: Sequence[Panel], width: float) -> float:
    """Inches that a row of panels takes, each ``width`` inches wide: the tallest image, captions, a scale if any."""
    height = width * max(panel.image.shape[-2] / panel.image.shape[-1] for panel in panels)
    scale = 0.085 * height + 0.25 if any(panel.heat is not None for panel in panels) else 0.0
    lines = [_caption_lines(panel.caption, width) for panel in panels]
    caption = max(0.16 * len(title) + 0.14 * len(remark) for title, remark in lines)
    return height + 0.19 + caption + scale


def _caption_lines(caption: str, width: float | None) -> tuple[list[str], list[str]]:
    """The lines of a caption and of its remark, broken to a width in inches."""
    title, _, remark = caption.partition("\n")

    def broken(text: str, size: float) -> list[str]:
        # A letter is somewhat more than half as wide as it is high.
        return textwrap.wrap(text, max(8, int(72 * width / (0.56 * size)))) if width else text.splitlines()

    return broken(title, _CAPTION) or [""], broken(remark, _REMARK)


def _zoomed(panel: Panel, zoom: Window | None, *, largest: int) -> Panel:
    """The panel with this part of the largest image, unless it has one of its own."""
    if zoom is None or panel.zoom is not None:
        return panel
    top, left, height, width = (panel.image.shape[-1] / largest * length for length in zoom)
    return replace(panel, zoom=(top, left, height, width))


def _draw_pixels(axes: Axes, panel: Panel) -> AxesImage | None:
    """The image; returns what has a scale: a heat map."""
    image = panel.image.detach().cpu().float()
    if panel.heat is None:
        pixels = image.nan_to_num(0.0).clamp(0, 1).expand(3, -1, -1).movedim(0, -1)
        known = ~image.isnan().any(0)
        if not known.all():
            pixels = torch.cat([pixels, known.float()[..., None]], -1)
            _hatch(axes)
        axes.imshow(pixels.numpy(), interpolation="nearest")
        return None
    if panel.photograph is not None:
        grey = panel.photograph.detach().cpu().float().clamp(0, 1).mean(0)
        axes.imshow((0.25 + 0.75 * grey).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    low, high = (0.0, panel.heat) if not isinstance(panel.heat, tuple) else panel.heat
    limits: dict[str, Any] = {"vmin": panel.scale * low, "vmax": panel.scale * high}
    return axes.imshow(panel.scale * image.mean(0).numpy(), cmap=_colours(panel), interpolation="nearest", **limits)


def _hatch(axes: Axes) -> None:
    """Stripes behind an image, to be seen through where it is transparent."""
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"facecolor": "#DDDDDD", "edgecolor": PALETTE["grey"], "hatch": "////", "linewidth": 0}
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, zorder=-1, **style))


def _colours(panel: Panel) -> Any:
    """Those of a heat map: more and more red over a photograph, two-sided between opposite limits, else cividis."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    if panel.photograph is not None:
        red = to_rgb(PALETTE["red"])
        return LinearSegmentedColormap.from_list("over", [(*red, 0.0), (*red, 0.95)])
    two_sided = isinstance(panel.heat, tuple) and math.isclose(panel.heat[0], -panel.heat[1])
    return "PuOr" if two_sided else "cividis"


def _draw_zoom(axes: Axes, panel: Panel, zoom: Window) -> None:
    """The part enlarged in a corner where it is not, and a frame around it where it is."""
    from matplotlib.patches import Rectangle

    top, left, height, width = zoom
    rows, columns = panel.image.shape[-2:]
    if min(zoom) < 0 or top + height > rows + 1e-6 or left + width > columns + 1e-6 or not height * width:
        raise ValueError(f"expected a part within the image of {rows} rows and {columns} columns; got {zoom}")
    tall = min(_INSET * height / width * columns / rows, 1.0)
    covered = left + width > columns * (1 - _INSET) and top + height > rows * (1 - tall)
    inset = axes.inset_axes((0.0 if covered else 1 - _INSET, 0.0, _INSET, tall))
    _draw_pixels(inset, panel)
    # Pixels are squares around whole numbers.
    inset.set(xlim=(left - 0.5, left + width - 0.5), ylim=(top + height - 0.5, top - 0.5))
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set(color="white", linewidth=1.5)
    # A dark line beside a light one is seen on any image.
    for colour, line in (("black", 2.2), ("white", 1.1)):
        frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=line)
        axes.add_patch(frame)


def _draw_scale(axes: Axes, shown: AxesImage, *, unit: str) -> None:
    """A colour bar under the image: one beside it would make this image smaller than its neighbours."""
    from matplotlib.ticker import MaxNLocator

    bar = axes.inset_axes((0.0, -0.085, 1.0, 0.04))
    axes.figure.colorbar(shown, cax=bar, orientation="horizontal")
    bar.set_facecolor("#A0A0A0")  # behind a scale over a photograph, which is grey in the mean
    bar.set_xlabel(unit, fontsize=8, labelpad=1, color=PALETTE["ink"])
    bar.tick_params(labelsize=8, length=2, pad=1, colors=PALETTE["ink"])
    low, high = shown.get_clim()
    marks = [mark for mark in MaxNLocator(4).tick_values(low, high) if low <= mark <= high * (1 + 1e-9)]
    bar.set_xticks(marks)
    # Labels at the ends stay within the image's width: wider ones would push its neighbours away.
    for mark, label in zip(marks, bar.get_xticklabels(), strict=True):
        place = (mark - low) / (high - low)
        label.set_horizontalalignment("left" if place < 0.06 else "right" if place > 0.94 else "center")
