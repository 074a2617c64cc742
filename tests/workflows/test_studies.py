"""Named studies, from the library and from the command line."""

import json
from dataclasses import replace

import pytest
import torch
from cases import tiny
from typer.testing import CliRunner

import flowsr
from flowsr.calibration import RankTest, Recalibration, calibrate_intervals
from flowsr.cli.app import app
from flowsr.cli.study import Solver
from flowsr.images import make_lr, write_image
from flowsr.posterior.solve import Method
from flowsr.statistics.intervals import bootstrap_interval
from flowsr.testing import randomize
from flowsr.workflows.pairs import centre_crop, varied_crop
from flowsr.workflows.processes import Processes
from flowsr.workflows.studies import STUDIES, StudySettings, pairs_remark, register, temperature_remark
from flowsr.workflows.study import run_study

TINY = flowsr.HCFlowConfig(
    steps=2, conditional_steps=1, hidden_channels=4, conditional_hidden_channels=4, features=4, growth=2, rrdbs=(1, 1)
)


def _flow():
    torch.manual_seed(0)
    flow = flowsr.HCFlow(TINY, start="haar")
    flow.initialize(torch.rand(2, 3, 16, 16))
    return randomize(flow, strength=0.02)


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        write_image(images / f"{name}.png", torch.rand(3, 24, 32, generator=generator))
    return images


def test_the_command_knows_the_studies_and_solvers():
    from typing import get_args

    listed = CliRunner().invoke(app, ["study", "--list"])
    assert listed.exit_code == 0
    told = [line.split(maxsplit=1) for line in listed.stdout.splitlines()[1:] if line]
    assert told == [[name, study.question] for name, study in STUDIES.items()]
    assert {solver.value for solver in Solver} == set(get_args(Method))


@pytest.mark.parametrize("name", [name for name, study in STUDIES.items() if study.of_images])
def test_a_study_writes_figures_table_and_json(name, folder, tmp_path, monkeypatch):
    flowsr.save(_flow(), tmp_path / "tiny.safetensors")
    monkeypatch.setattr("flowsr.workflows.studies.restoration._OPTIMIZATION", 5)
    out = tmp_path / "out"
    args = ["study", name, folder, "--model", tmp_path / "tiny.safetensors", "--out", out]
    args += ["--crop", 16, "-n", 8, "--pairs", 20, "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, result.output
    expected = {
        f"{name}.json",
        f"{name}.txt",
        *(f"{name}_{part.replace(' ', '_')}.png" for part in STUDIES[name].parts),
    }
    assert {path.name for path in out.iterdir()} == expected
    document = json.loads(result.stdout)
    assert document == json.loads((out / f"{name}.json").read_text())
    assert set(document["parts"]) == {part.replace(" ", "_").lower() for part in STUDIES[name].parts}
    assert document["images"] == ["a", "b"] and document["settings"]["seed"] == 0
    assert STUDIES[name].question in (out / f"{name}.txt").read_text()
    again = CliRunner().invoke(app, list(map(str, args)))
    assert again.exit_code == 2 and "--force" in again.stderr


def test_a_new_study_needs_its_function_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(STUDIES, "nothing", None)  # so that it is gone afterwards

    @register("What comes out of nothing?", parts=("draws",), steps=lambda images, _: images)
    def nothing(flow, images, settings, advance):
        return STUDIES["uncertainty"].run(flow, images, settings, advance, processes=Processes())

    with pytest.raises(AssertionError, match="expected the parts"):  # it says it has one, and has two
        run_study("nothing", _flow(), {"a": torch.rand(3, 16, 16)}, StudySettings(crop=16, num_samples=8))
    listed = CliRunner().invoke(app, ["study", "--list"]).stdout
    assert ["nothing", "What comes out of nothing?"] in [line.split(maxsplit=1) for line in listed.splitlines()]
    misspelt = CliRunner().invoke(app, ["study", "nothin", str(folder), "--out", str(tmp_path / "out")])
    assert misspelt.exit_code == 2 and "did you mean nothing?" in misspelt.stderr


@pytest.mark.parametrize(
    ("model", "options", "shown"),
    [("srflow-x4", (), ["z_3 norm", "z_1 norm"]), ("sr-x4", ("--lr-log-scale", -3.0), ["lr norm", "z_2 norm"])],
)
def test_calibration_of_srflow_and_with_a_width_of_the_lr_image(model, options, shown, folder, tmp_path):
    flowsr.save(tiny(model, strength=0.05), tmp_path / "tiny.safetensors")
    args = ["study", "calibration", folder, "--model", tmp_path / "tiny.safetensors", "--out", tmp_path / "out"]
    args += ["--crop", 16, "-n", 8, "--pairs", 20, "--device", "cpu", "--json", *options]
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["settings"]["lr_log_scale"] == (-3.0 if options else "-inf")
    assert set(shown) <= set(document["parts"]["latent_pit"]["names"])
    levels = [int(name[2]) for name in shown if name.startswith("z_")]
    assert set(levels) <= set(document["parts"]["temperature"]["levels"])


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [("srflow-x4", ("--lr-log-scale", -3.0), "no lr_log_scale for SRFlow"), ("glow", (), "density of images alone")],
)
def test_what_a_study_refuses(model, options, message, folder, tmp_path):
    flowsr.save(tiny(model), tmp_path / "tiny.safetensors")
    args = ["study", "uncertainty", folder, "--model", tmp_path / "tiny.safetensors", "--out", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, [*args, "--crop", 16, "--device", "cpu", *options])))
    assert result.exit_code == 2 and message in " ".join(result.stderr.split())


