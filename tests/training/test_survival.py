"""Real processes, killed and stopped from outside."""

import os
import pty
import random
import select
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from flowsr.images import write_image
from flowsr.training import CheckpointFolder
from flowsr.training.loop import STOPPING

pytestmark = pytest.mark.slow

PROGRAM = """
import sys, torch
torch.set_num_threads(1)
from flowsr.models import HCFlow
from flowsr.training import Data, Run, recipe, train
torch.manual_seed(3)
flow = HCFlow.from_preset("sr-x4-small", start="haar", steps=2, conditional_steps=1, hidden_channels=8, features=4,
                          conditional_hidden_channels=8, growth=4)
chosen = recipe("nll", steps=int(sys.argv[3]), halve_at=(), learning_rate=1e-3, batch_size=2, crop=32)
run = Run(accelerator="cpu", progress=False, pictures=False, validate_every=0, log_every=1, checkpoint_every=5)
data = Data(folders=sys.argv[1], workers=int(sys.argv[4]))
done = train(flow, data, out=sys.argv[2], recipe=chosen, run=run, resume=True)
sys.exit(128 + done.interrupted if done.interrupted else 0)
"""


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", torch.rand(3, 40, 40))
    return folder


def start(images, out, steps, workers=0):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(images), str(out), str(steps), str(workers)],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )


def wait_for_rows(process, out, rows, timeout=120):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        log = out / "train.csv"
        if log.exists() and log.read_text().count("\n") > rows:
            return
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)
    raise AssertionError(f"no {rows} steps within {timeout} s")


def test_killed_runs_lose_at_most_the_interval_and_end_where_they_would_have(images, tmp_path):
    steps = 60
    whole = start(images, tmp_path / "whole", steps)
    assert whole.wait(300) == 0, whole.stderr.read().decode()
    whole.stderr.close()
    out = tmp_path / "killed"
    seen = 0
    for moment in (random.Random(1).randint(8, 15), random.Random(2).randint(30, 45)):
        process = start(images, out, steps)
        wait_for_rows(process, out, moment)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stderr.close()
        assert process.returncode == -signal.SIGKILL
        made = (out / "train.csv").read_text().count("\n") - 1
        saved = CheckpointFolder(out / "checkpoints").read_last()[0]
        assert saved >= made - 5
        assert saved > seen
        seen = saved
    last = start(images, out, steps)
    assert last.wait(300) == 0, last.stderr.read().decode()
    last.stderr.close()
    expected, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert set(expected) == set(found)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_to_the_whole_group_saves_and_exits(interruptible, images, tmp_path, number):
    out = tmp_path / "run"
    process = start(images, out, 100_000, workers=1)
    wait_for_rows(process, out, 6)
    os.killpg(process.pid, number)
    assert process.wait(60) == 128 + number, process.stderr.read().decode()
    process.stderr.close()
    steps = (out / "train.csv").read_text().count("\n") - 1
    assert CheckpointFolder(out / "checkpoints").read_last()[0] == steps
    assert (out / "model.safetensors").exists()


def test_a_terminal_that_is_closed_stops_a_run_as_sigterm_does(interruptible, images, tmp_path):
    """It sends SIGHUP, the shell in it perhaps another, and nothing can be printed any more."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "flowsr", "train", str(images), "--out", str(out), "--device", "cpu"]
    command += ["--set", "steps=100000 crop=16 batch_size=1", "--log-every", "1", "--checkpoint-every", "100000"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command)
    end = time.monotonic() + 120
    while not ((out / "train.csv").exists() and (out / "train.csv").read_text().count("\n") > 3):
        assert time.monotonic() < end
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    os.kill(child, signal.SIGHUP)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) > 0  # it left by itself
    steps = (out / "train.csv").read_text().count("\n") - 1
    assert CheckpointFolder(out / "checkpoints").read_last()[0] == steps
    assert (out / "model.safetensors").exists() and not (out / ".flowsr.lock").exists()


def test_a_background_job_of_a_script_ignores_the_interrupt_of_its_terminal(images, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start such jobs; inherited
    try:
        process = start(images, tmp_path, 100_000)
    finally:
        signal.signal(signal.SIGINT, before)
    wait_for_rows(process, tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    wait_for_rows(process, tmp_path, (tmp_path / "train.csv").read_text().count("\n") + 5)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM, process.stderr.read().decode()
    process.stderr.close()
