"""The figure of ``flowsr demo``: what goes in, what is drawn, what is true, and what its likelihood is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowsr.plots.grid import Panel, draw_panel, panel_row_height
from flowsr.plots.style import PALETTE, new_figure
from flowsr.plots.term_bars import TermBar, draw_term_bars

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def demo_figure(
    panels: Sequence[Panel], bars: Sequence[TermBar], *, dims: int, title: str, columns: int = 3, width: float = 11.0
) -> Figure:
    """Rows of images above the bars of the likelihood's terms.

    Args:
        panels: images with captions.
        bars: the terms of the log-likelihood of the true image, and last their sum.
        dims: D = C·H·W of the image.
        title: one line over all.
        columns: images per row.
        width: in inches.

    Raises:
        ValueError: without panels or columns.

    Example:
        >>> import torch
        >>> panels = [Panel(torch.rand(3, 4, 4), "LR"), Panel(torch.rand(3, 16, 16), "HR")]
        >>> bars = [TermBar("latents", 2.5, "blue"), TermBar("total", 2.5, "ink")]
        >>> len(demo_figure(panels, bars, dims=768, title="noise").axes)
        3
    """
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column; got {len(panels)} panels, {columns} columns")
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [panel_row_height(row, width / columns) for row in rows]
    images_height, bars_height = sum(heights) + 0.4, 1.0 + 0.22 * len(bars)
    figure = new_figure(width, images_height + bars_height)
    # Two parts, so that the long labels of the bars do not narrow the images.
    parts = figure.subfigures(2, 1, height_ratios=[images_height, bars_height], squeeze=False)
    above, below = parts.flat
    grid = above.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    above.suptitle(title, x=0.01, ha="left", fontsize=11, color=PALETTE["ink"])
    axes = below.subplots()
    draw_term_bars(axes, bars, dims=dims)
    axes.set_title("What the truth costs, given the LR image", loc="left", fontsize=10, color=PALETTE["ink"], pad=16)
    remark = (
        "terms of −log₂ p(hr | lr)/D: right of the line they cost bits, left they save bits; their sum is the total"
    )
    axes.text(0, 1.02, remark, transform=axes.transAxes, fontsize=7, color=PALETTE["grey"], va="bottom")
    return figure
