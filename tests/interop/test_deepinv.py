"""deepinv's physics as operators, adjoints and answers known by a formula, and flows as its priors and samplers."""

import math
import pickle

import pytest
import torch
from cases import tiny_flow
from libraries import optional

from flowsr import Glow
from flowsr.interop import from_deepinv, to_deepinv_prior, to_deepinv_sampler
from flowsr.posterior import (
    GaussianNoise,
    InverseProblem,
    LaplaceNoise,
    LinearGaussianFlow,
    Mask,
    PoissonNoise,
    as_operator,
    gaussian_posterior,
    operator_matrix,
    solve,
)
from flowsr.posterior.operators import joined
from flowsr.testing import randomize

deepinv, needs_deepinv = optional("deepinv")
pytestmark = needs_deepinv

SHAPE = (1, 8, 8)


def stack(noise=0.05):
    """A blur and an inpainting of the same image: two outputs."""
    physics = deepinv.physics
    kernel = torch.tensor([[0.0, 1, 0], [1, 4, 1], [0, 1, 0]])[None, None] / 8
    mask = (torch.arange(64).reshape(SHAPE) % 11 < 6).float()
    blur = physics.Blur(filter=kernel, padding="reflect", noise_model=physics.GaussianNoise(noise))
    return physics.stack(blur, physics.Inpainting(SHAPE, mask=mask, noise_model=physics.GaussianNoise(noise)))


def model():
    return LinearGaussianFlow(detail_std=(0.1,)), torch.linspace(0.2, 0.8, 16).reshape(1, 4, 4)


