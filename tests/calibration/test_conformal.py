"""Conformal bounds: they hold on fresh images as often as promised, where the model's own fail, and are no wider than
that takes."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from flowsr.calibration import (
    ComponentIntervals,
    ConfidenceMask,
    PixelIntervals,
    calibrate_components,
    calibrate_intervals,
    calibrate_mask,
    check_components,
    check_intervals,
    check_masks,
    conformal_quantile,
    coverage_range,
    flow_sampler,
    least_images,
    model_pairs,
    risk_p_value,
    risk_quantile,
    summarize_pairs,
)
from flowsr.calibration.component_intervals import coefficients
from flowsr.calibration.confidence_masks import error_map, mask_score, spread_map
from flowsr.calibration.conformal import share_of_images
from flowsr.calibration.pixel_intervals import pixel_scores
from flowsr.posterior import GaussianLR, LinearGaussianFlow

ALPHA = 0.1


# Quantiles


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [1, 9, 19, 40])
def test_one_score_of_each_image_is_an_order_statistic(n, alpha):
    scores = torch.randn(n, generator=torch.Generator().manual_seed(n)).tolist()
    place = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    if place > n:
        with pytest.raises(ValueError, match=f"expected at least {least_images(alpha)} images for alpha"):
            conformal_quantile(scores, alpha)
        return
    assert n >= least_images(alpha)
    assert conformal_quantile(scores, alpha) == sorted(scores)[place - 1]


def test_several_scores_share_the_weight_of_their_image():
    generator = np.random.default_rng(0)
    sizes, names = (3, 1, 8, 2, 5), ("a", "b", "a", "c", "d")
    scores = [generator.normal(size=size) for size in sizes]
    found = conformal_quantile([torch.tensor(score) for score in scores], 0.3, images=names)
    # By the definition: of four images and a fresh one at infinity, crops of one sharing its weight.
    mass = [(value, 1 / (5 * names.count(name) * len(s))) for s, name in zip(scores, names, strict=True) for value in s]
    enough = [value for value, _ in mass if sum(w for v, w in mass if v <= value) >= 0.7]
    assert found == min(enough)
    # The same crop given twice is no new knowledge, and names may be numbers of a tensor.
    assert conformal_quantile([1.0, 2.0, 9.0], 0.4, images=torch.tensor([0, 0, 1])) == 9.0  # type: ignore[arg-type]
    assert conformal_quantile([1.0, 1.0, 2.0, 9.0], 0.4, images=[0, 0, 0, 1]) == 9.0


def test_coverage_of_one_calibration_set_has_the_beta_distribution():
    generator = np.random.default_rng(0)
    # Of uniform scores the quantile is the coverage.
    coverages = [conformal_quantile(generator.uniform(size=19), 0.2) for _ in range(600)]
    assert stats.kstest(coverages, stats.beta(16, 4).cdf).pvalue > 1e-3
    low, high = coverage_range(19, 0.2, level=0.8)
    inside = np.mean([low <= c <= high for c in coverages])
    assert abs(inside - 0.8) < 4 * math.sqrt(0.16 / 600)


def test_crops_of_one_image_are_no_independent_ones():
    """By image the promise holds; the same scores taken for independent ones break it."""
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(12), 10).tolist()
    by_image, by_crop = [], []
    for _ in range(300):
        hardness = generator.exponential(size=13)
        scores = np.repeat(hardness[:12], 10) + 0.01 * generator.uniform(size=120)
        fresh = hardness[12] + 0.01 * generator.uniform()
        by_image.append(fresh <= conformal_quantile(scores, ALPHA, images=names))
        by_crop.append(fresh <= conformal_quantile(scores, ALPHA))
    error = 4 * math.sqrt(0.09 / 300)
    assert 0.9 - error < np.mean(by_image) < 12 / 13 + error
    assert np.mean(by_crop) < 0.9 - 0.02


def test_the_p_value_of_a_risk_is_never_too_small():
    generator = np.random.default_rng(0)
    for alpha, n in ((0.1, 30), (0.3, 12)):
        losses = generator.binomial(n, alpha, size=4000) / n  # of risk α exactly: the hardest of all losses in [0, 1]
        values = {loss: risk_p_value(loss, alpha, n) for loss in set(losses.tolist())}
        found = np.array([values[loss] for loss in losses.tolist()])
        for level in (0.02, 0.1, 0.3):
            assert np.mean(found <= level) < level + 4 * math.sqrt(level / 4000)
        assert sorted(values.values()) == [values[loss] for loss in sorted(values)]
    # What MAPIE 1.6 gives.
    mapie = {(0.03, 0.1, 50): 0.1609350776, (0.05, 0.1, 100): 0.1565102043, (0.21, 0.3, 40): 0.4377825469}
    assert [risk_p_value(*case) for case in mapie] == pytest.approx(list(mapie.values()), rel=1e-9)
    assert risk_p_value(0.0, 0.1, 22) == pytest.approx(0.9**22)  # no fault in 22 images
    assert risk_p_value(0.0, 0.1, 21) > 0.1 and least_images(0.1, confidence=0.9) == 22


def test_few_images_are_told_how_many_are_needed():
    with pytest.raises(ValueError, match=r"at least 19 images for alpha 0.05; got 9: .* at least 0.1$"):
        conformal_quantile([1.0] * 9, 0.05)
    with pytest.raises(ValueError, match=r"at least 9 images for alpha 0.1; got 2"):
        conformal_quantile([1.0] * 20, 0.1, images=[0, 1] * 10)
    with pytest.raises(ValueError, match=r"at least 22 images to bound a risk by 0.1 with confidence 0.9; got 21"):
        risk_quantile([1.0] * 21, 0.1)
    with pytest.raises(ValueError, match="scores that are numbers"):
        conformal_quantile([1.0, math.nan], 0.5)
    with pytest.raises(ValueError, match="an image's name for each"):
        conformal_quantile([1.0, 2.0], 0.5, images=["a"])
    with pytest.raises(ValueError, match=r"alpha in \(0, 1\); got 1.0"):
        least_images(1.0)
    with pytest.raises(ValueError, match="expected at least 9 images"):
        coverage_range(8, 0.1)


def test_the_fraction_of_images_has_the_exact_binomial_interval():
    found = share_of_images([1.0] * 7 + [0.0] * 3, None)
    exact = stats.binomtest(7, 10).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    everything = share_of_images([1.0] * 10, None)
    assert everything.high == 1.0 and everything.low == pytest.approx(0.025 ** (1 / 10))


# Intervals and masks


@pytest.fixture(scope="module")
def narrow():
    """Pairs that a linear Gaussian model makes, and draws of it at τ = 0.5, half as wide as they should be."""
    flow = LinearGaussianFlow(detail_std=(0.1,))
    hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 150)
    return summarize_pairs(flow_sampler(flow, temperature=0.5), hr, lr, num_samples=30)


def _splits(summaries, n, count, seed=0):
    """Random splits into n to calibrate and the rest, fresh."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        order = generator.permutation(len(summaries))
        yield [summaries[i] for i in order[:n]], [summaries[i] for i in order[n:]]


