"""Results become JSON and tables; bootstrap intervals cover what they say."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from flowsr._support.json import to_plain
from flowsr.results import Result, text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval


@dataclass(frozen=True)
class _Part:
    value: torch.Tensor


@dataclass(frozen=True)
class _Whole(Result):
    part: _Part
    name: str
    interval: Interval


def test_results_are_strict_json():
    whole = _Whole(_Part(torch.tensor([1.0, math.nan])), "a", Interval(1.0, -math.inf, np.float64(2.0)))
    text = json.dumps(whole.to_dict(), allow_nan=False)
    assert json.loads(text)["part"]["value"] == [1.0, "nan"]
    assert json.loads(text)["interval"]["low"] == "-inf"
    with pytest.raises(TypeError, match="expected a value that JSON can hold"):
        to_plain(object())


def test_tables_refuse_ragged_rows():
    with pytest.raises(ValueError, match="expected 2 cells"):
        text_table(["a", "b"], [["1"]])


def test_intervals_of_means_cover_the_mean():
    rng = np.random.default_rng(0)
    covered = [0.0 in bootstrap_interval(rng.normal(size=25), num_resamples=400, seed=i) for i in range(200)]
    assert 0.88 < np.mean(covered) < 0.99


def test_intervals_of_two_samples_and_degenerate_ones():
    def difference(a, b):
        return float(np.mean(a) - np.mean(b))

    rng = np.random.default_rng(1)
    interval = bootstrap_interval(rng.normal(1.0, 1.0, 60), rng.normal(0.0, 1.0, 50), statistic=difference)
    assert 1.0 in interval and interval.high - interval.low < 1.0
    assert bootstrap_interval([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0)
    assert math.isnan(bootstrap_interval([2.0]).low)
    assert f"{Interval(1.0, 0.5, 2.0):.1f}" == "1.0 [0.5, 2.0]"
    assert f"{bootstrap_interval([2.0]):.1f}" == "2.0"  # a single image has no interval


@pytest.mark.parametrize(("sample", "level"), [([], 0.95), ([1.0, math.nan], 0.95), ([1.0, 2.0], 1.0)])
def test_bad_samples_are_refused(sample, level):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_interval(sample, level=level)