def test_the_adjoint_of_an_operator_is_that_of_the_physics():
    """The gradient of our operator is the adjoint of theirs, part by part of a stack."""
    physics = stack()
    operator = as_operator(physics)
    x = torch.rand(3, *SHAPE, requires_grad=True)
    made = operator(x)
    assert made.shape == (3, 128)
    torch.testing.assert_close(made, torch.cat([part.A(x).flatten(1) for part in physics.physics_list], 1))
    v = torch.randn(3, 128)
    (gradient,) = torch.autograd.grad((v * made).sum(), x)
    parts = deepinv.utils.TensorList([v[:, :64].reshape(3, *SHAPE), v[:, 64:].reshape(3, *SHAPE)])
    torch.testing.assert_close(gradient, physics.A_adjoint(parts), rtol=1e-4, atol=1e-5)
    matrix = operator_matrix(lambda hr: operator(hr.float()).double(), SHAPE)
    assert matrix.shape == (128, 64)
    torch.testing.assert_close(
        (matrix @ x[0].detach().flatten().double()).float(), made[0].detach(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_the_posterior_given_a_stack_is_that_of_the_formula():
    flow, lr = model()
    torch.manual_seed(1)
    physics = stack()
    problem = from_deepinv(flow, lr, physics, physics(flow.sample(lr)))
    assert problem.noise.std == pytest.approx(0.05)
    # What inpainting fills with zeros tells nothing.
    assert int(problem.informative.sum()) == 64 + int(physics[1].mask.sum())
    matrix = operator_matrix(lambda hr: problem.operator(hr.float()).double(), SHAPE)
    exact = gaussian_posterior(flow.posterior(lr), matrix, problem.observation, noise_std=0.05)
    solution = solve(problem, "hmc", num_samples=200, num_warmup=60, start="laplace")
    images = solution.images().flatten(1).double()
    error = (images.mean(0) - exact.mean).abs() / exact.std
    assert error.max() < 0.25 and ((images.std(0) / exact.std) - 1).abs().max() < 0.2


def test_inpainting_is_a_mask():
    """Zeros at unobserved pixels change neither the posterior nor the residual."""
    flow, lr = model()
    inpainting = stack()[1]
    y = inpainting(flow.sample(lr))
    filled = from_deepinv(flow, lr, inpainting, y)
    seen = inpainting.mask[0]
    masked = InverseProblem(flow, lr, Mask(seen), y[0][seen.bool()], GaussianNoise(0.05))
    u = torch.randn(6, filled.dims)
    difference = filled.latent_log_likelihood(u) - masked.latent_log_likelihood(u)
    torch.testing.assert_close(difference, difference[:1].expand(6), rtol=1e-4, atol=1e-3)
    hr = filled.decode(u)
    torch.testing.assert_close(filled.residual_rms(hr), masked.residual_rms(hr), rtol=1e-4, atol=1e-4)


def test_the_noise_is_that_of_the_physics():
    flow, lr = model()
    physics = deepinv.physics
    x = flow.sample(lr)
    for theirs, ours in (
        (physics.GaussianNoise(0.25), GaussianNoise(0.25)),
        (physics.LaplaceNoise(0.5), LaplaceNoise(0.5)),
        (physics.PoissonNoise(0.125), PoissonNoise(8.0)),
    ):
        denoising = physics.Denoising(theirs)
        problem = from_deepinv(flow, lr, denoising, denoising(x.clamp(min=0)))
        assert problem.noise == ours
    assert torch.equal(problem.observation, problem.observation.round())
    counts = physics.Denoising(physics.PoissonNoise(0.125, normalize=False))
    assert from_deepinv(flow, lr, counts, counts(x.clamp(min=0))).observation.max() > 2
    given = from_deepinv(flow, lr, physics.Denoising(physics.ZeroNoise()), x, noise=GaussianNoise(0.1))
    assert given.noise == GaussianNoise(0.1)


def test_what_does_not_fit_is_refused():
    flow, lr = model()
    physics = deepinv.physics
    x = flow.sample(lr)
    with pytest.raises(ValueError, match=r"got ZeroNoise: give the noise"):
        from_deepinv(flow, lr, physics.Denoising(physics.ZeroNoise()), x)
    uneven = physics.stack(physics.Denoising(physics.GaussianNoise(0.1)), physics.Denoising(physics.GaussianNoise(0.2)))
    with pytest.raises(ValueError, match=r"same noise for all of a stacked physics; got GaussianNoise\(std=0.1"):
        from_deepinv(flow, lr, uneven, uneven(x))
    with pytest.raises(ValueError, match=r"one sigma of GaussianNoise; got 2"):
        from_deepinv(flow, lr, physics.Denoising(physics.GaussianNoise(torch.tensor([0.1, 0.2]))), x)
    with pytest.raises(ValueError, match=r"measurements of one image.*got \(2, 1, 8, 8\)"):
        from_deepinv(flow, lr, stack()[0], torch.rand(2, *SHAPE))
    with pytest.raises(ValueError, match="got str"):
        from_deepinv(flow, lr, stack()[0], "y")
    with pytest.raises(ValueError, match="an LR image, as the model's density"):
        to_deepinv_prior(flow)
    with pytest.raises(ValueError, match="num_samples >= 2"):
        to_deepinv_sampler(flow, num_samples=1)
    with pytest.raises(ValueError, match="a method that draws; got 'map'"):
        to_deepinv_sampler(flow, lr, method="map")
    with pytest.raises(ValueError, match=r"one for each of the 1 measurements; got 2"):
        to_deepinv_sampler(flow, lr.expand(2, 1, 4, 4), num_samples=4).sample(stack()(x), stack())
    with pytest.raises(ValueError, match="expected LR images as measurements"):
        to_deepinv_sampler(flow, num_samples=4).sample(stack()(x), stack())


def test_a_prior_is_minus_the_log_density_and_its_gradient_minus_the_score():
    flow = randomize(tiny_flow()).double()
    lr, x = torch.rand(3, 2, 2).double(), torch.rand(4, 3, 8, 8).double()
    prior = to_deepinv_prior(flow, lr, lr_log_scale=-2.0)
    assert isinstance(prior, deepinv.optim.Prior) and prior.explicit_prior
    assert {id(p) for p in prior.parameters()} == {id(p) for p in flow.parameters()}
    posterior = flow.condition(lr, lr_log_scale=-2.0)
    torch.testing.assert_close(prior(x), -posterior.log_prob(x))
    point = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(posterior.log_prob(point).sum(), point)
    torch.testing.assert_close(prior.grad(x, 0.05).detach(), -score)
    assert pickle.loads(pickle.dumps(prior))(x).allclose(prior(x))


def test_a_density_of_images_alone_is_a_prior_too():
    flow = Glow.from_preset("glow-small", levels=2, steps=1, hidden_channels=4)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(to_deepinv_prior(flow)(x), -flow.log_prob(x))


def test_langevin_of_deepinv_finds_the_posterior_by_our_score():
    """deepinv's ULA with a flow as the prior, on a problem whose posterior is known; its step biases the variance."""
    flow, lr = LinearGaussianFlow(detail_std=(0.3,)), torch.full((1, 2, 2), 0.5)
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.3))
    torch.manual_seed(0)
    y = physics(flow.sample(lr))
    scale = math.log(0.3)
    exact = gaussian_posterior(flow.posterior(lr, lr_log_scale=scale), torch.eye(16), y, noise_std=0.3)
    settings = {"step_size": 4e-3, "alpha": 1.0, "sigma": 0.0}
    many = y.expand(400, *y.shape[1:])
    sampler = deepinv.sampling.sampling_builder(
        deepinv.sampling.ULAIterator(settings),
        deepinv.optim.L2(sigma=0.3),
        to_deepinv_prior(flow, lr, lr_log_scale=scale),
        max_iter=120,
        history_size=1,
    )
    sampler(many, physics, x_init=many.clone())
    last = sampler.get_chain()[-1]["x"].flatten(1).double()
    assert ((last.mean(0) - exact.mean).abs() / exact.std).max() < 0.25
    assert ((last.std(0) / exact.std) - 1).abs().max() < 0.2


