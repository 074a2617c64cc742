"""Every analysis of the registry on a GPU against the CPU, and with a GPU as the default device of a CPU model."""

import copy

import pyro
import pytest
import torch
from analyses import ANALYSES, OF_HIERARCHIES, SOLVERS, STUDIES
from cases import tiny
from devices import DEVICE, exactly

from flowsr.images import make_lr, round_to_8bit

pytestmark = pytest.mark.gpu

PLACES = [(name, "sr-x4") for name in (*ANALYSES, *OF_HIERARCHIES)]
PLACES += [(name, model) for model in ("srflow-x4", "irn-x4") for name in STUDIES if name != "recalibration"]


def given(model):
    hr = round_to_8bit(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return tiny(model, strength=0.05).double().requires_grad_(False), hr, make_lr(hr, 4)


def ask(name, model, hr, lr):
    torch.manual_seed(0)
    pyro.clear_param_store()
    return {**ANALYSES, **OF_HIERARCHIES}[name](model, hr, lr)


@pytest.mark.filterwarnings("ignore")  # few draws are warned of
@pytest.mark.parametrize(("name", "kind"), PLACES)
def test_analyses_agree_with_the_cpu(name, kind):
    model, hr, lr = given(kind)
    with exactly():
        found = ask(name, copy.deepcopy(model).to(DEVICE), hr.to(DEVICE), lr.to(DEVICE)).cpu()
    assert torch.isfinite(found).all()
    if name not in SOLVERS:
        torch.testing.assert_close(found, ask(name, model, hr, lr), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ANALYSES)
def test_a_gpu_as_default_device_changes_nothing_for_a_model_on_the_cpu(name):
    model, hr, lr = given("sr-x4")
    expected = ask(name, model, hr, lr)
    with torch.device(DEVICE):
        found = ask(name, model, hr, lr)
    assert found.device.type == "cpu" and torch.equal(found, expected)
