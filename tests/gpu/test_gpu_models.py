"""Every transform and every model on a GPU against the CPU, in every precision and memory mode."""

import copy

import pytest
import torch
from cases import CASES, tiny
from devices import DEVICE, exactly

import flowsr
from flowsr.models import presets
from flowsr.models.conditional import as_conditional
from flowsr.testing import check_transform
from flowsr.training import likelihood_loss, set_memory
from flowsr.transforms.reversible import MEMORY_MODES

pytestmark = pytest.mark.gpu

TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}


def close(found, expected, dtype):
    tolerance = TOLERANCES[dtype]
    assert found.device.type == torch.device(DEVICE).type
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_transforms_pass_the_conformance_test(name):
    case = CASES[name]
    z, context = case.latent().to(DEVICE), case.context()
    context = None if context is None else context.to(DEVICE)
    with exactly():
        check_transform(case.transform().to(DEVICE), z, context, model=case.model, jacobian=False)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_transforms_agree_with_the_cpu(name, dtype):
    case = CASES[name]
    transform, z, context = case.transform().to(dtype), case.latent()[None].to(dtype), case.context()
    context = None if context is None else context[None].to(dtype)
    there = None if context is None else context.to(DEVICE)
    x, ladj = transform.call_and_ladj(z, context)
    other = copy.deepcopy(transform).to(DEVICE)
    with exactly():
        found, found_ladj = other.call_and_ladj(z.to(DEVICE), there)
        back, back_ladj = other.inv_call_and_ladj(x.to(DEVICE), there)
    close(found, x, dtype)
    close(found_ladj, ladj, dtype)
    if dtype == torch.float64:  # the inverse of a random SRFlow loses all of float32
        close(back, z, dtype)
        close(back_ladj, -ladj, dtype)


def given(name, dtype=torch.float64):
    """A model on the CPU, its copy on the device, an HR image, and its LR image for models that have one."""
    model = tiny(name, strength=0.05).to(dtype)
    side, conditional = 2 * model.multiple, as_conditional(model)
    hr = torch.rand(model.config.image_channels, side, side, dtype=dtype)
    lr = None if conditional is None else hr[:, :: conditional.upscale, :: conditional.upscale]
    return model, copy.deepcopy(model).to(DEVICE), hr, lr


def terms(model, hr, lr):
    place = model.device
    values = model.log_likelihood_terms(hr.to(place), None if lr is None else lr.to(place))
    return torch.stack([term.value for term in values])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", presets())
def test_models_agree_with_the_cpu(name, dtype):
    model, there, hr, lr = given(name, dtype)
    with exactly():
        close(terms(there, hr, lr), terms(model, hr, lr), dtype)
    if lr is None:
        return
    noise = torch.Generator().manual_seed(1)
    drawn = model.sample(lr, num_samples=2, temperature=0.8, generator=noise)
    with exactly():  # an LR image and a generator of the CPU, as users have them
        found = there.sample(lr, num_samples=2, temperature=0.8, generator=noise.manual_seed(1))
        close(found, drawn, dtype)
        own = there.sample(lr.to(DEVICE), generator=torch.Generator(DEVICE).manual_seed(1))
        assert torch.isfinite(own).all() and own.device == there.device
        again = there.sample(lr.to(DEVICE), generator=torch.Generator(DEVICE).manual_seed(1))
    close(again, own.cpu(), dtype)


@pytest.mark.parametrize("name", presets())
def test_models_in_bfloat16_are_near_float32(name):
    _, there, hr, lr = given(name, torch.float32)
    with torch.no_grad(), exactly():
        expected = terms(there, hr, lr).sum()
        with torch.autocast(torch.device(DEVICE).type, torch.bfloat16):
            found = terms(there, hr, lr).sum()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03 * hr.numel())


@pytest.mark.parametrize("memory", MEMORY_MODES)
@pytest.mark.parametrize("name", presets())
def test_gradients_agree_with_the_cpu_in_every_memory_mode(name, memory):
    model, there, hr, lr = given(name)
    try:
        set_memory(there, memory)
    except ValueError as error:
        assert "batch norm" in str(error) and memory != "full"
        return
    pairs = [(model, hr[None], lr), (there, hr[None].to(DEVICE), None if lr is None else lr.to(DEVICE))]
    for flow, image, small in pairs:
        flow.train()
        with exactly():
            likelihood_loss(flow, image, None if small is None else small[None])[0].backward()
    for (key, weight), other in zip(model.named_parameters(), there.parameters(), strict=True):
        assert (weight.grad is None) == (other.grad is None), key
        if weight.grad is not None:
            close(other.grad, weight.grad, torch.float64)


@pytest.mark.parametrize("name", ["sr-x4", "srflow-x4", "irn-x4", "glow", "realnvp"])
def test_files_load_onto_the_device_and_off_it(name, tmp_path):
    model, there, hr, lr = given(name)
    flowsr.save(there, tmp_path / "model.safetensors")
    for device in ("cpu", DEVICE):
        loaded = flowsr.load(tmp_path / "model.safetensors", device=device)
        assert loaded.device.type == torch.device(device).type
        found = terms(loaded.double(), hr, lr).cpu()
        torch.testing.assert_close(found, terms(model, hr, lr), rtol=1e-8, atol=1e-8)
