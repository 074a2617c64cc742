"""Evaluation: figures equal to those of the metrics by hand, summaries, files, and two real processes."""

import csv
import json
import math
import re

import pytest
import torch
from cases import tiny_flow
from typer.testing import CliRunner

import flowsr
from flowsr._support.temperatures import DRAW_TEMPERATURE, MODEL_TEMPERATURE, RESTORE_TEMPERATURE
from flowsr.cli.app import app
from flowsr.evaluation import EvaluationPlan, likelihood_figures, score_pair
from flowsr.images import bicubic_down, crop_pair, make_lr, read_image, round_to_8bit, write_image
from flowsr.metrics import lr_psnr, ntire_diversity, pixel_std, psnr, ssim
from flowsr.workflows.evaluate import evaluate_files
from flowsr.workflows.processes import Processes
from flowsr.workflows.sample import DrawPlan
from flowsr.workflows.studies import StudySettings


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def flow():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return flowsr.HCFlow(tiny_flow().config, start="haar").eval()


@pytest.fixture
def model(flow, tmp_path):
    flowsr.save(flow, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "hr"
    folder.mkdir()
    for i, size in enumerate([(40, 36), (37, 50), (48, 33)]):
        write_image(folder / f"image{i}.png", torch.rand(3, *size))
    return folder


def test_figures_are_those_of_the_metrics(flow):
    hr = round_to_8bit(torch.rand(3, 37, 50))
    scores = score_pair(flow, hr, plan=EvaluationPlan(num_samples=3, temperatures=(0.0, 0.8), seed=5))
    hr = hr[:, :32, :48]
    lr = make_lr(hr, 4)
    figures, _ = likelihood_figures(flow, hr, lr=lr, seed=5)
    assert float(scores["bits_per_dim"]) == pytest.approx(float(figures[0]), rel=1e-6)
    own = flow.encode(hr).lr.detach().clamp(0, 1)
    assert float(scores["encoded_lr_psnr"]) == pytest.approx(float(psnr(own, lr, border=0)), rel=1e-6)
    assert float(figures[1]) == float(scores["encoded_lr_psnr"])
    assert figures[1].convention.startswith("encode(hr).lr clamped, not rounded")
    draws = flow.sample(lr, num_samples=3, temperature=0.8, generator=torch.Generator().manual_seed(5)).detach()
    rounded = round_to_8bit(draws)
    expected = {
        "psnr": psnr(rounded, hr, border=4).mean(),
        "psnr_y": psnr(rounded, hr, border=4, colour="y").mean(),
        "ssim": ssim(rounded, hr, border=4).mean(),
        "ssim_y": ssim(rounded, hr, border=4, colour="y").mean(),
        "lr_psnr": lr_psnr(rounded, lr, upscale=4).mean(),
        "pixel_std": pixel_std(draws),
        "ntire": ntire_diversity((draws.double() - hr.double()).square().mean(-3)),
    }
    for key, value in expected.items():
        assert float(scores[f"{key}_tau0_8"]) == pytest.approx(float(value), rel=1e-6), key
    assert "pixel_std_tau0" not in scores
    assert list(scores) == [column.key for column in EvaluationPlan(num_samples=3).resolve(flow).columns]


def test_rescaling_models_are_measured_through_their_own_8bit_image(tmp_path):
    flow = tiny_flow("rescaling-x4").eval()
    hr = round_to_8bit(torch.rand(3, 32, 48))
    scores = score_pair(flow, hr, plan=EvaluationPlan())
    own = round_to_8bit(flow.encode(hr).lr.detach())
    back = round_to_8bit(flow.decode(own).detach())
    assert float(scores["psnr_y_tau0"]) == pytest.approx(float(psnr(back, hr, border=4, colour="y")), rel=1e-6)
    bicubic = make_lr(hr, 4)
    assert float(scores["encoded_lr_psnr"]) == pytest.approx(float(psnr(own, bicubic, border=0)), rel=1e-6)
    assert "psnr_y_tau1" in scores and "bits_per_dim" not in scores
    write_image(tmp_path / "a.png", hr)
    with pytest.raises(ValueError, match="expected no LR images for a rescaling model"):
        evaluate_files(flow, [tmp_path / "a.png"], lr=[tmp_path / "a.png"])


def test_gray_and_tiny_images_have_reasons(tmp_path):
    flow = tiny_flow("sr-x4", image_channels=1).eval()
    write_image(tmp_path / "a.png", torch.rand(1, 16, 16))
    result = evaluate_files(flow, [tmp_path / "a.png"])
    assert "gray" in result.reason("psnr_y_tau0") and "needs 11 pixels" in result.reason("ssim_tau0")
    assert result.summary("bits_per_dim")["standard error"] is None
    (row,) = result.to_dict()["images"]
    assert row["figures"]["psnr_y_tau0"] is None and "gray" in row["reasons"]["psnr_y_tau0"]


def test_the_command_writes_table_csv_and_json(model, images, tmp_path):
    out = tmp_path / "out"
    result = run("evaluate", images, "--model", model, "--out", out, "-t", 0, "-t", 0.5, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads((out / "evaluation.json").read_text())
    assert json.loads(result.stdout) == document
    assert [row["image"] for row in document["images"]] == [f"image{i}.png" for i in range(3)]
    columns = {column["key"]: column for column in document["columns"]}
    assert all(column["convention"] for column in columns.values())
    bits = [row["figures"]["bits_per_dim"] for row in document["images"]]
    over = columns["bits_per_dim"]["over_images"]
    assert over["mean"] == pytest.approx(sum(bits) / 3)
    assert over["standard_error"] == pytest.approx(torch.tensor(bits).double().std().item() / math.sqrt(3))
    assert over["worst"] == max(bits)
    with (out / "evaluation.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["image", "bits_per_dim", "encoded_lr_psnr", "psnr_bicubic"] and len(rows) == 4
    assert "psnr_y_tau0_5" in rows[0] and rows[0][1:] == [column["key"] for column in document["columns"]]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", head) for head in rows[0])
    assert columns["psnr_tau0_5"]["convention"].endswith("average of the figures of 2 draws")
    assert document["title"].startswith(f"{model} on 3 images")
    worst = max(document["images"], key=lambda row: row["figures"]["bits_per_dim"])["image"]
    assert f"the worst image by bits per dimension is {worst}" in result.stderr
    again = run("evaluate", images, "--model", model, "--out", out)
    assert again.exit_code == 2 and "--force" in again.stderr
    shown = run("evaluate", images, "--model", model, "--out", out, "--force", "-n", 1, "-t", 0)
    assert all(words in shown.stdout for words in ("border 4", "standard", "error"))  # heads of columns fold


def test_paired_lr_images_are_used(flow, model, images, tmp_path):
    lr = tmp_path / "lr"
    lr.mkdir()
    for path in images.iterdir():
        size = [side // 4 * 4 for side in read_image(path).shape[-2:]]
        hr = read_image(path)[:, : size[0], : size[1]]
        write_image(lr / f"{path.stem}x4.png", 0.9 * bicubic_down(hr, 4).clamp(0, 1))
    result = run("evaluate", images, "--model", model, "--lr", lr, "--out", tmp_path / "a", "-t", 0, "-n", 1, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["columns"][1]["convention"].endswith("the LR image given")
    assert document["images"][0]["figures"]["encoded_lr_psnr"] < 40
    next(lr.iterdir()).unlink()
    missing = run("evaluate", images, "--model", model, "--lr", lr, "--out", tmp_path / "b")
    assert missing.exit_code == 2 and "expected one LR image named like" in " ".join(missing.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("--crop-to-multiple", 6),
            "expected images cropped to a multiple of 4, as sides of this HCFlow's images are; got 6",
        ),
        (("--crop-to-multiple", 64), "expected at least 64 pixels on each side"),
        (("-t", -1), "expected finite temperatures >= 0"),
    ],
)
def test_mistakes_write_nothing(model, images, tmp_path, arguments, words):
    result = run("evaluate", images, "--model", model, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_shares_are_disjoint_and_complete():
    shares = [Processes(rank=rank, count=3).share(range(8)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(8))


def test_a_plan_is_resolved_once_and_a_pair_cropped_once(flow, images, monkeypatch):
    calls = {"resolve": 0, "crop": 0}

    def counting(name, function):
        def counted(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(EvaluationPlan, "resolve", counting("resolve", EvaluationPlan.resolve))
    crop = counting("crop", crop_pair)
    for module in ("flowsr.workflows.pairs", "flowsr.evaluation.one_image"):
        monkeypatch.setattr(f"{module}.crop_pair", crop)
    result = evaluate_files(flow, sorted(images.iterdir()), plan=EvaluationPlan(num_samples=1))
    # Each image is read as it is measured, and before the first is: whether all can be read, and whether they fit.
    assert calls == {"resolve": 1, "crop": 4 * 3}
    assert result.plan.temperatures == (0.0, 0.8) and result.plan.lr_log_scale == -6.0


def test_one_default_temperature_for_a_task():
    plan, rescaling = EvaluationPlan(), tiny_flow("rescaling-x4")
    assert plan.resolve(tiny_flow()).temperatures == (RESTORE_TEMPERATURE, DRAW_TEMPERATURE)
    assert plan.resolve(rescaling).temperatures == (RESTORE_TEMPERATURE, MODEL_TEMPERATURE)
    assert DrawPlan().temperatures == (DRAW_TEMPERATURE,)
    assert StudySettings().temperature == MODEL_TEMPERATURE
    said = {"sample": f"[default: ({DRAW_TEMPERATURE:g})]", "upscale": f"[default: {RESTORE_TEMPERATURE:.1f}]"}
    said |= {"study": f"[default: {MODEL_TEMPERATURE:.1f}]", "evaluate": f"[default: (0 and {DRAW_TEMPERATURE:g};"}
    for command, words in said.items():
        assert words in " ".join(run(command, "--help").stdout.replace("│", " ").split()), command
