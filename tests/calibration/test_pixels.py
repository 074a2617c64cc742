"""Every single pixel: false alarms at their level, whatever the dependence, and one wrong pixel of 64 is found."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flowsr.calibration import (
    HeldOut,
    PixelRanks,
    calibrate,
    default_functions,
    hold_out,
    interval_coverage,
    pixel_test,
    simulation_based_calibration,
    tarp,
)
from flowsr.calibration.exchangeability import (
    exact_p,
    exchanged_sums,
    exchanges,
    family_wise,
    moments,
    num_replicates,
    standardized,
)
from flowsr.calibration.pixel_ranks import joint_ranks, rank_pixels

PLACE = (0, 3, 4)
FAULTS = {
    "too wide": lambda draws: 1.5 * draws,
    "too narrow": lambda draws: draws / 1.5,
    "too low": lambda draws: draws - 0.6,
    "too high": lambda draws: draws + 0.6,
}
"""At one pixel; the spread of a right draw is 1."""


def _images(pairs, draws, shape, *, seed, common=0.6):
    """Truths and draws that are exchangeable, with pixels that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(pairs, draws + 1, *shape, generator=generator, dtype=torch.float64)
    shared = torch.randn(pairs, draws + 1, 1, 1, 1, generator=generator, dtype=torch.float64)
    return (1 - common**2) ** 0.5 * noise + common * shared


def _held_out(images, seed=0):
    pixels = PixelRanks(joint_ranks(images, generator=torch.Generator().manual_seed(seed)), {}, 1)
    values = images.flatten(2)
    names = tuple(map(str, range(values.shape[-1])))
    return HeldOut(names, values[:, 0], values[:, 1:], *torch.zeros(3, len(images)), pixels)


def _faulty(name, seed):
    images = _images(200, 99, (1, 8, 8), seed=seed)
    images[:, 1:, *PLACE] = FAULTS[name](images[:, 1:, *PLACE])
    return _held_out(images)


