"""What shells complete: scripts for each, names that are those of the package, and no torch while they are asked."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run
from typer.testing import CliRunner

from flowsr.cli import complete
from flowsr.cli.app import app
from flowsr.interop import DEEPINV_SAMPLERS
from flowsr.known_posteriors import PROBLEMS, SAMPLERS
from flowsr.models import presets
from flowsr.models.weights import RELEASES, shipped_path
from flowsr.training import RECIPES, Recipe
from flowsr.workflows.studies import STUDIES

SHELLS = ("bash", "zsh", "fish")


def asked(shell, *words):
    """What a shell is answered when Tab is pressed behind the words, of which the last is begun."""
    line = " ".join(("flowsr", *words))
    env = {
        "_FLOWSR_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    result = CliRunner().invoke(app, [], prog_name="flowsr", env=env)
    assert result.exit_code == 0, result.output
    return result.output


def values(*words):
    return asked("bash", *words).split()


def test_names_read_off_the_source_are_those_of_the_package():
    assert complete.preset_names().keys() == presets().keys()
    for name, weights in complete.preset_names().items():
        kind = "shipped" if shipped_path(name) else "released" if name in RELEASES else "random"
        assert weights == f"{kind} weights", name
    assert complete.study_names() == {name: study.question for name, study in STUDIES.items()}
    assert set(complete.problem_names()) == {name.replace(" ", "-") for name in PROBLEMS}
    assert complete.sampler_names() == [*SAMPLERS, *DEEPINV_SAMPLERS]
    assert set(complete.recipe_names()) == set(RECIPES)
    assert complete.recipe_fields() == [field.name for field in dataclasses.fields(Recipe)]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_is_answered(shell):
    for words, expected in [
        (("sample", "a.png", "--model", "sr-x4"), ("sr-x4", "sr-x4-small", "sr-x4-small-v1")),
        (("compare", "glow-s"), ("glow-small",)),
        (("study", "unc"), ("uncertainty",)),
        (("train", "photographs", "--recipe", "nll+l1+"), ("nll+l1+perceptual+gan",)),
        (("train", "photographs", "--set", "learning_r"), ("learning_rate=",)),
        (("score", "a.png", "--device", "a"), ("auto",)),
        (("score", "a.png", "--dtype", "float6"), ("float64",)),
        (("sam",), ("sample",)),
    ]:
        lines = asked(shell, *words).strip().split("\n")
        assert len(lines) == len(expected) and all(text in line for text, line in zip(expected, lines, strict=True)), (
            lines
        )


def test_files_of_weights_are_completed_beside_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    for name in ("runs/first/model.safetensors", "runs/first/train.csv", "sr.safetensors"):
        (tmp_path / name).touch()
    assert "sr.safetensors" in (found := values("info", "sr")) and "sr-x8" in found
    assert values("info", "run") == ["runs/"]
    assert values("info", "runs/first/") == ["runs/first/model.safetensors"]
    assert values("info", "no/such/") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_every_shell(shell):
    env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "flowsr", "--show-completion", shell]
    shown = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout
    assert f"_FLOWSR_COMPLETE=complete_{shell}" in shown and "flowsr" in shown


def test_nothing_heavy_is_imported_while_a_shell_waits():
    code = """
import sys, flowsr.cli.app
from typer.testing import CliRunner
for words in ("flowsr info sr", "flowsr study x", "flowsr train f --set s", "flowsr train f --recipe n"):
    env = {"_FLOWSR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    print(CliRunner().invoke(flowsr.cli.app.app, [], prog_name="flowsr", env=env).output)
print(sorted({"torch", "pyro", "numpy", "matplotlib", "PIL"} & set(sys.modules)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "sr-x4-small" in said and "steps=" in said and said.strip().endswith("[]")


def test_cite_prints_bibtex_of_flowsr_and_of_models():
    own = run("cite").output
    assert own.startswith("@misc{flowsr,") and "version 0." in own and "@inproceedings{liang2021hierarchical," in own
    record = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    title, author, version = (
        re.search(rf'^[ -]*{key}: "?([^"\n]+)', record, re.M)[1] for key in ("title", "name", "version")
    )
    plain = own.replace("{flowsr}", "flowsr")
    assert f"title = {{{title}}}" in plain and f"{{{author}}}" in plain and f"version {version}" in plain
    srflow = run("cite", "--model", "srflow-x4-small").output
    assert srflow.startswith("@inproceedings{lugmayr2020srflow") and "@misc{flowsr" not in srflow
    assert own.count("{") == own.count("}") and srflow.count("{") == srflow.count("}")
    assert run("cite", "--model", "srflow-x5").exit_code == 2


def test_studies_are_listed_with_a_sentence_each():
    said = run("study", "--list").output
    assert all(name in said and study.question in said for name, study in STUDIES.items())
