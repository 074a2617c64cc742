"""Distributions as parts of programs: random arguments, batches that broadcast, other bases, moved weights."""

import math

import pyro.distributions as dist
import pytest
import torch
from cases import CASES, tiny
from torch.distributions import transforms

import flowsr
from flowsr.distributions import (
    DiscretizedNormal,
    FlowDistribution,
    PackedNormal,
    ProposedNormal,
    level_temperatures,
)

CONDITIONAL = ["sr-x4", "rescaling-x4", "irn-x4", "irn-x3", "srflow-x4"]
WITH_LR = [name for name in CONDITIONAL if name != "srflow-x4"]
DENSITIES = ["glow-small", "realnvp-small"]


def model(name, **changes):
    return tiny(name, strength=0.1, **changes).double().requires_grad_(False)


def images(flow, batch=(), lr_batch=()):
    channels, scale = flow.config.image_channels, flow.upscale
    lr = torch.rand(*lr_batch, channels, 2, 2, dtype=torch.float64)
    return torch.rand(*batch, channels, 2 * scale, 2 * scale, dtype=torch.float64), lr


def levels(flow):
    return len(flow.latent_shapes(16, 16))


def posterior(flow, lr, temperature):
    """A function of temperature, for models given an LR image and for those of images alone."""
    if lr is None:
        return flow.distribution((16, 16), temperature=temperature)
    return flow.condition(lr, temperature=temperature)


def given(name):
    flow = model(name)
    if name in DENSITIES:
        return flow, torch.rand(3, 16, 16, dtype=torch.float64), None
    return flow, *images(flow)


# ---------------------------------------------------------------- temperatures and widths that are tensors


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_a_temperature_has_the_slope_of_finite_differences(name):
    flow, hr, lr = given(name)
    tau = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(posterior(flow, lr, tau).log_prob(hr), tau)
    expected = (posterior(flow, lr, 0.8 + 1e-6).log_prob(hr) - posterior(flow, lr, 0.8 - 1e-6).log_prob(hr)) / 2e-6
    assert slope.abs() > 1
    assert torch.allclose(slope, expected, rtol=1e-5)
    # Per level: the slopes of the levels are parts of the whole.
    taus = torch.full((levels(flow),), 0.8, dtype=torch.float64, requires_grad=True)
    log_prob = posterior(flow, lr, taus.unbind(-1)).log_prob(hr)
    slopes = torch.autograd.grad(log_prob, taus)[0]
    assert torch.allclose(slopes.sum(), slope)
    for level in range(levels(flow)):
        up, down = ([0.8 + sign * 1e-6 * (level == i) for i in range(levels(flow))] for sign in (1, -1))
        one = (posterior(flow, lr, up).log_prob(hr) - posterior(flow, lr, down).log_prob(hr)) / 2e-6
        assert torch.allclose(slopes[level], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_draws_have_a_slope_in_the_temperature(name):
    flow, _, lr = given(name)

    def draw(tau):
        torch.manual_seed(1)
        return posterior(flow, lr, tau).rsample().square().sum()

    tau = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(draw(tau), tau)
    assert torch.allclose(slope, (draw(0.8 + 1e-6) - draw(0.8 - 1e-6)) / 2e-6, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (3,), (3, 1), (3, 1, 1, 1)])
