"""The evidence by tempering, against closed forms and sums over grids; its particles are draws of the posterior."""

import math

import pytest
import torch

from flowsr.posterior.evidence import temper


def _gaussian(noise=0.5, dims=8, seed=0):
    """A likelihood on three directions; evidence, mean and covariance of the posterior."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, dims, generator=generator, dtype=torch.float64)
    data = torch.randn(3, generator=generator, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(3).double(), matrix @ matrix.T + noise**2 * torch.eye(3).double()
    )
    covariance = torch.linalg.inv(torch.eye(dims).double() + matrix.T @ matrix / noise**2)

    def log_likelihood(u):
        return torch.distributions.Normal(u @ matrix.T, noise).log_prob(data).sum(-1)

    return log_likelihood, float(exact.log_prob(data)), covariance @ matrix.T @ data / noise**2, covariance


@pytest.mark.parametrize("gradients", [True, False])
def test_the_evidence_of_a_linear_gaussian_problem(gradients):
    """Over seeds, in units of the error that is said; with six runs a z has the tails of Student's t."""
    log_likelihood, exact, mean, covariance = _gaussian()
    z = []
    for seed in range(8):
        found = temper(log_likelihood, torch.zeros(8).double(), seed=seed, gradients=gradients)
        z.append((found.log_evidence - exact) / found.error)
        assert abs(found.log_evidence - exact) < 0.7 and found.error < 0.4
        assert found.exponents[0] == 0 and found.exponents[-1] == 1 and not found.remarks
    assert abs(sum(z) / 8) < 4 * 1.3 / math.sqrt(8)
    x = found.latents.flatten(0, 1)
    error = (covariance.diagonal() / 60).sqrt()  # of 384 particles with common ancestors
    assert ((x.mean(0) - mean).abs() < 4.5 * error).all()
    assert (x.var(0) / covariance.diagonal()).log().abs().max() < 0.7


def test_the_evidence_of_two_modes():
    def log_likelihood(u):
        return -(u[..., 0].square() - 1).square() / (2 * 0.1**2) + 0.8 * u[..., 0]

    axis = torch.linspace(-6, 6, 20001, dtype=torch.float64)[:, None]
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(axis[:, 0])
    exact = float((log_likelihood(axis) + prior).logsumexp(0)) + math.log(12 / 20000)
    right = float((log_likelihood(axis) + prior).softmax(0)[axis[:, 0] > 0].sum())
    found = temper(log_likelihood, torch.zeros(1).double(), num_particles=200, seed=1)
    assert abs(found.log_evidence - exact) < 4 * found.error + 0.05
    share = (found.latents[..., 0] > 0).double().mean(1)
    assert abs(float(share.mean()) - right) < 4 * float(share.std()) / math.sqrt(len(share))


def test_impossible_particles_have_no_weight():
    """Half of the prior is impossible: the evidence is one half."""
    found = temper(lambda u: torch.where(u[..., 0] > 0, 0.0, math.nan), torch.zeros(2), num_particles=400)
    assert abs(found.log_evidence - math.log(0.5)) < 4 * found.error + 1e-3
    assert (found.latents[..., 0] > 0).all()
    with pytest.raises(ValueError, match="nine tenths"):
        temper(lambda u: torch.full(u.shape[:1], math.nan), torch.zeros(2))


def test_runs_that_differ_say_so_and_the_advice_helps():
    log_likelihood, exact, _, _ = _gaussian(noise=0.02)
    poor = temper(log_likelihood, torch.zeros(8).double(), num_particles=8, num_steps=1, keep=0.3, gradients=False)
    assert any("raise num_particles, num_steps or keep" in remark.lower() for remark in poor.remarks)
    good = temper(log_likelihood, torch.zeros(8).double(), num_particles=150, num_steps=20, keep=0.8, gradients=False)
    assert not good.remarks and abs(good.log_evidence - exact) < 4 * good.error


def test_what_is_said_and_shown():
    told = []
    options = {"num_particles": 16, "num_runs": 2, "seed": 3}
    found = temper(_gaussian()[0], torch.zeros(8).double(), on_step=lambda: told.append(1), **options)
    assert len(told) == 2 * (len(found.exponents) - 1)
    assert "log evidence, nats" in found.to_text() and found.to_dict()["particles"] == 16
    assert found.plot().axes
    again = temper(_gaussian()[0], torch.zeros(8).double(), **options)
    assert again.log_evidence == found.log_evidence and torch.equal(again.latents, found.latents)
    for bad, message in (({"num_runs": 1}, "num_runs >= 2"), ({"keep": 1.0}, "keep in"), ({"num_steps": 0}, "num_st")):
        with pytest.raises(ValueError, match=message):
            temper(lambda u: u.sum(-1), torch.zeros(2), **bad)
