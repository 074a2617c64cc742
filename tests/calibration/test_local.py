"""Local calibration: a sampler that all averages pass is found out, and the right one passes, at its level."""

import numpy as np
import pytest
import torch
from scipy import stats

from flowsr.calibration import (
    HeldOut,
    PixelRanks,
    default_functions,
    hold_out,
    interval_coverage,
    local_c2st,
    local_calibration,
    pixel_test,
    simulation_based_calibration,
    tarp,
)
from flowsr.calibration.pixel_ranks import joint_ranks

SMOOTH, TEXTURED = 0.5, 1.5
"""Spread of the details on the two kinds of ground, in tenths."""


def _pairs(count=150, seed=0):
    """Crops that are smooth or textured, evenly; details are wider where the LR image is textured."""
    generator = torch.Generator().manual_seed(seed)
    textured = torch.rand(count, generator=generator) < 0.5
    lr = 0.5 + 0.02 * torch.randn(count, 1, 4, 4, generator=generator)
    lr[textured] += 0.2 * torch.randn(int(textured.sum()), 1, 4, 4, generator=generator)
    spread = torch.where(textured, TEXTURED, SMOOTH)[:, None, None, None]
    details = 0.1 * spread * torch.randn(count, 1, 8, 8, generator=generator)
    return _enlarged(lr) + details, lr, textured


def _enlarged(lr):
    return lr.repeat_interleave(2, -1).repeat_interleave(2, -2)


def right(lr, num_samples, generator):
    spread = TEXTURED if float(lr.std()) > 0.06 else SMOOTH
    return _enlarged(lr) + 0.1 * spread * torch.randn(num_samples, 1, 8, 8, generator=generator)


def averaged(lr, num_samples, generator):
    """Details of either kind of ground, whatever the LR image: the right ones on average over LR images."""
    textured = torch.rand(num_samples, generator=generator) < 0.5
    spread = torch.where(textured, TEXTURED, SMOOTH)[:, None, None, None]
    return _enlarged(lr) + 0.1 * spread * torch.randn(num_samples, 1, 8, 8, generator=generator)


