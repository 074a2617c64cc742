"""Differences of many quantities in one picture, a row for each: a forest plot, better being to the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowsr.plots.style import PALETTE, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ForestRow:
    """Differences of one quantity.

    Args:
        label: what differs.
        points: the differences of single images; all finite.
        mean: their mean.
        low: lower end of its interval; NaN without one, as is then the next.
        high: upper end.
        better: which sign is better, "high", "low", or "" for neither.
        text: the numbers in words, for the end of the row.
    """

    label: str
    points: Sequence[float]
    mean: float
    low: float
    high: float
    better: Literal["low", "high", ""]
    text: str

    @property
    def colour(self) -> str:
        """Blue where the whole interval is better than zero, red where it is worse, grey where it is neither."""
        if not self.better or not (self.low > 0 or self.high < 0):
            return PALETTE["grey"]
        return PALETTE["blue" if (self.low > 0) == (self.better == "high") else "red"]


def draw_forest(axes: Axes, rows: Sequence[ForestRow], *, left: str, right: str, head: str) -> None:
    """Draw rows of differences, each on a scale of its own and turned so that better is to the right.

    Rows without a better side come last, in grey, larger being to the right.

    Args:
        axes: where to draw.
        rows: what to draw; at least one.
        left: what is better where differences lie to the left, for example "A".
        right: the same for the right.
        head: what the texts of the rows are.

    Example:
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(6, 2).subplots()
        >>> row = ForestRow("PSNR", [0.1, 0.3], mean=0.2, low=0.1, high=0.3, better="high", text="+0.2")
        >>> draw_forest(axes, [row], left="A", right="B", head="")
        >>> [text.get_text() for text in axes.texts][:3]
        ['+0.2', '← A is better', 'B is better →']
    """
    judged, others = [row for row in rows if row.better], [row for row in rows if not row.better]
    places = [-float(i) for i in range(len(judged))]
    places += [-float(len(judged) + (1 if judged else 0) + i) for i in range(len(others))]
    for place, row in zip(places, [*judged, *others], strict=True):
        _draw_row(axes, place, row)
    if judged:
        _say_sides(axes, 0.9, f"← {left} is better", f"{right} is better →", colour="ink")
    if others:
        _say_sides(axes, places[len(judged)] + 0.9, f"← {left} has more", f"{right} has more →", colour="grey")
    axes.text(1.02, 0.9, head, transform=axes.get_yaxis_transform(), va="center", fontsize=8, weight="bold")
    axes.set_yticks(places, [row.label for row in (*judged, *others)], fontsize=8)
    axes.axvline(0.0, color=PALETTE["ink"], linewidth=0.8, zorder=1)
    axes.set_xlim(-1.2, 1.2)
    axes.set_ylim(places[-1] - 0.7, 1.3)
    axes.set_xticks([])
    plain_axes(axes, keep=())
    axes.tick_params(axis="y", length=0)


def _draw_row(axes: Axes, place: float, row: ForestRow) -> None:
    """The points of a row, and above them the mean with its interval."""
    numbers = [*row.points, row.mean, *(end for end in (row.low, row.high) if not math.isnan(end))]
    scale = (-1.0 if row.better == "low" else 1.0) / (max(map(abs, numbers)) or 1.0)
    axes.axhline(place, color=PALETTE["grey"], linewidth=0.4, alpha=0.4, zorder=0)
    axes.plot(
        [scale * point for point in row.points], [place] * len(row.points), "|", color=PALETTE["grey"], markersize=9
    )
    axes.plot(
        [scale * row.low, scale * row.high], [place, place], color=row.colour, linewidth=3.5, solid_capstyle="butt"
    )
    axes.plot(scale * row.mean, place, "o", color=row.colour, markersize=6, markeredgecolor="white")
    axes.text(1.02, place, row.text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)


def _say_sides(axes: Axes, place: float, left: str, right: str, *, colour: str) -> None:
    for x, side, text in ((-1.2, "left", left), (1.2, "right", right)):
        axes.text(x, place, text, ha=side, va="center", fontsize=8, weight="bold", color=PALETTE[colour])
