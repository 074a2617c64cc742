"""Numbers of one unit on one ruler, a row for each thing measured, with the range that is usual behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowsr.plots.style import PALETTE, plain_axes, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RulerRow:
    """What was measured of one thing.

    Args:
        label: what it is.
        values: one number, drawn as a dot with its value, or many, drawn as ticks; all finite.
        colour: a name in :data:`flowsr.plots.PALETTE`.
    """

    label: str
    values: Sequence[float]
    colour: str = "blue"


def draw_ruler(
    axes: Axes,
    rows: Sequence[RulerRow],
    *,
    unit: str,
    title: str = "",
    usual: tuple[float, float] | None = None,
    usual_label: str = "usual range",
) -> None:
    """Draw rows of numbers from top to bottom on one scale that begins at 0, or below it where numbers do.

    Args:
        axes: where to draw.
        rows: what was measured; at least one, each with at least one number.
        unit: of all the numbers.
        title: what they say.
        usual: lower and upper end of the range that is usual, a grey band behind all rows.
        usual_label: what the band is.

    Raises:
        ValueError: without rows, for a row without numbers, or for numbers that are not finite.

    Example:
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(5, 2).subplots()
        >>> rows = [RulerRow("raw", [8.0]), RulerRow("crops", [2.5, 3.0, 3.5], "grey")]
        >>> draw_ruler(axes, rows, unit="bits/dim", usual=(2.5, 3.5))
        >>> [text.get_text() for text in axes.texts]
        ['usual range', '8.00']
    """
    numbers = [value for row in rows for value in row.values]
    if not rows or not all(len(row.values) for row in rows) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected rows with finite numbers; got {[(row.label, *row.values) for row in rows]}")
    if usual is not None:
        axes.axvspan(*usual, color=PALETTE["grey"], alpha=0.18, linewidth=0)
        axes.text(sum(usual) / 2, 0.55, usual_label, ha="center", va="bottom", fontsize=8, color=PALETTE["grey"])
    for place, row in enumerate(rows):
        _draw_row(axes, -float(place), row)
    low, high = min(0.0, *numbers), max(numbers)
    axes.set_xlim(low - 0.02 * (high - low or 1.0), high + 0.1 * (high - low or 1.0))
    axes.set_ylim(0.5 - len(rows), 0.55)
    axes.set_yticks([-place for place in range(len(rows))], [plain_text(row.label) for row in rows], fontsize=9)
    axes.set_xlabel(unit, fontsize=9)
    axes.set_title(plain_text(title), loc="left", fontsize=10, color=PALETTE["ink"], pad=18 if usual else 6)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)


def _draw_row(axes: Axes, place: float, row: RulerRow) -> None:
    """A line to guide the eye, and on it the numbers."""
    axes.axhline(place, color=PALETTE["grey"], linewidth=0.4, alpha=0.4, zorder=0)
    single = len(row.values) == 1
    (marks,) = axes.plot(row.values, [place] * len(row.values), "o" if single else "|", color=PALETTE[row.colour])
    marks.set(markersize=6 if single else 9, markeredgewidth=1.2)
    if single:
        text = f"{row.values[0]:.2f}".replace("-", "−")
        axes.annotate(text, (row.values[0], place), (7, 0), textcoords="offset points", va="center", fontsize=8)
