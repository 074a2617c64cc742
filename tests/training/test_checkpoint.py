"""Checkpoints are whole or absent, and a bad one is noticed."""

import hashlib
import io
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch

from flowsr.errors import CheckpointError
from flowsr.training import CheckpointFolder, read_checkpoint


def state(value, size=1000):
    return {"weights": torch.full((size,), float(value)), "step": value, "names": ["a", None, (1, 2.5)]}


@pytest.fixture
def checkpoints(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    for step in (10, 20, 30):
        assert folder.write(step, state(step))
    return folder


def test_the_last_ones_are_kept_and_read_back(checkpoints):
    assert checkpoints.steps() == [20, 30]
    step, found = checkpoints.read_last()
    assert step == 30
    assert torch.equal(found["weights"], state(30)["weights"])
    assert found["names"] == ["a", None, (1, 2.5)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:50],
        lambda data: b"",
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        lambda data: b"something else entirely" * 100,
    ],
    ids=["truncated", "header only", "empty", "one bit", "another file"],
)
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(checkpoints, damage):
    path = checkpoints.path(30)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="step-00000030"):
        read_checkpoint(path)
    with pytest.warns(UserWarning, match=r"step-00000030.*falling back to the checkpoint before it"):
        step, found = checkpoints.read_last()
    assert (step, found["step"]) == (20, 20)
    assert checkpoints.steps() == [20]
    # The next writes must not count the damaged one among those kept.
    checkpoints.write(40, state(40))
    assert checkpoints.steps() == [20, 40]


def test_all_damaged_is_an_error_and_none_is_none(checkpoints, tmp_path):
    for step in checkpoints.steps():
        checkpoints.path(step).write_bytes(b"x")
    for _ in range(2):  # asking again must not look like a folder without checkpoints
        with (
            pytest.warns(UserWarning, match="falling back"),
            pytest.raises(CheckpointError, match="all 2 are damaged: start a new run in another folder"),
        ):
            checkpoints.read_last()
    assert CheckpointFolder(tmp_path / "nothing").read_last() is None
    with pytest.raises(ValueError, match="expected keep >= 2"):
        CheckpointFolder(tmp_path, keep=1)


@pytest.fixture
def small_disk():
    # A real failure of write(2), as on a full disk: no file may grow beyond 64 kB.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_last_good_one_and_says_so(checkpoints, small_disk):
    with pytest.warns(
        UserWarning, match=r"could not write the checkpoint of step 40: .*; the last good one is of step 30"
    ):
        assert not checkpoints.write(40, state(40, size=100_000))
    assert checkpoints.steps() == [20, 30]
    assert checkpoints.read_last()[0] == 30
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000020.ckpt", "step-00000030.ckpt"]


DIES_WHILE_WRITING = """
import os, signal, sys
from flowsr._support.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_left_half_written_is_ignored_and_swept(checkpoints):
    command = [sys.executable, "-c", DIES_WHILE_WRITING, str(checkpoints.path(40))]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert len(list(checkpoints.folder.iterdir())) == 3
    assert checkpoints.read_last()[0] == 30
    checkpoints.write(40, state(40))
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000030.ckpt", "step-00000040.ckpt"]


def test_reading_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made by code"),)

    buffer = io.BytesIO()
    torch.save({"weights": Evil()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest().encode()
    path = tmp_path / "step-00000001.ckpt"
    path.write_bytes(b"flowsr training checkpoint 1\n" + digest + b"\n" + content)
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "made by code").exists()


@pytest.mark.parametrize("content", [["a list"], b"\x80\x02garbage", "pipe"])
def test_a_forged_digest_makes_no_checkpoint(tmp_path, content):
    path = tmp_path / "step-00000001.ckpt"
    if content == "pipe":
        os.mkfifo(path)
    else:
        buffer = io.BytesIO(content if isinstance(content, bytes) else b"")
        if isinstance(content, list):
            torch.save(content, buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest().encode()
        path.write_bytes(b"flowsr training checkpoint 1\n" + digest + b"\n" + buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"expected a training checkpoint.*00001\.ckpt.*(list|damaged|pipe)"):
        read_checkpoint(path)
