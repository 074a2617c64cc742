"""The demonstration: it runs, it is reproducible, its figures agree with each other, and every one has a convention."""

import json
import math
import shutil

import pytest
import torch
from typer.testing import CliRunner

import flowsr
from flowsr._support.json import write_json
from flowsr.cli.app import app
from flowsr.errors import ImageError
from flowsr.evaluation import fidelity_figures, likelihood_figures
from flowsr.images import bicubic_up, make_lr, round_to_8bit
from flowsr.statistics.moments import RunningMoments
from flowsr.workflows.demo import (
    demo_recipe,
    study_photograph,
    train_demo_model,
    training_photographs,
    unseen_photograph,
)


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run("demo", "--train", "--smoke", "--seed", 1, "--out", out, "--json")


def test_smoke_writes_all_it_says(smoke):
    out, result = smoke
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["demo.json", "demo.png", "demo.safetensors"]
    document = json.loads(result.stdout)
    assert document == json.loads((out / "demo.json").read_text(encoding="utf-8"))
    assert document["seed"] == 1
    rows = [row for card in document["cards"] for row in card["figures"]]
    assert all(row["convention"] and (row["value"] is None) == bool(row["reason"]) for row in rows)
    assert {"psnr", "psnr_y", "ssim", "lpips", "lr_psnr", "pixel_std"} <= {row["key"] for row in rows}
    assert "bicubic" in document["cards"][0]["columns"]
    bits = next(row for row in rows if row["key"] == "bits_per_dim")
    assert bits["convention"].endswith("for the 8-bit image, uniform noise 1/256, one draw, σ = e^-6, D = C·H·W")
    likelihood = document["likelihood"]
    assert likelihood["dims"] == 6912
    assert bits["value"] == pytest.approx(likelihood["bits_per_dim"], abs=1e-4)
    assert bits["value"] == pytest.approx(likelihood["density_bits_per_dim"] + 8, abs=1e-4)
    assert sum(term["nats"] for term in likelihood["terms"]) == pytest.approx(likelihood["total_nats"], rel=1e-4)
    assert flowsr.load(out / "demo.safetensors").provenance["trained_by"] == "flowsr demo"


