"""A table of numbers as colours, each with its number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowsr.plots.style import PALETTE, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_matrix(
    axes: Axes,
    table: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    unit: str,
    limits: tuple[float, float],
) -> None:
    """Draw numbers as coloured cells, orange at the lower limit, white half-way, purple at the upper one.

    Cost: drawing.

    Args:
        axes: where.
        table: by row, then by column; all rows have the same columns.
        title: what the numbers are; a second line, after a newline, is set smaller and grey.
        unit: what the colours mean, written under the table.
        limits: of the colours.

    Raises:
        ValueError: for an empty table, or rows of different columns.

    Example:
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(4, 2).subplots()
        >>> draw_matrix(axes, {"NLL": {"blurred": 0.0, "noisy": 1.0}}, title="AUROC", unit="1: found", limits=(0, 1))
        >>> [text.get_text() for text in axes.texts]
        ['0.00', '1.00']
    """
    columns = list(next(iter(table.values()), {}))
    if not columns or any(list(row) != columns for row in table.values()):
        raise ValueError(
            f"expected rows of the same columns, at least one; got {[list(row) for row in table.values()]}"
        )
    low, high = limits
    values = [[row[column] for column in columns] for row in table.values()]
    axes.imshow(values, cmap="PuOr", vmin=low, vmax=high, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            dark = math.isfinite(value) and abs((value - low) / (high - low) - 0.5) > 0.3
            style = {"ha": "center", "va": "center", "fontsize": 9, "color": "white" if dark else PALETTE["ink"]}
            axes.text(j, i, f"{value:.2f}", **style)
    axes.set_xticks(range(len(columns)), columns, fontsize=9)
    axes.set_yticks(range(len(table)), list(table), fontsize=9)
    axes.tick_params(length=0, colors=PALETTE["ink"])
    axes.spines[:].set_visible(False)
    axes.set_title(plain_text(title), loc="left", fontsize=9, color=PALETTE["ink"])
    axes.set_xlabel(unit, fontsize=8)
