"""Whole runs in this process: what they leave behind, and that going on gives what going through would have given."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager

import pytest
import torch
from cases import TINY

import flowsr
from flowsr.errors import CheckpointError, ImageError, NonFiniteError
from flowsr.images import read_image, write_image
from flowsr.models import HCFlow
from flowsr.plots import curve_grid
from flowsr.training import CheckpointFolder, Data, Run, recipe, score_images, train
from flowsr.training.crops import derive_seed
from flowsr.training.journal import CsvLog, ProgressBar, read_csv
from flowsr.training.loop import STOPPING
from flowsr.training.objectives import likelihood_loss
from flowsr.training.pictures import draw_curve, run_curves
from flowsr.training.trainer import Trainer

QUICK = {"accelerator": "cpu", "progress": False, "pictures": False, "validate_every": 0, "log_every": 1}


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        # Smooth images: a flow can learn something in a few steps.
        small = torch.rand(3, 6, 6)
        smooth = torch.nn.functional.interpolate(small[None], size=(40 + 4 * i, 48), mode="bilinear")[0]
        write_image(folder / f"image{i}.png", smooth)
    return folder


def tiny(preset="sr-x4-small", **changes):
    torch.manual_seed(8)
    return HCFlow.from_preset(preset, start="haar", **{**TINY, **changes})


def short(steps=6, name="nll", **changes):
    settings = {"learning_rate": 1e-3, "halve_at": (), "batch_size": 4, "crop": 16}
    return recipe(name, steps=steps, **{**settings, **changes})


def equal(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_a_run_leaves_everything_behind(images, tmp_path, capsys):
    out = tmp_path / "run"
    run = Run(**{**QUICK, "pictures": True, "validate_every": 4, "checkpoint_every": 4, "validate_at": (2,)})
    trained = train(tiny(), Data(folders=images, hold_out=2), out=out, recipe=short(8), run=run)
    assert (trained.step, trained.interrupted, trained.skipped) == (8, None, 0)
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["recipe"]["steps"] == 8
    assert manifest["images"] == {"training": 3, "validation": 2, "left_out": []}
    assert torch.__version__.startswith(manifest["versions"]["torch"])
    assert len(manifest["data_fingerprint"]) == 64
    assert manifest["run"]["seed"] == 0
    rows = read_csv(out / "train.csv")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(row["images_per_second"] > 0 and row["bits_per_dim"] > 0 for row in rows)
    validation = read_csv(out / "validation.csv")
    assert [row["step"] for row in validation] == [2, 4, 8]
    assert validation[-1]["bits_per_dim"] < validation[0]["bits_per_dim"]
    assert validation[-1]["bits_per_dim"] == pytest.approx(trained.validation["bits_per_dim"], rel=1e-4)
    assert "step 8: validation, bits/dim: " in capsys.readouterr().out
    grid = read_image(out / "pictures" / "step-00000008.png")
    assert grid.shape == (3, 18 + 256, 512)  # headings over two images
    assert (out / "curve.png").stat().st_size > 5000
    loaded = flowsr.load(out / "model.safetensors")
    assert equal(loaded, trained.flow)
    assert loaded.provenance["step"] == 8
    assert not trained.flow.training


def test_the_averaged_weights_are_what_is_kept(images, tmp_path):
    last = train(tiny(), images, out=tmp_path / "a", recipe=short(ema=0.0), run=Run(**QUICK))
    averaged = train(tiny(), images, out=tmp_path / "b", recipe=short(ema=0.9), run=Run(**QUICK))
    assert not equal(last.flow, averaged.flow)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resuming_gives_the_same_weights_bit_for_bit(images, tmp_path, precision):
    run = Run(**QUICK, checkpoint_every=2, precision=precision, channels_last=precision == "bf16")
    whole = train(tiny(), images, out=tmp_path / "whole", recipe=short(6), run=run)
    part = tmp_path / "part"
    train(tiny(), images, out=part, recipe=short(6), run=run)
    (part / "checkpoints" / "step-00000006.ckpt").unlink()
    # Other random numbers before, other weights to begin with: all must come from the checkpoint.
    torch.manual_seed(99)
    resumed = train(HCFlow.from_preset("sr-x4-small", **TINY), images, out=part, recipe=short(6), run=run, resume=True)
    assert equal(whole.flow, resumed.flow)
    rows = [read_csv(tmp_path / name / "train.csv") for name in ("whole", "part")]
    for a, b in zip(*rows, strict=True):
        assert {**a, "images_per_second": 0} == {**b, "images_per_second": 0}


def test_resuming_takes_the_last_good_checkpoint(images, tmp_path):
    run = Run(**QUICK, checkpoint_every=2)
    whole = train(tiny(), images, out=tmp_path / "run", recipe=short(6), run=run)
    last = tmp_path / "run" / "checkpoints" / "step-00000006.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="step-00000006.*falling back"):
        resumed = train(tiny(), images, out=tmp_path / "run", recipe=short(6), run=run, resume=True)
    assert equal(whole.flow, resumed.flow)


@pytest.mark.parametrize("forge", [lambda state: state.pop("flow"), lambda state: state.update(random=3, skipped=4)])
def test_a_forged_checkpoint_is_refused_in_a_sentence(images, tmp_path, forge):
    train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK))
    checkpoints = CheckpointFolder(tmp_path / "run" / "checkpoints")
    step, state = checkpoints.read_last()
    forge(state)
    checkpoints.write(step, state)
    with pytest.raises(CheckpointError, match=r"checkpoints is whole, but something in it is missing or of another"):
        train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK), resume=True)


def test_a_new_run_does_not_touch_an_old_one(images, tmp_path):
    train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK))
    with pytest.raises(ValueError, match="expected a new folder, or resume=True to continue"):
        train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK))
    with pytest.raises(CheckpointError, match=r"another architecture, with features \d+ for 4: give the model that"):
        train(tiny(features=4), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK), resume=True)
    with pytest.warns(UserWarning, match="resuming at step 2 with another recipe"):
        longer = train(tiny(), images, out=tmp_path / "run", recipe=short(3), run=Run(**QUICK), resume=True)
    assert longer.step == 3


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_saves_and_returns(interruptible, images, tmp_path, number):
    out = tmp_path / "run"

    def send(hr, *, upscale, generator):
        send.calls += 1
        if send.calls == 10:  # within the second step after the start
            os.kill(os.getpid(), number)
        return flowsr.images.bicubic_down(hr, upscale)

    send.calls = 0
    before = signal.getsignal(number)
    data = Data(folders=images, degradation=send)
    stopped = train(tiny(), data, out=out, recipe=short(50), run=Run(**QUICK, checkpoint_every=1000))
    assert stopped.interrupted == number
    assert 0 < stopped.step < 5
    assert signal.getsignal(number) is before
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{stopped.step:08d}.ckpt"]
    assert flowsr.load(out / "model.safetensors").provenance["step"] == stopped.step


@pytest.mark.parametrize("number", STOPPING)
def test_an_ignored_signal_stays_ignored(images, tmp_path, number):
    def send(hr, *, upscale, generator):
        os.kill(os.getpid(), number)
        return flowsr.images.bicubic_down(hr, upscale)

    before = signal.signal(number, signal.SIG_IGN)
    try:
        made = train(tiny(), Data(folders=images, degradation=send), out=tmp_path, recipe=short(3), run=Run(**QUICK))
        assert (made.interrupted, made.step) == (None, 3)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_signal_breaks_validation_off_and_resuming_makes_it_again(images, tmp_path, monkeypatch):
    def slow(flow, named, **settings):
        for image in named:
            os.kill(os.getpid(), signal.SIGTERM)
            yield from score_images(flow, [image], **settings)

    out, data = tmp_path / "run", Data(folders=images, hold_out=2)
    run = Run(**{**QUICK, "validate_every": 2, "checkpoint_every": 2})
    with monkeypatch.context() as patch:
        patch.setattr("flowsr.training.loop.score_images", lambda *args, **kwargs: list(slow(*args, **kwargs)))
        with pytest.warns(UserWarning, match="validation at step 2 was broken off by a signal"):
            stopped = train(tiny(), data, out=out, recipe=short(4), run=run)
    assert (stopped.interrupted, stopped.step, read_csv(out / "validation.csv")) == (signal.SIGTERM, 3, [])
    # As a kill in the midst of the last validation leaves it: all steps made, their validation not.
    train(tiny(), data, out=out, recipe=short(4), run=run, resume=True)
    log = out / "validation.csv"
    before = log.read_text()
    log.write_text(before[: before.rfind("\n4,") + 6])
    assert [row["step"] for row in read_csv(log)] == []
    again = train(tiny(), data, out=out, recipe=short(4), run=run, resume=True)
    assert log.read_text() == before
    assert flowsr.load(out / "model.safetensors").provenance["validation"] == again.validation != {}


def spoil(monkeypatch, *steps):
    """Make the likelihood of some steps not a number; a look at the weights is no step."""
    make_step, now = Trainer.make_step, {"step": 0}

    def noted(self, batches):
        now["step"] = self.step + 1
        numbers = make_step(self, batches)
        now["step"] = 0
        return numbers

    def spoiled(*args, **kwargs):
        loss, seen = likelihood_loss(*args, **kwargs)
        return loss * float("nan") if now["step"] in steps else loss, seen

    monkeypatch.setattr(Trainer, "make_step", noted)
    monkeypatch.setattr("flowsr.training.wrapper.likelihood_loss", spoiled)


def test_steps_that_fail_do_not_drive_out_the_last_good_checkpoints(images, tmp_path, monkeypatch):
    spoil(monkeypatch, *range(4, 100))
    run = Run(**QUICK, checkpoint_every=1, patience=5)
    with pytest.raises(NonFiniteError, match="5 steps in a row"):
        train(tiny(), images, out=tmp_path / "run", recipe=short(50), run=run)
    assert CheckpointFolder(tmp_path / "run" / "checkpoints").steps() == [2, 3]


DESTROYING = 1e6
"""A learning rate with which one step, whose loss is finite, leaves weights past help."""


@pytest.mark.parametrize(
    "advice",
    [
        {"learning_rate": 1e-3},
        {"learning_rate": DESTROYING, "warmup": 10**12},
    ],
)
def test_a_run_that_destroyed_its_weights_goes_on_as_its_error_advises(images, tmp_path, advice):
    run, out = Run(**QUICK, checkpoint_every=1, patience=3), tmp_path / "run"
    train(tiny(), images, out=out, recipe=short(4), run=run)
    with (
        pytest.warns(UserWarning, match=r"another recipe .* learning_rate 0.001 → 1000000.0"),
        pytest.warns(UserWarning, match="no checkpoint of step 5, as no loss is finite with its weights"),
        pytest.raises(NonFiniteError) as error,
    ):
        train(tiny(), images, out=out, recipe=short(20, learning_rate=DESTROYING), run=run, resume=True)
    assert re.search(r"Resume with a lower learning_rate, a warmup longer than the steps made so far", str(error.value))
    assert str(error.value).endswith("goes back to the checkpoint of step 4, with whose weights the loss was finite")
    rows = [row for row in read_csv(out / "train.csv") if row["step"] > 4]
    assert [math.isfinite(row["loss"]) for row in rows] == [True, False, False]
    with (
        pytest.warns(UserWarning, match="the run was stopped at step 8, .* going back to step 4, with whose weights"),
        pytest.warns(UserWarning, match="another recipe"),
    ):
        on = train(tiny(), images, out=out, recipe=short(20, **advice), run=run, resume=True)
    assert (on.step, on.skipped, on.saved) == (20, 0, True)
    assert "not_finite_at_step" not in json.loads((out / "run.json").read_text())


def test_weights_past_help_are_not_saved_at_the_end_either(images, tmp_path):
    run, out = Run(**QUICK, checkpoint_every=1), tmp_path / "run"
    train(tiny(), images, out=out, recipe=short(2), run=run)
    before = (out / "model.safetensors").read_bytes()
    with (
        pytest.warns(UserWarning, match="another recipe"),
        pytest.raises(NonFiniteError, match="no checkpoint of step 3"),
    ):
        train(tiny(), images, out=out, recipe=short(3, learning_rate=DESTROYING), run=run, resume=True)
    assert (out / "model.safetensors").read_bytes() == before
    assert CheckpointFolder(out / "checkpoints").steps() == [1, 2]


def test_checkpoints_of_destroyed_weights_from_before_are_passed_over(images, tmp_path, monkeypatch):
    """Runs of earlier versions have such checkpoints, as nobody judged them."""
    run, out = Run(**QUICK, checkpoint_every=1, patience=3, keep=3), tmp_path / "run"
    train(tiny(), images, out=out, recipe=short(2), run=run)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="another recipe"):
        patch.setattr(Trainer, "is_sound", lambda *_: True)
        train(tiny(), images, out=out, recipe=short(3, learning_rate=DESTROYING), run=run, resume=True)
    with (
        pytest.warns(UserWarning, match="step 3 has weights past help.*falling back"),
        pytest.warns(match="another recipe"),
    ):
        on = train(tiny(), images, out=out, recipe=short(5), run=run, resume=True)
    assert (on.step, on.skipped) == (5, 0)
    assert (out / "checkpoints" / "step-00000003.faulty").exists()


def test_a_checkpoint_waits_for_the_next_good_step(images, tmp_path, monkeypatch):
    spoil(monkeypatch, 4)
    written, write = [], CheckpointFolder.write
    monkeypatch.setattr(CheckpointFolder, "write", lambda *args: written.append(args[1]) or write(*args))
    trained = train(tiny(), images, out=tmp_path / "run", recipe=short(7), run=Run(**QUICK, checkpoint_every=2))
    assert (trained.skipped, written) == (1, [2, 5, 6, 7])


def test_going_on_with_another_recipe_starts_anew_what_it_lacks(tmp_path):
    images, out, run, name = tmp_path / "images", tmp_path / "run", Run(**QUICK), "nll+l1+perceptual+gan"
    images.mkdir()
    write_image(images / "a.png", torch.rand(3, 64, 64))
    first = train(tiny(), images, out=out, recipe=short(2, ema=0.0, crop=32), run=run)
    # The discriminator trains alone, so that the weights stand still.
    alone = {"crop": 32, "perceptual": 0.0, "critic_warmup": 10, "ema": 0.9, "batch_size": 2}
    new = "no discriminator for crops of this size in the checkpoint: it starts anew"
    with pytest.warns(UserWarning, match="another recipe than before"), pytest.warns(UserWarning, match=new):
        on = train(tiny(), images, out=out, recipe=short(4, name, **alone), run=run, resume=True)
    assert equal(on.flow, first.flow)  # their average begins with the weights of the checkpoint
    larger = short(6, name, **{**alone, "betas": (0.5, 0.5), "crop": 64})
    with pytest.warns(UserWarning, match="another recipe than before"), pytest.warns(UserWarning, match=new):
        train(tiny(), images, out=out, recipe=larger, run=run, resume=True)
    saved = CheckpointFolder(out / "checkpoints").read_last()[1]
    assert saved["optimizer"]["param_groups"][0]["betas"] == (0.5, 0.5)


def test_going_on_with_other_crops_says_so(images, tmp_path):
    out, run = tmp_path / "run", Run(**QUICK)
    train(tiny(), images, out=out, recipe=short(1), run=run)
    held_out = Data(folders=images, hold_out=1)
    with pytest.warns(UserWarning, match="resuming at step 1 with another choice of crops than before"):
        train(tiny(), held_out, out=out, recipe=short(1), run=run, resume=True)
    for path in (out / "checkpoints").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="no checkpoint in .*: starting at step 0"):
        train(tiny(), images, out=out, recipe=short(1), run=run, resume=True)


@contextmanager
def files_up_to(size):
    # A real failure of write(2), as on a full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_no_rows(tmp_path):
    log = CsvLog(tmp_path / "log.csv", ["step", "loss"])
    with files_up_to(30), pytest.warns(UserWarning, match=r"could not write log.csv: .* rows wait") as caught:
        for step in range(1, 10):
            log.write({"step": step, "loss": step / 3})
    assert len(caught) == 1
    assert 1 <= len(read_csv(log.path)) < 9
    log.write({"step": 10, "loss": 0.0})
    log.close()
    assert [row["step"] for row in read_csv(log.path)] == list(range(1, 11))
    assert log.path.read_text().count("\n") == 11


def test_a_full_disk_does_not_end_a_run(images, tmp_path):
    out = tmp_path / "run"
    with files_up_to(4096), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained = train(tiny(), images, out=out, recipe=short(90, batch_size=1), run=Run(**QUICK, checkpoint_every=20))
    messages = " ".join(str(warning.message) for warning in caught)
    assert all(name in messages for name in ("train.csv", "checkpoint of step 80", "model.safetensors"))
    assert (trained.step, trained.saved) == (90, False)
    assert not (out / "model.safetensors").exists()


def test_what_a_kill_left_is_swept(images, tmp_path):
    out = tmp_path / "run"
    train(tiny(), images, out=out, recipe=short(1), run=Run(**QUICK))
    process = subprocess.run([sys.executable, "-c", KILLED, str(out / "model.safetensors")], timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(list(out.glob(".*"))) == 1
    assert train(tiny(), images, out=out, recipe=short(1), run=Run(**QUICK), resume=True).saved
    assert list(out.glob(".*")) == []


KILLED = """
import os, signal, sys
from flowsr._support.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_recipe_and_model_must_fit(images, tmp_path):
    with pytest.raises(ValueError, match="expected a recipe for rescaling; got 'nll', which is for super-resolution"):
        train(tiny("rescaling-x4-small"), images, out=tmp_path / "a", recipe="nll")
    with pytest.raises(ValueError, match="expected a recipe for super-resolution; got 'rescaling'"):
        train(tiny(), images, out=tmp_path / "a", recipe=short(2, "rescaling"))
    assert not (tmp_path / "a").exists()