def _inside(rule, fresh):
    return np.array([1 - float(rule.misses(summary).double().mean()) for summary in fresh])


@pytest.mark.parametrize("width", ["std", "quantiles", "constant"])
def test_intervals_of_pixels_hold_where_the_model_fails(narrow, width):
    covered = [
        _inside(calibrate_intervals(known, alpha=ALPHA, width=width), fresh).mean()
        for known, fresh in _splits(narrow, 19, 30)
    ]
    assert 0.9 - 0.01 < np.mean(covered) < 0.95 + 0.01
    if width != "constant":
        claimed = _inside(PixelIntervals.of_model(width, ALPHA), narrow).mean()
        # Draws half as wide hold what 0.82 standard deviations do, less what 30 draws miss of it.
        assert abs(claimed - (2 * stats.norm.cdf(1.645 / 2) - 1)) < 0.05


def test_intervals_by_image_hold_for_images_and_risk_controlling_ones_for_calibration_sets(narrow):
    kept, risks = [], []
    for known, fresh in _splits(narrow, 40, 40):
        by_image = calibrate_intervals(known, alpha=0.2, guarantee="images", confidence=0.8)
        kept.append((_inside(by_image, fresh) >= 0.8 - 1e-9).mean())
        risks.append(1 - _inside(calibrate_intervals(known, alpha=0.2, guarantee="risk"), fresh).mean())
    assert 0.8 - 0.02 < np.mean(kept) < 0.8 + 1 / 41 + 0.06  # of 16 values the share outside has few values
    assert np.mean(np.array(risks) > 0.2) <= 0.1
    assert np.mean(risks) > 0.05  # a bound that is met by an endless interval would be none


