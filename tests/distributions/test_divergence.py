"""Divergences between flows: the closed form against torch's normals, and the estimate that says it is one."""

import math

import pyro.distributions as dist
import pytest
import torch
from cases import tiny
from torch.distributions import kl_divergence

from flowsr.distributions import FlowDistribution, PackedNormal, monte_carlo_kl
from flowsr.transforms import Haar

CONDITIONAL = ["sr-x4", "irn-x4", "srflow-x4"]


def model(name, **changes):
    return tiny(name, strength=0.1, image_channels=1, **changes).double().requires_grad_(False)


def two_lr_images():
    return torch.full((1, 2, 2), 0.4, dtype=torch.float64), torch.full((1, 2, 2), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("name", ["sr-x4", "rescaling-x4", "irn-x4"])
def test_two_lr_images_of_one_flow(name):
    flow, (a, b) = model(name), two_lr_images()
    p, q = flow.condition(a, lr_log_scale=-2.0), flow.condition(b, lr_log_scale=-2.0)
    assert math.isclose(float(kl_divergence(p, q)), 4 * 0.5 * (0.1 / math.exp(-2.0)) ** 2, rel_tol=1e-9)
    both = torch.stack([a, b])
    assert kl_divergence(flow.condition(both), flow.condition(both[:, None])).shape == (2, 2)
    assert kl_divergence(p, p) == 0


@pytest.mark.parametrize("name", ["sr-x4", "irn-x4", "srflow-x4", "glow-small", "realnvp-small"])
def test_two_temperatures_of_one_flow(name):
    flow = model(name)
    if name in CONDITIONAL:
        lr, dims = two_lr_images()[0], (flow.upscale * 2) ** 2 - 4 * (name != "srflow-x4")
        p, q = flow.condition(lr, temperature=0.7), flow.condition(lr.clone(), temperature=1.1)
    else:
        p, q = flow.distribution((16, 16), temperature=0.7), flow.distribution((16, 16), temperature=1.1)
        dims = 256
    expected = dims * (math.log(1.1 / 0.7) + 0.5 * (0.7 / 1.1) ** 2 - 0.5)
    assert math.isclose(float(kl_divergence(p, q)), expected, rel_tol=1e-9)
    estimate = monte_carlo_kl(p, q, num_samples=300)
    assert abs(float(estimate.value) - expected) < 4 * float(estimate.standard_error)
    assert float(estimate.standard_error) < 0.2 * expected


def test_the_closed_form_is_that_of_normals_with_their_slopes():
    lr = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    tau, width = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.8, -1.5))
    p = PackedNormal(lr[0], latent_channels=(3, 12), temperature=(tau, 0.9), lr_log_scale=width)
    q = PackedNormal(lr[1], latent_channels=(3, 12), temperature=(1.0, 1.2), lr_log_scale=-1.0)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean, p.scale.expand(p.event_shape)),
        torch.distributions.Normal(q.mean, q.scale.expand(q.event_shape)),
    ).sum()
    found = kl_divergence(p, q)
    assert torch.allclose(found, reference)
    mine, theirs = (torch.autograd.grad(value, (tau, width), retain_graph=True) for value in (found, reference))
    assert torch.allclose(torch.stack(mine), torch.stack(theirs))


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan])
def test_no_scale_is_infinitely_far(value):
    flow, lr = model("sr-x4"), two_lr_images()[0]
    tau = torch.tensor([value, 0.9], dtype=torch.float64, requires_grad=True)
    found = kl_divergence(flow.condition(lr, temperature=tau), flow.condition(lr))
    assert found[0] == math.inf
    assert torch.isfinite(found[1])
    assert torch.isfinite(torch.autograd.grad(found[1], tau)[0]).all()
    with pytest.raises(ValueError, match="σ > 0 to have a divergence"):
        kl_divergence(flow.condition(lr, temperature=0.0), flow.condition(lr))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_different_flows_are_estimated_and_it_is_said(name):
    flow, lr = model(name), two_lr_images()[0]
    p, q = flow.condition(lr), model("irn-x4", growth=3).condition(lr)
    with pytest.warns(UserWarning, match=r"no closed form.*mean of 256 draws.*standard error of up to [0-9.e+]+ nats"):
        found = kl_divergence(p, q)
    again = monte_carlo_kl(p, q, num_samples=400)
    assert found > 0
    assert abs(found - again.value) < 5 * math.hypot(2, 1) * again.standard_error


def test_other_lr_images_of_srflow_have_no_closed_form():
    flow, (a, b) = tiny("srflow-x4", image_channels=1).double().requires_grad_(False), two_lr_images()
    with pytest.warns(UserWarning, match="no closed form"):
        found = kl_divergence(flow.condition(a), flow.condition(b))
    estimate = monte_carlo_kl(flow.condition(a), flow.condition(b), num_samples=64)
    assert 0 < found < 10 * estimate.value


def test_bases_of_other_kinds():
    haar, zero = Haar(), torch.zeros(4, 2, 2, dtype=torch.float64)
    flows = [FlowDistribution(dist.Normal(zero + shift, 1.0).to_event(3), [haar]) for shift in (0.0, 0.5)]
    assert math.isclose(float(kl_divergence(*flows)), 16 * 0.5 * 0.25)
    student = FlowDistribution(dist.StudentT(5.0, zero, 1.0).to_event(3), [haar])
    with pytest.warns(UserWarning, match="what they stand on differ"):
        assert 0 < kl_divergence(flows[0], student) < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, q: monte_carlo_kl(p, p, num_samples=1), "num_samples >= 2; got 1"),
        (lambda p, q: monte_carlo_kl(p, q), r"images of one shape; got \(1, 8, 8\) and \(1, 8, 12\)"),
        (lambda p, q: kl_divergence(p, q), r"images of one shape; got \(1, 8, 8\) and \(1, 8, 12\)"),
        (lambda p, q: kl_divergence(p.base_dist, q.base_dist), "packed latents of one shape"),
    ],
)
def test_messages(call, message):
    flow = model("sr-x4")
    p, q = (flow.condition(torch.rand(1, 2, width, dtype=torch.float64)) for width in (2, 3))
    with pytest.raises(ValueError, match=message):
        call(p, q)
