"""Quantities against another one as lines: curves of training, trade-offs, what a setting does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flowsr.plots.style import PALETTE, WIDTH, new_figure, plain_axes, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_MANY = 60
"""Lines of more points are drawn without a mark for each."""


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        x: where, in the order in which points are joined.
        y: the values, as many; those that are not finite are left out.
        label: what it is, for the legend; "" for none.
        colour: a name in :data:`flowsr.plots.PALETTE`.
        faint: drawn thin and pale, behind the others: noise that is not to be read point by point.
        marks: a mark for each point, unless there are more than 60 of them.
        names: of the points, written beside them; one each, or none.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: str = "blue"
    faint: bool = False
    marks: bool = True
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Curves:
    """A panel of lines.

    Args:
        title: what is shown; a second line, after a newline, is set smaller and grey.
        xlabel: name and unit of what runs along.
        ylabel: name and unit of the values.
        lines: what is drawn; at least one.
        levels: values by name that do not depend on x, drawn as dashed lines.
        best: mark the "low"est or "high"est point of the last line; "" for none.
        log: logarithmic values.
    """

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    levels: Mapping[str, float] = field(default_factory=dict)
    best: Literal["low", "high", ""] = ""
    log: bool = False


def curve_grid(
    panels: Sequence[Curves],
    *,
    columns: int = 2,
    width: float = WIDTH,
    title: str = "",
    into: Figure | SubFigure | None = None,
) -> Figure:
    """A figure of lines, a panel for each quantity.

    Cost: drawing.

    Args:
        panels: what to draw; at least one.
        columns: panels per row, at least 1.
        width: of the figure in inches.
        title: one line over all.
        into: draw into this figure or part of one, as :func:`flowsr.plots.image_grid` does.

    Returns:
        The figure drawn into.

    Raises:
        ValueError: without panels, columns or lines, or for lines without a finite point.

    Example:
        >>> panel = Curves("it falls", "step", "loss, nats", [Line([0, 1, 2], [3.0, 2.0, 1.5], "training")], best="low")
        >>> figure = curve_grid([panel])
        >>> figure.axes[0].get_xlabel(), [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ('step', ['training', 'best: 1.5 at 2'])
    """
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column; got {len(panels)} panels, {columns} columns")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = into or new_figure(width, 2.7 * rows + (0.3 if title else 0.0))
    if title:
        figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=11, color=PALETTE["ink"])
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_curves(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    return figure.get_figure(root=True)  # type: ignore[return-value]


def draw_curves(axes: Axes, curves: Curves) -> None:
    """Draw a panel of lines into axes.

    Raises:
        ValueError: without lines, or for one without a finite point.

    Example:
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(4, 3).subplots()
        >>> draw_curves(axes, Curves("", "τ", "PSNR, dB", [Line([0, 1], [28.0, 25.0])], levels={"bicubic": 26.3}))
        >>> axes.get_ylabel()
        'PSNR, dB'
    """
    if not curves.lines:
        raise ValueError("expected at least one line; got none")
    if curves.log:
        _make_logarithmic(axes)
    points: list[tuple[float, float]] = []
    for line in curves.lines:
        points = _draw_line(axes, line)
    for (name, level), style in zip(curves.levels.items(), ("--", ":", "-.", (0, (1, 3))), strict=False):
        axes.axhline(level, color=PALETTE["ink"], linewidth=1.1, linestyle=style, label=name)
    if curves.best:
        at, value = (max if curves.best == "high" else min)(points, key=lambda point: point[1])
        mark: dict[str, Any] = {"color": PALETTE["red"], "markersize": 8, "linestyle": "none", "marker": "o"}
        axes.plot(at, value, label=f"best: {value:.3g} at {at:g}", zorder=4, **mark)
    _label(axes, curves)


def _make_logarithmic(axes: Axes) -> None:
    """With a few plain numbers beside the axis, also over less than a decade."""
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _draw_line(axes: Axes, line: Line) -> list[tuple[float, float]]:
    """The line; returns its points."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not points:
        raise ValueError(f"expected a line with a finite point; got none in {line.label or 'one without a label'}")
    style: dict[str, Any] = {"color": PALETTE[line.colour], "label": line.label or None}
    if line.faint:
        style |= {"linewidth": 0.7, "alpha": 0.5, "zorder": 1}
    elif line.marks and len(points) <= _MANY:
        style |= {"marker": "o", "markersize": 4}
    axes.plot(*zip(*points, strict=True), **style)
    beside: dict[str, Any] = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": 8}
    for name, x, y in zip(line.names, line.x, line.y, strict=bool(line.names)) if line.names else ():
        axes.annotate(name, (x, y), **beside)
    return points


def _label(axes: Axes, curves: Curves) -> None:
    """Title, names of the axes, legend; no frame."""
    title, _, remark = curves.title.partition("\n")
    axes.set_title(plain_text(title), loc="left", fontsize=9, color=PALETTE["ink"], pad=16 if remark else 6)
    if remark:
        style: dict[str, Any] = {"fontsize": 7.5, "color": PALETTE["grey"], "va": "bottom"}
        axes.text(0, 1.02, plain_text(remark), transform=axes.transAxes, **style)
    axes.set_xlabel(curves.xlabel, fontsize=9)
    axes.set_ylabel(curves.ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    if any(line.names for line in curves.lines):
        axes.margins(x=0.2, y=0.12)  # room for the names
    plain_axes(axes, keep=("left", "bottom"))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")  # read also where it lies over a line
