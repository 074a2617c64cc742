"""The time of a decode against that of its convolutions alone: what is counted, and what the command prints."""

import re

import pytest
import torch
from cases import tiny


def test_the_bare_convolutions_are_those_of_the_decode():
    from benchmarks.speed import _RecordConvolutions, bare_convolutions, decode_against_convolutions

    model = tiny("sr-x4")
    lr = torch.rand(2, 3, 4, 4)
    run, count = bare_convolutions(lambda: model.decode(lr))
    with _RecordConvolutions() as own:
        model.decode(lr)
    with _RecordConvolutions() as alone:
        run()
    assert count == len(own.calls) > 50
    assert own.calls == alone.calls, "the same shapes, kernels, paddings and dtypes, in the same order"
    with _RecordConvolutions() as mixed, torch.autocast("cpu", torch.bfloat16):
        model.decode(lr)
    assert {call[-1] for call in mixed.calls} == {torch.float32, torch.bfloat16}, "1x1 convolutions stay in float32"
    with pytest.raises(ValueError, match=r"images given their LR images for timing a decode.*got Glow"):
        decode_against_convolutions(tiny("glow"))
    with pytest.raises(ValueError, match="expected repeats >= 1; got 0"):
        decode_against_convolutions(model, repeats=0)


def test_the_command_prints_a_ratio(capsys, monkeypatch):
    from benchmarks import speed

    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(speed, "from_preset", tiny)
    speed.main(["--model", "sr-x4", "--size", "4", "--batch", "1", "--repeats", "1"])
    printed = capsys.readouterr().out
    for name in ("float32", "bfloat16"):
        decode, alone, ratio = map(float, re.search(rf"{name} +([\d.]+)s +([\d.]+)s +([\d.]+)", printed).groups())
        assert decode > 0 and alone >= 0 and ratio > 0.5
