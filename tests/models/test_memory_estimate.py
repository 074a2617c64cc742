"""What a pass takes is estimated near what it takes, and refused in words where it does not fit."""

import json
import subprocess
import sys

import pytest
import torch
from commands import refused, run

import flowsr
from flowsr._support.free_memory import free_memory
from flowsr.cli.guard import shortage
from flowsr.errors import CheckpointError, OutOfMemoryError
from flowsr.images import write_image
from flowsr.models.memory import memory_estimate, require_memory
from flowsr.training import set_memory

# In a process of its own, as a peak never falls.
_MEASURE = """
import json, sys, torch
torch.set_num_threads(1)
import flowsr
from flowsr.models.memory import memory_estimate
name, side, train = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "train"
flow = flowsr.models.from_preset(name)
estimated = memory_estimate(flow, (side, side), task=sys.argv[3])
status = lambda name: int(open("/proc/self/status").read().split(name)[1].split()[0]) * 1024
before = status("VmRSS:")
hr = torch.rand(1, 3, side, side)
lr = None if name.startswith("glow") else torch.rand(1, 3, side // 4, side // 4)
with torch.set_grad_enabled(train):
    if sys.argv[3] == "draw":
        flow.sample(lr[0])
    else:
        total = sum(term.value.sum() for term in flow.log_likelihood_terms(hr, lr))
    if train:
        total.backward()
print(json.dumps([estimated, status("VmHWM:") - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux tells it")
@pytest.mark.parametrize(
    ("preset", "side", "task"),
    [
        ("sr-x4-small", 512, "encode"),
        pytest.param("sr-x4-small", 512, "draw", marks=pytest.mark.slow),
        pytest.param("rescaling-x4-small", 640, "encode", marks=pytest.mark.slow),
        pytest.param("sr-x4-small", 1024, "draw", marks=pytest.mark.slow),
        pytest.param("sr-x4-small", 320, "train", marks=pytest.mark.slow),
        pytest.param("glow-small", 384, "train", marks=pytest.mark.slow),
    ],
)
def test_estimates_are_near_what_is_measured(preset, side, task):
    command = [sys.executable, "-c", _MEASURE, preset, str(side), task]
    runs = [
        subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(1 if task == "train" else 3)
    ]
    # What is given back in time differs from run to run: what takes most must fit.
    (estimated, *_), measured = zip(*(json.loads(run.stdout) for run in runs), strict=True)
    low, high = (0.6, 1.7) if task == "train" else (0.75, 1.25)
    assert low < estimated / max(measured) < high, (estimated, measured)


@pytest.mark.parametrize(
    ("preset", "task"),
    [
        ("sr-x4-small", "draw"),
        ("sr-x4-small", "train"),
        ("sr-x4-small", "infer"),
        ("srflow-x4-small", "draw"),
        ("glow-small", "encode"),
    ],
)
def test_estimates_grow_with_pixels_and_leave_nothing_behind(preset, task):
    flow = flowsr.from_preset(preset)
    state = torch.get_rng_state()
    first, second, four = (
        memory_estimate(flow, size, batch=batch, task=task)
        for size, batch in (((1024, 1024), 1), ((2048, 2048), 1), ((1024, 1024), 4))
    )
    assert second == four and 3 < second / first < 4.01
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in flow.parameters())


def test_memory_modes_are_estimated_too():
    flow = flowsr.from_preset("sr-x4-small")
    full = memory_estimate(flow, (512, 512), task="train")
    set_memory(flow, "checkpoint")
    assert memory_estimate(flow, (512, 512), task="train") < 0.4 * full


@pytest.mark.skipif(sys.platform != "linux", reason="free memory is read where Linux tells it")
def test_processes_of_one_machine_share_its_memory(monkeypatch):
    alone = free_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert alone is not None and 0.2 < free_memory() / alone < 0.3


def test_what_does_not_fit_is_refused_before_it_is_begun():
    flow = flowsr.from_preset("sr-x4-small")
    said = (
        r"expected work that fits into memory; drawing, .* takes about [0-9.]+ GB, and [0-9.]+ GB are free: take less"
    )
    with pytest.raises(OutOfMemoryError, match=said):
        require_memory(flow, (400_000, 400_000), task="draw", what="drawing", instead="take less")
    require_memory(flow, (64, 64), task="draw", what="drawing", instead="take less")


IN_TILES = ("sample", "upscale", "downscale", "score")
"""Commands that need memory for a tile only, and take no more than three quarters of what is free by themselves."""


@pytest.fixture
def little(monkeypatch):
    """A machine with too little memory for anything."""
    monkeypatch.setattr("flowsr.models.memory.free_memory", lambda device: 10_000_000)


@pytest.mark.parametrize("command", ["sample", "upscale", "score", "evaluate", "compare", "downscale", "report"])
def test_commands_say_what_does_not_fit(command, little, tmp_path):
    write_image(tmp_path / "a.png", torch.rand(3, 32, 32))
    models = ["sr-x4-small", "sr-x4-small"] if command == "compare" else []
    out = tmp_path / "new" / "page.html" if command == "report" else tmp_path / "new"
    result = run(command, *models, tmp_path / "a.png", "--out", out)
    left = "7.5 MB may be taken" if command in IN_TILES else "10.0 MB are free"
    assert refused(result, "a.png, ", "takes about", f"and {left}: take a smaller image")
    assert not list(tmp_path.glob("new/*"))


def test_training_says_what_does_not_fit(little, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "in" / name, torch.rand(3, 40, 40))
    result = run("train", tmp_path / "in", "--out", tmp_path / "run", "--set", "crop=32 batch_size=2 steps=1")
    assert refused(result, "a training step, 2 images of 32 × 32 pixels, takes about", "--memory checkpoint")
    assert not (tmp_path / "run").exists()


def test_out_of_memory_is_a_sentence_whatever_it_was_taken_for():
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(2**60)
    assert shortage(cpu.value).startswith("out of memory: ") and "GB more were asked for" in shortage(cpu.value)
    damaged = CheckpointError("expected a complete file; it is damaged")
    damaged.__cause__ = MemoryError()
    assert shortage(damaged).startswith("out of memory: more was asked for than there is: take a smaller image")
    cuda = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB")
    assert shortage(cuda).startswith("out of memory: 2.1 GB more were asked for")
    assert shortage(RuntimeError("a bug")) == "" and shortage(OutOfMemoryError("its own words")) == ""


def test_no_memory_is_not_a_lack_of_limits(monkeypatch):
    for told, free in (([0, 5], 0), ([-3], 0), ([7, 5], 5), ([], None)):
        monkeypatch.setattr("flowsr._support.free_memory._of_system", lambda told=told: iter(told))
        for other in ("_of_control_groups", "_of_limits"):
            monkeypatch.setattr(f"flowsr._support.free_memory.{other}", lambda: iter(()))
        if sys.platform == "linux":
            assert free_memory("cpu") == free


def test_a_limit_of_the_shell_counts(tmp_path):
    code = "from flowsr._support.free_memory import free_memory; print(free_memory())"
    free = free_memory()
    if free is None:
        pytest.skip("nothing here tells how much memory is free")
    command = f"ulimit -v 4000000; {sys.executable} -c '{code}'"
    limited = int(subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout)
    assert 0 < limited < 4_000_000 * 1024
