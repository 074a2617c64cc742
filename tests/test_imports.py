"""`import flowsr` stays light, and modules import one way: from what the user sees down to what knows nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import flowsr

ROOT = Path(flowsr.__file__).parent

LAYERS = [
    {"errors", "bootstrap", "moments", "_shapes", "_precision", "_files", "_png_text", "_spelling"},
    {"nn", "images", "_json", "_state"},
    {"results", "plots"},
    {"transforms"},
    {"distributions", "metrics"},
    {"models", "testing"},
    {"draws"},
    {"programs", "likelihood"},
    {"posterior"},
    {"calibration"},
    {"studies"},
    {"encoded"},
    {"cards"},
    {"evaluation", "superresolve", "rescale"},
    {"training"},
    {"demo", "score"},
    {"report"},
    {"cli"},
    {"__main__"},
]
"""Lowest first; a module may import from its own package and from lower layers only."""


def _layer(name):
    for level, names in enumerate(LAYERS):
        if name in names:
            return level
    raise AssertionError(f"add {name} to LAYERS in {Path(__file__).name}")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            if node.module == "flowsr":
                yield from (f"flowsr.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_modules_import_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        if own == "__init__":
            continue
        for name in _imports(path):
            parts = name.split(".")
            if parts[0] != "flowsr" or len(parts) == 1:
                continue
            # Names that flowsr itself exports stand for the models.
            target = parts[1] if (ROOT / parts[1]).exists() or (ROOT / f"{parts[1]}.py").exists() else "models"
            if target != own and _layer(target) >= _layer(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


# Names load when first used, so each is asked for.
_EVERYTHING = "import flowsr; [getattr(flowsr, name) for name in flowsr.__all__]"


def test_import_is_light():
    heavy = ["matplotlib", "lpips", "skimage", "lightning", "torchvision", "imageio", "imagecodecs", "tifffile", "PIL"]
    heavy += ["scipy", "typer", "rich", "arviz"]
    code = f"import sys; {_EVERYTHING}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_command_line_starts_without_torch():
    code = "import sys, flowsr, flowsr.cli.app; print([m for m in ('torch', 'pyro') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_import_changes_no_global_state():
    code = (
        "import torch, pyro; before = (torch.get_default_dtype(), torch.distributions.Distribution._validate_args);"
        f"{_EVERYTHING}; after = (torch.get_default_dtype(), torch.distributions.Distribution._validate_args);"
        "assert before == after"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