@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_a_batch_of_temperatures_is_each_of_them(name, shape):
    flow, hr, lr = given(name)
    tau = (0.5 + torch.rand(shape)).double()
    batched = posterior(flow, lr, tau)
    assert batched.batch_shape == shape
    assert batched.sample((2,)).shape == (2, *shape, *hr.shape)
    assert batched.expand((5, *shape)).log_prob(hr).shape == (5, *shape)
    found = batched.log_prob(hr)
    assert found.shape == shape
    expected = [posterior(flow, lr, float(one)).log_prob(hr) for one in tau.reshape(-1)]
    assert torch.allclose(found.reshape(-1), torch.stack(expected))
    x, log_prob = batched.rsample_and_log_prob((2,))
    assert torch.allclose(batched.log_prob(x), log_prob)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_temperatures_broadcast_with_lr_images(name):
    flow = model(name)
    hr, lr = images(flow, (2,), (2,))
    tau = torch.tensor([[0.5], [1.0], [1.5]], dtype=torch.float64)
    found = flow.condition(lr, temperature=tau).log_prob(hr)
    rows = [flow.condition(lr, temperature=float(one)).log_prob(hr) for one in tau.reshape(-1)]
    assert torch.allclose(found, torch.stack(rows))
    with pytest.raises(ValueError, match=r"broadcast with the batch \(2,\)"):
        flow.condition(lr, temperature=torch.ones(3))
    with pytest.raises(ValueError, match=r"one per level from coarse to fine; got 5"):
        flow.condition(lr, temperature=[1.0] * 5)
    if levels(flow) > 1:
        with pytest.raises(ValueError, match="of one batch; got shapes"):
            flow.condition(lr, temperature=[torch.ones(n + 2) for n in range(levels(flow))])


@pytest.mark.parametrize("name", WITH_LR)
def test_a_width_of_the_lr_image_may_be_a_batch(name):
    flow = model(name)
    hr, lr = images(flow)
    widths = torch.tensor([-3.0, -2.0], dtype=torch.float64, requires_grad=True)
    found = flow.condition(lr, lr_log_scale=widths).log_prob(hr)
    expected = [flow.condition(lr, lr_log_scale=width).log_prob(hr) for width in (-3.0, -2.0)]
    assert torch.allclose(found, torch.stack(expected))
    (slope,) = torch.autograd.grad(found[1], widths)
    up, down = (flow.condition(lr, lr_log_scale=-2.0 + d).log_prob(hr) for d in (1e-6, -1e-6))
    assert torch.allclose(slope, torch.stack([torch.zeros(()), (up - down) / 2e-6]).double(), rtol=1e-5)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_draws_of_a_batch_of_temperatures(name):
    flow, hr, lr = given(name)
    tau = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    draws = flow.sample(lr, num_samples=3, temperature=tau)
    assert draws.shape == (3, 2, *hr.shape)
    assert torch.allclose(draws[:, 0], flow.decode(lr).expand(3, *hr.shape))
    assert draws[:, 1].std(0).min() > 0
    assert torch.isfinite(torch.autograd.grad(draws.sum(), tau)[0]).all()
    with pytest.raises(ValueError, match=r"one number for each level; got a tensor of shape \(2,\).*tolist"):
        level_temperatures(tau, levels(flow))


# ---------------------------------------------------------------- what cannot be

