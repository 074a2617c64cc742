"""Validation figures by their definitions, and the benchmark that prints them beside the authors'."""

import json
import math

import pytest
import torch
from cases import TINY

from benchmarks.training import authors, main, per_image, table, yardstick
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.images import make_lr, read_image, round_to_8bit, write_image
from flowsr.metrics import psnr
from flowsr.models import HCFlow
from flowsr.testing import randomize
from flowsr.training import ImageScores, score_images, summarize
from flowsr.training.pictures import validation_grid
from flowsr.training.validation import score_image


def image(height=40, width=52):
    return torch.rand(3, height, width).mul(255).round().div(255)


def test_scores_follow_their_definitions():
    flow = randomize(HCFlow.from_preset("sr-x4-small", start="haar", **TINY), strength=0.02)
    hr = image()
    score = score_image(flow, hr, temperature=0.9)
    crop = hr[:, :32, :48]
    lr = make_lr(crop, 4)
    # One draw of noise against the average of many: the noise moves bits/dim a little.
    noisy = crop + torch.rand(32, 3, 32, 48) / 256
    nats = flow.condition(lr).log_prob(noisy).mean().item()
    assert score.bits_per_dim == pytest.approx(-nats / (3 * 32 * 48 * math.log(2)) + 8, rel=0.05)
    fidelity = psnr(flow.encode(crop).lr.clamp(0, 1), lr, border=0).item()
    assert score.encoded_lr_psnr == pytest.approx(fidelity, abs=1e-6)
    decoded = round_to_8bit(flow.sample(lr, temperature=0.0)[0])
    assert score.psnr_mean == pytest.approx(psnr(decoded, crop, border=4).item(), abs=1e-6)
    assert score.psnr_y_mean == pytest.approx(psnr(decoded, crop, border=4, colour="y").item(), abs=1e-6)
    assert score.psnr_draw < score.psnr_mean
    assert score_image(flow, hr, temperature=0.9) == score
    assert score_image(flow, hr, temperature=0.0).psnr_draw == pytest.approx(score.psnr_mean, abs=1e-6)


@pytest.mark.parametrize("preset", ["sr-x4-small", "rescaling-x4-small"])
def test_scores_are_those_of_an_evaluation(preset):
    flow = randomize(HCFlow.from_preset(preset, start="haar", **TINY), strength=0.02)
    hr, lr = image(), image(10, 13)
    (score,) = score_images(flow, [("a", hr, lr)], temperature=0.7, seed=4)
    evaluated = score_pair(flow.eval(), hr, lr, plan=EvaluationPlan(temperatures=(0.0, 0.7), num_samples=1, seed=4))
    numbers = {key: figure.number for key, figure in evaluated.items()}
    assert score.bits_per_dim == numbers.get("bits_per_dim")
    assert score.encoded_lr_psnr == numbers["encoded_lr_psnr"]
    assert [score.psnr_mean, score.psnr_y_draw] == [numbers["psnr_tau0"], numbers["psnr_y_tau0_7"]]
    assert (score.bits_per_dim is None) == (preset == "rescaling-x4-small")


def test_pictures_show_the_lr_images_given(tmp_path):
    flow = HCFlow.from_preset("sr-x4-small", start="haar", **TINY)
    hr, dark = image(43, 70), torch.zeros(3, 10, 17)
    validation_grid(flow, [("dark", hr, dark), ("bicubic", hr)], tmp_path / "a" / "grid.png", side=32)
    grid = read_image(tmp_path / "a" / "grid.png")
    assert grid.shape == (3, 8 + 64, 128)
    headings, rows = grid[:, :8], grid[:, 8:]
    assert all(0.5 < part.mean() < 1 and part.min() < 0.5 for part in headings.split(32, -1))
    (given, *_, truth), (bicubic, *_) = (line.split(32, -1) for line in rows.split(32, -2))
    assert given.max() == 0
    # The middle, on the grid of the LR image: 32 of 43 rows from row 4 on, 32 of 70 columns from column 16 on.
    assert torch.equal(truth, hr[:, 4:36, 16:48])
    assert (bicubic - truth).abs().mean() < 0.3


