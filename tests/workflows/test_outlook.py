"""What is said before a very large output: when, in which numbers, and that no answer is waited for."""

import json
import re

import pytest
import torch
from commands import run

import flowsr
from flowsr.images import write_image
from flowsr.models import Tiling
from flowsr.models.memory import memory_estimate
from flowsr.workflows import outlook as module
from flowsr.workflows.outlook import LARGE_OUTPUT, duration, outlook, seconds_per_pixel


@pytest.fixture(scope="module")
def flow():
    return flowsr.load("sr-x4-small")


def test_192_megapixels_are_announced(flow, monkeypatch):
    monkeypatch.setattr(module, "seconds_per_pixel", lambda _: 5e-6)
    tiling = Tiling(size=(12000, 16000), cell=4, core=(500, 500), halo=16)
    said = outlook(flow, [tiling])
    assert said is not None and "of 16000 × 12000 pixels, 192 megapixels in all: up to 576.0 MB of files" in said
    windows = len(tiling) * tiling.window[0] * tiling.window[1]
    assert windows > 192e6 and f"about {duration(5e-6 * windows)} of computing on cpu" in said
    expected = memory_estimate(flow, tiling.window, task="draw")
    assert expected < memory_estimate(flow, tiling.size, task="draw") / 10
    found = re.search(r"about ([0-9.]+) ([GM])B of memory", said)
    assert found and float(found[1]) * {"G": 1e9, "M": 1e6}[found[2]] == pytest.approx(expected, rel=0.05)


def test_the_threshold_is_of_all_draws_of_all_images(flow, monkeypatch):
    monkeypatch.setattr(module, "seconds_per_pixel", lambda _: 1e-6)
    one = Tiling.whole((1000, int(LARGE_OUTPUT) // 4000 - 4), 4)
    assert outlook(flow, [one, one], draws=2) is None
    said = outlook(flow, [one] * 3, draws=2)
    assert said is not None and "6 images of up to 12496 × 1000 pixels, 75 megapixels" in said


def test_time_is_measured_on_the_first_image_that_takes_long_enough(flow, monkeypatch):
    sides = []
    monkeypatch.setattr(module, "_timed", lambda _, side, task: sides.append(side) or side**2 * 1e-5)
    assert seconds_per_pixel(flow) == pytest.approx(1e-5) and sides == [64, 64, 128, 256]
    monkeypatch.undo()
    assert module._timed(flow, 64, "encode") > 0 and module._timed(flow, 64, "draw") > 0


@pytest.mark.parametrize("command", ["sample", "upscale"])
def test_commands_say_it_on_stderr_and_go_on(command, tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)))
    arguments = (command, tmp_path / "a.png", "--model", "sr-x4-small", "--device", "cpu", "--json", "--force")
    monkeypatch.setattr(module, "LARGE_OUTPUT", 1000)
    result = run(*arguments, "--out", tmp_path / "out")
    assert result.exit_code == 0 and json.loads(result.stdout)
    assert result.stderr.index("Note: a large output, of 48 × 32 pixels") < result.stderr.index("Wrote 1 image")


def test_measuring_leaves_the_random_state_alone(flow):
    before = torch.get_rng_state()
    seconds_per_pixel(flow)
    assert torch.equal(torch.get_rng_state(), before)
