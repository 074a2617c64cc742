"""One writer for each folder: a second run or command is refused in words, and a killed one is in nobody's way."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from cases import tiny
from commands import refused, run

import flowsr
from flowsr._support.atomic import atomic_path
from flowsr._support.lock import sole_writer
from flowsr.cli.app import app
from flowsr.images import write_image
from flowsr.training import Run, recipe, train

HOLDS = """
import sys, time
from flowsr._support.lock import sole_writer
from flowsr.cli.app import app
with sole_writer(sys.argv[1], file=sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """Start a process that writes into a folder; killed at the end."""
    started = []

    def start(folder, file=""):
        process = subprocess.Popen([sys.executable, "-c", HOLDS, folder, file], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        for name in ("sr-x4", "rescaling-x4"):
            flowsr.save(tiny(name, strength=0.05).float(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png", torch.rand(3, 32, 32))
    return tmp_path / "images"


COMMANDS = {
    "sample": ("sample", "IMAGES", "--model", "sr-x4"),
    "score": ("score", "IMAGES", "--model", "sr-x4"),
    "evaluate": ("evaluate", "IMAGES", "--model", "sr-x4"),
    "compare": ("compare", "MODELS/sr-x4.safetensors", "MODELS/sr-x4.safetensors", "IMAGES"),
    "study": ("study", "uncertainty", "IMAGES", "--model", "sr-x4"),
    "downscale": ("downscale", "IMAGES", "--model", "rescaling-x4"),
    "upscale": ("upscale", "IMAGES", "--model", "sr-x4"),
    "demo": ("demo", "--smoke"),
    "train": ("train", "IMAGES", "--model", "sr-x4", "--set", "crop=16", "--device", "cpu"),
}


def command(name, models, images, *more):
    words = [word.replace("MODELS", str(models)).replace("IMAGES", str(images)) for word in COMMANDS[name]]
    place = words.index("--model") + 1 if "--model" in words else None
    if place is not None:
        words[place] = models / f"{words[place]}.safetensors"
    return (*words, *more)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_writes_refuses_a_folder_that_another_one_writes_to(name, models, images, tmp_path, held):
    out = tmp_path / "out"
    other = held(out)
    result = run(*command(name, models, images, "--out", out))
    assert refused(result, f"process {other.pid} is writing to {out}: wait until it is done, or choose another --out")
    assert os.listdir(out) == [".flowsr.lock"]


def test_commands_that_write_one_file_refuse_that_file_alone(models, images, tmp_path, held):
    other = held(tmp_path, "page.html")
    words = ("report", images / "a.png", "--model", models / "sr-x4.safetensors", "--out", tmp_path / "page.html")
    assert refused(run(*words), f"process {other.pid} is writing to {tmp_path}")
    with sole_writer(tmp_path, file="other.html"):
        assert (tmp_path / ".flowsr.other.html.lock").exists()


def test_every_command_that_writes_is_among_these():
    writes = {
        command.name
        for command in app.registered_commands
        if {"out", "destination"} & set(inspect.signature(command.callback).parameters)
    }
    assert writes == {*COMMANDS, "report", "import"}


def test_the_lock_goes_with_its_holder_however_it_ends(models, images, tmp_path, held):
    out = tmp_path / "out"
    words = command("sample", models, images, "--out", out)
    for number in (signal.SIGKILL, signal.SIGTERM):
        other = held(out)
        assert run(*words, "--force").exit_code == 2
        other.send_signal(number)
        other.wait(30)
        assert run(*words, "--force").exit_code == 0
        assert sorted(os.listdir(out)) == ["a_tau0.8_0.png", "samples.json"]


def test_a_run_refuses_a_folder_and_is_refused_in_it(images, tmp_path, held):
    out, settings = tmp_path / "out", {"run": Run(accelerator="cpu", progress=False, pictures=False)}
    settings["recipe"] = recipe("nll", steps=1, crop=16, batch_size=1, halve_at=())
    other = held(out)
    with pytest.raises(BlockingIOError, match=f"process {other.pid} is writing to {out}: wait until it is done"):
        train(tiny("sr-x4").float(), images, out=out, **settings)
    other.kill()
    other.wait()

    def second(hr, *, upscale, generator):
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} is writing to {out}"), sole_writer(out):
            pass
        return flowsr.images.bicubic_down(hr, upscale)

    data = flowsr.training.Data(folders=images, degradation=second)
    train(tiny("sr-x4").float(), data, out=out, **settings)
    with sole_writer(out):
        assert (out / "run.json").exists()
    assert ".flowsr.lock" not in os.listdir(out)


def test_processes_that_were_forked_do_not_hold_the_lock(tmp_path):
    """Workers outlive a killed run for seconds."""
    out = tmp_path / "out"
    with sole_writer(out):
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        (out / "kept").touch()
    try:
        with sole_writer(out):
            assert sorted(os.listdir(out)) == [".flowsr.lock", "kept"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_many_at_once_are_never_two(tmp_path):
    """Each takes the lock and gives it back at once, while the others try: the file comes and goes."""
    program = """
import os, sys, time
from flowsr._support.lock import sole_writer
from flowsr.cli.app import app
out, end, taken = sys.argv[1], time.monotonic() + 1.5, 0
while time.monotonic() < end:
    try:
        with sole_writer(out):
            mine = os.open(os.path.join(out, "alone"), os.O_CREAT | os.O_EXCL)
            os.close(mine)
            os.unlink(os.path.join(out, "alone"))
            taken += 1
    except BlockingIOError:
        pass
print(taken)
"""
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-c", program, str(tmp_path / "out")]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], answers
    assert all(int(out) > 0 for out, _ in answers)


def test_a_refusal_leaves_no_folder_and_what_was_there_stays(models, images, tmp_path):
    out = tmp_path / "new" / "deep"
    assert run("sample", images, "--model", tmp_path / "none.safetensors", "--out", out).exit_code == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    assert run("sample", images, "--model", tmp_path / "none.safetensors", "--out", tmp_path / "empty").exit_code == 2
    assert (tmp_path / "empty").exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("flowsr._support.lock.fcntl.flock", no_locks)
    with pytest.warns(UserWarning, match="out is on a file system without locks"), sole_writer(tmp_path / "out"):
        (tmp_path / "out" / "a").touch()
    assert (tmp_path / "out" / "a").exists()


def test_the_processes_of_one_job_hold_it_together(tmp_path, monkeypatch):
    with sole_writer(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with sole_writer(tmp_path):
            pass
        assert ".flowsr.lock" in os.listdir(tmp_path)


def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, monkeypatch):
    def refused(**given):
        raise PermissionError(13, "Permission denied", f"{given['dir']}/{given['prefix']}x")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    with pytest.raises(PermissionError, match=r"expected a folder that may be written to; got .*: change") as raised:
        flowsr.save(flowsr.HCFlow.from_preset("sr-x4-small"), tmp_path / "model.safetensors")
    assert ".flowsr-" not in str(raised.value)


def test_what_was_left_long_ago_is_swept_and_what_is_being_written_is_not(tmp_path):
    with atomic_path(tmp_path / "page.html") as writing:
        (tmp_path / ".flowsr-old.png").touch()
        os.utime(tmp_path / ".flowsr-old.png", (1, 1))
        with sole_writer(tmp_path):
            assert not (tmp_path / ".flowsr-old.png").exists()
        writing.write_text(json.dumps("whole"))
    assert (tmp_path / "page.html").read_text() == '"whole"'
