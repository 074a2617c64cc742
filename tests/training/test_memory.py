"""Recomputed activations give the gradients of kept ones, and take a fraction of the memory."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from cases import TINY

from flowsr.models import HCFlow
from flowsr.testing import randomize
from flowsr.training import l1_loss, likelihood_loss, rescaling_loss, set_memory
from flowsr.transforms import Compose, Haar, PixelShuffle

LOSSES = {
    "likelihood": ("sr-x4-small", lambda flow, hr, lr, z: likelihood_loss(flow, hr, lr)[0]),
    "l1": ("sr-x4-small", lambda flow, hr, lr, z: l1_loss(flow, hr, lr)[0]),
    "rescaling": ("rescaling-x4-small", lambda flow, hr, lr, z: rescaling_loss(flow, hr, lr, z)[0]),
    "three levels": ("sr-x8-small", lambda flow, hr, lr, z: likelihood_loss(flow, hr, lr)[0]),
}


def build(preset, dtype=torch.float64):
    torch.manual_seed(1)
    return randomize(HCFlow.from_preset(preset, **TINY)).to(dtype)


def gradients(flow, loss, *, autocast=False):
    generator = torch.Generator().manual_seed(2)
    s = flow.upscale
    hr = torch.rand(2, 3, 3 * s, 2 * s, generator=generator, dtype=torch.float64).to(flow.dtype).requires_grad_()
    lr = torch.rand(2, 3, 3, 2, generator=generator, dtype=torch.float64).to(flow.dtype)
    z = [torch.randn(2, *shape, generator=generator).to(flow.dtype) for shape in flow.transform.latent_shapes(3, 2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(flow, hr, lr, z)
    value.backward()
    return value.detach(), torch.cat([hr.grad.flatten(), *(p.grad.flatten() for p in flow.parameters())])


@pytest.mark.parametrize("mode", ["checkpoint", "reversible"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_those_of_full_memory(name, mode):
    preset, loss = LOSSES[name]
    flow = build(preset)
    value, full = gradients(flow, loss)
    flow = build(preset)
    set_memory(flow, mode)
    other_value, other = gradients(flow, loss)
    assert full.abs().max() > 0
    torch.testing.assert_close(other_value, value, rtol=1e-12, atol=0)
    assert ((other - full).abs().max() / full.abs().max()).item() < 1e-10
    assert ((other - full).norm() / full.norm()).item() < 1e-10


@pytest.mark.parametrize("mode", ["checkpoint", "reversible"])
def test_under_autocast_the_backward_pass_recomputes_in_bfloat16(mode):
    preset, loss = LOSSES["likelihood"]
    flow = build(preset, torch.float32)
    _, full = gradients(flow, loss, autocast=True)
    _, exact = gradients(build(preset, torch.float32), loss)
    flow = build(preset, torch.float32)
    set_memory(flow, mode)
    _, other = gradients(flow, loss, autocast=True)
    error, rounding = (other - full).norm(), (exact - full).norm()
    assert rounding > 0
    assert error < 0.2 * rounding


def test_reversible_keeps_nothing_between_the_steps():
    kept = {}
    for mode in ("full", "checkpoint", "reversible"):
        flow = build("sr-x4-small")
        set_memory(flow, mode)
        compose = flow.transform.mains[0]
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x = torch.rand(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            compose.inv_call_and_ladj(x)
        kept[mode] = total
    assert kept["reversible"] == x.numel()
    assert x.numel() < kept["checkpoint"] < 0.5 * kept["full"]


def test_without_parameters_or_gradients_a_chain_still_works():
    x = torch.rand(3, 8, 8, dtype=torch.float64)
    chain = Compose([Haar(), PixelShuffle(2)])
    expected, ladj = chain.inv_call_and_ladj(x)
    chain.memory = "reversible"
    found, found_ladj = chain.inv_call_and_ladj(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_ladj, ladj)
    leaf = x.clone().requires_grad_()
    found, _ = chain.inv_call_and_ladj(leaf)
    found.square().sum().backward()
    other = x.clone().requires_grad_()
    Compose([Haar(), PixelShuffle(2)]).inv_call_and_ladj(other)[0].square().sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad)
    empty = Compose([])
    empty.memory = "reversible"
    out, _ = empty.inv_call_and_ladj(leaf)
    assert torch.equal(out, leaf)


def test_the_mode_can_be_set_back_and_travels_with_copies():
    flow = build("sr-x4-small")
    keys = list(flow.state_dict())
    plain = repr(flow)
    set_memory(flow, "reversible")
    assert list(flow.state_dict()) == keys
    assert "memory='reversible'" in repr(flow)
    for copied in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert {m.memory for m in copied.modules() if isinstance(m, Compose)} == {"reversible"}
    set_memory(flow, "full")
    assert repr(flow) == plain
    with pytest.raises(ValueError, match="expected memory to be full, checkpoint or reversible; got 'none'"):
        set_memory(flow, "none")


@pytest.mark.slow
def test_a_training_step_of_the_full_model_takes_a_quarter_of_the_memory():
    command = [sys.executable, "-m", "benchmarks.memory", "--model", "sr-x4"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    head, *rows = (line.split() for line in printed.splitlines())
    assert head[:2] == ["mode", "MiB"]
    megabytes = {mode: float(figure) for mode, figure, _ in rows}
    assert list(megabytes) == ["encode", "draw", "full", "checkpoint", "reversible"]
    for mode, measured, estimated in rows:
        assert 0.6 < float(estimated) / float(measured) < 1.6, mode
    # Gradients and Adam's moments are part of all.
    assert megabytes["reversible"] < 0.25 * megabytes["full"], megabytes
    assert megabytes["checkpoint"] < 0.35 * megabytes["full"], megabytes