def test_the_right_model_is_left_as_it_is():
    flow = LinearGaussianFlow(detail_std=(0.1,))
    hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 80)
    summaries = summarize_pairs(flow_sampler(flow), hr, lr, num_samples=60)
    assert calibrate_intervals(summaries).threshold == pytest.approx(1.645, abs=0.2)
    assert abs(calibrate_intervals(summaries, width="quantiles").threshold) < 0.04
    too_wide = summarize_pairs(flow_sampler(flow, temperature=2.0), hr, lr, num_samples=60)
    assert calibrate_intervals(too_wide, width="quantiles").threshold < -0.05  # quantiles move together
    assert calibrate_intervals(too_wide).threshold < 1.0


def test_a_score_says_when_the_interval_reaches_the_truth(narrow):
    summary = narrow[0]
    for width in ("std", "quantiles", "constant"):
        scores = pixel_scores(summary, width)
        for threshold in (float(scores.median()), float(scores.max()) + 1e-9):
            rule = PixelIntervals(width, threshold)
            low, high = rule.bounds(summary)
            outside = (summary.truth < low - 1e-12) | (summary.truth > high + 1e-12)
            assert torch.equal(rule.misses(summary), outside)


def test_components_hold_together(narrow):
    box, rest = [], []
    for known, fresh in _splits(narrow, 19, 30):
        rule = calibrate_components(known, alpha=ALPHA)
        held = [rule.holds(summary) for summary in fresh]
        box.append(np.mean([one for one, _ in held]))
        rest.append(np.mean([other for _, other in held]))
    for found in (box, rest):
        assert 0.9 - 0.02 < np.mean(found) < 0.95 + 0.02
    model = ComponentIntervals.of_model(ALPHA, components=3)
    assert np.mean([model.holds(summary)[0] for summary in narrow]) < 0.75
    along, beyond = coefficients(narrow[0])
    off = narrow[0].truth.double() - narrow[0].mean.double()
    assert float(along.square().sum() + beyond.square().sum()) == pytest.approx(float(off.square().sum()), rel=1e-5)
    assert (2 * stats.norm.cdf(model.threshold) - 1) ** 3 == pytest.approx(0.9)