def test_draws_given_lr_images_are_those_of_the_flow():
    flow = randomize(tiny_flow())
    lr = torch.rand(2, 3, 3, 2)
    sampler = to_deepinv_sampler(flow, num_samples=6, temperature=0.7)
    physics = deepinv.physics.DownsamplingMatlab(factor=4)
    assert isinstance(sampler, deepinv.models.Reconstructor)
    mean, var = sampler.sample(lr, physics, seed=3)
    torch.manual_seed(3)
    draws = torch.stack(list(flow.stream(lr, num_samples=6, temperature=0.7)))
    chain = torch.stack([state["x"] for state in sampler.get_chain()])
    assert torch.equal(chain, draws)
    torch.testing.assert_close(mean, draws.mean(0))
    torch.testing.assert_close(var, draws.var(0), rtol=1e-3, atol=1e-6)
    assert torch.equal(sampler(lr, physics, seed=3), mean)
    assert {id(p) for p in sampler.parameters()} == {id(p) for p in flow.parameters()}


@pytest.mark.slow
def test_draws_given_measurements_are_of_the_posterior():
    """Mean and variance of deepinv's own statistics against the formula, for two images with stacked measurements."""
    flow, lr = model()
    physics = stack(noise=0.1)
    torch.manual_seed(1)
    lrs = torch.stack([lr, 1 - lr])
    y = physics(flow.sample(lrs)[0])
    sampler = to_deepinv_sampler(flow, lrs, num_samples=300, num_warmup=40, start="laplace")
    mean, var = sampler.sample(y, physics, seed=0)
    assert len(sampler.get_chain()) == 300 and len(sampler.iterator.solutions) == 2
    matrix = operator_matrix(lambda hr: as_operator(physics)(hr.float()).double(), SHAPE)
    for i in range(2):
        exact = gaussian_posterior(flow.posterior(lrs[i]), matrix, joined(y)[i], noise_std=0.1)
        assert ((mean[i].flatten() - exact.mean).abs() / exact.std).max() < 0.35
        assert abs(float((var[i].flatten() / exact.std**2).mean()) - 1) < 0.1


@pytest.mark.parametrize("options", [{"method": "pcn", "num_warmup": 2}, {"method": "svi", "steps": 3}])
def test_every_draw_of_a_solver_is_a_state_of_the_chain(options):
    flow, lr = model()
    physics = stack()
    y = physics(flow.sample(lr))
    sampler = to_deepinv_sampler(flow, lr, num_samples=9, **options)
    mean, _ = sampler.sample(y, physics, seed=0)
    chain = torch.stack([state["x"] for state in sampler.get_chain()])
    (solution,) = sampler.iterator.solutions
    made = {tuple(image.flatten().tolist()) for image in solution.images()}
    assert chain.shape == (9, 1, *SHAPE) and all(tuple(draw.flatten().tolist()) in made for draw in chain)
    torch.testing.assert_close(mean, chain.mean(0), rtol=1e-5, atol=1e-6)
