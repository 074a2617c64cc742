"""The Pyro program: its trace is the density, and Pyro's inference engines run on it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import tiny_flow
from pyro import poutine
from pyro.infer import HMC, MCMC, SVI, Predictive, Trace_ELBO

from flowsr.likelihood import decompose
from flowsr.programs import super_resolution


def _images(batch=(2,)):
    return torch.rand(*batch, 3, 8, 8, dtype=torch.float64), torch.rand(*batch, 3, 2, 2, dtype=torch.float64)


@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
def test_trace_of_an_image_is_its_density_term_by_term(batch):
    flow = tiny_flow().double()
    hr, lr = _images(batch)
    trace = poutine.trace(super_resolution).get_trace(flow, lr, hr)
    trace.compute_log_prob()
    assert torch.allclose(trace.log_prob_sum(), flow.condition(lr).log_prob(hr).sum())
    terms = decompose(flow, hr, lr)
    assert torch.allclose(trace.nodes["lr"]["log_prob"], terms.of("lr")[0])
    assert torch.allclose(trace.nodes["z_2"]["log_prob"], terms.of("latent")[0])
    assert torch.allclose(trace.nodes["z_1"]["log_prob"], terms.of("latent")[1])


def test_generated_trace_has_the_density_of_its_image():
    flow = tiny_flow().double()
    _, lr = _images()
    trace = poutine.trace(super_resolution).get_trace(flow, lr)
    hr = trace.nodes["hr"]["value"]
    assert hr.shape == (2, 3, 8, 8)
    expected = flow.condition(lr).log_prob(hr) - flow.encode(hr).ladj
    assert torch.allclose(trace.log_prob_sum(), expected.sum())


def test_condition_on_a_latent():
    flow = tiny_flow().double()
    _, lr = _images(())
    z = torch.zeros(6, 4, 4, dtype=torch.float64)
    conditioned = poutine.condition(super_resolution, data={"z_1": z})
    trace = poutine.trace(conditioned).get_trace(flow, lr)
    assert flow.encode(trace.nodes["hr"]["value"]).z[1].abs().max() < 1e-9
    assert trace.nodes["z_1"]["is_observed"]


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive(parallel):
    flow = tiny_flow().double()
    _, lr = _images()
    draws = Predictive(super_resolution, num_samples=4, parallel=parallel)(flow, lr)
    assert draws["hr"].reshape(-1, 2, 3, 8, 8).shape == (4, 2, 3, 8, 8)
    assert draws["z_2"].shape[-3:] == (21, 2, 2)


def test_inside_the_callers_plate():
    flow = tiny_flow().double()
    _, lr = _images(())
    with pyro.plate("draws", 5):
        hr = super_resolution(flow, lr)
    assert hr.shape == (5, 3, 8, 8)


def test_svi_trains_by_maximum_likelihood():
    flow = tiny_flow().to(memory_format=torch.channels_last)  # a layout that Pyro's parameter store would copy
    hr = torch.rand(4, 3, 1, 1).expand(4, 3, 8, 8) + 0.02 * torch.randn(4, 3, 8, 8)
    hr = hr.clamp(0, 1)
    lr = torch.nn.functional.avg_pool2d(hr, 4)
    flow.initialize(hr)
    svi = SVI(
        lambda: super_resolution(flow, lr, hr),
        lambda: None,
        pyro.optim.ClippedAdam({"lr": 3e-3, "clip_norm": 10.0}),
        Trace_ELBO(),
    )
    before = {name: value.clone() for name, value in flow.named_parameters()}
    losses = [svi.step() for _ in range(40)]
    assert all(not torch.equal(before[name], value) for name, value in flow.named_parameters())
    assert losses[-1] < losses[0] - 500
    expected = -flow.condition(lr).log_prob(hr).sum().item()
    assert math.isclose(svi.evaluate_loss(), expected, rel_tol=1e-4)


def test_hmc_on_the_latents():
    """Inpainting by HMC in the Dirac limit: the chain moves, and meets what was observed."""
    torch.manual_seed(3)
    flow = tiny_flow("sr-x4", levels=1, image_channels=1).double()
    lr = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    target = flow.sample(lr)[0].detach()
    mask = torch.zeros_like(target)
    mask[..., :2] = 1

    def model():
        hr = super_resolution(flow, lr, lr_log_scale=-math.inf)
        pyro.sample("observed", dist.Normal(hr * mask, 0.3).to_event(3), obs=target * mask)

    mcmc = MCMC(HMC(model, step_size=0.02, num_steps=10), num_samples=40, warmup_steps=40, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()
    assert set(draws) == {"z_1"}
    images = flow.decode(lr, [draws["z_1"]])
    residual = ((images - target) * mask).square().mean().sqrt()
    prior = ((flow.sample(lr, num_samples=60) - target) * mask).square().mean().sqrt()
    assert draws["z_1"].std(0).min() > 0.01
    assert residual < 0.5 * prior


def test_a_second_flow_is_refused_until_the_store_is_cleared():
    """The store keeps the first flow's tensors: the second would be scored, and never trained."""
    lr = torch.rand(3, 2, 2)
    super_resolution(tiny_flow(), lr)
    other = tiny_flow()
    with pytest.raises(ValueError, match=r"pyro\.clear_param_store"):
        super_resolution(other, lr)
    pyro.clear_param_store()
    super_resolution(other, lr)


def test_a_latent_of_temperature_zero_has_the_batch():
    draws = Predictive(super_resolution, num_samples=4, parallel=True)(
        tiny_flow(), torch.rand(2, 3, 2, 2), temperature=(0.0, 1.0)
    )
    assert draws["z_2"].shape == (4, 2, 21, 2, 2)


def test_parameters_are_registered():
    flow = tiny_flow()
    super_resolution(flow, torch.rand(3, 2, 2))
    assert len(list(pyro.get_param_store().keys())) == len(list(flow.parameters()))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temperature": 0.0}, "temperature > 0 and a finite lr_log_scale to score"),
        ({"lr_log_scale": -math.inf}, "to score an image"),
        ({"temperature": -1.0}, "temperatures >= 0"),
    ],
)
def test_messages(kwargs, message):
    with pytest.raises(ValueError, match=message):
        super_resolution(tiny_flow(), torch.rand(3, 2, 2), torch.rand(3, 8, 8), **kwargs)
    pyro.clear_param_store()
    with pytest.raises(ValueError, match="expected an lr of 4 × 2 pixels for this hr; got 2 × 2 pixels"):
        super_resolution(tiny_flow(), torch.rand(3, 2, 2), torch.rand(3, 8, 16))
