"""Commands on images that do not fit: in tiles, in the memory they were given, with the files of the whole image."""

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


@pytest.fixture
def cut(monkeypatch):
    """A machine with so little memory that images of 200 pixels are cut."""
    monkeypatch.setattr("flowsr.models.memory.free_memory", lambda device: 130_000_000)
    monkeypatch.setattr("flowsr.models.memory._SURELY", {"encode": 2**30, "draw": 2**30, "train": 2**30})


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


def test_a_sample_in_tiles_is_the_sample(cut, tmp_path):
    path = _photograph(tmp_path / "a.png", 101, 80)
    tiled = run("sample", path, "--out", tmp_path / "tiled", "--temperature", 0, "--temperature", 0.8)
    assert tiled.exit_code == 0, tiled.output
    assert "Sampling" in tiled.stderr and "2/2" not in tiled.stderr
    whole = run("sample", path, "--out", tmp_path / "whole", "-t", 0, "-t", 0.8, "--max-memory", "900GiB")
    assert whole.exit_code == 0
    for name in ("a_tau0_0.png", "a_tau0.8_0.png"):
        differs = (_levels(tmp_path / "tiled" / name) - _levels(tmp_path / "whole" / name)).abs()
        assert differs.max() <= 1


@pytest.mark.parametrize("command", ["sample"])
def test_amounts_of_memory_that_are_none_are_refused(command, tmp_path):
    path = _photograph(tmp_path / "a.png", 8, 8)
    for text in ("plenty", "-2GiB", "2 bananas"):
        result = run(command, path, "--out", tmp_path / "new", "--max-memory", text)
        assert refused(result, "--max-memory: expected an amount of memory", "such as 2GiB or 800MB; got")
        assert not (tmp_path / "new").exists()
