"""Exercises: solutions pass their own checks, empty exercises fail each of them with a hint, and the two agree."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exercises import FOLDER, SOLUTIONS, emptied, exercise_of, tasks


def ids(path: Path) -> str:
    return path.stem.removeprefix("plot_solution_")


def run(path: Path, folder: Path) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    environment |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert not list(folder.iterdir()), "an exercise leaves no files behind"
    return done


def test_there_are_four_with_their_solutions():
    assert [path.name.split("_")[2] for path in SOLUTIONS] == ["01", "02", "03", "04"]
    others = {path.name for path in FOLDER.glob("*.py")} - {path.name for path in SOLUTIONS}
    assert others == {exercise_of(path).name for path in SOLUTIONS}


@pytest.mark.parametrize("path", SOLUTIONS, ids=ids)
def test_an_exercise_is_its_solution_without_what_is_to_be_written(path):
    text = path.read_text()
    assert exercise_of(path).read_text() == emptied(text), "run python tests/exercises.py"
    assert len(tasks(text)) >= 4
    for task in tasks(emptied(text)):
        assert [type(node).__name__ for node in task.body] == ["Expr", "Raise"], "a docstring, nothing of the solution"


@pytest.mark.parametrize("path", SOLUTIONS, ids=ids)
def test_reads_as_a_page(path):
    for text in (path.read_text(), exercise_of(path).read_text()):
        title, rule = text.split("\n")[1:3]
        assert text.startswith('r"""\n') and rule == "=" * len(title)
        assert text.count("plt.show()") == 1 and "\n# %%\n" in text
        # Lines of code are cut on a page if they are longer.
        assert max(map(len, text.split("\n"))) <= 88
        # All pages of a build are run in one process.
        dtypes = re.findall(r"^torch\.set_default_dtype\((.*?)\)", text, re.M)
        assert not dtypes or dtypes[-1] == "torch.float32", "a page leaves the default dtype as it was"
        # Each names the other's page, so that a reader finds it.
        for name in (path.name, exercise_of(path).name):
            assert f":ref:`sphx_glr_auto_examples_exercises_{name}`" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=ids)
def test_a_solution_passes_all_checks(path, tmp_path):
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT YET" not in done.stdout
    count = len(re.findall(r"^passed   ", done.stdout, re.M))
    assert count >= len(tasks(path.read_text())) and f"{count} of {count} checks passed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=ids)
def test_an_empty_exercise_says_what_is_missing(path, tmp_path):
    done = run(exercise_of(path), tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("AssertionError: what is missing is said beside NOT YET above")
    # No check passes by what is not written, and each has a hint in words below it.
    hints = re.findall(r"^NOT YET  .*\n         (.+) \(NotImplementedError: write this function\)$", done.stdout, re.M)
    assert re.search(rf"^0 of {len(hints)} checks passed$", done.stdout, re.M), done.stdout
    assert all(len(hint.split()) > 3 for hint in hints)


WRONG = {
    # What students get wrong, by exercise: the solution's line, the mistake, and the check that must find it.
    "01": [
        ("return y, log_scale", "return y, -log_scale", "its log-determinant is that of autograd"),
        ("x, -log_scale", "x, log_scale", "log-determinants there and back sum to zero"),
        ("total = total + ladj", "total = total - ladj", "the density integrates to one"),
    ],
    "02": [
        ("/ 256\n    return (math", "* 0\n    return (math", "the comb gains nothing any more"),
        ("log_p(v + u) - log_q", "log_p(v + u) + log_q", "with uniform noise it is the bound of b"),
        ("log_w.logsumexp(0) - math.log(k)", "log_w.mean(0)", "more draws, fewer bits"),
        ("* hr.numel() - log_p", "* hr.numel() / 3 - log_p", "it is what flowsr computes"),
    ],
    "03": [
        ("math.sqrt(2 / dims)", "math.sqrt(1 / dims)", "draws scatter around 1 by what you say"),
        ("return dims / 2", "return dims", "it is the mean over draws"),
        ("- 1).abs() <", "- 1) <", "zero is not, probable as it is"),
        ("2 * math.pi * temperature**2", "2 * math.pi", "it is a normal of standard deviation τ"),
    ],
    "04": [
        ("(x - mean) / std", "x - mean", "of draws it is uniform"),
        ("draws < truth", "draws > truth", "three numbers by hand"),
        ("0.8 * y, math.sqrt(0.2)", "0.8 * y, 0.2", "the posterior is right"),
        ('"too narrow" if excess > 0', '"too narrow" if excess < 0', "draws of 0.7 of its width are too narrow"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=ids)
def test_checks_find_what_is_wrong(path, tmp_path):
    for right, wrong, check in WRONG[ids(path)[:2]]:
        assert right in path.read_text(), right
        mistaken = tmp_path / "mistaken.py"
        mistaken.write_text(path.read_text().replace(right, wrong, 1))
        printed, dtype = io.StringIO(), torch.get_default_dtype()
        with contextlib.redirect_stdout(printed), torch.random.fork_rng():
            try:
                with pytest.raises(AssertionError, match="what is missing is said"):
                    runpy.run_path(str(mistaken))
            finally:
                torch.set_default_dtype(dtype)
        assert f"\nNOT YET  {check}" in f"\n{printed.getvalue()}", (right, printed.getvalue())
