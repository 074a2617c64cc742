"""The fuzzers of files and answers: short runs of them meet no end that must not be, and they would see one."""

import pickle
import socket

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.fuzz import downloads, models, official
from benchmarks.fuzz.trial import Trial, outcome
from flowsr.errors import FlowsrError


@pytest.fixture(scope="module")
def saved():
    return models.originals()["sr-x4-small"]


@pytest.fixture(scope="module")
def released():
    return official.originals()["sr-x4-small-v1"]


@pytest.mark.parametrize("fuzz", [models, official, downloads])
def test_a_short_run_meets_no_end_that_must_not_be(fuzz):
    trial = fuzz.run(seconds=2.0, seed=3)
    assert trial.counts["refused"] >= 5
    assert not trial.failures, trial.failures[0][:2]


def test_a_whole_file_is_the_same_and_a_damaged_one_refused(saved, released, tmp_path):
    trial = Trial()
    for content in (saved[0], saved[0][:-1]):
        models.try_file(trial, tmp_path / "a.safetensors", content, saved[1])
    for content in (released[0], released[0][:-1]):
        official.try_file(trial, tmp_path / "a.pth", content, released[1], tmp_path / "canary")
    assert trial.counts == {"same": 2, "refused": 2}


def test_what_loads_as_another_model_is_seen(saved, tmp_path, monkeypatch):
    trial = Trial()
    monkeypatch.setattr("flowsr.models.storage.content_digest", lambda _tensors, facts: found)
    content = bytearray(saved[0])
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    found = models._split(saved[0])[0]["__metadata__"]["content_sha256"]
    content[-3] ^= 64
    models.try_file(trial, path, bytes(content), saved[1])
    assert trial.counts == {"different": 1}
    assert trial.failures[0][2] == bytes(content)
    assert len(load_file(path)) == len(saved[1].state_dict())


def test_code_that_runs_is_seen(released, tmp_path, monkeypatch):
    trial, canary = Trial(), tmp_path / "canary"
    content = official.hostile_pickle(canary)
    official.try_file(trial, tmp_path / "a.pth", content, released[1], canary)
    monkeypatch.setattr(torch, "load", lambda path, **_: pickle.loads(path.read_bytes()))
    official.try_file(trial, tmp_path / "a.pth", content, released[1], canary)
    assert trial.counts == {"refused": 1, "ran code": 1}
    assert not canary.exists()


def test_ends_that_must_not_be_have_names(monkeypatch):
    monkeypatch.setattr("benchmarks.fuzz.trial.MOST_SECONDS", 0.02)

    def fail(error):
        raise error

    def hang():
        while True:
            pass

    error = FlowsrError("short")
    assert outcome(lambda: fail(error)) == "refused"
    error.args = ("x" * 2000,)
    assert outcome(lambda: fail(error)) == "refused at length"
    assert outcome(lambda: fail(KeyError())) == "raised KeyError"
    assert outcome(hang) == "took long"
    monkeypatch.setattr("benchmarks.fuzz.trial.MOST_BYTES", 2**22)
    monkeypatch.setattr("benchmarks.fuzz.trial._peak", iter((0, 2**30)).__next__)
    assert outcome(lambda: "same") == "took much memory"


def test_what_stays_in_a_cache_is_seen(released, tmp_path, monkeypatch):
    trial, (body, flow) = Trial(), released
    with downloads.serving() as server:
        downloads.try_answer(trial, tmp_path / "cache", server, downloads.whole(body), flow)
        downloads.try_answer(trial, tmp_path / "cache", server, downloads.whole(b"<html>"), flow)
        monkeypatch.setattr("flowsr._support.downloads.atomic_path", _not_atomic)
        downloads.try_answer(trial, tmp_path / "cache", server, downloads.whole(b"<html>"), flow)
    assert trial.counts == {"same": 1, "refused": 1, "kept what was refused": 1}


class _not_atomic:
    """In the place of a function: a file that is written where it shall stand."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        return None


def test_the_server_answers_and_resets():
    with downloads.serving() as server:
        server.answer = downloads.Answer(b"HTTP/1.1 200 OK\r\n\r\nyes", "reset")
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while connection.recv(100):
                    pass