def _uneven(count, seed=0, side=8):
    """Pairs noisier to the right, by a factor that differs from image to image, and draws that know where, but not how
    much: they are a third as wide as they should be on average."""
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(count, 1, side // 2, side // 2, generator=generator)
    noise = torch.linspace(0.005, 0.1, side).expand(1, side, side)
    scale = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    mean = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
    hr = mean + scale * noise * torch.randn(mean.shape, generator=generator)

    def sampler(small, number, g):
        middle = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return middle + 0.33 * noise * torch.randn(number, *middle.shape, generator=g)

    return summarize_pairs(sampler, hr, lr, num_samples=30)


def test_masks_keep_their_promise_where_the_model_fails():
    summaries = _uneven(150)
    model = ConfidenceMask.of_model(0.1, wrong=0.05, channels=1)
    kept, area, claimed = [], [], []
    for known, fresh in _splits(summaries, 19, 30):
        mask = calibrate_mask(known, bound=0.1, wrong=0.05, alpha=ALPHA)
        kept.append(np.mean([mask.kept(summary) for summary in fresh]))
        area.append(np.mean([float(mask.region(summary).double().mean()) for summary in fresh]))
        claimed.append(np.mean([model.kept(summary) for summary in fresh]))
    assert 0.9 - 0.02 < np.mean(kept) < 0.95 + 0.03
    assert np.mean(claimed) < 0.5
    assert 0.3 < np.mean(area) < 0.9  # neither nothing nor everything


def test_a_mask_is_as_large_as_its_image_allows():
    for summary in _uneven(6, seed=1):
        spread, wrong = spread_map(summary), error_map(summary) > 0.1
        found = mask_score(summary, bound=0.1, wrong=0.05)

        def keeps(threshold, spread=spread, wrong=wrong):
            region = spread < threshold
            return int(wrong[region].sum()) <= math.ceil(0.05 * int(region.sum()) - 1e-9)

        levels = [*spread.flatten().tolist(), math.inf]
        right = [level for level in levels if all(keeps(other) for other in levels if other <= level)]
        assert found == max(right)
    assert mask_score(summary, bound=10.0, wrong=0.0) == math.inf
    assert calibrate_mask([summary] * 9, bound=10.0, wrong=0.0).region(summary).all()


def test_results_tell_what_was_promised_and_found(narrow):
    known, fresh = narrow[:40], narrow[40:60]
    names = [i // 2 for i in range(20)]
    rules = {"model": PixelIntervals.of_model("std", ALPHA), "conformal": calibrate_intervals(known)}
    about = {"alpha": ALPHA, "calibrated_on": 40, "images": names}
    intervals = check_intervals(rules, fresh, **about)
    boxes = {"model": ComponentIntervals.of_model(ALPHA, components=3), "conformal": calibrate_components(known)}
    components = check_components(boxes, fresh, pixels=rules["conformal"], **about)
    masks = {
        "model": ConfidenceMask.of_model(0.15, wrong=0.05, channels=1),
        "conformal": calibrate_mask(known, bound=0.15),
    }
    mask = check_masks(masks, fresh, **about)
    for result in (intervals, components, mask):
        told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert "example" not in told and set(told["checks"]) == {"model", "conformal"}
        assert "model" in result.to_text() and "by 40" in result.to_text()
        assert result.plot().axes and result.plot().axes[0].get_title(loc="left")
    found = intervals.checks["conformal"]
    assert found.coverage.value == pytest.approx(_inside(rules["conformal"], fresh).mean())
    assert found.coverage.count == 10  # images, not crops
    low, high = rules["conformal"].bounds(fresh[0])
    assert found.intervals.size(fresh[0]) == pytest.approx(float((high - low).mean()))
    assert "90% of pixels" in intervals.to_text() and "10% of their values outside" in intervals.to_text()
    assert components.pixel_length.value > components.checks["conformal"].length.value
    whole = components.explained.value
    assert 0 < whole < 1


def test_messages(narrow):
    known = narrow[:10]
    with pytest.raises(ValueError, match="with their truth; got one without: summarize_pairs"):
        calibrate_intervals([replace(known[0], truth=None)])
    with pytest.raises(ValueError, match="a width among std, quantiles, constant"):
        calibrate_intervals(known, width="wide")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="claims no constant width"):
        PixelIntervals.of_model("constant", 0.1)
    with pytest.raises(ValueError, match="expected at least 9 images"):
        calibrate_intervals(known, images=["a"] * 10)
    with pytest.raises(ValueError, match=r"alpha in \(0, 1\); got 0.0"):
        calibrate_intervals(known, alpha=0.0, guarantee="images")
    with pytest.raises(ValueError, match=r"confidence in \(0, 1\); got 1.5"):
        calibrate_intervals(known, guarantee="images", confidence=1.5)
    with pytest.raises(ValueError, match=r"at least 19 images for confidence 0.95; got 5: give more"):
        calibrate_intervals(known, guarantee="images", confidence=0.95, images=[i // 2 for i in range(10)])
    with pytest.raises(ValueError, match=r"bound > 0 and wrong in \[0, 1\); got 0.0 and 0.05"):
        calibrate_mask(known, bound=0.0)
    with pytest.raises(ValueError, match="got 10 summaries and 3 names"):
        check_intervals({"a": PixelIntervals.of_model("std", 0.1)}, known, alpha=0.1, calibrated_on=9, images=[1, 2, 3])
    with pytest.raises(ValueError, match="at least one kind of intervals"):
        check_intervals({}, known, alpha=0.1, calibrated_on=9)
    with pytest.raises(ValueError, match="masks of one bound"):
        check_masks({}, known, alpha=0.1, calibrated_on=9)
    with pytest.raises(ValueError, match="at least one kind of intervals"):
        check_components({}, known, alpha=0.1, calibrated_on=9, pixels=PixelIntervals.of_model("std", 0.1))
    flow = LinearGaussianFlow(detail_std=(0.1,))
    pair = torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match="at least 4 draws of each pair; got 3"):
        summarize_pairs(flow_sampler(flow), *pair, num_samples=3)
    with pytest.raises(ValueError, match=r"finite draws of shape \(8, 1, 4, 4\); got \(7, 1, 4, 4\) for pair 0"):
        summarize_pairs(lambda lr, n, g: torch.rand(n - 1, 1, 4, 4), *pair, num_samples=8)
    with pytest.raises(ValueError, match="as many HR as LR images"):
        summarize_pairs(flow_sampler(flow), pair[0][0], pair[1])
