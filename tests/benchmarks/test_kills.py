"""The fuzzer of kills sees what it looks for, and meets none of it."""

import subprocess
import sys

import pytest
import torch

import flowsr
from benchmarks.fuzz import kills
from flowsr._support.lock import sole_writer
from flowsr.images import write_image


@pytest.mark.parametrize("name", ["a.png", "a.json", "model.safetensors", "step-00000001.ckpt", "evaluation.csv"])
def test_it_sees_files_that_are_not_whole(tmp_path, name):
    assert list(kills.faults(tmp_path)) == []
    whole = {"a.png": b"", "a.json": b'{"a": 1}', "evaluation.csv": b"image,psnr\na,1\nb"}.get(name, b"half a file")
    if name == "a.png":
        write_image(tmp_path / name, torch.rand(3, 16, 16))
        whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-4] if name.startswith("a.") else whole)
    (fault,) = kills.faults(tmp_path)
    assert fault.startswith(f"{name} is not whole")


def test_it_sees_a_lock_that_is_held_and_other_weights(tmp_path):
    with sole_writer(tmp_path):
        (fault,) = kills.faults(tmp_path)
    assert "is writing to" in fault
    for name, value in {"one": 0.0, "two": 1e-7}.items():
        (tmp_path / name).mkdir()
        flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar", growth=4, **kills._TINY)
        with torch.no_grad():
            for weight in flow.parameters():
                weight.fill_(0.5 + value)
        flowsr.save(flow, tmp_path / name / "model.safetensors")
        (tmp_path / name / "train.csv").write_text("step\n1\n")
    assert kills.weights_fault(tmp_path / "one", tmp_path / "one") == ""
    assert "tensors are not those of the run" in kills.weights_fault(tmp_path / "one", tmp_path / "two")


# In a process of its own: what is forked here would be a fork of the tests, with all that they have started.
WRITES_IN_PLACE = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from benchmarks.fuzz import kills
from flowsr._support import json
@contextmanager
def in_place(path, **_):
    time.sleep(0.3)
    Path(path).write_text("{")
    time.sleep(3)
    yield Path(path)
if sys.argv[1] == "broken":
    json.atomic_path = in_place
    kills._COMMANDS = {"sample": ()}
trial = kills.run(seconds=float(sys.argv[2]), seed=3)
print(trial.counts.total(), len(trial.failures), trial, trial.failures)
"""


def fuzzed(*arguments):
    command = [sys.executable, "-c", WRITES_IN_PLACE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split(" ", 2)


@pytest.mark.slow
def test_it_sees_what_is_written_in_place():
    _, failures, said = fuzzed("broken", "25")
    assert int(failures) > 0 and "half-written" in said


@pytest.mark.slow
def test_kills_lose_nothing():
    tried, failures, said = fuzzed("as it is", "15")
    assert int(tried) >= 3 and int(failures) == 0, said
