"""Figures: grids of images, heat maps, likelihood terms, differences. They never touch pyplot's global state."""

from flowsr.plots.forest import ForestRow, draw_forest
from flowsr.plots.grid import Panel, draw_panel, image_grid
from flowsr.plots.heat_map import draw_heat_map
from flowsr.plots.ruler import RulerRow, draw_ruler
from flowsr.plots.style import PALETTE, TERM_COLOURS, new_figure, plain_axes, plain_text, save_figure
from flowsr.plots.term_bars import TermBar, draw_term_bars

__all__ = [
    "PALETTE",
    "TERM_COLOURS",
    "ForestRow",
    "Panel",
    "RulerRow",
    "TermBar",
    "draw_forest",
    "draw_heat_map",
    "draw_panel",
    "draw_ruler",
    "draw_term_bars",
    "image_grid",
    "new_figure",
    "plain_axes",
    "plain_text",
    "save_figure",
]
