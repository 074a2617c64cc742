"""Results become JSON and tables."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from flowsr._support.json import to_plain
from flowsr.results import Result, text_table
from flowsr.statistics import Interval


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
