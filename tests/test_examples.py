"""Each example runs from its first line to its assertion, the short way, in a process of its own without warnings."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCREEN = 88
"""Characters of a line of code that a page of the documentation shows."""
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("plot_*.py"))


def test_there_are_examples():
    assert [path.name.split("_")[1] for path in EXAMPLES] == [f"{i + 1:02}" for i in range(len(EXAMPLES))]
    assert EXAMPLES


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    environment |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(path), "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.iterdir()), "an example leaves no files behind"
    # Entries of a bibliography are there to be copied whole.
    lines = [line for line in done.stdout.splitlines() if not re.match(r"  \w+ += \{", line)]
    assert not [line for line in lines if len(line) > SCREEN], "output is cut on the page"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_reads_as_a_page(path):
    text = path.read_text()
    title, rule = text.split("\n")[1:3]
    assert text.startswith(('"""\n', 'r"""\n'))
    assert rule == "=" * len(title)
    assert text.count("plt.show()") == 1, "one figure"
    assert re.search(r"plt\.show\(\)\n\nassert ", text), "the last thing is what must hold"
    assert "\n# %%\n" in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_no_line_of_code_is_cut_on_the_page_and_plots_are_short(path):
    """Text is wrapped by the page; code, its comments and its strings are not."""
    code = re.sub(r"(?ms)^# %%\n(#[^\n]*\n)*", "", path.read_text().split('"""', 2)[2])
    assert not [line for line in code.splitlines() if len(line) > SCREEN]
    plot = re.search(r"(?ms)^figure[ ,].*?^plt\.show\(\)$", code)
    assert plot and len(plot[0].splitlines()) <= 15, "a figure takes a few calls of flowsr.plots"
