"""Figures: what they show is what was given, and they leave matplotlib's global state alone."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import flowsr
from flowsr import plots
from flowsr.distributions import UniformDequantizer
from flowsr.likelihood import decompose
from flowsr.models.latents import TermKind
from flowsr.workflows.demo import demo_figure


@pytest.fixture(scope="module")
def terms():
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        return decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4))


def test_bars_sum_to_the_bits_per_dimension(terms):
    bars = terms.dequantized().bars()
    assert bars[-1].bits == pytest.approx(float(terms.dequantized().bits_per_dim), abs=1e-4)
    assert bars[-2].bits == pytest.approx(8.0)
    assert terms.bars()[-1].bits == pytest.approx(float(terms.density_bits_per_dim), abs=1e-4)
    assert len(bars) == len(terms.named()) + 2
    # One name and one colour for a term, in tables, JSON, maps and bars.
    for bar, term in zip(bars, terms.dequantized().terms, strict=False):
        assert bar.label.split(" · ")[0] == term.name and bar.colour == plots.TERM_COLOURS[term.kind]
    assert {bar.colour for bar in bars} <= set(plots.PALETTE)


def test_the_dequantization_has_one_name(terms):
    """Where it was added to the image before, and where it is a term of its own."""
    with torch.no_grad():
        flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        eight_bit = decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4), dequantizer=UniformDequantizer())
    name = eight_bit.bars()[-2].label
    assert terms.dequantized().bars()[-2].label == name and name.split(" · ")[0] in eight_bit.to_text()


def test_bars_are_drawn_with_their_values_and_unit(terms):
    axes = terms.plot().axes[0]
    bars = terms.bars()
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([bar.bits for bar in bars])
    assert [label.get_text() for label in axes.get_yticklabels()] == [bar.label for bar in bars]
    assert "bits per dimension" in axes.get_xlabel()
    assert f"{bars[-1].bits:.2f}" in [text.get_text() for text in axes.texts]


def test_bars_refuse_nan(terms):
    first = replace(terms.terms[0], value=torch.tensor(torch.nan))
    broken = replace(terms, terms=(first, *terms.terms[1:]))
    with pytest.raises(ValueError, match="expected finite terms; got nan for LR image"):
        broken.bars()


def test_grid_shows_the_pixels(tmp_path):
    image = torch.rand(3, 6, 8)
    panels = [plots.Panel(image, "noise\nremark"), plots.Panel(image[:1], "gray"), plots.Panel(image, "heat", heat=0.5)]
    figure = plots.image_grid(panels, columns=2)
    shown = figure.axes[0].images[0].get_array()
    assert torch.equal(torch.as_tensor(shown).movedim(-1, 0), image)
    assert figure.axes[2].images[0].get_clim() == (0, 127.5)
    plots.save_figure(figure, tmp_path / "grid.png", dpi=40)
    with pytest.raises(FileExistsError, match="not to exist"):
        plots.save_figure(figure, tmp_path / "grid.png")


@pytest.mark.parametrize(
    ("panels", "columns", "message"),
    [
        ([], 2, "at least one panel and one column; got 0 panels"),
        ([plots.Panel(torch.rand(3, 4, 4), "x")], 0, "0 columns"),
        ([plots.Panel(torch.rand(2, 3, 4, 4), "x")], 1, "one image"),
        ([plots.Panel(torch.rand(4, 4, 4), "x")], 1, "expected 1 or 3 channels; got 4"),
    ],
)
def test_grid_refuses(panels, columns, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(panels, columns=columns)


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (24, 96), (96, 24)])
def test_the_scale_of_a_heat_map_covers_neither_image_nor_edge(size):
    image = torch.rand(3, *size)
    panels = [plots.Panel(image, "picture"), plots.Panel(image, "heat", heat=1.0), plots.Panel(image, "last")]
    figure = plots.image_grid([*panels, *panels], columns=4, width=6.0)
    FigureCanvasAgg(figure).draw()
    pictures = [axes.get_window_extent() for axes in figure.axes]
    scales = [scale.get_tightbbox() for axes in figure.axes for scale in axes.child_axes]
    assert len(scales) == 2
    for scale in scales:
        assert scale is not None and scale.x0 >= 0 and scale.y0 >= 0 and scale.x1 <= figure.bbox.x1
        assert not any(scale.overlaps(picture) for picture in pictures)
    # Of one size within each row.
    for row in (pictures[:4], pictures[4:]):
        assert len({(round(picture.width), round(picture.height)) for picture in row}) == 1
    # At even distances.
    starts = [picture.x0 for picture in pictures[:4]]
    gaps = [right - left for left, right in itertools.pairwise(starts)]
    assert max(gaps) - min(gaps) < 2, gaps


def test_demo_figure(terms):
    panels = [plots.Panel(torch.rand(3, 8, 12), str(i)) for i in range(4)]
    figure = demo_figure(panels, terms.bars(), dims=terms.dims, title="noise")
    assert len(figure.axes) == 5
    with pytest.raises(ValueError, match="at least one panel"):
        demo_figure([], terms.bars(), dims=terms.dims, title="none")


def test_neither_import_nor_drawing_touches_pyplot(tmp_path):
    """Importing the package loads nothing heavy, and a figure can be drawn and saved without pyplot."""
    code = f"""
