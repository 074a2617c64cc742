"""Intervals over images cover what they say, few images and crops of the same image included."""

import math

import numpy as np
import pytest
import torch

from flowsr.statistics import Interval, bootstrap_interval

DRAW = {
    "normal": (lambda rng, n: rng.standard_normal(n), 0.0),
    "lognormal": (lambda rng, n: rng.lognormal(0, 0.5, n), math.exp(0.125)),
    "skewed": (lambda rng, n: rng.lognormal(0, 1, n), math.exp(0.5)),
}


@pytest.mark.parametrize(("name", "least"), [("normal", 0.93), ("lognormal", 0.9), ("skewed", 0.84)])
@pytest.mark.parametrize("n", [2, 3, 5, 8, 20])
def test_few_images_are_covered(name, least, n):
    """A plain bootstrap covers 51 % of normal samples at n = 2, 85 % at n = 5; Student's t 82 % of skewed ones."""
    draw, mean = DRAW[name]
    rng = np.random.default_rng(n)
    covered = np.mean([mean in bootstrap_interval(draw(rng, n), num_resamples=300) for _ in range(600)])
    assert covered > least
    if name == "normal":
        assert covered < 0.99, "not by being endless"


@pytest.mark.parametrize("skewed", [False, True])
def test_crops_of_one_image_count_as_one(skewed):
    """Images differ by 1, crops of one image by 0.2: counted as independent, intervals cover half the time."""
    rng, covered, naive = np.random.default_rng(0), [], []
    for _ in range(300):
        sizes = rng.integers(2, 9, 6)
        own = rng.exponential(1, 6) - 1 if skewed else rng.standard_normal(6)
        crops = np.concatenate([own[i] + 0.2 * rng.standard_normal(size) for i, size in enumerate(sizes)])
        names = [f"image {i}" for i, size in enumerate(sizes) for _ in range(size)]
        interval = bootstrap_interval(crops, clusters=names, num_resamples=300)
        assert interval.count == 6 and math.isclose(interval.value, crops.mean(), abs_tol=1e-12)
        covered.append(0.0 in interval)
        naive.append(0.0 in bootstrap_interval(crops, num_resamples=300))
    assert np.mean(covered) > (0.85 if skewed else 0.92)
    assert np.mean(naive) < 0.75


def test_equal_clusters_are_their_means():
    x = np.random.default_rng(0).standard_normal((7, 4))
    whole = bootstrap_interval(x.ravel(), clusters=np.repeat(np.arange(7), 4).tolist())
    means = bootstrap_interval(x.mean(1))
    assert np.allclose([whole.value, whole.low, whole.high], [means.value, means.low, means.high])


def test_clusters_are_told_apart_by_their_values():
    values, clusters = [1.0, 1.1, 3.0, 3.1], torch.tensor([0, 0, 1, 1])
    assert bootstrap_interval(values, clusters=clusters) == bootstrap_interval(values, clusters=[0, 0, 1, 1])


@pytest.mark.parametrize("exponent", [-900, 900, 1020])
def test_an_interval_scales_with_its_figures(exponent):
    values = np.array([1.0, -1.0, 3.0, 0.25, 2.0, 1.5])
    small, large = bootstrap_interval(values), bootstrap_interval(np.ldexp(values, exponent))
    for end in ("value", "low", "high"):
        assert getattr(large, end) == np.ldexp(getattr(small, end), exponent) != 0


def test_one_resample_of_one_image_many_times_has_no_error_and_is_left_out(monkeypatch):
    class Same:
        def integers(self, low, high, size):
            return np.zeros(size, dtype=int)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Same())
    found = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0], num_resamples=1)
    assert found.low < 1.1 and found.high > 4.9  # those of Student's t


def test_another_statistic_of_two_samples():
    def difference(a, b):
        return float(np.mean(a) - np.mean(b))

    rng = np.random.default_rng(1)
    interval = bootstrap_interval(rng.normal(1.0, 1.0, 60), rng.normal(0.0, 1.0, 50), statistic=difference)
    assert 1.0 in interval and interval.high - interval.low < 1.0 and interval.count == 50
    covered = np.mean(
        [
            0.0 in bootstrap_interval(rng.normal(size=5), rng.normal(size=6), statistic=difference, num_resamples=200)
            for _ in range(200)
        ]
    )
    assert covered > 0.92


def test_degenerate_samples_and_how_few_are_said():
    assert bootstrap_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0, count=3)
    assert math.isnan(bootstrap_interval([2.0]).low)
    assert f"{Interval(1.0, 0.5, 2.0):.1f}" == "1.0 [0.5, 2.0]"
    assert f"{bootstrap_interval([2.0]):.1f}" == "2.0 (n = 1)"  # a single image has no interval
    assert f"{bootstrap_interval([1.0, 2.0, 3.0]):.1f}".endswith("(n = 3)")
    assert "n =" not in f"{bootstrap_interval(range(10)):.1f}"


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (([],), {}, "one figure per image"),
        (([1.0, math.nan],), {}, "finite figures"),
        (([1.0, 2.0],), {"level": 1.0}, "level of confidence"),
        (([1.0, 2.0],), {"clusters": ["a"]}, "a cluster for each of 2"),
        (([1.0, 2.0, 3.0, 4.0, 5.0],), {"num_resamples": 0}, "num_resamples >= 1; got 0"),
        (([1.0, 2.0], [1.0]), {}, "no statistic"),
        (([1.0, 2.0],), {"clusters": ["a", "b"], "statistic": np.median}, "got clusters"),
    ],
)
def test_bad_samples_are_refused(samples, options, words):
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(*samples, **options)
