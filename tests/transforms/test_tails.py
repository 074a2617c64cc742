"""Heads with tails: densities against scipy's integrals, slopes, and values as far out as float32 goes."""

import math
from itertools import pairwise

import pytest
import torch
from cases import tiny_flow
from scipy import integrate, stats

from flowsr.likelihood import decompose
from flowsr.transforms import LogisticMixtureMap, SinhArcsinhMap

MAPS = {"sinh-arcsinh": (SinhArcsinhMap(), 4), "logistic-mixture": (LogisticMixtureMap(components=3), 11)}


def parameters(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).reshape(-1, 1, 1)


def log_density(head, h):
    """Of the distribution that a standard normal latent becomes, at a number."""

    def of(x):
        z, ladj = head.encode(parameters(x), h)
        return float(stats.norm.logpdf(float(z)) + ladj)

    return of


@pytest.mark.parametrize("h", [(0, 0, 0, 0), (0.3, -0.5, 0.8, -0.7), (-1.0, 0.4, -2.0, 0.9), (0.0, 0.0, 0.5, -3.0)])
def test_sinh_arcsinh_densities_have_mass_one_and_scipys_tails(h):
    head, h = SinhArcsinhMap(), parameters(*h)
    density = lambda x: math.exp(log_density(head, h)(x))  # noqa: E731
    middle = float(head.decode(parameters(0.0), h)[0])
    edges = [float(head.decode(parameters(z), h)[0]) for z in (-9.0, -3.0, -1.0, 1.0, 3.0, 9.0)]
    whole = sum(integrate.quad(density, a, b)[0] for a, b in pairwise(edges))
    assert whole == pytest.approx(1.0, abs=1e-7)
    for point in (middle, edges[3], edges[4]):
        beyond = integrate.quad(density, point, edges[-1], limit=400)[0]
        assert beyond == pytest.approx(stats.norm.sf(float(head.encode(parameters(point), h)[0])), rel=1e-5)


def test_sinh_arcsinh_is_the_formula_of_jones_and_pewsey():
    mu, s, skew, tail = 0.3, -0.5, 0.8, -0.7
    x = torch.linspace(-4, 4, 17, dtype=torch.float64).reshape(1, 1, -1)
    h = parameters(mu, s, skew, tail).expand(4, 1, 17)
    z, _ = SinhArcsinhMap().encode(x, h)
    standard = (x - mu) / math.exp(s)
    expected = torch.sinh(math.exp(math.tanh(tail)) * torch.asinh(standard) - math.tanh(skew))
    assert torch.allclose(z, expected, rtol=1e-12)
    assert torch.equal(SinhArcsinhMap().encode(x, torch.zeros_like(h))[0].round(decimals=12), x.round(decimals=12))
    # The weight of the tails is the exponent with which x grows.
    far, farther = (float(SinhArcsinhMap().decode(parameters(z), parameters(0, 0, 0, tail))[0]) for z in (1e8, 1e10))
    assert math.log(farther / far) / math.log(100) == pytest.approx(math.exp(-math.tanh(tail)), rel=1e-6)
    # To the right for a positive skewness: as far out in probability, farther out in value.
    right, left = (float(SinhArcsinhMap().decode(parameters(z), parameters(0, 0, 1.0, 0))[0]) for z in (2.0, -2.0))
    assert right > 2 > -left


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("inverse", [False, True], ids=["encode", "decode"])
def test_log_determinants_are_autograds(name, inverse):
    head, count = MAPS[name]
    x = 3 * torch.randn(5, 1, 2, 3, dtype=torch.float64).requires_grad_()
    h = torch.randn(5, count, 2, 3, dtype=torch.float64)
    method = head.decode if inverse else head.encode
    y, ladj = method(x, h)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    assert (slopes > 0).all()
    assert torch.allclose(ladj, slopes.log().sum((1, 2, 3)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 30.0, 1e4])
def test_far_values_come_back_in_float32(name, magnitude):
    head, count = MAPS[name]
    x = magnitude * torch.linspace(-1, 1, 41).reshape(1, 1, -1)
    h = 0.7 * torch.randn(count, 1, 41, generator=torch.Generator().manual_seed(0))
    z, ladj = head.encode(x, h)
    back, again = head.decode(z, h)
    assert z.isfinite().all() and ladj.isfinite()
    # An error of rounding in z, as large as z, is one of x by the slope of the way back.
    precise = head.encode(x.double(), h.double())[0]
    assert torch.allclose(z.double(), precise, rtol=1e-4, atol=1e-6)
    assert torch.allclose(back, x, rtol=1e-3, atol=1e-5)
    assert torch.allclose(ladj, -again, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MAPS)
def test_extremes_of_the_parameters_stay_finite_with_their_gradients(name):
    head, count = MAPS[name]
    x = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4]).reshape(1, 1, -1).requires_grad_()
    for value in (-30.0, 30.0):
        h = torch.full((count, 1, 5), value)
        h[1] = 0.0  # the log-scale, which is unbounded
        h.requires_grad_()
        for method in (head.encode, head.decode):
            y, ladj = method(x, h)
            slopes = torch.autograd.grad(y.sum() + ladj, (x, h))
            assert y.isfinite().all() and all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("z", [0.0, -1.3, 4.0])
def test_second_derivatives_at_the_mode_too(name, z):
    """There the latent is zero, and log cosh has its curvature."""
    head, count = MAPS[name]
    z = torch.full((1, 1, 1), z, dtype=torch.float64, requires_grad=True)
    h = torch.zeros(count, 1, 1, dtype=torch.float64)
    h[-1] = -0.4
    h.requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda z, h: torch.stack([part.sum() for part in head.decode(z, h)]), (z, h), atol=1e-5
    )


def test_terms_are_called_by_the_head():
    hr, lr = torch.rand(3, 8, 8), torch.rand(3, 2, 2)
    for maps in (False, True):
        terms = decompose(tiny_flow(head="sinh-arcsinh"), hr, lr, maps=maps).named()
        assert "sinh-arcsinh head 2" in terms and "Gaussian head 2" not in terms
    assert "Gaussian head 1" in decompose(tiny_flow(), hr, lr).named()
