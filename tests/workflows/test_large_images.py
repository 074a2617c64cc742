"""Commands on images that do not fit: in tiles, in the memory they were given, with the files of the whole image."""

import json
import subprocess
import sys

import pytest
import torch
from commands import refused, run

from flowsr.images import read_image, write_image

# In a process of its own, as a peak never falls.
_MEASURED = """
import sys, torch
torch.set_num_threads(1)
from flowsr.cli import main
sys.argv[0] = "flowsr"
try:
    main()
finally:
    print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024)
"""


FORMER = ("--model", "sr-x4-small-v1")  # whose wide encoders do not fit into what `cut` leaves


@pytest.fixture
def cut(monkeypatch):
    """From when it is called on, a machine with so little memory that images of 400 pixels are cut."""

    def apply():
        monkeypatch.setattr("flowsr.models.memory.free_memory", lambda device: 130_000_000)
        monkeypatch.setattr("flowsr.models.memory._SURELY", {"encode": 2**30, "draw": 2**30, "train": 2**30})

    return apply


def _photograph(path, height, width):
    noise = torch.rand(1, 3, -(-height // 6), -(-width // 6), generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0]
    write_image(path, (image + 0.02 * torch.randn(image.shape)).clamp(0, 1))
    return path


def _levels(path):
    return (read_image(path) * 255).round().int()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux tells it")
@pytest.mark.parametrize(
    ("side", "limit"),
    [
        pytest.param(512, 1.5 * 2**30, marks=pytest.mark.slow),
        pytest.param(1024, 2 * 2**30, marks=pytest.mark.long),
    ],
)
def test_sampling_stays_within_its_memory(side, limit, tmp_path):
    path = _photograph(tmp_path / "a.png", side, side)
    words = ["sample", str(path), "--out", str(tmp_path / "out"), "--max-memory", f"{limit / 2**30}GiB", "--quiet"]
    command = [sys.executable, "-c", _MEASURED, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < limit
    assert read_image(tmp_path / "out" / "a_tau0.8_0.png").shape == (3, 4 * side, 4 * side)


def _both(cut, command, path, folder, *more):
    """What a command says of an image as a whole, and in tiles."""
    said = []
    for name in ("whole", "tiled"):
        if name == "tiled":
            cut()
        result = run(command, path, "--out", folder / name, *more)
        assert result.exit_code == 0, result.output
        said.append(result.stderr)
    return said


def _differ(folder, name):
    return int((_levels(folder / "whole" / name) - _levels(folder / "tiled" / name)).abs().max())


def test_a_sample_in_tiles_is_the_sample(cut, tmp_path):
    path = _photograph(tmp_path / "a.png", 101, 80)
    whole, tiled = _both(cut, "sample", path, tmp_path, *FORMER)
    assert "1/1" in whole and "1/1" not in tiled
    assert _differ(tmp_path, "a_tau0.8_0.png") <= 1


def test_downscaling_in_tiles_is_downscaling(cut, tmp_path):
    path = _photograph(tmp_path / "a.png", 443, 330)  # sides that are no multiples
    whole, tiled = _both(cut, "downscale", path, tmp_path)
    assert "1/1" in whole and "1/1" not in tiled
    assert _differ(tmp_path, "a_LR.png") <= 1


def test_upscaling_in_tiles_is_upscaling(cut, tmp_path):
    path, original = _photograph(tmp_path / "a.png", 111, 83), _photograph(tmp_path / "b.png", 443, 330)
    whole, tiled = _both(cut, "upscale", path, tmp_path, "--original", original)
    assert "1/1" in whole and "1/1" not in tiled
    assert _differ(tmp_path, "a_HR.png") <= 1 and read_image(tmp_path / "tiled" / "a_HR.png").shape == (3, 443, 330)


def test_a_score_in_tiles_is_the_score(cut, tmp_path):
    path = _photograph(tmp_path / "a.png", 402, 317)
    _both(cut, "score", path, tmp_path, "--official", *FORMER)  # with pictures, hence maps
    found = [json.loads((tmp_path / name / "scores.json").read_text())["images"][0] for name in ("whole", "tiled")]
    whole, tiled = found
    values = [scored["figures"]["bits_per_dim"]["value"] for scored in found]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for mine, theirs in zip(tiled["terms"]["terms"], whole["terms"]["terms"], strict=True):
        assert mine["nats"] == pytest.approx(theirs["nats"], rel=1e-5, abs=1.0)
    assert "does not fit into memory" in tiled["figures"]["official_nll"]["reason"]
    assert whole["figures"]["official_nll"]["value"] > 0


@pytest.mark.parametrize("command", ["sample", "upscale", "downscale", "score"])
def test_amounts_of_memory_that_are_none_are_refused(command, tmp_path):
    path = _photograph(tmp_path / "a.png", 8, 8)
    for text in ("plenty", "-2GiB", "2 bananas"):
        result = run(command, path, "--out", tmp_path / "new", "--max-memory", text)
        assert refused(result, "--max-memory: expected an amount of memory", "such as 2GiB or 800MB; got")
        assert not (tmp_path / "new").exists()
