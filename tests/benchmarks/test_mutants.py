"""The search for changes that no test notices: what is changed, and that a test which sees it kills it."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks import mutants
from benchmarks.mutants import Coverage, Mutant, mutants_of

SOURCE = '''
"""A text with 1 + 1."""

def area(width: "int | 3", *, sides=2) -> "0 < 1":
    """Of 2 sides."""
    if not width >= 0:
        raise ValueError(f"expected at least {0 + 0}")
    return sides * width if width and True else -1.5

def plot(area):
    return area + 8

def _draw_main(self, ax):
    ax.set_ylim(0, 1)
'''


def test_operators_comparisons_and_constants_are_changed_but_neither_words_nor_pictures():
    found = {(mutant.before, mutant.after) for mutant in mutants_of("area.py", SOURCE)}
    assert found == {
        ("2", "3"),
        ("not width >= 0", "width >= 0"),
        ("width >= 0", "width > 0"),
        ("0", "1"),
        ("sides * width if width and True else -1.5", "sides * width if not (width and True) else -1.5"),
        ("sides * width", "sides / width"),
        ("width and True", "width or True"),
        ("True", "False"),
        ("-1.5", "1.5"),
        ("1.5", "3.0"),
    }


def test_every_change_is_a_program_and_differs():
    for mutant in mutants_of("area.py", SOURCE):
        changed = mutant.apply(SOURCE)
        compile(changed, "area.py", "exec")
        assert changed != SOURCE and changed.count("\n") == SOURCE.count("\n")


def test_columns_count_bytes():
    source = 'x = "é" * (3 - 1)\n'
    [changed] = [m.apply(source) for m in mutants_of("x.py", source) if m.before == "3 - 1"]
    assert changed == 'x = "é" * ((3 + 1))\n'


def test_every_room_has_mutants():
    rooms = {mutant.file.split("/")[1] for mutant in mutants.population(list(mutants.ROOMS))}
    assert rooms == set(mutants.ROOMS)


def test_tests_of_the_room_and_quick_ones_come_first():
    mutant = Mutant("flowsr/metrics/a.py", 3, 4, 0, 1, "1", "2")
    seconds = {"tests/a.py::far": 0.1, "tests/metrics/a.py::slow": 2.0, "tests/metrics/a.py::quick": 1.0}
    known = Coverage({"flowsr/metrics/a.py": {"3": list(seconds), "9": ["tests/b.py::other"]}}, seconds)
    names = [test.rsplit("::")[1] for test in known.tests_of(mutant)]
    assert names == ["quick", "slow", "far"]
    imported = Mutant("flowsr/metrics/a.py", 1, 1, 0, 1, "1", "2")  # run by no test, but by the import
    assert [test.rsplit("::")[1] for test in known.tests_of(imported)] == ["quick", "slow"]


@pytest.mark.slow
def test_a_change_that_tests_notice_is_killed_and_another_survives(tmp_path):
    """A project of one line and one test, searched by the command: only ``>`` for ``>=`` goes unnoticed."""
    (tmp_path / "flowsr/metrics").mkdir(parents=True)
    for package in ("flowsr", "flowsr/metrics"):
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "flowsr/metrics/sign.py").write_text("def sign(x):\n    return x >= 0\n")
    (tmp_path / "tests/metrics").mkdir(parents=True)
    (tmp_path / "tests/metrics/test_sign.py").write_text(
        textwrap.dedent("""
        from flowsr.metrics.sign import sign

        def test_sign():
            assert sign(2) and not sign(-2) and sign(0.5)
        """)
    )
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\npythonpath = ['.']\n"
        "markers = ['slow', 'long', 'gpu']\n"
    )
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/mutants.py").write_text(Path(mutants.__file__).read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "benchmarks.mutants", "--rooms", "metrics"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr  # one of two is less than nine tenths
    assert "2 mutants, 2 tried, 1 killed" in done.stdout
    assert done.stdout.splitlines()[-1] == "  flowsr/metrics/sign.py:2: x >= 0  ->  x > 0"
