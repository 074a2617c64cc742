"""The terms of a log-likelihood as bars: what costs bits, what saves them, and what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowsr.plots.style import PALETTE, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TermBar:
    """One bar.

    Args:
        label: what the term is.
        bits: its share of the bits per dimension; positive costs, negative saves.
        colour: a name in :data:`flowsr.plots.PALETTE`.
    """

    label: str
    bits: float
    colour: str


_REMARK = "right of the line terms of −log₂ p/D cost bits, left they save bits; their sum is the total"


def draw_term_bars(
    axes: Axes, bars: Sequence[TermBar], *, dims: int, title: str = "What the image costs, term by term"
) -> None:
    """Draw bars from top to bottom with their values; the last one is the sum of the others.

    Args:
        axes: where.
        bars: the terms, and last their sum.
        dims: D = C·H·W of the image.
        title: over the bars; under it stands how to read them.

    Example:
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(4, 3).subplots()
        >>> draw_term_bars(axes, [TermBar("latents", 2.5, "blue"), TermBar("total", 2.5, "ink")], dims=768)
        >>> axes.get_xlabel()
        'bits per dimension (D = C·H·W = 768)'
    """
    low, high = min(0.0, *(bar.bits for bar in bars)), max(0.0, *(bar.bits for bar in bars))
    room = 0.02 * (high - low or 1.0)
    total = len(bars) - 1
    # The sum stands a little apart, under a line, as in a written addition.
    positions = [-row - (0.4 if row == total else 0.0) for row in range(len(bars))]
    for row, (bar, y) in enumerate(zip(bars, positions, strict=True)):
        axes.barh(y, bar.bits, height=0.66, color=PALETTE[bar.colour])
        text = f"{bar.bits:.2f}" if row == total else f"{bar.bits:+.2f}"
        side, weight = "left" if bar.bits >= 0 else "right", "bold" if row == total else "normal"
        at = bar.bits + math.copysign(room, bar.bits)
        axes.text(at, y, text.replace("-", "−"), ha=side, va="center", fontsize=8, weight=weight)
    axes.set_yticks(positions, [bar.label for bar in bars], fontsize=8)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axvline(0.0, color=PALETTE["ink"], linewidth=0.8)
    axes.axhline(positions[-1] + 0.7, color=PALETTE["grey"], linewidth=0.6)
    axes.set_xlim(low - 8 * room, high + 8 * room)
    axes.set_xlabel(f"bits per dimension (D = C·H·W = {dims})", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, loc="left", fontsize=9, color=PALETTE["ink"], pad=16)
    axes.text(0, 1.02, _REMARK, transform=axes.transAxes, fontsize=7, color=PALETTE["grey"], va="bottom")