def test_a_broken_validation_does_not_cost_the_run(images, tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no picture today")

    monkeypatch.setattr("flowsr.training.loop.score_images", broken)
    run = Run(**{**QUICK, "validate_every": 2})
    with pytest.warns(UserWarning, match="validation at step 2 failed: no picture today"):
        trained = train(tiny(), Data(folders=images, hold_out=1), out=tmp_path / "a", recipe=short(2), run=run)
    assert trained.step == 2


def test_a_perfect_validation_does_not_cost_the_run(images, tmp_path, monkeypatch):
    """An infinite PSNR is a figure that JSON lacks, and the model file's metadata is JSON."""
    monkeypatch.setattr("flowsr.training.loop.summarize", lambda scores: {"psnr_mean": float("inf")})
    run = Run(**{**QUICK, "validate_every": 2})
    trained = train(tiny(), Data(folders=images, hold_out=1), out=tmp_path / "a", recipe=short(2), run=run)
    assert flowsr.load(tmp_path / "a" / "model.safetensors").provenance["validation"] == {"psnr_mean": "inf"}
    assert trained.validation == {"psnr_mean": float("inf")}


def test_unreadable_images_met_on_the_way_are_counted(images, tmp_path):
    def vanish(hr, *, upscale, generator):
        (images / "image3.png").unlink(missing_ok=True)
        return flowsr.images.bicubic_down(hr, upscale)

    data = Data(folders=images, cache_bytes=0, degradation=vanish)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tiny(), data, out=tmp_path / "a", recipe=short(4), run=Run(**QUICK))
    messages = [str(w.message) for w in caught if "left out" in str(w.message)]
    assert len(messages) == 1
    assert "image3.png" in messages[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_names_an_image_met_on_the_way_in_a_sentence(images, tmp_path, workers):
    data = Data(folders=images, cache_bytes=0, strict=True, workers=workers)
    # The last of the first epoch, as the start of the network is made from the first.
    last = torch.randperm(5, generator=torch.Generator().manual_seed(derive_seed(0, 0, 2)))[-1]
    path = images / f"image{last}.png"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageError, match=rf"^\S*{path.name}: expected a complete image[^\n]*$"):
        train(tiny(), data, out=tmp_path / "a", recipe=short(8, batch_size=1), run=Run(**QUICK))
    assert [row["step"] for row in read_csv(tmp_path / "a" / "train.csv")] == [1, 2, 3, 4]


