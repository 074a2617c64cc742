"""`flowsr train`: what it writes, refuses and returns, stopped from outside, and in two processes."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from cases import tiny_flow
from commands import refused
from typer.testing import CliRunner

import flowsr
from flowsr.cli.app import app
from flowsr.images import bicubic_down, read_image, write_image
from flowsr.training import RECIPES
from flowsr.training.journal import read_csv
from flowsr.training.settings import recipe_from_texts

SMALL = ("--set", "steps=3 crop=16", "--set", "batch_size=2", "--device", "cpu", "--log-every", "1")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", torch.rand(3, 40, 36))
    return folder


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "tiny.safetensors"
    flowsr.save(flowsr.HCFlow(tiny_flow().config, start="haar"), path)
    return path


def test_train_writes_a_run_and_says_so_in_json(model, images, tmp_path):
    out = tmp_path / "run"
    result = run(
        "train", images, "--model", model, "--out", out, *SMALL, "--hold-out", 1, "--recipe", "nll+l1", "--json"
    )
    assert result.exit_code == 0, result.output
    document, validated = json.loads(result.stdout), read_csv(out / "validation.csv")[-1]
    assert (document["steps"], document["recipe"], document["stopped_by_signal"]) == (3, "nll+l1", None)
    assert document["validation"]["bits_per_dim"] == pytest.approx(validated["bits_per_dim"], rel=1e-4)
    assert len(read_csv(out / "train.csv")) == 3
    assert "step 3: validation" in result.stderr
    trained = flowsr.load(out / "model.safetensors")
    assert trained.provenance["recipe"]["name"] == "nll+l1"
    assert not torch.equal(next(trained.parameters()), next(flowsr.load(model).parameters()))


def test_an_existing_run_is_not_overwritten_but_resumed(model, images, tmp_path):
    out = tmp_path / "run"
    assert run("train", images, "--model", model, "--out", out, *SMALL, "--quiet").output == ""
    before = (out / "train.csv").read_text()
    again = run("train", images, "--model", model, "--out", out, *SMALL)
    assert again.exit_code == 2
    assert "holds a run already" in again.stderr and "--resume" in again.stderr
    assert (out / "train.csv").read_text() == before
    on = run("train", images, "--model", model, "--out", out, *SMALL, "--set", "steps=5", "--resume")
    assert on.exit_code == 0, on.output
    assert len(read_csv(out / "train.csv")) == 5
    assert "Warning: resuming at step 3 with another recipe than before (steps 3 → 5)" in on.stderr


def recorded(out):
    return json.loads((out / "run.json").read_text())["recipe"]


def test_resuming_keeps_the_recipe_but_for_what_is_given(model, images, tmp_path):
    out, whole = (
        tmp_path / "run",
        ("train", images, "--model", model, "--out", tmp_path / "run", "--device", "cpu", "--resume"),
    )
    first = run(*whole, *SMALL[2:], "--set", "steps=2 crop=16 l1=100")
    assert first.exit_code == 0, first.output
    assert f"no checkpoint in {out}: starting at step 0" in first.stderr
    before = recorded(out)
    again = run(*whole)
    assert again.exit_code == 0, again.output
    assert recorded(out) == before and "another recipe" not in again.stderr
    on = run(*whole, "--set", "steps=3", "--set", "l1=0.5")
    assert on.exit_code == 0, on.output
    assert recorded(out) == {**before, "steps": 3, "l1": 0.5}
    assert "another recipe than before (steps 2 → 3, l1 100 → 0.5)" in on.stderr
    # Another recipe by name: its own settings where the run had the published ones, the run's where it had not.
    other = run(*whole, "--recipe", "nll+l1", "--set", "steps=4")
    assert other.exit_code == 0, other.output
    assert recorded(out) == {**RECIPES["nll+l1"].to_dict(), "steps": 4, "crop": 16, "batch_size": 2, "l1": 0.5}
    assert "(name nll → nll+l1, steps 3 → 4, learning_rate 0.00025 → 5e-05" in on.stderr + other.stderr
    (out / "run.json").write_text("{}")
    broken = run(*whole)
    assert broken.exit_code == 2 and "expected the recipe of a run in" in " ".join(broken.stderr.split())


def test_what_is_said_without_a_terminal(model, images, tmp_path):
    arguments = ("train", images, "--model", model, *SMALL, "--hold-out", 1)
    result = run(*arguments, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    plan = "Training on 3 images, 1 for validation: steps 0 to 3, 2 crops of 16x16 each, on cpu in fp32"
    assert plan in result.stderr.splitlines()
    weights = tmp_path / "run" / "model.safetensors"
    assert f"Next: flowsr evaluate YOUR_TEST_IMAGES --model {weights} --out evaluation" in result.stderr.splitlines()
    validated = read_csv(tmp_path / "run" / "validation.csv")[-1]
    assert "Validation at step 3" in result.stdout
    for label, key in {
        "bits/dim": "bits_per_dim",
        "PSNR τ = 0, dB": "psnr_mean",
        "PSNR of a draw, dB": "psnr_draw",
    }.items():
        assert re.search(rf"^ {label} +{validated[key]:.4g}\s*$", result.stdout, re.MULTILINE)
    quiet = run(*arguments, "--out", tmp_path / "quiet", "--resume", "--quiet")
    assert quiet.exit_code == 0 and quiet.output == ""


def test_names_of_models_that_there_are_not(model, images, tmp_path):
    out = ("--out", tmp_path / "run")
    wrong = run("train", images, "--model", "sr-x4-smal", *out)
    assert wrong.exit_code == 2 and not (tmp_path / "run").exists()
    words = " ".join(wrong.stderr.split())
    assert "srflow-x4-small" in words and words.endswith("there is no sr-x4-smal: did you mean sr-x4-small?")
    asked = run("train")
    assert "flowsr train photographs/ --out runs/first" in asked.output
    assert "{FOLDER}..." in asked.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "steps=abc"), "expected a whole number for steps; got 'abc'"),
        (("--set", "colour=red"), "got 'colour': the fields are name, task, steps, "),
        (("--set", "stesp=30"), "got 'stesp': did you mean steps?"),
        (("--set", "steps = 30"), "expected NAME=VALUE, without blanks around =; got 'steps'"),
        (("--recipe", "nlll"), "got 'nlll': did you mean nll?"),
        (("--recipe", "rescaling"), "got 'rescaling', which is for rescaling"),
        (("--scales", "1;2"), "expected numbers with commas between"),
        (("--device", "cuda:1"), "expected a device among auto, cpu"),
        (("--device", "mps"), "expected a device with float64, which determinants are computed in; got 'mps'"),
        pytest.param(
            ("--device", "gpu"),
            "expected a machine with a CUDA device for 'gpu'; this one has none",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA"),
        ),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_folder(model, images, tmp_path, arguments, words):
    result = run("train", images, "--model", model, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_missing_folder_and_unreadable_images(model, images, tmp_path):
    assert (
        "nowhere does not exist" in run("train", tmp_path / "nowhere", "--model", model, "--out", tmp_path / "a").stderr
    )
    (images / "9.png").write_text("not an image")
    strict = run("train", images, "--model", model, "--out", tmp_path / "b", *SMALL, "--strict")
    assert strict.exit_code == 2 and "9.png" in strict.stderr
    lenient = run("train", images, "--model", model, "--out", tmp_path / "c", *SMALL)
    assert lenient.exit_code == 0, lenient.output
    assert "Warning: left out image 1" in lenient.stderr


def test_a_model_that_could_not_be_written_is_a_mistake(model, images, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))  # as on a full disk
    try:
        full = run("train", images, "--model", model, "--out", tmp_path / "run", *SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.exit_code == 2
    assert "could not be written: make room and go on with --resume" in " ".join(full.stderr.split())
    assert "Next:" not in full.stderr


def test_vgg_weights_are_a_file(model, images, tmp_path):
    arguments = (*SMALL, "--set", "crop=32", "--recipe", "nll+l1+perceptual+gan", "--vgg", tmp_path / "vgg.pth")
    result = run("train", images, "--model", model, "--out", tmp_path / "run", *arguments)
    assert result.exit_code == 2
    assert f"expected torchvision's VGG19 weights; {tmp_path / 'vgg.pth'} is no such file" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture
def lr_images(images, tmp_path):
    """LR images that are not the bicubic ones: half as bright."""
    folder = tmp_path / "lr"
    folder.mkdir()
    for path in images.iterdir():
        write_image(folder / f"{path.stem}x4.png", 0.5 * bicubic_down(read_image(path), 4).clamp(0, 1))
    return folder


def test_paired_lr_images_are_trained_and_validated_on(model, images, lr_images, tmp_path):
    seen = {}
    for name, arguments in {"paired": ("--lr-folder", lr_images), "bicubic": ()}.items():
        result = run("train", images, "--model", model, "--out", tmp_path / name, *SMALL, "--hold-out", 1, *arguments)
        assert result.exit_code == 0, result.output
        logs = (read_csv(tmp_path / name / f"{log}.csv") for log in ("train", "validation"))
        seen[name] = [rows[0]["encoded_lr_psnr"] for rows in logs]
        data = json.loads((tmp_path / name / "run.json").read_text())["data"]
        assert data["lr_folders"] == ([str(lr_images)] if arguments else None)
    # The flow's LR image starts as a box average, close to the bicubic one.
    assert min(seen["bicubic"]) > 20 > 15 > max(seen["paired"])
    (lr_images / "2x4.png").unlink()
    missing = run("train", images, "--model", model, "--out", tmp_path / "c", *SMALL, "--lr-folder", lr_images)
    assert missing.exit_code == 2 and "expected one LR image named like 2.png" in " ".join(missing.stderr.split())


def test_a_preset_goes_on_from_its_weights_if_asked_to(model, images, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "weights").mkdir(parents=True)
    monkeypatch.setattr("flowsr.models.weights.files", lambda name: package)
    given = flowsr.load(model)
    given.initialize(torch.rand(4, 3, 16, 16))  # as every trained model has been
    flowsr.save(given, package / "weights" / "sr-x4-small.safetensors")
    still = ("--set", "learning_rate=1e-12")
    on = run("train", images, "--model", "sr-x4-small", "--out", tmp_path / "on", *SMALL, *still, "--pretrained")
    assert on.exit_code == 0, on.output
    trained = flowsr.load(tmp_path / "on" / "model.safetensors")
    assert trained.config == given.config
    for ours, theirs in zip(trained.parameters(), given.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    none = run("train", images, "--model", "sr-x8-small", "--out", tmp_path / "none", *SMALL, "--pretrained")
    assert none.exit_code == 2 and "sr-x8-small" in none.stderr
    assert not (tmp_path / "none").exists()


def test_accumulation_changes_nothing_but_rounding(model, images, tmp_path):
    weights, logs = {}, {}
    for parts in (1, 2):
        out = tmp_path / str(parts)
        arguments = (*SMALL, "--set", "batch_size=4", "--accumulate", parts)
        assert run("train", images, "--model", model, "--out", out, *arguments).exit_code == 0
        logs[parts] = read_csv(out / "train.csv")
        weights[parts] = list(flowsr.load(out / "model.safetensors").parameters())
        assert json.loads((out / "run.json").read_text())["run"]["accumulate"] == parts
    before = flowsr.load(model).parameters()
    for one, two in zip(logs[1], logs[2], strict=True):
        assert [two[name] for name in ("loss", "gradient_norm")] == pytest.approx(
            [one[name] for name in ("loss", "gradient_norm")], rel=1e-4
        )
    one, two, first = (torch.cat([p.detach().flatten() for p in found]) for found in (weights[1], weights[2], before))
    # Adam divides by gradients that nearly vanish, so a few entries differ by more than rounding.
    assert (two - one).norm() < 0.02 * (one - first).norm()
    odd = run("train", images, "--model", model, "--out", tmp_path / "odd", *SMALL, "--accumulate", 3)
    assert odd.exit_code == 2 and "multiple of processes x accumulation = 3; got 2" in " ".join(odd.stderr.split())


def test_the_advice_after_steps_that_are_not_finite_is_to_be_followed_word_by_word(model, images, tmp_path):
    out = tmp_path / "run"
    whole = ("train", images, "--model", model, "--out", out, *SMALL, "--checkpoint-every", 2)
    assert run(*whole).exit_code == 0
    broken = run(*whole, "--set", "steps=100 learning_rate=1e6", "--resume")
    assert broken.exit_code == 2
    said = " ".join(broken.stderr.split())
    assert "Resume with a lower learning_rate" in said and "Resuming goes back to the checkpoint of step 3" in said
    mended = run(*whole, "--set", "steps=8 learning_rate=1e-4", "--resume")
    assert mended.exit_code == 0, mended.output
    assert "was stopped at step 54, as losses were no longer finite: going back to step 3" in mended.stderr
    assert len(read_csv(out / "train.csv")) == 8


def test_tensorboard_has_what_the_logs_have(model, images, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    arguments = ("train", images, "--model", model, "--out", out, *SMALL, "--hold-out", 1, "--tensorboard")
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--set", "steps=4", "--resume").exit_code == 0
    events = reader.EventAccumulator(str(out / "tensorboard")).Reload()
    rows = read_csv(out / "train.csv")
    for name in ("loss", "encoded_lr_psnr"):
        logged = {event.step: event.value for event in events.Scalars(f"training/{name}")}
        assert logged == pytest.approx({row["step"]: row[name] for row in rows}, rel=1e-4)
    validated = [event.step for event in events.Scalars("validation/psnr_mean")]
    assert validated == [3, 4]


@pytest.mark.parametrize(("library", "extra"), [("tensorboard", "tensorboard"), ("lightning", "train")])
def test_without_a_library_nothing_is_begun(library, extra, model, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, "lightning.fabric", raising=False)
    result = run("train", images, "--model", model, "--out", tmp_path / "run", *SMALL, "--tensorboard")
    assert refused(result, f"expected {library} to", f"pip install 'flowsr[{extra}]'")
    assert not (tmp_path / "run").exists()


def test_recipes_know_the_model():
    flow = tiny_flow("sr-x8")
    assert recipe_from_texts(None, ["clip_value=none", "flips=false"], flow=flow).steps == 350_000
    with pytest.raises(ValueError, match="expected true or false for flips; got 1"):
        recipe_from_texts(None, ["flips=1"], flow=flow)


def start(arguments, *, processes=1):
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "flowsr", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_signal_saves_and_leaves_with_its_number(model, images, tmp_path):
    out = tmp_path / "run"
    process = start(["train", images, "--model", model, "--out", out, *SMALL, "--set", "steps=100000"])
    end = time.monotonic() + 120
    while not ((out / "train.csv").exists() and (out / "train.csv").read_text().count("\n") > 3):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert "--resume goes on" in " ".join(stderr.split())
    assert stderr.count("Stopping after this step; once more ends at once, without a checkpoint\n") == 1
    assert (out / "model.safetensors").exists()


@pytest.mark.slow
def test_several_devices_say_it_once(model, images, tmp_path):
    process = start(["train", images, "--model", model, "--out", tmp_path / "run", *SMALL, "--devices", 2, "--json"])
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr[-3000:]
    assert json.loads(stdout)["steps"] == 3
    assert stderr.count("Next: flowsr evaluate") == 1
    assert "Error" not in stderr


@pytest.mark.slow
def test_two_processes_train_one_model(model, images, tmp_path):
    process = start(["train", images, "--model", model, "--out", tmp_path / "run", *SMALL, "--json"], processes=2)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr[-3000:]
    assert json.loads(stdout)["steps"] == 3  # one document, from one process
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