NO_SCALES = [0.0, -1.0, math.nan, math.inf, 1e-30, 1e30]
NO_LOG_SCALES = [-151.0, -1e4, 151.0, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NO_SCALES)
@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_a_proposed_temperature_that_is_none_has_no_density(name, value):
    flow, hr, lr = given(name)
    tau = torch.tensor([value, 0.9], dtype=torch.float64, requires_grad=True)
    hr.requires_grad_()
    log_prob = posterior(flow, lr, tau).log_prob(hr)
    assert log_prob[0] == -math.inf
    assert torch.isclose(log_prob[1], posterior(flow, lr, 0.9).log_prob(hr))
    for out in (log_prob[0], log_prob[1]):
        slopes = torch.autograd.grad(out, (tau, hr), retain_graph=True)
        assert all(torch.isfinite(slope).all() for slope in slopes)
    if not math.isfinite(value) or value < 0:
        with pytest.raises(ValueError, match="expected finite temperatures >= 0"):
            posterior(flow, lr, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", NO_LOG_SCALES)
@pytest.mark.parametrize("name", WITH_LR)
def test_a_proposed_width_that_is_none_has_no_density(name, value, dtype):
    flow = model(name).to(dtype)
    hr, lr = (image.to(dtype).requires_grad_() for image in images(flow))
    width = torch.tensor([value, -2.0], dtype=dtype, requires_grad=True)
    log_prob = flow.condition(lr, lr_log_scale=width).log_prob(hr)
    assert log_prob[0] == -math.inf
    assert torch.isfinite(log_prob[1])
    for out in (log_prob[0], log_prob[1]):
        slopes = torch.autograd.grad(out, (width, hr, lr), retain_graph=True)
        assert all(torch.isfinite(slope).all() for slope in slopes)
    if value != -math.inf:
        with pytest.raises(ValueError, match="expected lr_log_scale from -40 to 40"):
            flow.condition(lr, lr_log_scale=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e6])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_proposed_lr_image_that_is_none_has_no_density(name, value):
    flow = model(name)
    hr, lr = images(flow, (), (2,))
    lr[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="lr: expected"):
        flow.condition(lr)
    lr.requires_grad_()
    log_prob = flow.condition(lr).log_prob(hr)
    assert log_prob[0] == -math.inf
    assert torch.isclose(log_prob[1], flow.condition(lr[1].detach()).log_prob(hr))
    assert torch.isfinite(torch.autograd.grad(log_prob[0], lr, retain_graph=True)[0]).all()
    assert torch.isfinite(torch.autograd.grad(log_prob[1], lr)[0]).all()
    assert torch.allclose(
        flow.condition(lr[1], temperature=0.0).sample(), flow.condition(lr[1].detach(), temperature=0.0).sample()
    )


def test_a_normal_of_a_proposed_scale():
    scale = torch.tensor([0.7, *NO_SCALES], dtype=torch.float64, requires_grad=True)
    normal = ProposedNormal(torch.zeros(7, dtype=torch.float64), scale)
    found = normal.log_prob(torch.ones(7, dtype=torch.float64))
    assert torch.isclose(found[0], torch.distributions.Normal(0.0, 0.7).log_prob(torch.tensor(1.0)).double())
    assert (found[1:] == -math.inf).all()
    assert normal.sample((3,)).shape == (3, 7)
    assert normal.expand((2, 7)).sample().shape == (2, 7)
    assert torch.isfinite(torch.autograd.grad(found[0], scale)[0]).all()


@pytest.mark.parametrize("value", NO_SCALES)
def test_grey_levels_of_a_proposed_scale(value):
    scale = torch.tensor([value, 0.02], dtype=torch.float64, requires_grad=True)
    loc = torch.tensor([0.4, math.nan], dtype=torch.float64, requires_grad=True)
    levels = torch.tensor([0.0, 102 / 255, 1.0], dtype=torch.float64)
    found = DiscretizedNormal(loc, scale).log_prob(levels[:, None])
    assert (found == -math.inf).all()
    assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(found.sum(), (loc, scale)))
    with pytest.raises(ValueError, match="expected a positive, finite scale"):
        DiscretizedNormal(loc, -1.0)


@pytest.mark.parametrize("log_scale", [-35.0, -8.0, -3.0, 0.0, 5.0, 20.0, 35.0])
def test_grey_levels_have_finite_slopes(log_scale):
    scale = torch.tensor(log_scale, dtype=torch.float64).exp().requires_grad_()
    loc = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    found = DiscretizedNormal(loc, scale).log_prob(torch.arange(256, dtype=torch.float64) / 255)
    assert math.isclose(float(found.detach().exp().sum()), 1.0, rel_tol=1e-6)
    assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(found.exp().sum(), (loc, scale)))


# ---------------------------------------------------------------- batches of LR images


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize(
    ("batch", "lr_batch"), [((), (2,)), ((3,), (2, 1)), ((2,), ()), ((0,), (0,)), ((), (0,)), ((2, 0), (0,))]
)
def test_lr_images_broadcast_against_images(name, batch, lr_batch):
    flow = model(name)
    hr, lr = images(flow, batch, lr_batch)
    found = flow.condition(lr).log_prob(hr)
    whole = torch.broadcast_shapes(batch, lr_batch)
    assert found.shape == whole
    wide = [image.expand(*whole, *image.shape[-3:]).reshape(-1, *image.shape[-3:]) for image in (lr, hr)]
    expected = [flow.condition(one).log_prob(other) for one, other in zip(*wide, strict=True)]
    assert torch.allclose(found.reshape(-1), torch.stack(expected) if expected else found.reshape(-1))
    assert flow.condition(lr).sample((2,)).shape == (2, *lr_batch, *hr.shape[-3:])