def test_the_log_continues_after_a_kill(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path, ["step", "loss"])
    for step in range(1, 6):
        log.write({"step": step, "loss": step / 2, "other": 3})
    log.close()
    with open(path, "a") as file:
        file.write("6,2.")  # cut short
    continued = CsvLog(path, ["step", "loss"], start=3)
    continued.write({"step": 4, "loss": 9.0})
    continued.close()
    assert [(row["step"], row["loss"]) for row in read_csv(path)] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 9.0)]
    assert draw_curve(tmp_path) is None


def test_the_curve_of_training_stays_in_its_panel(tmp_path):
    """First steps that are far off are left out, and the panel says so; all later ones are within its scale."""
    values = [40.0, 9.0, float("nan"), *(3.0 + 0.5 * (-1) ** step for step in range(97))]
    log = CsvLog(tmp_path / "train.csv", ["step", "bits_per_dim"])
    for step, value in enumerate(values, start=1):
        log.write({"step": step, "bits_per_dim": value})
    log.close()
    (panel,) = run_curves(tmp_path, levels={"bits_per_dim": {"shipped": 2.9}})
    crops, means = panel.lines
    assert list(crops.x) == list(range(4, 101)) and crops.faint and panel.levels == {"shipped": 2.9}
    assert panel.title.endswith("\n2 points until step 2 off the scale, the farthest at 40")
    assert all(abs(mean - 3.0) < 0.5 for mean in means.y)
    (axes,) = curve_grid([panel]).axes
    low, high = axes.get_ylim()
    assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())
    assert draw_curve(tmp_path) == tmp_path / "curve.png"


@pytest.mark.parametrize("enabled", [True, False])
def test_without_a_terminal_there_is_a_line_at_most_once_a_minute(capsys, enabled):
    seconds = 0.0
    bar = ProgressBar(40, start=4, enabled=enabled, clock=lambda: seconds)
    for step in range(5, 21):
        seconds += 25.0  # time left is then 25 s for each step
        bar.update(step, {"psnr": float(step)})
    bar.close()
    lines = capsys.readouterr().out.splitlines()
    expected = [
        f"step {step} of 40, PSNR τ = 0: {step} dB, 0:{25 * (40 - step) // 60:02}:{25 * (40 - step) % 60:02} left"
        for step in (7, 10, 13, 16, 19)
    ]
    assert lines == (expected if enabled else [])