def test_chains_by_the_command(folder):
    images = {"a": torch.rand(3, 20, 20)}
    counts = []
    settings = StudySettings(crop=16, num_samples=4, method="pcn")
    report = run_study("deblurring", _flow(), images, settings, on_step=lambda: counts.append(1))
    assert len(counts) == STUDIES["deblurring"].steps(1, settings)
    assert "residual / noise" in report.to_text()
    assert report.plot().axes


def test_the_crop_is_where_the_image_varies_most():
    generator = torch.Generator().manual_seed(0)
    image = 0.5 + 0.01 * torch.randn(3, 40, 56, generator=generator)
    image[:, 11:27, 29:45] += 0.3 * torch.randn(3, 16, 16, generator=generator)
    assert torch.equal(varied_crop(image, 16, name="a"), image[:, 11:27, 29:45])
    everywhere = [image[:, top : top + 24, left : left + 24] for top in range(17) for left in range(33)]
    variances = torch.stack([crop.var((1, 2), correction=0).sum() for crop in everywhere])
    assert torch.equal(varied_crop(image, 24, name="a"), everywhere[int(variances.argmax())])
    assert torch.equal(varied_crop(torch.full((1, 9, 9), 0.3), 8, name="flat"), torch.full((1, 8, 8), 0.3))
    with pytest.raises(ValueError, match="got small of 12 × 9 pixels: lower --crop"):
        varied_crop(torch.rand(1, 9, 12), 10, name="small")


@pytest.mark.parametrize("name", ["inpainting", "deblurring"])
def test_the_figure_shows_the_truth(name, monkeypatch):
    monkeypatch.setattr("flowsr.workflows.studies.restoration._OPTIMIZATION", 5)
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    report = run_study(name, _flow(), {"a": image}, StudySettings(crop=16, num_samples=8))
    axes = report.plot().axes[0]
    assert axes.get_title(loc="left") == "truth"
    shown = torch.as_tensor(axes.images[0].get_array()).movedim(-1, 0)
    assert torch.equal(shown, varied_crop(image, 16, name="a"))


def test_uncertainty_names_the_image_and_shows_truth_and_input():
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(3, 24, 32, generator=generator) for name in ("cat", "dog")}
    report = run_study("uncertainty", _flow(), images, StudySettings(crop=16, num_samples=8))
    text = report.to_text()
    assert "posterior of cat, the 16x16 pixels in its middle" in text and "posterior of dog" not in text
    assert "16x16 pixels in the middle of 2 images; the draws shown are of the first" in text
    assert "mean of 1 draw " in text and "mean of 2 draws" in text
    assert report.to_dict()["parts"]["draws"]["name"].startswith("cat") and "truth" not in report.to_dict()["parts"]
    figure = report.figures()["draws"]
    assert figure.get_suptitle().startswith("Posterior of cat")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["truth", "LR image: the input", "mean of 8 draws"]
    hr = centre_crop(images["cat"], 16, name="cat")
    for axes, image in zip(figure.axes, (hr, make_lr(hr, 4)), strict=False):
        assert torch.equal(torch.as_tensor(axes.images[0].get_array()).movedim(-1, 0), image)
    exceedance = figure.axes[titles.index("P(value > 0.5)")]
    assert [text.get_text() for text in exceedance.texts] == ["mean over the channels"]


def test_calibration_says_of_how_many_images_its_pairs_are():
    subject = "20 crops of 16x16 pixels of 5 images"
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(3, 16, 16, generator=generator) for name in "abcde"}
    report = run_study("calibration", _flow(), images, StudySettings(pairs=20, num_samples=19))
    assert report.subject == subject
    assert any("20 pairs come from 5 images" in remark for remark in report.remarks)
    assert f"- {report.remarks[0]}" in report.to_text() and subject in report.to_text()
    assert "must not have been trained on them" in report.question and "held-out" not in report.to_text()
    assert report.to_dict()["remarks"] == list(report.remarks)


