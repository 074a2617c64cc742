"""A program may set torch's default device: what flowsr makes itself is where its inputs are, or on the CPU.

The default device here is "meta", whose tensors hold nothing, so that a machine without a GPU notices each that is made
there."""

import ast
from pathlib import Path

import pyro
import pytest
import torch
from analyses import ANALYSES, OF_HIERARCHIES, SOLVERS
from cases import tiny

import flowsr
from flowsr.images import make_lr, round_to_8bit

# Pyro's own factor asks for a tensor of the default device what it holds.
NAMES = [name for name in (*ANALYSES, *OF_HIERARCHIES) if name != "program"]
LONG, SLOW = {*SOLVERS, "recalibration"}, pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # few draws are warned of
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in LONG else ()) for name in NAMES])
def test_no_analysis_depends_on_the_default_device(name):
    model = tiny("sr-x4", strength=0.05).double().requires_grad_(False)
    hr = round_to_8bit(torch.rand(3, 16, 16, dtype=torch.float64))
    lr, ask = make_lr(hr, 4), {**ANALYSES, **OF_HIERARCHIES}[name]
    found = []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        pyro.clear_param_store()
        with torch.device(device):
            found.append(ask(model, hr, lr))
    assert found[1].device.type == "cpu" and torch.equal(*found)


_NAMES = (
    "rand",
    "randn",
    "randint",
    "randperm",
    "zeros",
    "ones",
    "full",
    "empty",
    "eye",
    "arange",
    "linspace",
    "tensor",
)
MAKERS = {f"torch.{name}" for name in _NAMES}
# Weights at their start are where the caller's default device says, as those of torch's own modules are.
BUILDERS = {"__init__", "haar_matrix", "_rotate_details", "random_rotation", "from_official"}


def unplaced(node, function=""):
    """Lines where a tensor is made without a device, outside of what builds modules."""
    for child in ast.iter_child_nodes(node):
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call) and inside not in BUILDERS:
            name, keys = ast.unparse(child.func), {keyword.arg for keyword in child.keywords}
            if name in MAKERS and not keys & {"device", None}:
                yield child.lineno
        yield from unplaced(child, inside)


def test_every_tensor_is_made_somewhere():
    root = Path(flowsr.__file__).parent
    found = {str(path.relative_to(root)): list(unplaced(ast.parse(path.read_text()))) for path in root.rglob("*.py")}
    assert not {path: lines for path, lines in found.items() if lines}
    assert list(unplaced(ast.parse("x = torch.zeros(3)\ndef __init__():\n    y = torch.zeros(3)"))) == [1]
