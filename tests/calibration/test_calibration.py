"""Calibration: a right model passes, five wrong ones are found out, and the scores are those of their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import stats

from flowsr.calibration import (
    HeldOut,
    RankTest,
    Recalibration,
    calibrate,
    crps,
    default_functions,
    faulty_samplers,
    flow_sampler,
    hold_out,
    interval_coverage,
    latent_pit,
    model_pairs,
    recalibrate_temperature,
    score_draws,
    simulation_based_calibration,
    simultaneous_band,
    tarp,
    uniformity_p_value,
)
from flowsr.calibration.held_out import ranks
from flowsr.calibration.uniformity import p_text
from flowsr.posterior import GaussianLR, LinearGaussianFlow
from flowsr.statistics.intervals import bootstrap_interval

WIDTH = math.log(0.05)
FAULTS = ("sigma too small", "temperature 0.8", "log-scale shifted", "LR ignored", "mode collapse")


def _known(n=300, seed=0, **kwargs):
    flow = LinearGaussianFlow(**kwargs)
    prior = GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2, correlation=0.5)
    return flow, *model_pairs(flow, prior, n, lr_log_scale=WIDTH, seed=seed)


@pytest.fixture(scope="module")
def known():
    return _known()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_right_model_passes(seed):
    flow, hr, lr = _known(seed=seed)
    report = calibrate(flow_sampler(flow, lr_log_scale=WIDTH), hr, lr, seed=seed)
    assert report.passed, report.to_text()
    assert "passed" in report.to_text()


@pytest.mark.parametrize("name", FAULTS)
def test_each_deliberate_error_is_found(known, name):
    flow, hr, lr = known
    samplers = faulty_samplers(flow, lr, lr_log_scale=WIDTH)
    assert set(samplers) == set(FAULTS)
    report = calibrate(samplers[name], hr, lr)
    right = calibrate(flow_sampler(flow, lr_log_scale=WIDTH), hr, lr)
    assert not report.passed
    assert "SBC" in report.failures, report.to_text()
    # A proper score is better for the right model, whatever is wrong with the other.
    assert report.scores.mean_crps > right.scores.mean_crps


def test_only_functions_of_the_lr_image_see_that_it_is_ignored(known):
    flow, hr, lr = known
    report = calibrate(faulty_samplers(flow, lr, lr_log_scale=WIDTH)["LR ignored"], hr, lr)
    bad = {name for name, p in zip(report.sbc.names, report.sbc.p_values, strict=True) if p < 1e-3}
    assert bad and all(name.startswith("along LR") for name in bad)


def test_p_values_are_uniform_for_uniform_ranks_and_bands_hold():
    rng = np.random.default_rng(0)
    p = np.array([uniformity_p_value(rng.integers(0, 50, 100), cells=50) for _ in range(400)])
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert uniformity_p_value(np.arange(100) % 50, cells=50) == 1.0
    low, high = simultaneous_band(100, cells=50, level=0.9)
    below = rng.multinomial(100, np.full(50, 1 / 50), size=10_000).cumsum(1)[:, :-1] / 100
    inside = ((below >= low - 1e-12) & (below <= high + 1e-12)).all(1).mean()
    # Counts are whole, and the level is from 4000 simulations: between 0.9 and the next narrower band's.
    assert abs(inside - 0.9) < 0.02


def test_crps_is_that_of_the_normal():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(1, 200_000, generator=generator, dtype=torch.float64)
    x = 0.7
    exact = x * (2 * stats.norm.cdf(x) - 1) + 2 * stats.norm.pdf(x) - 1 / math.sqrt(math.pi)
    assert abs(float(crps(torch.tensor([x], dtype=torch.float64), draws)) - exact) < 3e-3
    few = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    assert abs(float(crps(torch.full((20_000,), x, dtype=torch.float64), few).mean()) - exact) < 0.02, "fair with few"


def test_crps_against_its_definition():
    truth, draws = torch.randn(4, 2), torch.randn(4, 7, 2)
    pairs = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (7 * 6)
    assert torch.allclose(crps(truth, draws), (draws - truth[:, None]).abs().mean(1) - 0.5 * pairs, atol=1e-6)


def test_functions_of_the_lr_image_are_inner_products_with_it_and_its_slopes():
    hr, lr = torch.rand(2, 1, 4, 4, dtype=torch.float64), torch.rand(1, 2, 2, dtype=torch.float64)
    large = np.kron(lr[0].numpy(), np.ones((2, 2))) - lr.numpy().mean()
    across, down = large - np.roll(large, 2, axis=1), large - np.roll(large, 2, axis=0)
    values = default_functions(hr, lr)
    for name, direction in (("along LR", large), ("along LR slope x", across), ("along LR slope y", down)):
        expected = (hr[:, 0].numpy() * direction).sum((1, 2)) / np.linalg.norm(direction)
        assert np.allclose(values[name].numpy(), expected), name


def test_ties_are_broken_at_random():
    found = ranks(torch.zeros(4000), torch.zeros(4000, 3), generator=torch.Generator().manual_seed(0))
    assert uniformity_p_value(found.numpy(), cells=4) > 1e-3


def test_coverage_is_exact_for_exchangeable_values():
    values = torch.randn(2000, 20, 3)
    held_out = HeldOut(("a", "b", "c"), values[:, 0], values[:, 1:], *torch.zeros(3, 2000))
    found = interval_coverage(held_out, levels=(0.5, 0.9))
    assert found.passed and found.nominal == (0.5, 0.9)
    held_out = HeldOut(("a", "b", "c"), 1.3 * values[:, 0], values[:, 1:], *torch.zeros(3, 2000))
    assert not interval_coverage(held_out).passed
    with pytest.raises(ValueError, match="at least 200 draws"):
        interval_coverage(held_out, levels=(0.99,))


def test_latent_pit(known):
    flow, hr, lr = known
    assert latent_pit(flow, hr, lr, lr_log_scale=WIDTH).passed
    wrong = LinearGaussianFlow(detail_std=(0.08, 0.05))
    found = latent_pit(wrong, hr, lr, lr_log_scale=WIDTH)
    assert not found.passed and found.worst.startswith("z_1")
    assert latent_pit(flow, hr, lr, lr_log_scale=WIDTH + math.log(2)).worst.startswith("lr")


def test_temperature_recalibration_finds_the_scale_that_is_off():
    """Details of the second level are 1.4 times as wide as the model believes: its temperature should be near 1.4."""
    _, hr, lr = _known(n=120, detail_std=(0.08, 0.056))
    believed = LinearGaussianFlow(detail_std=(0.08, 0.04))
    found = recalibrate_temperature(believed, hr, lr, lr_log_scale=WIDTH, num_samples=29, sweeps=1)
    assert abs(found.temperature[1] - 1.4) < 0.2
    assert abs(found.temperature[0] - 1.0) < 0.3
    assert found.gain.low > 0 and math.isclose(found.before - found.after, found.gain.value, rel_tol=1e-9)
    assert found.tried[0][1] == 1.0  # the model itself, which the temperatures must beat
    assert "τ of level 1" in found.to_text() and "at the bounds" not in found.to_text()
    assert (
        "level 1 lies at the bounds 0.3 to 1.2" in replace(found, bounds=(0.3, 1.2), temperature=(1.0, 1.19)).to_text()
    )


def test_the_same_seed_gives_the_same_report(known):
    flow, hr, lr = known
    one, two = (calibrate(flow_sampler(flow), hr[:30], lr[:30], num_samples=19, seed=3).to_dict() for _ in range(2))
    assert one == two
    other = calibrate(flow_sampler(flow), hr[:30], lr[:30], num_samples=19, seed=4).to_dict()
    assert one["sbc"]["ranks"] != other["sbc"]["ranks"]


def test_ranks_are_put_into_words():
    n = 400
    truth, draws = torch.randn(n, 4), torch.randn(n, 49, 4)
    truth = truth * torch.tensor([1.0, 1.5, 0.6, 1.0]) + torch.tensor([0.0, 0.0, 0.0, 0.5])
    found = simulation_based_calibration(HeldOut(("right", "narrow", "wide", "low"), truth, draws, *torch.zeros(3, n)))
    words = [found.shape(name).split(":")[0] for name in found.names]
    assert words == ["about right", "too narrow", "too wide", "too low"]


def test_a_rejected_row_is_never_about_right():
    """Ranks of the right mean and spread that are not uniform: p finds them, and the words agree with it."""
    n, cells = 400, 50
    inner = torch.cat([torch.full((n // 4,), 12), torch.full((n // 4,), 37)])  # two heaps, and as many at the ends
    ranks_of = torch.cat([inner, torch.arange(n // 2) % 3, cells - 1 - torch.arange(n // 2) % 3])[:, None]
    uneven = ranks_of[torch.randperm(len(ranks_of))][:n]
    p = uniformity_p_value(uneven[:, 0].numpy(), cells=cells)
    even = torch.arange(n)[:, None] % cells
    found = RankTest("ranks", ("uneven", "even"), torch.cat([uneven, even], 1), cells, (p, 1.0), 0.01)
    words = found.shape("uneven")
    assert p < found.threshold == 0.005 and words != "about right"
    assert found.shape("even") == "about right"
    # What depends on p alone: the same ranks, rejected or not.
    assert replace(found, p_values=(p, 1e-9)).shape("even") == "differs, in no simple way"
    assert replace(found, p_values=(p, 0.005)).shape("even") == "differs, in no simple way"
    assert "threshold per row 0.005" in found.to_text()


@pytest.mark.parametrize("p", [0.9, 0.0123, 1e-3, 9.7e-4, 2.1e-21, 1e-299])
def test_p_values_are_never_printed_as_zero(p):
    assert float(p_text(p)) == pytest.approx(p, rel=0.5) and len(p_text(p)) <= 6
    assert p_text(0.0) == "<1e-300"


def test_tables_explain_their_names_and_name_the_finest_and_the_coarsest_band(known):
    flow, hr, lr = known
    report = calibrate(flow_sampler(flow, lr_log_scale=WIDTH), hr[:20], lr[:20], num_samples=19)
    bands = [name for name in report.sbc.names if name.startswith("band")]
    assert bands[0] == "band 0, finest" and bands[-1].endswith(", coarsest")
    for kind in ("projection: ", "band: ", "patch: ", "along LR: "):
        assert kind in report.sbc.to_text().splitlines()[-1]
    assert "alpha 0.0025 for all together" in report.to_text()
    pit = latent_pit(flow, hr, lr, lr_log_scale=WIDTH).to_text().splitlines()[-1]
    assert all(kind in pit for kind in ("z_1: ", "lr: ", "norm: ")) and "band" not in pit
    # Details of another scale differ in that scale's band only.
    checks = (torch.arange(16) // 1 % 2).float().expand(1, 1, 16, 16)
    values = {k: float(v) for k, v in default_functions(checks, torch.full((1, 4, 4), 0.5)).items() if "band" in k}
    assert max(values, key=lambda name: values[name]) == "band 0, finest"
    wide = (torch.arange(16) // 4 % 2).float().expand(1, 1, 16, 16)
    values = {k: float(v) for k, v in default_functions(wide, torch.full((1, 4, 4), 0.5)).items() if "band" in k}
    assert max(values, key=lambda name: values[name]) == "band 2, coarsest"


def test_coverage_marks_the_cells_that_fail():
    generator = torch.Generator().manual_seed(0)
    truth, draws = torch.randn(300, 2, generator=generator), torch.randn(300, 19, 2, generator=generator)
    held_out = HeldOut(("right", "narrow"), truth * torch.tensor([1.0, 3.0]), draws, *torch.zeros(3, 300))
    right, narrow = interval_coverage(held_out).to_text().splitlines()[2:4]
    assert "*" not in right and narrow.count("*") >= 2


def test_each_level_of_temperature_has_its_own_scale():
    interval = bootstrap_interval(np.linspace(-1, 2, 20))
    tried = ((2, 0.5, 3.0), (2, 1.0, 9.0), (1, 0.5, 3.01), (1, 1.0, 3.02))
    found = Recalibration((0.5, 0.5), (2, 1), tried, 9.0, 3.0, interval, (0.3, 1.7))
    near, beyond = (replace(found, temperature=(0.5, 0.3 + off)) for off in (0.039, 0.041))
    assert "level 1 lies at the bounds" in near.to_text() and "at the bounds" not in beyond.to_text()
    axes = found.plot().axes
    assert [a.get_title(loc="left") for a in axes] == ["level 2, coarsest", "level 1, finest"]
    for a, values in zip(axes, ([3.0, 9.0], [3.01, 3.02]), strict=True):
        assert a.lines[0].get_ydata().tolist() == values
        low, high = a.get_ylim()
        assert high - low < 1.5 * (values[1] - values[0])
    assert found.plot(axes[0]) is axes[0].figure


def test_the_legend_lies_outside_the_band(known):
    flow, hr, lr = known
    figure = calibrate(flow_sampler(flow), hr[:20], lr[:20], num_samples=19).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axes in figure.axes[:2]:
        legend = axes.get_legend()
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
        assert all(legend.get_window_extent().y0 > a.get_window_extent().y1 for a in figure.axes[2:])


def test_figures(known):
    flow, hr, lr = known
    report = calibrate(
        faulty_samplers(flow, lr, lr_log_scale=WIDTH)["temperature 0.8"], hr[:60], lr[:60], num_samples=39
    )
    figure = report.plot()
    assert len(figure.axes) == 6, "four panels and two maps"
    assert "FAILED" in report.sbc.to_text()
    assert report.plot(figure.axes[0]) is figure.axes[0].figure


def test_messages(known):
    flow, hr, lr = known
    sampler = flow_sampler(flow)
    with pytest.raises(ValueError, match="at least 10 pairs"):
        hold_out(sampler, hr[:5], lr[:5])
    with pytest.raises(ValueError, match="as many HR as LR"):
        hold_out(sampler, hr, lr[:-1])
    with pytest.raises(ValueError, match="check the sampler"):
        hold_out(lambda lr, n, g: torch.full((n, 1, 8, 8), math.nan), hr, lr)
    with pytest.raises(ValueError, match="ranks from 0 to 9"):
        uniformity_p_value(np.array([10]), cells=10)
    with pytest.raises(ValueError, match="alpha in"):
        tarp(hold_out(sampler, hr[:10], lr[:10], num_samples=9), alpha=0.0)
    for alpha in (0.0, 2.5):
        with pytest.raises(ValueError, match="alpha in"):
            calibrate(sampler, hr[:10], lr[:10], num_samples=19, alpha=alpha)
    with pytest.raises(ValueError, match="hr: expected finite"):
        hold_out(sampler, torch.full_like(hr, math.nan), lr)
    with pytest.raises(ValueError, match="at least one test function"):
        hold_out(sampler, hr[:10], lr[:10], num_samples=9, functions=lambda hr, lr: {})
    with pytest.raises(ValueError, match=r"shape \(10,\), from the test function 'whole'"):
        hold_out(sampler, hr[:10], lr[:10], num_samples=9, functions=lambda hr, lr: {"whole": hr})
    with pytest.raises(ValueError, match="expected count >= 1"):
        model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 0)
    with pytest.raises(ValueError, match="lr_log_scale or -inf"):
        latent_pit(flow, hr, lr, lr_log_scale=math.nan)
    with pytest.raises(ValueError, match="an lr of 2 × 2 pixels for this hr; got 4 × 4 pixels"):
        latent_pit(flow, hr, torch.rand(len(hr), 1, 4, 4), lr_log_scale=-2.0)
    with pytest.raises(ValueError, match="sweeps >= 1"):
        recalibrate_temperature(flow, hr, lr, sweeps=0)
    with pytest.raises(ValueError, match="0 < low < 1 < high"):
        recalibrate_temperature(flow, hr, lr, bounds=(1.2, 2.0))
    values = default_functions(hr[:3], lr[0])
    assert all(value.shape == (3,) for value in values.values())
    held_out = hold_out(sampler, hr[:12], lr[:12], num_samples=19)
    assert score_draws(held_out).energy.value > 0
    assert simulation_based_calibration(held_out).ranks.shape == (12, len(values))


@pytest.mark.parametrize("count", [10, 60, 120])
@pytest.mark.parametrize("lr_log_scale", [-math.inf, -3.0])
def test_no_truth_is_one_of_the_draws_with_the_same_seed(count, lr_log_scale):
    """With one stream for both, draw 15 of the first of 120 pairs was its truth."""
    flow = LinearGaussianFlow(detail_std=(0.1,))
    prior = GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2)
    hr, lr = model_pairs(flow, prior, count, lr_log_scale=lr_log_scale)
    generator = torch.Generator().manual_seed(0)
    sampler = flow_sampler(flow, lr_log_scale=lr_log_scale)
    for image, small in zip(hr, lr, strict=True):
        draws = sampler(small, 99, generator)
        assert not bool((draws == image).flatten(1).all(1).any())


def test_crops_of_one_image_count_as_one_in_intervals():
    """The same pair ten times over says no more than once; τ is chosen on other images than it is judged on."""
    flow, hr, lr = _known(12)
    names = [i for i in range(12) for _ in range(10)]
    once = calibrate(flow_sampler(flow), hr.repeat_interleave(10, 0), lr.repeat_interleave(10, 0), images=names)
    wrong = calibrate(flow_sampler(flow), hr.repeat_interleave(10, 0), lr.repeat_interleave(10, 0))
    for right, short in zip(once.scores.crps, wrong.scores.crps, strict=True):
        assert right.count == 12 and right.value == pytest.approx(short.value)
        assert right.high - right.low > 2 * (short.high - short.low)
    found = recalibrate_temperature(
        flow, hr[:4].repeat(5, 1, 1, 1), lr[:4].repeat(5, 1, 1, 1), images=list(range(4)) * 5
    )
    assert found.gain.count == 2
    alone = recalibrate_temperature(flow, hr[:1].repeat(20, 1, 1, 1), lr[:1].repeat(20, 1, 1, 1), images=["cat"] * 20)
    assert math.isnan(alone.gain.low), "one image says nothing of others"
