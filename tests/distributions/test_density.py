"""The density is a density: it integrates to one, has the right conditional mass, and its samples follow it."""

import math

import pytest
import torch
from cases import tiny_flow

from flowsr.likelihood import decompose


def toy_flow():
    """A gray x2 flow on a 2x2 image: four dimensions, every kind of layer, log-determinant far from constant."""
    return tiny_flow("sr-x4", levels=1, image_channels=1, hidden_channels=6).double()


def test_integrates_to_one_by_quadrature():
    """Three of four dimensions by a product rule on the support of the mass, found from samples; the LR width is wide
    enough (σ = e^-1) for the rule to resolve."""
    flow = toy_flow()
    lr = torch.tensor([[[0.4]]], dtype=torch.float64)
    post = flow.condition(lr, lr_log_scale=-1.0)
    x = post.sample((20000,)).reshape(-1, 4)
    mean, chol = x.mean(0), torch.linalg.cholesky(torch.cov(x.T))
    # Whitened coordinates: a trapezoidal rule on ±5 standard deviations converges faster than any power.
    grid = torch.linspace(-5, 5, 17, dtype=torch.float64)
    step = float(grid[1] - grid[0])
    points = torch.cartesian_prod(grid, grid, grid, grid)
    total = 0.0
    with torch.no_grad():
        for chunk in points.split(50000):
            images = (mean + chunk @ chol.T).reshape(-1, 1, 2, 2)
            total += float(post.log_prob(images).exp().sum())
    integral = total * step**4 * float(chol.diagonal().prod())
    assert abs(integral - 1) < 0.01


def test_integrates_to_one_by_importance_sampling():
    """E_q[p/q] = 1 with q a wide Gaussian fitted to samples, within four standard errors, at the model's own σ."""
    flow = toy_flow()
    lr = torch.tensor([[[0.4]]], dtype=torch.float64)
    post = flow.condition(lr, lr_log_scale=-2.0)
    x = post.sample((20000,)).reshape(-1, 4)
    proposal = torch.distributions.MultivariateNormal(x.mean(0), 1.5 * torch.cov(x.T))
    draws = proposal.sample((100000,))
    with torch.no_grad():
        weights = (post.log_prob(draws.reshape(-1, 1, 2, 2)) - proposal.log_prob(draws)).exp()
    error = weights.std() / math.sqrt(len(weights))
    assert error < 0.02
    assert abs(weights.mean() - 1) < 4 * error


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_and_densities_agree(temperature):
    flow = tiny_flow().double()
    post = flow.condition(torch.rand(2, 3, 2, 3, dtype=torch.float64), temperature=temperature)
    x, log_prob = post.rsample_and_log_prob((5,))
    assert x.shape == (5, 2, 3, 8, 12)
    assert log_prob.shape == (5, 2)
    assert torch.allclose(post.log_prob(x), log_prob, rtol=1e-9)


def test_entropy_of_samples():
    """E[−log p(x)] over samples equals the entropy by change of variables, estimated from the base: a sanity check
    that sampling and scoring are of one model."""
    flow = toy_flow()
    post = flow.condition(torch.tensor([[[0.4]]], dtype=torch.float64))
    z = post.base_dist.sample((4000,))
    with torch.no_grad():
        left = -post.log_prob(post.sample((4000,)))
        right = 4 * 0.5 * math.log(2 * math.pi * math.e) - 6.0 + flow.transform.call_and_ladj(z)[1]
    error = math.hypot(float(left.std()), float(right.std())) / math.sqrt(4000)
    assert abs(left.mean() - right.mean()) < 4 * error


def test_decomposition_sums_to_log_prob():
    for name in ("sr-x4", "sr-x8", "rescaling-x4"):
        flow = tiny_flow(name).double()
        hr = torch.rand(2, 3, 16, 8, dtype=torch.float64)
        lr = torch.rand(2, 3, 16 // flow.upscale, 8 // flow.upscale, dtype=torch.float64)
        terms = decompose(flow, hr, lr)
        assert terms.dims == 3 * 16 * 8
        assert torch.allclose(terms.total, flow.condition(lr).log_prob(hr), rtol=1e-9)
        assert torch.allclose(sum(terms.named().values()), terms.total)
        assert {term["name"] for term in terms.to_dict()["terms"]} == set(terms.named())
        assert torch.allclose(terms.dequantized().bits_per_dim, terms.density_bits_per_dim + 8)
        assert torch.allclose(terms.dequantized().density_bits_per_dim, terms.density_bits_per_dim)
        with pytest.raises(ValueError, match="got those of a density"):
            _ = terms.bits_per_dim


@pytest.mark.parametrize(
    ("hr", "lr", "kwargs", "message"),
    [
        ((3, 8, 8), (3, 2, 3), {}, "expected an lr of 2 × 2 pixels.*got 3 × 2 pixels"),
        ((2, 3, 8, 8), (5, 3, 2, 2), {}, r"batch broadcasts to that of hr, \(2,\); got \(5,\)"),
        ((3, 8, 10), (3, 2, 2), {}, r"multiples of 4; got 10 × 8 pixels"),
        ((1, 8, 8), (3, 2, 2), {}, "channel"),
        ((3, 8, 8), (3, 2, 2), {"lr_log_scale": -math.inf}, "finite lr_log_scale"),
    ],
)
def test_messages(hr, lr, kwargs, message):
    with pytest.raises(ValueError, match=message):
        decompose(tiny_flow(), torch.rand(hr), torch.rand(lr), **kwargs)
