"""Likelihood analysis on a linear-Gaussian model: every number against a formula that shares no code with the flow."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import avg_pool2d

from flowsr.distributions import UniformDequantizer
from flowsr.likelihood import bits_per_dim, decompose, inverse_stability, latent_diagnostics, temperature_sweep
from flowsr.posterior import LinearGaussianFlow

WIDTH = -4.0
"""log σ of the LR image."""


@pytest.fixture(scope="module")
def model():
    return LinearGaussianFlow(detail_std=(0.08, 0.04)).double()


def _exact(model, lr, log_width=WIDTH):
    moments = model.posterior(lr, lr_log_scale=log_width)
    return MultivariateNormal(moments.mean, moments.covariance)


def _pairs(model, count, side=4):
    """Draws from the formula, not from the flow."""
    pairs = []
    for _ in range(count):
        lr = torch.rand(1, side, side, dtype=torch.float64)
        pairs.append((_exact(model, lr).sample().reshape(1, 4 * side, 4 * side), lr))
    return pairs


def test_the_log_density_is_the_formula(model):
    for hr, lr in _pairs(model, 4):
        total = decompose(model, hr, lr, lr_log_scale=WIDTH).total
        # The model's weights were rounded to float32 when they were made.
        assert torch.allclose(total, _exact(model, lr).log_prob(hr.flatten()), rtol=1e-7)


def test_every_term_is_its_formula(model):
    (hr, lr), *_ = _pairs(model, 1)
    terms = decompose(model, hr, lr, lr_log_scale=WIDTH, maps=True)
    half, quarter = avg_pool2d(hr, 2), avg_pool2d(hr, 4)
    # The flow's LR image is the mean of 4x4 pixels.
    expected = Normal(lr, math.exp(WIDTH)).log_prob(quarter)
    assert torch.allclose(terms.of("lr")[0], expected.sum())
    assert torch.allclose(avg_pool2d(terms.maps["LR image"][None], 4) * 16, expected)
    # A Haar transform costs ln 2 for each of the dimensions it works on.
    assert torch.allclose(torch.stack(terms.of("main")), -math.log(2) * torch.tensor([64.0, 256.0]).double())
    # A head divides details by their deviation; diagonal ones have half of it.
    logs = [-count * (2 * math.log(std) + math.log(std / 2)) for count, std in ((16, 0.08), (64, 0.04))]
    assert torch.allclose(torch.stack(terms.of("head")), torch.tensor(logs).double())
    # Each level alone: p(details | coarser image) as a difference of two Gaussians of whole images.
    finest = LinearGaussianFlow(detail_std=(0.04,)).double()
    given = decompose(finest, hr, half.clamp(0, 1), lr_log_scale=WIDTH)
    latent = [terms.named()["latent z_1"], given.named()["latent z_1"]]
    if torch.equal(half, half.clamp(0, 1)):
        assert torch.allclose(latent[0], latent[1])
    assert torch.allclose(terms.bits_map.mean(), terms.density_bits_per_dim)


def test_draws_from_the_formula_pass_and_others_do_not(model):
    pairs = _pairs(model, 40)
    assert latent_diagnostics(model, pairs, lr_log_scale=WIDTH).passed
    assert not latent_diagnostics(model, pairs, lr_log_scale=WIDTH - 0.3).passed
    wrong = LinearGaussianFlow(detail_std=(0.08, 0.05)).double()
    failures = latent_diagnostics(wrong, pairs, lr_log_scale=WIDTH).failures
    assert any(name.startswith("z_1") for name in failures) and not any("z_2" in name for name in failures)


def test_bits_of_a_wide_density_are_those_of_the_bin(model):
    """Where the density hardly changes within a bin, its mass is density times volume, for any dequantization."""
    lr = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    wide = LinearGaussianFlow(detail_std=(0.3, 0.3)).double()
    exact = _exact(wide, lr, -1.0)
    hr = (exact.sample().reshape(1, 8, 8).clamp(0, 1) * 255).round() / 255
    middle = (hr + 0.5 / 256).flatten()
    expected = -(exact.log_prob(middle) - 64 * math.log(256)) / (64 * math.log(2))
    found = bits_per_dim(wide, hr, lr, num_samples=64, lr_log_scale=-1.0, dequantizer=UniformDequantizer())
    assert abs(float(found.importance_weighted - expected)) < 1e-3


def test_the_weighted_bound_converges_to_the_mass_of_the_bin():
    """Four dimensions, a density narrower than the bin: the mass by a Gauss-Legendre rule over the bin."""
    narrow, log_width = LinearGaussianFlow(detail_std=(0.003,)).double(), math.log(0.002)
    generator = torch.Generator().manual_seed(2)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(16))
    offsets = torch.cartesian_prod(*[(nodes + 1) / 2 / 256] * 4)
    log_weights = torch.cartesian_prod(*[(weights / 2).log()] * 4).sum(-1)
    images, lrs, exact_bits = [], [], []
    for _ in range(12):
        lr = 0.3 + 0.4 * torch.rand(1, 1, 1, generator=generator, dtype=torch.float64)
        exact = _exact(narrow, lr, log_width)
        spread = exact.scale_tril @ torch.randn(4, generator=generator, dtype=torch.float64)
        hr = ((exact.mean + spread) * 256).floor().clamp(0, 255).reshape(1, 2, 2) / 255
        mass = (exact.log_prob(hr.flatten() + offsets) + log_weights).logsumexp(0) - 4 * math.log(256)
        images.append(hr)
        lrs.append(lr)
        exact_bits.append(-mass / (4 * math.log(2)))
    hr, lr, bits = torch.stack(images), torch.stack(lrs), torch.stack(exact_bits)
    found = bits_per_dim(narrow, hr, lr, num_samples=1024, lr_log_scale=log_width, generator=generator)
    # Never beyond the mass, and as near to it as the error says; that of one draw stays well above.
    assert ((found.importance_weighted - bits).abs() < 4 * found.importance_weighted_error).all()
    assert (found.variational - bits > 4 * found.variational_error).all()
    assert found.importance_weighted_error.max() < 0.3 * (found.variational - bits).mean()


def test_the_nll_at_a_temperature_is_that_of_the_tempered_gaussian(model):
    lr = torch.rand(1, 8, 8)
    hr = (model.sample(lr)[0].clamp(0, 1) * 255).round().float() / 255
    sweep = temperature_sweep(model, [(hr, lr)], temperatures=(0.5,), num_samples=2, lr_log_scale=WIDTH)
    tempered = LinearGaussianFlow(detail_std=(0.04, 0.02)).double()
    noisy = hr + torch.rand(hr.shape, generator=torch.Generator().manual_seed(0)) / 256
    nats = _exact(tempered, lr.double()).log_prob(noisy.double().flatten())
    expected = -float(nats) / (hr.numel() * math.log(2)) + 8
    assert sweep.figures["NLL"][0].value == pytest.approx(expected, rel=1e-6)


def test_its_inverse_is_stable(model):
    hr, lr = _pairs(model, 1)[0]
    assert inverse_stability(model, hr.clamp(0, 1), lr).unstable == ()
