"""A ruler shows every number that it is given, at its place, and the range that is usual."""

import math

import pytest

from flowsr.plots import PALETTE, RulerRow, draw_ruler, new_figure

ROWS = [RulerRow("raw $", [8.0], "ink"), RulerRow("crops", [2.5, 3.0, 3.5], "grey"), RulerRow("below", [-0.25])]


def test_every_number_is_at_its_place():
    axes = new_figure(5, 3).subplots()
    draw_ruler(axes, ROWS, unit="bits/dim", title="what", usual=(2.5, 3.5), usual_label="of crops")
    marks = [line for line in axes.lines if line.get_marker() != "None"]
    assert [list(mark.get_xdata()) for mark in marks] == [list(row.values) for row in ROWS]
    assert [mark.get_color() for mark in marks] == [PALETTE[row.colour] for row in ROWS]
    # Names are read from the ticks: each must stand where its numbers are.
    places = dict(zip((label.get_text() for label in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    assert places == {r"raw \$": 0, "crops": -1, "below": -2}
    assert [set(mark.get_ydata()) for mark in marks] == [{0.0}, {-1.0}, {-2.0}]
    assert [text.get_text() for text in axes.texts] == ["of crops", "8.00", "−0.25"]
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("bits/dim", "what")
    low, high = axes.get_xlim()
    assert low < -0.25 and high > 8.0, "no number is cut off"
    band = axes.patches[0]
    assert (band.get_x(), band.get_x() + band.get_width()) == (2.5, 3.5)


def test_without_a_usual_range_there_is_no_band():
    axes = new_figure(5, 2).subplots()
    draw_ruler(axes, ROWS[:1], unit="bits/dim")
    assert not axes.patches and axes.get_xlim()[0] <= 0


@pytest.mark.parametrize("rows", [[], [RulerRow("none", [])], [RulerRow("NaN", [1.0, math.nan])]])
def test_what_cannot_be_drawn_is_refused(rows):
    with pytest.raises(ValueError, match="expected rows with finite numbers; got"):
        draw_ruler(new_figure(2, 2).subplots(), rows, unit="")
