"""The linear-Gaussian flow: its closed formulas against textbook conditioning, its transform, and its density."""

import math

import pytest
import torch

from flowsr.posterior.linear_gaussian import Gaussian, LinearGaussianFlow, gaussian_posterior, operator_matrix
from flowsr.testing import check_transform


def _flow(**kwargs):
    return LinearGaussianFlow(**{"detail_std": (0.1, 0.05), **kwargs}).double()


def test_it_is_a_transform_of_this_toolkit():
    check_transform(LinearGaussianFlow(detail_std=(0.2, 0.1)).requires_grad_(True).transform, torch.randn(16, 2, 1))


def test_moments_are_those_of_conditioning_on_the_box_average():
    """The LR image as one more linear observation: p(hr | lr) by the textbook formula from p(hr)."""
    flow, lr = _flow(), torch.rand(1, 2, 3, dtype=torch.float64)
    n = lr.numel()
    root = torch.randn(n, n, dtype=torch.float64)
    lr_covariance = 0.02 * (root @ root.T + torch.eye(n, dtype=torch.float64))
    given = flow.posterior(lr)
    grey = flow.posterior(torch.full_like(lr, 0.5))
    zero = flow.posterior(torch.zeros_like(lr)).mean
    slope = operator_matrix(lambda y: torch.stack([flow.posterior(one).mean - zero for one in y]), (1, 2, 3))
    prior = Gaussian(grey.mean, slope @ lr_covariance @ slope.T + given.covariance)
    average = operator_matrix(lambda x: torch.nn.functional.avg_pool2d(x, 4), (1, 8, 12))
    found = gaussian_posterior(prior, average, lr, noise_std=1e-7)
    assert torch.allclose(found.mean, given.mean, atol=1e-8)
    assert torch.allclose(found.covariance, given.covariance, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 2])
def test_density_is_the_closed_formula(channels):
    flow = _flow(image_channels=channels)
    lr, hr = torch.rand(channels, 2, 2, dtype=torch.float64), torch.rand(channels, 8, 8, dtype=torch.float64)
    std = 0.05
    exact = flow.posterior(lr, lr_log_scale=math.log(std))
    expected = torch.distributions.MultivariateNormal(exact.mean, exact.covariance).log_prob(hr.flatten())
    assert torch.allclose(flow.condition(lr, lr_log_scale=math.log(std)).log_prob(hr), expected)


@pytest.mark.parametrize("lr_log_scale", [-math.inf, math.log(0.1)])
def test_draws_have_the_moments(lr_log_scale):
    flow, lr = _flow(), torch.rand(1, 2, 2, dtype=torch.float64)
    exact = flow.posterior(lr, lr_log_scale=lr_log_scale)
    n = 20_000
    generator = torch.Generator().manual_seed(1)
    draws = flow.sample(lr, num_samples=n, lr_log_scale=lr_log_scale, generator=generator).flatten(1)
    assert ((draws.mean(0) - exact.mean).abs() / exact.std * math.sqrt(n)).max() < 4.5
    variances = exact.std.square()
    error = (torch.cov(draws.T) - exact.covariance) / (
        (exact.covariance.square() + variances.outer(variances)) / n
    ).sqrt()
    assert error.abs().max() < 5.5


def test_messages():
    with pytest.raises(ValueError, match="positive standard deviations"):
        LinearGaussianFlow(detail_std=(0.1, 0.0))
