"""What is always installed suffices for the main job; what comes with an extra is asked for by the extra's name."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import flowsr
from flowsr._support.extras import EXTRAS, import_extra
from flowsr.errors import MissingExtraError

ROOT = Path(flowsr.__file__).parent
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
BLOCKED = """
import sys
for name in {names}:
    sys.modules[name] = None
"""
# What the extras bring beside the libraries themselves.
BROUGHT = (
    "pytorch_lightning",
    "lightning_fabric",
    "lightning_utilities",
    "torchmetrics",
    "aiohttp",
    "xarray",
    "pandas",
)
MAIN_JOB = """
import skimage.data, torch, flowsr, lpips
from typer.testing import CliRunner
from flowsr.cli.app import app
from flowsr.images import make_lr, read_image, write_image

flow = flowsr.load("sr-x4-small")
hr = torch.from_numpy(skimage.data.chelsea()[64:96, 128:168]).movedim(-1, 0) / 255
lr = make_lr(hr, flow.upscale)
draws = flow.sample(lr, num_samples=2)
assert torch.isfinite(flow.condition(lr).log_prob(hr)) and draws.shape == (2, 3, 32, 40)
for name in ("a.png", "a.jpg", "a.tif"):
    write_image(name, hr)
    assert (read_image(name) - hr).abs().mean() < 0.02
for command in {commands}:
    result = CliRunner().invoke(app, [*command.split(), "--quiet"])
    assert result.exit_code == 0, (command, result.output, result.exception)
refused = CliRunner().invoke(app, ["train", ".", "--out", "run", "--set", "steps=1 batch_size=1 crop=16"])
assert refused.exit_code == 2 and "pip install 'flowsr[train]'" in refused.stderr, refused.output
print("done")
"""


def _normal(requirement):
    return re.match(r"[\w.-]+", requirement)[0].replace("_", "-").lower()


SOME = ["sample a.png --out draws", "score a.png --out scores"]
OTHERS = ["evaluate a.png --out evaluation", "compare sr-x4-small sr-x4-small a.png --out compared"]
OTHERS += [
    "report a.png --out report.html --num-samples 2",
    "demo --out demo",
    "study uncertainty a.png --crop 32 --out study",
]


@pytest.mark.parametrize("commands", [SOME, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["some", "others"])
def test_the_main_job_needs_no_extra(commands, tmp_path):
    code = (BLOCKED + MAIN_JOB).format(names=[*EXTRAS, *BROUGHT], commands=commands)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip().endswith("done"), result.stderr[-2000:]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("library", EXTRAS)
def test_a_missing_library_is_asked_for_by_its_extra(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    asked = rf"expected {library} to draw; it is not installed: pip install 'flowsr\[{EXTRAS[library]}\]'"
    with pytest.raises(MissingExtraError, match=asked):
        import_extra(library, to="draw")
    assert library in [_normal(text) for text in PROJECT["optional-dependencies"][EXTRAS[library]]]


@pytest.fixture
def as_before():
    """Modules that a test imports in place of others are forgotten after it."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def test_an_installed_library_that_fails_is_not_called_missing(tmp_path, monkeypatch, as_before):
    (tmp_path / "arviz.py").write_text("import a_module_that_arviz_lacks")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "arviz", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_arviz_lacks") as raised:
        import_extra("arviz", to="draw")
    assert not isinstance(raised.value, MissingExtraError)


def test_a_folder_of_that_name_is_no_library(tmp_path, monkeypatch, as_before):
    (tmp_path / "lightning").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(MissingExtraError, match="expected lightning"):
        import_extra("lightning.fabric", to="train")


def test_all_extras_are_in_all():
    extras = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name not in ("all", "dev")}
    assert set(EXTRAS.values()) <= set(extras)
    assert PROJECT["optional-dependencies"]["all"] == [f"flowsr[{','.join(extras)}]"]
    assert "flowsr[all]" in PROJECT["optional-dependencies"]["dev"]


def _imports():
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module.partition(".")[0]


def _for_types_only(path):
    """Names that a file imports for the type checker alone."""
    blocks = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    return {
        node.module.partition(".")[0] for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)
    }


def test_dependencies_are_what_is_imported():
    """Each requirement is used, each use required; what an extra brings is imported by the one way there is."""
    own = packages_distributions()
    found = {(path, name) for path, name in _imports() if name not in sys.stdlib_module_names and name != "flowsr"}
    optional = {(path, name) for path, name in found if name in EXTRAS}
    assert not [(path, name) for path, name in optional if name not in _for_types_only(path)]
    used = {_normal(own[name][0]) for _, name in found - optional}
    assert used == {_normal(text) for text in PROJECT["dependencies"]}
