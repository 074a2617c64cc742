"""Figures: what they show is what was given, and they leave matplotlib's global state alone."""

import itertools
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import flowsr
from flowsr import plots
from flowsr.distributions import UniformDequantizer
from flowsr.likelihood import decompose
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