@pytest.mark.parametrize("common", [0.0, 0.95])
def test_false_alarms_are_at_their_level(common):
    """Exact p-values are uniform, up to their steps, for few pairs, few draws and pixels that depend on each other."""
    count, alpha = 300, 0.1
    p = [
        pixel_test(_held_out(_images(12, 9, (1, 3, 3), seed=seed, common=common)), alpha=alpha, seed=seed).p_value
        for seed in range(count)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert stats.binomtest(int(np.sum(np.array(p) <= alpha)), count, alpha).pvalue > 1e-3


@pytest.mark.parametrize("name", FAULTS)
def test_one_wrong_pixel_of_64_is_found_where_it_is(name):
    """At the share of the default alpha that the test has in a report; of 200 data sets all are."""
    found = [pixel_test(_faulty(name, seed), alpha=0.0025) for seed in range(5)]
    assert all(not test.passed for test in found)
    right = [test for test in found if test.rejected[:1] == [PLACE] and test.words(PLACE).startswith(name)]
    assert len(right) == 5 and sum(len(test.rejected) > 1 for test in found) <= 1


def test_the_default_test_functions_do_not_see_it():
    for seed in range(3):
        images = _images(200, 99, (1, 8, 8), seed=seed)
        images[:, 1:, *PLACE] *= 1.5
        held_out = _replayed(images)
        assert simulation_based_calibration(held_out).passed and interval_coverage(held_out).passed
        assert tarp(held_out).passed and not pixel_test(held_out).passed


def test_many_small_faults_are_seen_by_higher_criticism_first():
    """All pixels a tenth too wide: none stands out."""
    tests = []
    for seed in range(6):
        images = _images(200, 49, (1, 8, 8), seed=seed, common=0.0)
        images[:, 1:] *= 1.1
        tests.append(pixel_test(_held_out(images)))
    assert all(test.p_criticism <= test.p_largest for test in tests)
    assert np.median([test.p_criticism for test in tests]) < 0.5 * np.median([test.p_largest for test in tests])


def test_pixels_of_another_place_in_each_image_are_seen_by_the_largest_error():
    """One pixel of 1024 in every third image: no place stands out, and no energy."""
    images = _images(100, 49, (1, 32, 32), seed=2, common=0.0)
    generator = torch.Generator().manual_seed(1)
    images[::3, 0].flatten(1)[:, :] += 6 * torch.eye(1024)[torch.randint(1024, (34,), generator=generator)]
    held_out = _replayed(images)
    test = simulation_based_calibration(held_out)
    assert test.worst == "largest error" and not test.passed and sorted(test.p_values)[1] > test.threshold
    assert tarp(held_out).passed and pixel_test(held_out).passed


def _replayed(images):
    made = iter(images[:, 1:])
    lr = torch.rand(len(images), 1, images.shape[-2] // 4, images.shape[-1] // 4)
    return hold_out(lambda *_: next(made), images[:, 0], lr, num_samples=images.shape[1] - 1)


def test_a_report_has_the_test_and_names_the_pixel():
    images = _images(200, 99, (1, 8, 8), seed=5)
    images[:, 1:, *PLACE] *= 1.5
    made = iter(images[:, 1:])
    report = calibrate(lambda *_: next(made), images[:, 0], torch.rand(200, 1, 2, 2))
    assert report.failures == ("pixels",) and report.pixels.rejected == [PLACE]
    assert "0, 3, 4" in report.pixels.to_text() and "too wide" in report.pixels.to_text()
    told = report.to_dict()["pixels"]
    assert np.shape(told["spread"]) == (1, 8, 8) and told["spread"][0][3][4] < -4 and told["cell"] == 1
    for figure in (report.plot(), report.pixels.plot()):
        frames = [patch for axes in figure.axes for patch in axes.patches]
        assert [(patch.get_x(), patch.get_y()) for patch in frames] == [(3.5, 2.5)]


def test_scores_of_sums_are_known_moments():
    scores = torch.rand(7, 20, 5, dtype=torch.float64)
    chosen = exchanges(7, 20, replicates=40_000, seed=0)
    assert (chosen[0] == 0).all() and set(chosen[1:].flatten().tolist()) == set(range(20))
    sums = exchanged_sums(scores, chosen)
    assert torch.allclose(sums[0], scores[:, 0].sum(0)) and torch.allclose(
        sums[5], scores[torch.arange(7), chosen[5]].sum(0)
    )
    found = standardized(sums, *moments(scores))[1:]
    assert found.mean(0).abs().max() < 0.03 and (found.std(0) - 1).abs().max() < 0.03
    normal = torch.special.ndtri((torch.arange(100, dtype=torch.float64) + 0.5) / 100)
    squares = normal.square()[None, :, None].expand(50, 100, 1)
    sums = exchanged_sums(squares, exchanges(50, 100, replicates=40_000, seed=1))
    found = standardized(sums, *moments(squares), positive=True)
    assert abs(stats.skew(found.flatten().numpy())) < 0.1 and abs(float(found.std()) - 1) < 0.05
    assert torch.equal(standardized(torch.ones(3, 1), *moments(torch.ones(1, 4, 1))), torch.zeros(3, 1))


def test_p_values_by_their_definition():
    values = torch.randint(-3, 4, (50, 3), generator=torch.Generator().manual_seed(0)).double()
    expected = (values[None] >= values[:, None]).double().mean(1)
    assert torch.allclose(exact_p(values), expected) and torch.allclose(exact_p(values[:, 0]), expected[:, 0])
    largest = values.abs().max(1).values
    assert torch.allclose(family_wise(largest, values[0]), (largest[:, None] >= values[0]).double().mean(0))


def test_ranks_are_joint_with_ties_at_random():
    values = torch.tensor([[0.3, 0.1, 0.2, 0.1]]).expand(2000, 4)
    found = torch.cat([joint_ranks(row[None], generator=_GENERATOR) for row in values])
    assert (found[:, 0] == 3).all() and (found[:, 2] == 2).all()
    assert set(found[:, 1].tolist()) == {0, 1} and abs(float(found[:, 1].double().mean()) - 0.5) < 0.05
    plain = torch.rand(3, 10, 2, 4, 4)
    expected = (plain[:, None] < plain[:, :, None]).sum(2)
    assert torch.equal(joint_ranks(plain, generator=_GENERATOR).long(), expected)


_GENERATOR = torch.Generator().manual_seed(0)


def test_large_images_are_ranked_by_cells_and_content_is_where_it_is():
    hr = torch.rand(12, 3, 40, 80)
    lr = torch.full((3, 10, 20), 0.25)
    lr[:, :, 10:] = 0.75
    found = rank_pixels(hr, lr, generator=_GENERATOR)
    assert found.cell == 3 and found.ranks.shape == (1, 12, 3, 14, 27)
    cells = hr[:, :, 3:6, 6:9].mean((2, 3))
    assert torch.equal(found.ranks[0, :, :, 1, 2].long(), (cells[None] < cells[:, None]).sum(1))
    assert found.content["brightness"].shape == (1, 14, 27)
    assert found.content["brightness"][0, 0, 0] == 0.25 and found.content["texture"][0, :, :10].max() < 1e-7
    assert found.content["slope"].argmax() % 27 in (12, 13, 14) and found.content["texture"].argmax() % 27 in (
        12,
        13,
        14,
    )
    assert math.isclose(found.content["slope"].max(), 0.25, rel_tol=0.01), "half of 0.5 over two pixels"


def test_constant_pixels_and_messages():
    images = torch.rand(12, 10, 1, 4, 4)
    images[..., :2] = 1.0  # clipped in all: no rank is known, all are equally probable
    assert pixel_test(_held_out(images)).passed
    with pytest.raises(ValueError, match="ranks of pixels; got none: make them by hold_out"):
        pixel_test(HeldOut(("x",), torch.rand(9, 1), torch.rand(9, 9, 1), *torch.zeros(3, 9)))
    with pytest.raises(ValueError, match=r"alpha in \[0.0001, 1\)"):
        num_replicates(1e-5)
    values = default_functions(torch.full((3, 1, 8, 8), 0.5), torch.full((1, 2, 2), 0.5))
    assert torch.equal(values["largest error"], torch.zeros(3))
    held_out = _held_out(torch.rand(20, 20, 1, 4, 4))
    assert interval_coverage(held_out, levels=(0.5,)).passed
