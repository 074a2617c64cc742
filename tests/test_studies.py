"""Named studies, from the library and from the command line."""

import json

import pytest
import torch
from typer.testing import CliRunner

import flowsr
from flowsr.cli.app import app
from flowsr.cli.study import _FIGURES, Solver, StudyName
from flowsr.images import write_image
from flowsr.posterior.solve import Method
from flowsr.studies import STUDIES, StudySettings, run_study
from flowsr.studies.crops import varied_crop
from flowsr.testing import randomize

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

    assert {name.value for name in StudyName} == set(STUDIES)
    assert {solver.value for solver in Solver} == set(get_args(Method))


@pytest.mark.parametrize("name", list(StudyName))
def test_a_study_writes_figures_table_and_json(name, folder, tmp_path, monkeypatch):
    flowsr.save(_flow(), tmp_path / "tiny.safetensors")
    monkeypatch.setattr("flowsr.studies.run._OPTIMIZATION", 5)
    out = tmp_path / "out"
    args = ["study", name, folder, "--model", tmp_path / "tiny.safetensors", "--out", out]
    args += ["--crop", 16, "-n", 8, "--pairs", 20, "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, list(map(str, args)))
    assert result.exit_code == 0, result.output
    expected = {f"{name}.json", f"{name}.txt", *(f"{name}_{part.replace(' ', '_')}.png" for part in _FIGURES[name])}
    assert {path.name for path in out.iterdir()} == expected
    document = json.loads(result.stdout)
    assert document == json.loads((out / f"{name}.json").read_text())
    assert set(document["parts"]) == set(_FIGURES[name])
    assert document["images"] == ["a", "b"] and document["settings"]["seed"] == 0
    assert STUDIES[name].question in (out / f"{name}.txt").read_text()
    again = CliRunner().invoke(app, list(map(str, args)))
    assert again.exit_code == 2 and "--force" in again.stderr


def test_chains_by_the_command(folder):
    images = {"a": torch.rand(3, 20, 20)}
    counts = []
    settings = StudySettings(crop=16, num_draws=4, method="pcn")
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
    with pytest.raises(ValueError, match="got small of 9x12: lower --crop"):
        varied_crop(torch.rand(1, 9, 12), 10, name="small")


@pytest.mark.parametrize("name", ["inpainting", "deblurring"])
def test_the_figure_shows_the_truth(name, monkeypatch):
    monkeypatch.setattr("flowsr.studies.run._OPTIMIZATION", 5)
    image = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0))
    report = run_study(name, _flow(), {"a": image}, StudySettings(crop=16, num_draws=8))
    axes = report.plot().axes[0]
    assert axes.get_title(loc="left") == "truth"
    shown = torch.as_tensor(axes.images[0].get_array()).movedim(-1, 0)
    assert torch.equal(shown, varied_crop(image, 16, name="a"))


def test_messages():
    with pytest.raises(ValueError, match="uncertainty, calibration, inpainting"):
        run_study("psnr", _flow(), {"a": torch.rand(3, 16, 16)})
    with pytest.raises(ValueError, match="at least one image"):
        run_study("uncertainty", _flow(), {})
    with pytest.raises(ValueError, match="got small of 16x16: lower --crop"):
        run_study("uncertainty", _flow(), {"small": torch.rand(3, 16, 16)}, StudySettings(crop=24))
    with pytest.raises(ValueError, match="multiple of 8"):
        StudySettings(crop=20)
    with pytest.raises(ValueError, match="pairs >= 20"):
        StudySettings(pairs=3)
    with pytest.raises(ValueError, match="temperature and noise > 0"):
        StudySettings(noise=0.0)