import sys
import torch
import flowsr, flowsr.plots, flowsr.workflows.demo, flowsr.evaluation, flowsr.workflows.sample, flowsr.cli.app
heavy = [name for name in ("matplotlib", "skimage", "lpips", "lightning") if name in sys.modules]
assert not heavy, heavy
figure = flowsr.plots.image_grid([flowsr.plots.Panel(torch.rand(3, 4, 4), "noise")])
flowsr.plots.save_figure(figure, {str(tmp_path / "noise.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_forest_has_what_is_better_to_the_right():
    row = plots.ForestRow("", [1.0, 3.0], mean=2.0, low=1.0, high=3.0, better="high", text="")
    rows = [row, replace(row, better="low"), replace(row, low=-1.0), replace(row, better="", mean=-2.0)]
    axes = plots.new_figure(6, 3).subplots()
    plots.draw_forest(axes, rows, left="one", right="other", head="")
    means = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in means] == pytest.approx([2 / 3, -2 / 3, 2 / 3, -2 / 3])
    colours = [plots.PALETTE[name] for name in ("blue", "red", "grey", "grey")]
    assert [line.get_color() for line in means] == colours
    said = [text.get_text() for text in axes.texts]
    assert {"← one is better", "other is better →", "← one has more", "other has more →"} <= set(said)
    zero = replace(row, points=[0.0, 0.0], mean=0.0, low=math.nan, high=math.nan)  # a single image, a model with itself
    plots.draw_forest(plots.new_figure(6, 3).subplots(), [zero], left="one", right="other", head="")


def test_every_term_has_one_gloss_and_one_colour_of_its_own():
    kinds = set(get_args(TermKind))
    assert set(plots.TERM_COLOURS) == set(plots.TERM_GLOSSES) == kinds
    assert len(set(plots.TERM_COLOURS.values())) == len(kinds)
    assert "ink" not in plots.TERM_COLOURS.values()  # the colour of the sum


def test_a_hole_is_hatched_and_a_known_white_is_not():
    image = torch.ones(3, 4, 4)
    image[:, 1:3, 1:3] = torch.nan
    (axes,) = plots.image_grid({"observed": image}).axes
    alpha = np.asarray(axes.images[0].get_array())[..., 3]
    assert alpha.sum() == 12 and alpha[1:3, 1:3].sum() == 0
    assert [patch.get_hatch() for patch in axes.patches] == ["////"]
    (axes,) = plots.image_grid({"white": torch.ones(3, 4, 4)}).axes
    assert not axes.patches


def test_a_grid_is_drawn_into_a_part_of_a_figure():
    figure = plots.new_figure(6, 4)
    above, below = figure.subfigures(2, 1)
    assert plots.image_grid({"one": torch.rand(3, 4, 4), "two": torch.rand(1, 4, 4)}, into=above) is figure
    lines = [plots.Line([0, 1], [1.0, 2.0])]
    assert plots.curve_grid([plots.Curves("", "x", "y", lines)], into=below) is figure
    assert (len(above.axes), len(below.axes)) == (2, 1)


def test_zoom_shows_the_same_place_of_images_of_two_sizes():
    small, large = torch.rand(3, 4, 4), torch.rand(3, 16, 16)
    figure = plots.image_grid({"LR": small, "HR": large}, zoom=(8, 4, 4, 8))
    insets = [axes.child_axes[0] for axes in figure.axes]
    assert [inset.get_xlim() for inset in insets] == [(0.5, 2.5), (3.5, 11.5)]
    assert [inset.get_ylim() for inset in insets] == [(2.5, 1.5), (11.5, 7.5)]
    for window in [(8, 12, 4, 8), (-1, 0, 4, 4), (0, 0, 0, 4)]:
        with pytest.raises(ValueError, match="expected a part within the image of 16 rows and 16 columns"):
            plots.image_grid([plots.Panel(large, "HR", zoom=window)])


def test_the_enlarged_part_is_not_covered_by_its_enlargement():
    for window in [(0, 0, 4, 4), (12, 12, 4, 4), (12, 0, 4, 4), (0, 12, 4, 4)]:
        (axes,) = plots.image_grid([plots.Panel(torch.rand(3, 16, 16), "", zoom=window)]).axes
        FigureCanvasAgg(axes.figure).draw()
        frame = axes.patches[0].get_window_extent()
        covered = axes.child_axes[0].get_window_extent()
        overlap = (
            min(frame.x1, covered.x1) - max(frame.x0, covered.x0),
            min(frame.y1, covered.y1) - max(frame.y0, covered.y0),
        )
        assert min(overlap) < 2, (window, overlap)


def test_where_draws_differ():
    spread = torch.rand(3, 12, 20) * 0.1
    spread[:, 5:8, 11:14] += 1.0
    assert plots.zoom_window(spread, side=3) == (5, 11, 3, 3)
    with pytest.raises(ValueError, match="expected a side from 1 to 12, the map's smaller one; got 13"):
        plots.zoom_window(spread, side=13)


def test_a_two_sided_map_is_white_at_zero_and_a_map_over_a_photograph_lets_it_through():
    values, photograph = torch.linspace(-1, 1, 16).reshape(4, 4), torch.rand(3, 4, 4)
    axes = plots.new_figure(3, 3).subplots()
    plots.draw_heat_map(axes, values, title="", unit="grey levels", limits=(-1, 1))
    assert np.allclose(axes.images[0].cmap(axes.images[0].norm(0.0))[:3], 0.97, atol=0.02)
    axes = plots.new_figure(3, 3).subplots()
    plots.draw_heat_map(axes, values, title="", unit="bits/dim", photograph=photograph)
    beneath, above = axes.images
    assert np.allclose(beneath.get_array(), 0.25 + 0.75 * photograph.mean(0))
    assert above.cmap(0.0)[3] == 0.0 and above.cmap(1.0)[3] > 0.9
    with pytest.raises(ValueError, match=r"expected a photograph of the map's size, \(4, 4\); got \(4, 8\)"):
        plots.draw_heat_map(axes, values, title="", unit="", photograph=torch.rand(3, 4, 8))


def test_curves_mark_the_best_and_leave_out_what_is_not_finite():
    line = plots.Line([0.0, 0.5, 1.0], [math.nan, 5.0, 3.0], "NLL", names=["a", "b", "c"])
    panel = plots.Curves("title\nremark", "τ", "bits/dim", [line], levels={"uniform": 8.0}, best="low", log=True)
    (axes,) = plots.curve_grid([panel]).axes
    drawn, level, best = axes.lines
    assert list(drawn.get_xdata()) == [0.5, 1.0] and list(level.get_ydata()) == [8.0, 8.0]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([1.0], [3.0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["NLL", "uniform", "best: 3 at 1"]
    (axes,) = plots.curve_grid([replace(panel, best="high")]).axes
    assert list(axes.lines[-1].get_ydata()) == [5.0]
    with pytest.raises(ValueError, match="expected a line with a finite point; got none in NLL"):
        plots.curve_grid([replace(panel, lines=[replace(line, y=[math.nan] * 3)])])
    with pytest.raises(ValueError, match="at least one panel and one column; got 0 panels"):
        plots.curve_grid([])


def test_a_matrix_shows_its_numbers():
    axes = plots.new_figure(4, 3).subplots()
    table = {"NLL": {"blurred": 0.0, "noisy": 1.0}, "typicality": {"blurred": 0.75, "noisy": 0.5}}
    plots.draw_matrix(axes, table, title="AUROC", unit="", limits=(0, 1))
    assert [text.get_text() for text in axes.texts] == ["0.00", "1.00", "0.75", "0.50"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["NLL", "typicality"]
    for wrong in ({}, {"a": {}}, {"a": {"x": 1.0}, "b": {"y": 1.0}}):
        with pytest.raises(ValueError, match="expected rows of the same columns"):
            plots.draw_matrix(axes, wrong, title="", unit="", limits=(0, 1))


def test_long_captions_are_broken_and_the_row_is_higher_for_it():
    short, long = plots.Panel(torch.rand(3, 8, 8), "a"), plots.Panel(torch.rand(3, 8, 8), "word " * 20)
    assert plots.grid_height([long], width=2.0) > plots.grid_height([short], width=2.0) + 0.4
    (axes,) = plots.image_grid([long], width=2.0).axes
    assert "\n" in axes.get_title(loc="left")
