"""The packed base, the flow distribution and dequantization, against torch's own distributions."""

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import CASES, tiny_flow
from pyro.infer.reparam import TransformReparam

from flowsr.distributions import (
    FlowDistribution,
    PackedNormal,
    level_temperatures,
    uniform_dequantize,
)


def _reference(base):
    return torch.distributions.Normal(base.mean, base.scale.expand(base.event_shape)).log_prob


def test_packed_normal_density_is_normal():
    lr = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    base = PackedNormal(lr, latent_channels=(21, 24), temperature=(0.5, 0.9), lr_log_scale=-2.0)
    z = base.sample((4,))
    assert z.shape == (4, 2, 48, 2, 3)
    assert torch.allclose(base.log_prob(z), _reference(base)(z).sum((-3, -2, -1)))
    assert torch.equal(base.scale.flatten()[[0, 3, 24]], torch.tensor([math.exp(-2), 0.5, 0.9], dtype=torch.float64))


def test_packed_normal_moments():
    base = PackedNormal(torch.full((1, 1, 1), 0.3), latent_channels=(3,), temperature=0.5, lr_log_scale=-1.0)
    z = base.sample((40000,))
    assert torch.allclose(z.mean(0), base.mean, atol=0.02)
    assert torch.allclose(z.var(0), base.variance, rtol=0.05)


def test_packed_normal_expand():
    base = PackedNormal(torch.rand(3, 2, 2), latent_channels=(9,))
    wide = base.expand((5, 2))
    assert wide.batch_shape == (5, 2)
    assert wide.sample().shape == (5, 2, 12, 2, 2)
    z = base.sample()
    assert torch.allclose(wide.log_prob(z), base.log_prob(z).expand(5, 2))


def test_temperature_zero_and_dirac_limit():
    flow = tiny_flow().double()
    lr = torch.rand(3, 2, 2, dtype=torch.float64)
    cold = flow.condition(lr, temperature=0.0)
    assert torch.equal(cold.sample((2,))[0], cold.sample())
    assert torch.allclose(cold.sample(), flow.decode(lr))
    dirac = flow.condition(lr, lr_log_scale=-math.inf)
    x = dirac.sample((3,))
    assert not torch.allclose(x[0], x[1])
    assert torch.allclose(flow.encode(x).lr, lr.expand(3, 3, 2, 2), atol=1e-9)
    for post in (cold, dirac, flow.condition(lr, temperature=(0.0, 1.0))):
        with pytest.raises(ValueError, match=r"expected temperature > 0 on every level.*to have a density"):
            post.log_prob(torch.rand(3, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lr: PackedNormal(lr, latent_channels=(9,), temperature=-1), "finite temperatures >= 0; got -1"),
        (lambda lr: PackedNormal(lr, latent_channels=(9,), temperature=(1.0, 1.0)), "one temperature or 1"),
        (lambda lr: PackedNormal(lr, latent_channels=(9,), temperature=math.nan), "finite temperatures"),
        (lambda lr: PackedNormal(lr, latent_channels=(9,), lr_log_scale=math.nan), "lr_log_scale from -40 to 40"),
        (
            lambda lr: PackedNormal(lr, latent_channels=(9,)).log_prob(torch.zeros(3, 2, 2)),
            "packed latent of event shape",
        ),
        (
            lambda lr: tiny_flow().condition(lr.expand(2, 3, 2, 2)).log_prob(torch.rand(5, 3, 8, 8)),
            r"batch broadcasts with batch_shape \(2,\); got \(5,\)",
        ),
        (lambda lr: uniform_dequantize(lr, bins=1), "at least 2 bins; got 1"),
        (
            lambda lr: tiny_flow().condition(lr).log_prob(torch.zeros(3, 8, 9)),
            r"\(3, 8, 8\); got shape \(3, 8, 9\)",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(3, 2, 2))


def test_level_temperatures():
    assert level_temperatures(0.8, 2) == (0.8, 0.8)
    assert level_temperatures([1.0, 0.0], 2) == (1.0, 0.0)


def _flow_distribution(batch=(2,)):
    case = CASES["hcflow-sr-x4"]
    base = dist.Normal(torch.zeros(*batch, *case.shape, dtype=torch.float64), 1.0).to_event(3)
    return FlowDistribution(base, [case.transform().double()])


def test_one_pass_equals_pyros_two():
    post = _flow_distribution()
    x = post.sample((3,))
    two_pass = dist.TransformedDistribution(post.base_dist, post.transforms)
    assert torch.allclose(post.log_prob(x), two_pass.log_prob(x))
    assert post.event_shape == (3, 8, 4)
    assert post.batch_shape == (2,)


def test_scoring_runs_each_conditioner_once():
    post = _flow_distribution()
    calls = []
    for module in post.transforms[0].modules():
        if type(module).__name__ == "FCN":
            module.register_forward_hook(lambda *_: calls.append(1))
    x = post.sample()
    for run in (lambda: post.log_prob(x), post.rsample_and_log_prob):
        calls.clear()
        run()
        assert len(calls) == sum(type(m).__name__ == "FCN" for m in post.transforms[0].modules())


def test_fresh_values_after_a_step():
    """Pyro's cache would return the value of the old parameters here."""
    post = _flow_distribution()
    x = post.sample()
    before = post.log_prob(x)
    with torch.no_grad():
        before_grad_free = post.log_prob(x)
        for parameter in post.transforms[0].parameters():
            parameter.add_(0.01)
    after = post.log_prob(x)
    assert torch.equal(before, before_grad_free)
    assert not torch.allclose(before, after)
    after.sum().backward()
    copy.deepcopy(post)


def test_expand_plate_and_reparam():
    post = _flow_distribution(batch=())
    assert post.expand((4,)).sample().shape == (4, 3, 8, 4)

    def model():
        with pyro.plate("images", 4):
            return pyro.sample("x", post)

    trace = pyro.poutine.trace(model).get_trace()
    assert trace.nodes["x"]["value"].shape == (4, 3, 8, 4)
    assert torch.isfinite(trace.log_prob_sum())
    reparam = pyro.poutine.trace(pyro.poutine.reparam(model, {"x": TransformReparam()})).get_trace()
    assert reparam.nodes["x_base"]["value"].shape == (4, 48, 2, 1)
    expected = post.base_dist.log_prob(reparam.nodes["x_base"]["value"]).sum()
    assert torch.allclose(reparam.log_prob_sum(), expected)


def test_dequantization():
    image = torch.full((3, 50, 50), 0.5)
    noise = uniform_dequantize(image, generator=torch.Generator().manual_seed(1)) - image
    assert noise.min() >= 0
    assert noise.max() < 1 / 256
    assert abs(noise.mean() * 512 - 1) < 0.02
    again = uniform_dequantize(image, generator=torch.Generator().manual_seed(1)) - image
    assert torch.equal(noise, again)
