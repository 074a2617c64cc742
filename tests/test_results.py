"""Results become JSON and tables."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from flowsr._support.json import to_plain
from flowsr.results import Card, Figure, Result, text_table
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


def _figure(value=None, *, key="psnr", reason="", convention="RGB, border 4"):
    return Figure(key=key, name=key.upper(), convention=convention, unit="dB", value=value, reason=reason)


def test_a_figure_needs_a_convention_and_either_a_value_or_a_reason():
    with pytest.raises(ValueError, match="convention for PSNR"):
        _figure(1.0, convention="")
    with pytest.raises(ValueError, match="or else a reason why there is none; got neither"):
        _figure()
    with pytest.raises(ValueError, match="or else a reason"):
        _figure(1.0, reason="and a reason")
    with pytest.raises(ValueError, match="PSNR without: no weights"):
        float(_figure(reason="no weights"))


def test_a_figure_is_the_same_in_all_its_renderings():
    bounded = _figure(Interval(28.0, 27.5, 28.5, count=5))
    assert bounded.to_dict() == {
        "key": "psnr",
        "name": "PSNR",
        "unit": "dB",
        "convention": "RGB, border 4",
        "value": 28.0,
        "interval": {"low": 27.5, "high": 28.5, "level": 0.95, "count": 5},
        "reason": None,
    }
    assert bounded.cell == "28.00 [27.50, 28.50] (n = 5)"
    alone = _figure(Interval(28.0, math.nan, math.nan))
    assert alone.cell == "28.00" and alone.to_dict()["interval"] is None
    assert _figure(math.inf).to_dict()["value"] == "inf"
    missing = _figure(reason="no weights").to_dict()
    assert missing["value"] is None and missing["reason"] == "no weights"


def test_a_card_has_a_row_for_each_convention_and_says_what_is_missing_everywhere():
    card = Card(
        "card",
        {
            "a": (_figure(28.0), _figure(reason="one draw", key="std"), _figure(reason="no weights", key="lpips")),
            "b": (_figure(29.0, convention="Y"), _figure(2.0, key="std"), _figure(reason="no weights", key="lpips")),
        },
    )
    assert [row.cells for row in card.rows] == [["28.00", "–"], ["–", "2.00"], ["–", "–"], ["–", "29.00"]]
    assert [row.reasons for row in card.rows] == [[], [], ["no weights"], []]
    assert card.to_text().count("unavailable") == 1
    assert card.to_csv() == "column,psnr,std,lpips\na,28.0,,\nb,29.0,2.0,\n"
    figures = card.to_dict()["figures"]
    assert [(f["column"], f["key"], f["value"], f["reason"]) for f in figures[1:3]] == [
        ("a", "std", None, "one draw"),
        ("b", "std", 2.0, None),
    ]
