"""Figures: grids of images, the terms of a likelihood, the demonstration. They never touch pyplot's global state."""

from flowsr.plots.demo import demo_figure
from flowsr.plots.grid import Panel, draw_panel, image_grid
from flowsr.plots.likelihood import TermBar, draw_term_bars, likelihood_bars, term_bars
from flowsr.plots.style import PALETTE, new_figure, save_figure

__all__ = [
    "PALETTE",
    "Panel",
    "TermBar",
    "demo_figure",
    "draw_panel",
    "draw_term_bars",
    "image_grid",
    "likelihood_bars",
    "new_figure",
    "save_figure",
    "term_bars",
]
