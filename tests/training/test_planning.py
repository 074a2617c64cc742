"""A plan: arithmetic against hand calculation, real steps of every kind of model, and nothing left behind."""

import copy
import os

import pytest
import torch
from cases import tiny
from commands import refused, run

import flowsr
from flowsr.errors import OutOfMemoryError
from flowsr.images import write_image
from flowsr.training import Run, plan, planning, recipe
from flowsr.training.trainer import Trainer

QUIET = Run(accelerator="cpu")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", torch.rand(3, 40, 48))
    return folder


def small(name="nll", **changes):
    return recipe(name, **{"steps": 7200, "batch_size": 16, "crop": 16, "halve_at": (), **changes})


def test_a_line_through_two_timings_is_carried_over_to_processes(images, monkeypatch):
    asked = []

    def steps(self, crops, precision):
        asked.append((crops, precision))
        each = 2.0 + 0.5 * crops
        return [each if precision == "fp32" else each / 2] * 3, 1000

    monkeypatch.setattr(planning._Timing, "steps", steps)
    found = plan(tiny("sr-x4"), images, recipe=small(), run=QUIET, efficiency=0.8)
    assert asked == [(1, "fp32"), (6, "fp32"), (6, "bf16")], "60 s hold four steps of 6 crops at the speed of one"
    assert (found.once, found.each) == (pytest.approx(2.0), pytest.approx(0.5))
    one, eight, many, half, double, other = found.runs
    assert (one.batch_size, one.step_seconds, one.hours) == (16, pytest.approx(10.0), pytest.approx(20.0))
    assert (eight.batch_size, eight.step_seconds) == (16, pytest.approx((2 + 0.5 * 2) / 0.8))
    assert (many.batch_size, many.step_seconds) == (64, pytest.approx(2.5 / 0.8))
    assert many.same_crops_hours == pytest.approx(many.hours / 4)
    assert (half.crop, half.step_seconds) == (8, pytest.approx(2 + 0.5 * 16 / 4))
    assert (double.crop, double.step_seconds) == (32, pytest.approx(2 + 0.5 * 16 * 4))
    assert (other.precision, other.step_seconds) == ("bf16", pytest.approx(5.0))
    assert eight.memory < one.memory < double.memory and half.memory < one.memory
    text = found.to_text()
    assert all(sentence.endswith(".") for sentence in found.assumptions) and max(map(len, text.splitlines())) < 80
    assert "7200 steps of nll" in text and "assumed to reach 80% of ideal scaling" in text


def test_parts_of_a_batch_take_a_step_each(images, monkeypatch):
    monkeypatch.setattr(planning._Timing, "steps", lambda self, crops, precision: ([2.0 + 0.5 * crops] * 3, None))
    found = plan(tiny("sr-x4"), images, recipe=small(), run=Run(accelerator="cpu", accumulate=4), processes=(1, 8))
    assert found.runs[0].step_seconds == pytest.approx(4 * (2 + 0.5 * 4))
    assert found.runs[1].batch_size == 32 and found.runs[1].step_seconds == pytest.approx(4 * 2.5 / 0.9)
    assert "grew by" not in found.to_text() and found.reasons


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("sr-x4", "nll+l1"),
        ("rescaling-x4", "rescaling"),
        ("glow", "nll"),
        pytest.param("sr-x4", "nll+l1+perceptual+gan", marks=pytest.mark.slow),
    ],
)
def test_real_steps_are_timed_and_leave_nothing_behind(images, monkeypatch, name, chosen):
    model, made, before = tiny(name, strength=0.05), [], set(os.listdir())
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    step = Trainer.make_step

    def counted(self, batches):
        made.append((len(batches), len(batches[0].hr), self.objective.flow is model))
        return step(self, batches)

    monkeypatch.setattr(Trainer, "make_step", counted)
    changes = {"perceptual": 0.0, "crop": 32} if chosen.endswith("gan") else {}
    found = plan(model, images, recipe=small(chosen, batch_size=3, **changes), run=QUIET, processes=(1,))
    few = 2 if chosen.endswith("gan") else 1
    assert made == [*[(1, few, False)] * 4, *[(1, 3, False)] * 8], "few crops, the batch, and it in the other precision"
    assert found.timed_crops == 3 and len(found.timed_seconds) == 3 and found.device == "cpu"
    assert all(0 < one.hours < 1000 and one.memory > 0 for one in found.runs)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert set(os.listdir()) == before and sorted(os.listdir(images)) == ["0.png", "1.png"]


def test_what_does_not_fit_is_timed_with_fewer_crops(images, monkeypatch):
    steps = planning._Timing.steps

    def refusing(self, crops, precision):
        if crops > 1:
            raise OutOfMemoryError("too many")
        return steps(self, crops, precision)

    monkeypatch.setattr(planning._Timing, "steps", refusing)
    found = plan(tiny("sr-x4"), images, recipe=small(batch_size=4), run=QUIET, processes=(1,))
    assert found.timed_crops == 1 and found.once == 0.0
    assert found.runs[0].step_seconds == pytest.approx(4 * found.each)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"processes": ()}, r"expected numbers of processes >= 1; got \(\)"),
        ({"processes": (1, 0)}, "expected numbers of processes >= 1"),
        ({"efficiency": 0.0}, r"expected an efficiency in \(0, 1\]; got 0.0"),
        ({"step_seconds": -1.0}, "expected step_seconds to be finite and > 0; got -1.0"),
        ({"recipe": "rescaling"}, "expected a recipe for super-resolution"),
    ],
)
def test_mistakes_are_said(images, options, words):
    with pytest.raises(ValueError, match=words):
        plan(tiny("sr-x4"), images, **{"recipe": small(), "run": QUIET, **options})


def test_a_dry_run_writes_nothing(images, tmp_path):
    flowsr.save(tiny("sr-x4", strength=0.05), tmp_path / "model.safetensors")
    out = tmp_path / "run"
    command = ["train", images, "--model", tmp_path / "model.safetensors", "--out", out, "--device", "cpu", "--dry-run"]
    command += ["--set", "steps=100 batch_size=2 crop=16", "--processes", "1,4"]
    said = run(*command)
    assert said.exit_code == 0, said.output
    assert "100 steps of nll" in said.stdout and "ideal scaling" in said.stdout and not out.exists()
    given = run(*command, "--step-seconds", "36", "--quiet")
    assert given.exit_code == 0 and not given.stdout and not out.exists()
    assert refused(run(*command[:-1], "1,many"), "expected whole numbers with commas between for --processes")
    run_of_eight = [part for part in command[:-1] if part != "--dry-run"] + ["8"]
    assert refused(run(*run_of_eight), "expected --processes with --dry-run; got a run") and not out.exists()
    assert refused(run(*command, "--efficiency", "2"), "expected an efficiency in (0, 1]; got 2.0")
