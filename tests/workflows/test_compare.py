"""Two models on the same images: paired by hand, intervals of differences, refusals, and what the command writes."""

import csv
import json
import math
import subprocess
import sys

import pytest
import torch
from cases import tiny, tiny_flow
from commands import refused, run
from scipy import stats

import flowsr
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.images import read_image, write_image
from flowsr.statistics import bootstrap_interval
from flowsr.workflows.compare import compare_files

PLAN = EvaluationPlan(num_samples=2, temperatures=(0.0, 0.8), seed=3)


@pytest.fixture(scope="module")
def flow():
    with torch.random.fork_rng():
        return flowsr.HCFlow(tiny_flow().config, start="haar").eval()


@pytest.fixture(scope="module")
def noisy(flow):
    """The same with noise on its weights, which makes it worse."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        changed = flowsr.HCFlow(flow.config, start="haar").eval()
        changed.load_state_dict(flow.state_dict())
        for weights in changed.parameters():
            weights.add_(0.01 * torch.randn_like(weights))
    return changed


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "hr"
    folder.mkdir()
    for i, size in enumerate([(40, 36), (37, 50), (48, 33), (35, 35)]):
        write_image(folder / f"image{i}.png", torch.rand(3, *size))
    return folder


def files(folder):
    return sorted(folder.iterdir())


def test_a_model_differs_from_itself_by_nothing(flow, images):
    found = compare_files(flow, flow, files(images), plan=PLAN)
    assert len(found.figures) >= 12
    for figure in found.figures:
        ends = (figure.difference.value, figure.difference.low, figure.difference.high)
        assert (ends, figure.record) == ((0.0, 0.0, 0.0), (0, 0, 4)), figure.key
    assert "ran one after the other" in found.not_compared["Time of one draw"]
    assert not any("bicubic" in key for key in (figure.key for figure in found.figures))


def test_differences_are_those_of_the_images_one_by_one(flow, noisy, images):
    found = compare_files(flow, noisy, files(images), plan=PLAN)
    alone = {
        path.name: [score_pair(model, read_image(path), plan=PLAN) for model in (flow, noisy)] for path in files(images)
    }
    figures = {figure.name: figure for figure in found.figures}
    for name, key in {
        "Bits per dimension": "bits_per_dim",
        "Encoded LR-PSNR": "encoded_lr_psnr",
        "PSNR τ=0": "psnr_tau0",
        "SSIM-Y τ=0.8": "ssim_y_tau0_8",
        "Diversity (std) τ=0.8": "pixel_std_tau0_8",
    }.items():
        figure, differences = figures[name], {image: float(b[key]) - float(a[key]) for image, (a, b) in alone.items()}
        assert figure.differences == pytest.approx(differences, rel=1e-9), name
        assert figure.difference.value == pytest.approx(sum(differences.values()) / 4), name
        assert figure.means[1] - figure.means[0] == pytest.approx(figure.difference.value, rel=1e-6), name
        interval = bootstrap_interval(list(differences.values()), seed=3)
        assert (figure.difference.low, figure.difference.high) == pytest.approx((interval.low, interval.high)), name
    # Noise on the weights makes every image cost more and look worse, whichever end of the scale that is.
    assert figures["Bits per dimension"].difference.low > 0 and figures["Bits per dimension"].record == (0, 4, 0)
    assert figures["Encoded LR-PSNR"].difference.high < 0 and figures["Encoded LR-PSNR"].record == (0, 4, 0)
    assert compare_files(noisy, flow, files(images), plan=PLAN).figures[0].record == (4, 0, 0)


def test_the_interval_is_that_of_a_paired_test():
    """Against scipy's paired t; of two independent samples it would be ten times as wide."""
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(60, generator=generator, dtype=torch.float64) for _ in range(2))
    a, b = 28 + 3 * image, 28.2 + 3 * image + 0.3 * noise
    found = bootstrap_interval((b - a).tolist())
    paired, apart = stats.ttest_rel(b, a).confidence_interval(), stats.ttest_ind(b, a).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(paired), abs=0.1 * (paired.high - paired.low))
    assert found.high - found.low < 0.15 * (apart.high - apart.low)


def test_infinite_figures_count_but_are_not_averaged(flow, noisy, images):
    flat = images / "flat.png"
    write_image(flat, torch.full((3, 32, 32), 0.5))  # which Haar's decoding restores to the last bit
    kept = [flat, images / "image0.png"]
    same = next(f for f in compare_files(flow, flow, kept, plan=PLAN).figures if f.name == "PSNR τ=0")
    assert math.isinf(same.a["flat.png"]) and list(same.differences) == ["image0.png"]
    assert same.record == (0, 0, 2) and math.isnan(same.difference.low)
    assert same.to_dict()["interval"] is None and "single image" in same.to_dict()["reasons"]["interval"]
    assert (
        "PSNR τ=0 is not averaged over 1 of 2 images: infinite there."
        in compare_files(flow, flow, kept, plan=PLAN).to_text().splitlines()
    )
    worse = next(f for f in compare_files(flow, noisy, kept, plan=PLAN).figures if f.name == "PSNR τ=0")
    assert math.isfinite(worse.b["flat.png"]) and worse.record == (0, 2, 0)
    alone = compare_files(flow, flow, [flat], plan=PLAN)
    assert alone.not_compared["PSNR τ=0"] == "infinite for A or B on every image"