def test_a_rescaling_model_is_scored_on_its_own_lr_image():
    flow = randomize(HCFlow.from_preset("rescaling-x4-small", **TINY), strength=0.05)
    hr = image(32, 32)
    score = score_image(flow, hr)
    own = round_to_8bit(flow.encode(hr).lr)
    assert score.psnr_mean == pytest.approx(psnr(round_to_8bit(flow.decode(own)), hr, border=4).item(), abs=1e-6)


def test_a_model_stays_in_the_mode_it_was_in_and_gray_images_work():
    flow = HCFlow.from_preset("sr-x4-small", image_channels=1, **TINY).train()
    scores = score_images(flow, [("gray", image()[:1]), ("other", image()[:1])])
    assert flow.training
    assert [score.name for score in scores] == ["gray", "other"]
    assert scores[0].psnr_mean > 0 and scores[0].psnr_y_mean is None
    assert "psnr_y_mean" not in summarize(scores)


def scores():
    return [ImageScores(f"img_{i}", bits, 40.0 + i, 25.0, 23.0, 26.0, 24.0) for i, bits in enumerate((3.0, 3.2, 9.0))]


def test_means_medians_and_the_worst():
    summary = summarize(scores())
    assert summary["bits_per_dim"] == pytest.approx(15.2 / 3)
    assert summary["bits_per_dim_median"] == 3.2
    assert summary["bits_per_dim_worst"] == 9.0
    text = per_image(scores())
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["img_0", "img_1", "img_2", "mean", "median"]


def test_the_table_has_both_columns():
    rows = [{"step": 250.0, "bits_per_dim": 4.5, "encoded_lr_psnr": 47.0, "psnr_mean": 25.0, "bits_per_dim_worst": 6.5}]
    lines = table("sr-x4-small-v1", 1500, rows).splitlines()
    assert lines[1].split() == [
        "250",
        "|",
        "31.60",
        "26.20",
        "21.70",
        "18.50",
        "|",
        "4.50",
        "47.00",
        "25.00",
        "-",
        "-",
        "6.50",
    ]
    assert [line.split()[0] for line in lines[1:5]] == ["250", "500", "1000", "1500"]
    assert lines[-1] == "bicubic: 26.66 dB"
    assert list(authors("sr-x4-small-v1", 6000)) == [1500, 3000, 4500, 6000]
    assert authors("sr-x4-small-v1", 700) == {}
    rescaling = table("rescaling-x4-small", 1500, []).splitlines()
    assert rescaling[4].split() == ["1500", "|", "31.54", "26.90", "31.60", "|", "-", "-", "-", "-"]


def test_the_yardsticks_settings():
    chosen = yardstick("sr-x4-small", 1500)
    assert (chosen.batch_size, chosen.crop, chosen.learning_rate, chosen.cosine_to) == (8, 64, 5e-4, 1e-5)
    assert (chosen.betas, chosen.clip_value, chosen.clip_norm, chosen.passes) == ((0.9, 0.99), 5, 100, ("likelihood",))
    assert yardstick("rescaling-x4-small", 10, lr_mse=1.0).lr_mse == 1.0


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        write_image(folder / f"{i}.png", image(72, 80))
    write_image(folder / "img_HR.png", image(64, 64))
    write_image(folder / "img_LR.png", image(16, 16))
    out = tmp_path / "out"
    arguments = ["--data", folder, "--set5", folder, "--steps", "2", "--hold-out", "1", "--at", "1", "--out", out]
    with pytest.warns(UserWarning, match=r"img_LR\.png: expected at least 64 pixels"):
        assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    assert "authors bits_per_dim" in printed
    assert "Training images held out" in printed
    report = json.loads((out / "benchmark.json").read_text())
    assert [row["step"] for row in report["rows"]] == [1, 2]
    assert [score["name"] for score in report["set5"]] == ["img_HR.png"]
    assert len(report["held_out"]) == 1