def test_bounds_are_calibrated_on_other_images_than_they_are_checked_on(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(3, 16, 16, generator=generator) for name in "abcdefg"}
    seen = {}

    def kept(summaries, *, images=None, **more):
        seen[len(seen)] = list(images)
        return calibrate_intervals(summaries, images=images, **more)

    monkeypatch.setattr("flowsr.workflows.studies.guarantees.calibrate_intervals", kept)
    steps = []
    settings = StudySettings(pairs=21, num_samples=8, crop=16)
    report = run_study("conformal", _flow(), images, settings, on_step=lambda: steps.append(1))
    assert len(steps) == STUDIES["conformal"].steps(7, settings) == 21
    assert report.subject == "3 crops of 16x16 pixels of each of 4 images to calibrate and 3 fresh ones"
    checked = report.parts["intervals"]
    assert all(len(names) == 12 and len(set(names)) == 4 for names in seen.values())
    assert checked.alpha == 0.2 and checked.calibrated_on == 4
    assert checked.checks["conformal, std"].coverage.count == 3
    told = report.to_text()
    assert "4 images cannot promise 90%, only 80%: 18 images in all could" in told
    assert "need 8 images to calibrate, 16 in all, and are left out" in told
    # The model is a random one, and what it claims for 80 % is short of that.
    assert checked.checks["model, std"].coverage.value < 0.75
    assert checked.checks["conformal, std"].coverage.value > 0.9
    with pytest.raises(ValueError, match="at least two images, one to calibrate and one to check; got one"):
        run_study("conformal", _flow(), {"a": images["a"]}, settings)


def test_risk_controlling_intervals_come_with_enough_images():
    generator = torch.Generator().manual_seed(0)
    images = {str(i): torch.rand(3, 16, 16, generator=generator) for i in range(44)}
    report = run_study("conformal", _flow(), images, StudySettings(pairs=44, num_samples=4, crop=16))
    checks = report.parts["intervals"].checks
    assert checks["risk-controlling, std"].size.value > checks["conformal, std"].size.value
    assert not any("left out" in remark for remark in report.remarks) and len(report.remarks) == 1


def test_remarks():
    assert pairs_remark(20, 20) is None and "1 image:" in pairs_remark(20, 1)
    ranks = torch.stack([torch.arange(40) % 2 * 49, torch.arange(40) % 50], 1)  # norms at both ends, and even ones
    pit = RankTest("PIT", ("z_1 norm", "z_2 norm"), ranks, 50, (1e-9, 0.9), 0.01)
    interval = bootstrap_interval(torch.linspace(0, 1, 20).numpy())
    recalibrated = Recalibration((0.9, 0.31), (2, 1), ((1, 1.0, 1.0),), 1.0, 0.9, interval, (0.3, 1.7))
    remark = temperature_remark(pit, recalibrated)
    assert remark is not None and remark.endswith("τ = 0.31 for z_1") and "z_2" not in remark
    assert temperature_remark(pit, replace(recalibrated, temperature=(0.9, 1.2))) is None


def test_messages():
    with pytest.raises(ValueError, match="uncertainty, calibration, local_calibration, inpainting"):
        run_study("psnr", _flow(), {"a": torch.rand(3, 16, 16)})
    with pytest.raises(ValueError, match="at least one image"):
        run_study("uncertainty", _flow(), {})
    with pytest.raises(ValueError, match="got small of 16 × 16 pixels: lower --crop"):
        run_study("uncertainty", _flow(), {"small": torch.rand(3, 16, 16)}, StudySettings(crop=24))
    with pytest.raises(ValueError, match="multiple of 8"):
        StudySettings(crop=20)
    with pytest.raises(ValueError, match="pairs >= 20"):
        StudySettings(pairs=3)
    with pytest.raises(ValueError, match="temperature and noise > 0"):
        StudySettings(noise=0.0)


def test_samplers_meet_without_images(tmp_path):
    out = tmp_path / "out"
    args = ["study", "samplers", "--problem", "two modes", "--sampler", "langevin", "--sampler", "exact"]
    args += ["--budget", 600, "--seeds", 2, "-n", 100, "--out", out, "--json"]
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"samplers.json", "samplers.txt", "samplers_contest.png"}
    document = json.loads(result.stdout)
    assert document["model"] is None and document["images"] == [] and document["provenance"] is None
    (standing,) = document["parts"]["contest"]["standings"]
    langevin, exact = standing["scores"]
    assert 480 < sum(langevin["figures"]["spent"]) / 2 <= 700 and len(langevin["figures"]["mean_error"]) == 2
    floor = standing["floors"]["mean_error"][0]
    assert max(exact["figures"]["mean_error"]) < 3 * floor < sum(langevin["figures"]["mean_error"]) / 2 + 2 * floor
    assert "two modes (2x2, contrast squared; posterior by quadrature)" in (out / "samplers.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("samplers", "FOLDER"), "expected no FOLDER, as it makes its own problems, for the study samplers; got"),
        (("uncertainty",), "expected a FOLDER of HR images, or one for the study uncertainty; got none"),
        (("samplers", "--sampler", "langevn"), "did you mean langevin?"),
        (("samplers", "--problem", "two mode"), "did you mean two modes?"),
    ],
)
def test_what_does_not_belong_to_a_study_is_refused(arguments, told, folder, tmp_path):
    given = [str(folder) if word == "FOLDER" else word for word in arguments]
    result = CliRunner().invoke(app, ["study", *given, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and told in " ".join(result.stderr.split())
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