def test_an_image_without_a_figure_has_none_in_any_table(flow, images):
    write_image(images / "tiny.png", torch.rand(3, 16, 16))  # SSIM's window needs more
    found = compare_files(flow, flow, [images / "image0.png", images / "tiny.png"], plan=PLAN)
    ssim = next(figure for figure in found.figures if figure.name == "SSIM τ=0")
    assert list(ssim.a) == ["image0.png"] and "needs 11 pixels" in ssim.reason
    assert any(line.startswith("SSIM τ=0 is not averaged over 1 of 2 images: needs") for line in found.notes)
    (row,) = [row for row in csv.DictReader(found.to_csv().splitlines()) if row["image"] == "tiny.png"]
    assert row["ssim_tau0_a"] == row["ssim_tau0_difference"] == "" != row["psnr_tau0_a"]
    assert found.to_dict()["images"][1]["a"]["ssim_tau0"] is None


def test_what_one_model_lacks_or_measures_otherwise_is_listed(flow, images):
    srflow = tiny("srflow-x4").eval()
    there = compare_files(flow, srflow, files(images)[:1], plan=PLAN)
    back = compare_files(srflow, flow, files(images)[:1], plan=PLAN)
    assert there.not_compared["Encoded LR-PSNR"] == "B has no such figure"
    assert back.not_compared["Encoded LR-PSNR"] == "A has no such figure"
    # Densities of another width around the LR image are other densities.
    assert there.not_compared["Bits per dimension"].startswith("measured in two ways: A p(hr | lr), ")
    assert "PSNR τ=0" in [figure.name for figure in there.figures]


def test_the_crop_suits_both_and_a_given_one_must(flow, images, tmp_path):
    glow, realnvp = tiny("glow-small").eval(), tiny("realnvp-small").eval()
    found = compare_files(glow, realnvp, files(images)[:1])
    assert [figure.name for figure in found.figures] == ["Bits per dimension"]
    three = tiny("irn-x3").eval()
    assert compare_files(three, three, files(images)[:1]).title.endswith("multiples of 3")
    with pytest.raises(ValueError, match="multiple of 8, as sides of this SRFlow's"):
        compare_files(flow, tiny("srflow-x4"), [tmp_path / "none.png"], plan=EvaluationPlan(multiple=4))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("sr-x8", "of the same upscale factor; got one of x4 .* and one of x8"),
        ("rescaling-x4", "for one task; got one for super-resolution .* and one for rescaling"),
        ("irn-x4", r"for rescaling \(IRN\)"),
        ("glow-small", r"for images alone \(Glow\)"),
        ("grey", "one for colour images .* and one for grey images"),
    ],
)
def test_models_for_different_tasks_are_refused(flow, tmp_path, other, words):
    model = tiny_flow("sr-x4", image_channels=1) if other == "grey" else tiny(other)
    with pytest.raises(ValueError, match=words):
        compare_files(flow, model, [tmp_path / "none.png"])


def test_the_command_writes_table_csv_json_and_picture(flow, noisy, images, tmp_path):
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for model, path in zip((flow, noisy), paths, strict=True):
        flowsr.save(model, path)
    out = tmp_path / "out"
    arguments = ("compare", *paths, images, "--out", out, "--device", "cpu", "-t", 0)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((out / "compare.json").read_text())
    assert [document["models"][key]["model"] for key in "ab"] == [str(path) for path in paths]
    bits = document["figures"][0]
    assert (bits["key"], bits["better"], bits["num_images"]) == ("bits_per_dim", "low", 4)
    assert (bits["images_better"], bits["images_worse"], bits["images_same"]) == (0, 4, 0)
    assert bits["interval"]["low"] <= bits["mean_difference"] <= bits["interval"]["high"]
    with (out / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [f"image{i}.png" for i in range(4)]
    for row, image in zip(rows, document["images"], strict=True):
        a, b, difference = (float(row[f"bits_per_dim_{part}"]) for part in ("a", "b", "difference"))
        assert (a, b) == (image["a"]["bits_per_dim"], image["b"]["bits_per_dim"]) and difference == b - a
    assert read_image(out / "compare.png", mode="RGB").shape[-1] > 800
    assert refused(run(*arguments), "compare.csv exists", "--force")
    table = " ".join(run(*arguments, "--force").stdout.split())
    for words in (
        "A: ",
        "B − A",
        "95% interval",
        "PSNR τ=0",
        "0 / 4 / 0",
        "Not compared: LPIPS τ=0",
        "one figure at a time",
    ):
        assert words in table, words
    assert refused(run("compare", images, *paths), f"expected two models, then images; got the folder {images}")


def test_a_folder_named_like_a_preset_stands_for_no_model(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sr-x4-small").mkdir()
    lone = files(images)[0]
    result = run("compare", "sr-x4-small", "sr-x4-small", lone, "-t", 0, "-n", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "compare.csv").is_file()


@pytest.mark.slow
def test_two_processes_find_what_one_does(flow, noisy, images, tmp_path):
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for model, path in zip((flow, noisy), paths, strict=True):
        flowsr.save(model, path)
    arguments = [str(word) for word in ("compare", *paths, images, "--device", "cpu", "-t", 0, "--out")]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "flowsr"]
    two = subprocess.run([*launcher, *arguments, str(tmp_path / "two")], capture_output=True, text=True, timeout=200)
    assert two.returncode == 0, two.stderr[-3000:]
    assert run(*arguments, tmp_path / "one").exit_code == 0
    one, both = (json.loads((tmp_path / name / "compare.json").read_text())["images"] for name in ("one", "two"))
    assert [row["image"] for row in both] == [row["image"] for row in one]
    for row, alone in zip(both, one, strict=True):
        assert row["a"] == pytest.approx(alone["a"], rel=1e-5) and row["b"] == pytest.approx(alone["b"], rel=1e-5)
