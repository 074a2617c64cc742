"""A program may set torch's default device: what flowsr makes itself is where its inputs are, or on the CPU.

The default device here is "meta", whose tensors hold nothing, so that a machine without a GPU notices each that is made
there."""

import pyro
import pytest
import torch
from analyses import ANALYSES, OF_HIERARCHIES, SOLVERS
from cases import tiny

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
