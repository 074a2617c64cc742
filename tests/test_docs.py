"""What the documentation says is run: docstrings, pages, the README, and, as a slow test, the build of the whole."""

import doctest
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pyro
import pytest
import torch

import flowsr

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.rst"))
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(flowsr.__path__, "flowsr.") if not module.name.endswith("__main__")
)
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(tests):
    report = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    for test in tests:
        torch.manual_seed(0)
        pyro.clear_param_store()
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    # Names a reader of the API pages takes for granted; the module's own come on top.
    namespace = {"torch": torch, "pyro": pyro, "flowsr": flowsr, **vars(module)}
    run(doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=namespace))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages(path, monkeypatch):
    text = path.read_text()
    # Classes defined on a page must be found again by pickle, so the page is a module while it runs.
    page = types.ModuleType(f"page_{path.stem}")
    monkeypatch.setitem(sys.modules, page.__name__, page)
    test = doctest.DocTestParser().get_doctest(text, {}, path.name, str(path), 0)
    test.globs = vars(page)
    assert not re.search(r"code(-block)?::\s*(python|pycon)", text), "Python on a page is a doctest, so that it runs"
    run([test])


def test_readme(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) <= 22, "twenty lines of use"
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {"__name__": "readme"})
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).exists(), f"README.md links to {link}, which is not there"


@pytest.mark.slow
def test_builds_without_a_warning(tmp_path):
    # A copy, as the build writes generated pages beside its sources.
    shutil.copytree(
        ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("_build", "auto_examples", "generated")
    )
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "html"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    html = tmp_path / "html"
    assert (html / "auto_examples" / "plot_01_change_of_variables.html").exists()
    documented = {path.stem for path in (html / "api" / "generated").glob("flowsr.*.html")}
    public = {
        f"flowsr.{module.name}" for module in pkgutil.iter_modules(flowsr.__path__) if not module.name.startswith("_")
    }
    assert public - {"flowsr.__main__"} <= documented, "every public module has a page"
