"""Figures: grids of images, heat maps, likelihood terms, curves, tables. They never touch pyplot's global state.

Those that end in ``_grid`` make a whole figure in one call; those that begin with ``draw_`` draw into axes.
All take names of colours from :data:`PALETTE`, which colour-blind readers tell apart; terms of a log-likelihood have
one name and one colour everywhere.
"""

from flowsr.plots.curves import Curves, Line, curve_grid, draw_curves
from flowsr.plots.forest import ForestRow, draw_forest
from flowsr.plots.grid import Panel, draw_panel, grid_height, heat_limit, image_grid, zoom_window
from flowsr.plots.heat_map import draw_heat_map, map_grid, map_panel
from flowsr.plots.matrix import draw_matrix
from flowsr.plots.ruler import RulerRow, draw_ruler
from flowsr.plots.style import (
    PALETTE,
    TERM_COLOURS,
    TERM_GLOSSES,
    WIDTH,
    new_figure,
    plain_axes,
    plain_text,
    save_figure,
)
from flowsr.plots.term_bars import TermBar, draw_term_bars

__all__ = [
    "PALETTE",
    "TERM_COLOURS",
    "TERM_GLOSSES",
    "WIDTH",
    "Curves",
    "ForestRow",
    "Line",
    "Panel",
    "RulerRow",
    "TermBar",
    "curve_grid",
    "draw_curves",
    "draw_forest",
    "draw_heat_map",
    "draw_matrix",
    "draw_panel",
    "draw_ruler",
    "draw_term_bars",
    "grid_height",
    "heat_limit",
    "image_grid",
    "map_grid",
    "map_panel",
    "new_figure",
    "plain_axes",
    "plain_text",
    "save_figure",
    "zoom_window",
]