# ---------------------------------------------------------------- other bases, other transforms


@pytest.mark.parametrize("name", ["hcflow-sr-x4-gray", "irn-x2", "glow", "realnvp-actnorm", "haar", "pixel-shuffle-2"])
def test_flows_stand_on_any_distribution(name):
    case = CASES[name]
    flow = case.transform().double()
    zero, z = torch.zeros(case.shape, dtype=torch.float64), (0.3 * case.latent().double()).clamp(-0.9, 0.9)
    normal = dist.Normal(zero, 1.0).to_event(3)
    x, ladj = flow.call_and_ladj(z)
    bases = {
        "student": dist.StudentT(5.0, zero, 1.0).to_event(3),
        "uniform": dist.Uniform(zero - 4, zero + 4).to_event(3),
        "affine": dist.TransformedDistribution(normal, [transforms.AffineTransform(0.1, 2.0, event_dim=3)]),
        "tanh": dist.TransformedDistribution(normal, [transforms.TanhTransform()]),
        "flow": FlowDistribution(normal, [flow, flow.inv]),
        "mixture": dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2, dtype=torch.float64)),
            dist.Normal(torch.stack([zero, zero + 1]), 1.0).to_event(3),
        ),
    }
    for label, base in bases.items():
        found = FlowDistribution(base, [flow])
        assert torch.allclose(found.log_prob(x), base.log_prob(z) - ladj), label
        assert found.sample((2,)).shape == (2, *x.shape)


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_torchs_transforms_stand_in_the_list(name):
    flow, hr, lr = given(name)
    known = posterior(flow, lr, 1.0)
    lists = [
        [*known.transforms, transforms.AffineTransform(0.5, 2.0)],
        [*known.transforms, transforms.AffineTransform(0.5, 2.0, event_dim=3), transforms.ExpTransform()],
        [transforms.AffineTransform(0.0, torch.tensor(0.5).double()), *known.transforms, transforms.SigmoidTransform()],
        [transforms.AffineTransform(0.0, 0.5, event_dim=2), *known.transforms],
    ]
    for parts in lists:
        mine, theirs = (kind(known.base_dist, parts) for kind in (FlowDistribution, dist.TransformedDistribution))
        x, log_prob = mine.rsample_and_log_prob((2,))
        assert log_prob.shape == (2,)
        assert torch.allclose(log_prob, theirs.log_prob(x), rtol=1e-6)
        assert torch.allclose(mine.log_prob(x), theirs.log_prob(x), rtol=1e-6)
        # An image like those of the flow, and not only of this distribution.
        x = hr
        for part in parts[parts.index(known.transforms[0]) + 1 :]:
            x = part(x)
        assert torch.allclose(mine.log_prob(x), theirs.log_prob(x), rtol=1e-6)


# ---------------------------------------------------------------- dtypes, devices, and where weights come from


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", CONDITIONAL)
def test_lr_images_of_another_dtype(name, dtype):
    flow = model(name).float()
    hr, lr = (image.float() for image in images(flow))
    lr = lr.to(dtype)
    found = flow.condition(lr).log_prob(hr.to(dtype).float())
    assert found.dtype == torch.float32
    assert torch.allclose(found, flow.condition(lr.float()).log_prob(hr.to(dtype).float()), rtol=1e-4)
    assert flow.condition(lr).sample().dtype == torch.float32


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_weights_may_change_their_dtype_after_condition(name):
    flow, hr, lr = given(name)
    flow.float()
    before = posterior(flow, lr, 0.9)
    log_prob = before.log_prob(hr.float())
    flow.double()
    assert before.sample((2,)).dtype == torch.float64
    assert before.rsample_and_log_prob()[0].dtype == torch.float64
    assert torch.allclose(before.log_prob(hr).float(), log_prob, rtol=1e-3)
    after = flow.float()
    assert posterior(after, lr, 0.9).sample().dtype == torch.float32