def of_details(hr, lr):
    """The default test functions of the details: of the whole, energies also see how details add to the LR image's."""
    return default_functions(hr - _enlarged(lr), lr)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_passes_every_average_is_found_where_it_is_wrong(seed):
    hr, lr, textured = _pairs(seed=seed)
    held_out = hold_out(averaged, hr, lr, num_samples=49, functions=of_details, seed=seed + 100)
    assert simulation_based_calibration(held_out).passed and interval_coverage(held_out).passed
    assert tarp(held_out).passed and pixel_test(held_out).passed
    found = local_calibration(held_out)
    smooth, *_, rough = found.of("texture")
    assert not found.passed and {smooth, rough} <= set(found.rejected)
    assert smooth.coverage.low > found.nominal > rough.coverage.high and smooth.ratio < 0.8 < 1.2 < rough.ratio
    assert found.words(smooth).startswith("too wide") and found.words(rough).startswith("too narrow")
    classified = local_c2st(held_out)
    assert not classified.passed and len(classified.rejected) > 100
    words = {
        kind: {classified.words(i)[:8] for i in classified.rejected if textured[i] == kind} for kind in (False, True)
    }
    assert words == {False: {"too wide"}, True: {"too narr"}}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_right_sampler_passes(seed):
    hr, lr, _ = _pairs(seed=seed)
    held_out = hold_out(right, hr, lr, num_samples=49, seed=seed + 100)
    found, classified = local_calibration(held_out, images=[i // 3 for i in range(150)]), local_c2st(held_out)
    assert found.passed and classified.passed and not found.rejected and not classified.rejected
    assert 0 < found.bins[0].coverage.count <= 50
    assert all(abs(one.ratio - 1) < 0.1 for one in found.bins)


def _exchangeable(pairs, seed):
    """Truth and draws that cannot be told apart, given content they depend on, with pixels that hang together."""
    generator = torch.Generator().manual_seed(seed)
    content = {name: torch.rand(pairs, 4, 4, generator=generator, dtype=torch.float64) for name in ("texture", "slope")}
    values = torch.randn(pairs, 10, 1, 4, 4, generator=generator) + torch.randn(pairs, 10, 1, 1, 1, generator=generator)
    ranks = joint_ranks(values * content["texture"][:, None, None], generator=generator)
    empty = torch.zeros(pairs, 1), torch.zeros(pairs, 9, 1), *torch.zeros(3, pairs)
    return HeldOut(("x",), *empty, PixelRanks(ranks, content, 1))


@pytest.mark.parametrize("test", ["bins", "classifier"])
def test_false_alarms_are_at_their_level(test):
    count = 120
    p = []
    for seed in range(count):
        held_out = _exchangeable(12, seed)
        if test == "bins":
            p.append(min(one.p_value for one in local_calibration(held_out, bins=3, seed=seed).bins))
        else:
            p.append(local_c2st(held_out, seed=seed).p_value)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert stats.binomtest(int(np.sum(np.array(p) <= 0.1)), count, 0.1).pvalue > 1e-3


def test_a_fault_where_two_kinds_of_content_meet_is_seen_by_the_classifier():
    """Too wide where it is dark and textured or neither, too narrow where it is one of both: every margin is right."""
    generator = torch.Generator().manual_seed(3)
    content = {
        name: torch.randn(80, 8, 8, generator=generator, dtype=torch.float64) for name in ("texture", "brightness")
    }
    sign = (content["texture"] * content["brightness"]).sign()[:, None, None]
    values = torch.randn(80, 50, 1, 8, 8, generator=generator, dtype=torch.float64)
    values[:, :1] *= 1 + 0.25 * sign
    ranks = joint_ranks(values, generator=generator)
    empty = torch.zeros(80, 1), torch.zeros(80, 49, 1), *torch.zeros(3, 80)
    held_out = HeldOut(("x",), *empty, PixelRanks(ranks, content, 1))
    assert local_c2st(held_out).p_value < 1e-3
    assert min(b.p_value for b in local_calibration(held_out).bins) > local_c2st(held_out).p_value


def test_bins_by_hand():
    held_out = _exchangeable(30, 5)
    found = local_calibration(held_out, bins=4, level=0.6)
    pixels = held_out.pixel_ranks
    texture = pixels.content["texture"]
    third = found.of("texture")[2]
    inside = (texture >= third.low) & (texture <= third.high)
    ranks = pixels.ranks[:, 0, 0]
    assert third.pixels == int(inside.sum()) == 120 and found.nominal == 0.6
    assert np.isclose(third.coverage.value, float(((ranks >= 2) & (ranks < 8))[inside].double().mean()))
    z = torch.special.ndtri((ranks.double() + 0.5) / 10)
    right = torch.special.ndtri((torch.arange(10, dtype=torch.float64) + 0.5) / 10).square().mean()
    assert np.isclose(third.ratio, float((z[inside].square().mean() / right).sqrt()))
    assert sum(one.pixels for one in found.of("texture")) == 480


def test_tables_figures_and_messages():
    hr, lr, _ = _pairs(80)
    held_out = hold_out(averaged, hr, lr, num_samples=19, seed=100)
    found, classified = local_calibration(held_out), local_c2st(held_out, names=[f"crop {i}" for i in range(80)])
    assert "texture 0." in found.to_text() and "too narrow" in found.to_text() and "FAILED" in found.to_text()
    figure = found.plot()
    assert [axes.get_title(loc="left").partition(":")[0] for axes in figure.axes] == [
        "by brightness",
        "by texture",
        "by slope",
        "by spread",
    ]
    assert found.plot(figure.axes[0]) is figure and classified.plot().axes
    assert "crop " in classified.to_text() and len(classified.to_dict()["spread"]) == 80
    with pytest.raises(ValueError, match="at least 2 bins"):
        local_calibration(held_out, bins=1)
    with pytest.raises(ValueError, match="that 19 draws can tell; got 5 and"):
        local_calibration(held_out, level=0.99)
    with pytest.raises(ValueError, match="a name for each of 80 pairs; got 2"):
        local_c2st(held_out, names=["a", "b"])
    flat = hold_out(right, torch.full((12, 1, 8, 8), 0.5), torch.full((12, 1, 4, 4), 0.5), num_samples=9)
    alike = local_calibration(flat)
    assert len(alike.of("brightness")) == 1, "one bin of equal values"
    assert local_c2st(flat).p_value > 0
