"""`import flowsr` stays light, and modules import one way: from what the user sees down to what knows nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import flowsr

ROOT = Path(flowsr.__file__).parent

LAYERS = [
    {"errors"},
    {"_support"},
    {"statistics", "nn", "images"},
    {"plots"},
    {"results"},
    {"transforms"},
    {"distributions", "metrics"},
    {"models", "testing"},
    {"programs", "likelihood"},
    {"posterior"},
    {"calibration"},
    {"known_posteriors"},
    {"evaluation", "interop"},
    {"training"},
    {"workflows"},
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
            assert parts[0] != "benchmarks", f"{path} imports what measures it"
            if parts[0] != "flowsr" or len(parts) == 1:
                continue
            # Names that flowsr itself exports stand for the models.
            target = parts[1] if (ROOT / parts[1]).exists() or (ROOT / f"{parts[1]}.py").exists() else "models"
            if target != own and _layer(target) >= _layer(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def _modules():
    return [path for path in ROOT.rglob("*.py") if path.name != "__init__.py"]


def test_modules_form_no_circle():
    """Not even within a room. What waits inside a function or for the type checker is free."""
    graph = {".".join(("flowsr", *p.relative_to(ROOT).with_suffix("").parts)): p for p in _modules()}

    def targets(path):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                yield from names & set(graph)

    state = {}

    def visit(name, trail):
        assert state.get(name) != "open", " -> ".join([*trail, name])
        if name in state:
            return
        state[name] = "open"
        for target in targets(graph[name]):
            visit(target, [*trail, name])
        state[name] = "done"

    for name in graph:
        visit(name, [])


def test_a_file_is_a_concept_that_a_reader_would_look_for():
    rooms = [p for p in ROOT.iterdir() if p.name not in ("__pycache__", "__init__.py", "__init__.pyi", "py.typed")]
    assert len(rooms) <= 24, sorted(p.name for p in rooms)
    lengths = {p: len(p.read_text().splitlines()) for p in _modules()}
    small = sorted(str(p.relative_to(ROOT)) for p, lines in lengths.items() if lines < 60)
    assert len(small) <= 20, small
    assert not (large := {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 400}), large
    places = {}
    for path in lengths:
        places.setdefault(path.name, set()).add(path.relative_to(ROOT).parts[0])
    twice = {name: rooms for name, rooms in places.items() if len(rooms) > 1 and rooms != {"cli", "workflows"}}
    assert not twice


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