@pytest.mark.parametrize("default", ["meta", "cpu"])
@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_another_default_device(name, default):
    flow, hr, lr = given(name)
    expected = posterior(flow, lr, 0.9).log_prob(hr)
    tau = torch.tensor([0.9], dtype=torch.float64)
    with torch.device(default):
        found = posterior(flow, lr, 0.9)
        assert torch.equal(found.log_prob(hr), expected)
        assert torch.equal(posterior(flow, lr, tau).log_prob(hr)[0], expected)
        assert torch.isfinite(found.sample((2,))).all()
        assert torch.isfinite(found.rsample_and_log_prob()[1])
        if lr is not None:
            assert torch.equal(flow.condition(lr.clone().requires_grad_(), temperature=0.9).log_prob(hr), expected)


@pytest.mark.parametrize("default", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_another_default_dtype(name, default):
    flow, hr, lr = given(name)
    tau = torch.tensor(0.9, dtype=torch.float64)
    expected = posterior(flow, lr, tau).log_prob(hr)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        found = posterior(flow, lr, tau)
        assert torch.allclose(found.log_prob(hr), expected, rtol=1e-12)
        assert found.sample().dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_weights_made_in_inference_mode_can_be_differentiated(name, tmp_path):
    flowsr.save(tiny(name).float(), tmp_path / "m.safetensors")
    with torch.inference_mode():
        loaded, fresh = flowsr.load(tmp_path / "m.safetensors"), tiny(name)
    hr = torch.rand(1, fresh.config.image_channels, 24, 24)
    for flow in (loaded, fresh):
        side = 24 if name in DENSITIES else 24 // flow.upscale
        known = flow.distribution((24, 24)) if name in DENSITIES else flow.condition(hr[..., :side, :side])
        known.log_prob(hr.clone().requires_grad_()).sum().backward()
        assert any(parameter.grad is not None for parameter in flow.parameters())


# ---------------------------------------------------------------- what it says of itself


@pytest.mark.parametrize("name", [*CONDITIONAL, *DENSITIES])
def test_repr_says_what_a_posterior_is(name):
    flow, hr, lr = given(name)
    text = repr(posterior(flow, lr, 0.8))
    assert text.startswith(f"{type(flow).__name__}(batch_shape=(), event_shape={tuple(hr.shape)}, temperature=0.8")
    assert ("lr_log_scale=-6" in text) == (name in WITH_LR)
    random = posterior(flow, lr, torch.rand(4, requires_grad=True))
    assert "batch_shape=(4,)" in repr(random)
    assert "temperature=tensor of shape (4,)" in repr(random)
    assert repr(posterior(flow, lr, 0.8).expand((2,))).startswith(f"{type(flow).__name__}(batch_shape=(2,)")
    if levels(flow) == 2:
        assert "temperature=(0.9, 0.5)" in repr(posterior(flow, lr, (0.9, 0.5)))
    other = repr(FlowDistribution(dist.Normal(torch.zeros(48, 1, 1), 1.0).to_event(3), [CASES["glow"].transform()]))
    assert other == "FlowDistribution(batch_shape=(), event_shape=(3, 4, 4), base=Independent, transforms=[Multiscale])"


def test_tensors_of_no_temperature_sample_as_numbers_do():
    lr = torch.rand(3, 2, 2)
    cold = PackedNormal(lr, latent_channels=(9,), temperature=torch.tensor([0.0, 1.0]), lr_log_scale=-1.0).sample((50,))
    assert torch.equal(cold[:, 0, :3], lr.expand(50, 3, 2, 2))
    assert cold[:, 1, :3].std(0).min() > 0.1