def test_same_seed_same_files_another_seed_others(smoke, tmp_path):
    out, _ = smoke
    for name, seed in (("again", 1), ("other", 2)):
        assert run("demo", "--train", "--smoke", "--seed", seed, "--out", tmp_path / name, "-q").output == ""
    # The weights file is left out: safetensors writes its metadata in no fixed order.
    for name in ("demo.json", "demo.png"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name
        assert (tmp_path / "other" / name).read_bytes() != (out / name).read_bytes(), name
    same, again = (flowsr.load(folder / "demo.safetensors").state_dict() for folder in (out, tmp_path / "again"))
    assert all(torch.equal(value, again[key]) for key, value in same.items())


def test_refuses_to_overwrite_before_training(smoke):
    out, _ = smoke
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    result = run("demo", "--train", "--out", out)
    assert result.exit_code == 2
    assert "demo.png exists" in result.stderr
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_uses_shipped_weights_unless_told_to_train(smoke, tmp_path, monkeypatch):
    out, _ = smoke
    package = tmp_path / "package"
    (package / "weights").mkdir(parents=True)
    shutil.copy(out / "demo.safetensors", package / "weights" / "sr-x4-small.safetensors")
    monkeypatch.setattr("flowsr.models.weights.files", lambda name: package)
    result = run("demo", "--smoke", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["weights"] == "shipped weights"
    assert not (tmp_path / "out" / "demo.safetensors").exists()
    assert json.loads(run("info", "--model", "sr-x4-small", "--json").stdout)["weights"] == "shipped"


def test_training_leaves_global_state_and_learns():
    photographs = training_photographs()
    state = torch.get_rng_state()
    few, more = (train_demo_model(photographs, demo_recipe(n, batch_size=2, crop=32), seed=3) for n in (1, 25))
    assert torch.equal(state, torch.get_rng_state())
    assert not few.training and more.provenance["photographs"] == sorted(photographs)
    hr = unseen_photograph(multiple=4, largest=64)
    bits = [float(likelihood_figures(flow, hr, lr=make_lr(hr, 4))[0][0]) for flow in (few, more)]
    assert bits[1] < bits[0] - 0.1


@pytest.mark.slow
def test_training_reaches_five_bits_per_dimension():
    flow = train_demo_model(training_photographs(), demo_recipe(120))
    study = study_photograph(flow, unseen_photograph(multiple=4, largest=128), num_samples=2)
    assert float(study.cards[1].figure("bits_per_dim", "truth")) < 5.0


def test_training_in_double_precision():
    flow = train_demo_model(
        {"noise": torch.rand(3, 20, 20)}, demo_recipe(2, batch_size=1, crop=16), dtype=torch.float64
    )
    assert {value.dtype for value in flow.parameters()} == {torch.float64}


def test_training_refuses_small_photographs_and_odd_crops():
    with (
        pytest.raises(ImageError, match="at least 64 pixels on each side; got 99 × 32 pixels"),
        pytest.warns(UserWarning, match="left out image 1"),
    ):
        train_demo_model({"small": torch.rand(3, 32, 99)}, demo_recipe())
    with pytest.raises(ValueError, match="multiple of 4; got 30"):
        train_demo_model({"a": torch.rand(3, 32, 32)}, demo_recipe(crop=30))


def test_the_unseen_photograph_is_not_trained_on():
    photographs = training_photographs()
    assert all(image.shape[0] == 3 and min(image.shape[1:]) >= 256 for image in photographs.values())
    assert "chelsea" not in photographs
    assert "cat" not in photographs


def test_running_moments_are_those_of_the_stack():
    images = torch.rand(5, 3, 4, 4)
    moments = RunningMoments()
    with pytest.raises(ValueError, match="at least one image"):
        _ = moments.mean
    for image in images:
        moments.add(image)
    assert torch.allclose(moments.mean, images.double().mean(0))
    assert torch.allclose(moments.std, images.double().std(0))


def test_json_is_strict_wherever_a_number_is_missing(tmp_path):
    write_json(tmp_path / "a.json", {"of": tmp_path, "rows": [{"x": math.nan}, {"x": (-math.inf, 1.5, 2, True, None)}]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    rows = [{"x": "nan"}, {"x": ["-inf", 1.5, 2, True, None]}]
    assert json.loads(text, parse_constant=refuse) == {"of": str(tmp_path), "rows": rows}
    with pytest.raises(TypeError, match="expected a value that JSON can hold"):
        write_json(tmp_path / "a.json", {"x": {1, 2}})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == text


def test_cards_say_what_cannot_be_measured():
    hr = round_to_8bit(torch.rand(1, 16, 16))
    lr = make_lr(hr, 4)
    rows = {row.name: row for row in fidelity_figures({"bicubic": bicubic_up(lr, 4)}, hr, lr, upscale=4)["bicubic"]}
    assert float(rows["PSNR"]) > 0
    assert "gray" in rows["PSNR-Y"].reason
    assert "needs 11 pixels inside the border; has 8" in rows["SSIM"].reason
    assert rows["LPIPS"].reason
    assert rows["Diversity (std)"].reason == "needs at least two draws"


def test_bits_of_the_card_are_those_of_the_likelihood():
    flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
    hr = round_to_8bit(torch.rand(3, 16, 16))
    lr = make_lr(hr, 4)
    figures, bits = likelihood_figures(flow, hr, lr=lr)
    assert float(figures[0]) == pytest.approx(float(bits.terms.density_bits_per_dim) + 8)
    again, _ = likelihood_figures(flow, hr, lr=lr)
    assert again == figures
