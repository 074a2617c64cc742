"""Whole runs in this process: what they leave behind, and that going on gives what going through would have given."""

import json
import os
import signal
import warnings

import pytest
import torch

import flowsr
from flowsr.errors import CheckpointError
from flowsr.images import read_image, write_image
from flowsr.models import HCFlow
from flowsr.training import Data, Run, recipe, train
from flowsr.training.journal import CsvLog, ProgressBar, read_csv
from flowsr.training.pictures import draw_curve

from cases import TINY  # isort: skip

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
    assert manifest["images"] == {"training": 3, "validation": 2, "left out": {}}
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
    assert "step 8: validation bits_per_dim" in capsys.readouterr().out
    grid = read_image(out / "pictures" / "step-00000008.png")
    assert grid.shape == (3, 256, 512)
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


def test_a_new_run_does_not_touch_an_old_one(images, tmp_path):
    train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK))
    with pytest.raises(ValueError, match="expected a new folder, or resume=True to continue"):
        train(tiny(), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK))
    with pytest.raises(CheckpointError, match="are of another architecture"):
        train(tiny(features=4), images, out=tmp_path / "run", recipe=short(2), run=Run(**QUICK), resume=True)
    with pytest.warns(UserWarning, match="resuming at step 2 with another recipe"):
        longer = train(tiny(), images, out=tmp_path / "run", recipe=short(3), run=Run(**QUICK), resume=True)
    assert longer.step == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_returns(images, tmp_path, number):
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


def test_without_a_terminal_there_is_no_bar(capsys):
    bar = ProgressBar(10)
    bar.update(3, {"bits_per_dim": 3.0})
    bar.close()
    assert capsys.readouterr().out == ""
