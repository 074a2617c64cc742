"""sbi's diagnostics on our draws: the same ranks as ours, and the same verdicts on models whose answer is known."""

import pickle

import numpy as np
import pytest
import torch
from libraries import optional

from flowsr.calibration import flow_sampler, hold_out, model_pairs, reference_images, simulation_based_calibration, tarp
from flowsr.interop import sbi_ranks, to_sbi
from flowsr.posterior import GaussianLR, LinearGaussianFlow

sbi, needs_sbi = optional("sbi.diagnostics")
pytestmark = needs_sbi

WIDTH = -3.5
QUIET = {"show_progress_bar": False}


def pairs(count=120):
    flow = LinearGaussianFlow(detail_std=(0.1,))
    prior = GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2, correlation=1.0)
    return flow, *model_pairs(flow, prior, count, lr_log_scale=WIDTH, seed=5)


class Recorded:
    """A posterior whose draws are made already."""

    def __init__(self, draws):
        self.draws = draws.transpose(0, 1)

    def sample_batched(self, sample_shape, x, **_):
        return self.draws


def test_densities_are_those_of_the_formula():
    flow, hr, lr = pairs(5)
    posterior = to_sbi(flow, (1, 2, 2), lr_log_scale=WIDTH)
    exact = flow.posterior(lr[0], lr_log_scale=WIDTH)
    normal = torch.distributions.MultivariateNormal(exact.mean, exact.covariance)
    theta = hr.flatten(1)
    expected = normal.log_prob(theta.double()).float()
    torch.testing.assert_close(posterior.log_prob(theta, x=lr[0]), expected, rtol=1e-4, atol=3e-3)
    torch.testing.assert_close(posterior.set_default_x(lr[0]).log_prob(theta), expected, rtol=1e-4, atol=3e-3)
    torch.testing.assert_close(posterior.potential(theta, x=lr[0].flatten()), expected, rtol=1e-4, atol=3e-3)
    batched = posterior.log_prob_batched(theta.expand(3, 5, 16), lr)
    assert batched.shape == (3, 5)
    torch.testing.assert_close(batched[2, 4], posterior.log_prob(theta[4:], x=lr[4].flatten())[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="vectors of 16 values; got shape"):
        posterior.log_prob(hr, x=lr[0])
    with pytest.raises(ValueError, match=r"LR images of shape \(1, 2, 2\)"):
        posterior.sample((2,), x=torch.rand(5))
    with pytest.raises(ValueError, match="one LR image x; got 5: use sample_batched"):
        posterior.sample((2,), x=lr)
    with pytest.raises(ValueError, match="call set_default_x"):
        to_sbi(flow, (1, 2, 2)).sample((2,))
    with pytest.raises(ValueError, match=r"lr_shape to be \(channels, height, width\)"):
        to_sbi(flow, (2, 2))


def test_draws_are_those_of_the_distribution():
    from sbi.inference.posteriors.base_posterior import NeuralPosterior

    flow, _, lr = pairs(3)
    posterior = to_sbi(flow, (1, 2, 2), lr_log_scale=WIDTH)
    assert isinstance(posterior, NeuralPosterior)
    torch.manual_seed(2)
    draws = posterior.sample_batched((4, 2), lr)
    torch.manual_seed(2)
    expected = flow.condition(lr, lr_log_scale=WIDTH).sample((8,))
    assert draws.shape == (4, 2, 3, 16)
    torch.testing.assert_close(draws.reshape(8, 3, 1, 4, 4), expected)
    assert posterior.sample((4, 2), x=lr[0]).shape == (4, 2, 16) and posterior.sample(x=lr[0]).shape == (16,)
    assert pickle.loads(pickle.dumps(posterior)).sample((2,), x=lr[0]).shape == (2, 16)


def test_ranks_of_the_same_draws_are_ours():
    flow, hr, lr = pairs()
    held_out = hold_out(flow_sampler(flow, lr_log_scale=WIDTH), hr, lr, num_samples=100)
    ours = simulation_based_calibration(held_out)
    theirs, dap = sbi.run_sbc(held_out.truth, lr.flatten(1), Recorded(held_out.draws), 100, **QUIET)
    found = sbi_ranks(held_out)
    assert torch.equal(theirs, ours.ranks.float()) and torch.equal(theirs, found["ranks"])
    assert torch.equal(dap.float(), found["dap_samples"])
    from sbi.diagnostics.sbc import check_uniformity_frequentist

    p_values = check_uniformity_frequentist(found["ranks"], found["num_posterior_samples"])
    assert ours.passed and p_values.min() > 0.01 / len(ours.names)


@pytest.mark.filterwarnings("ignore:ks_2samp")  # of scipy, that it takes the asymptotic formula
def test_tarp_of_the_same_draws_is_ours():
    """Their expected coverage is the distribution function of our ranks, with our references."""
    flow, hr, lr = pairs()
    made = {}

    def recorded(small, num_samples, generator):
        made[len(made)] = flow_sampler(flow, lr_log_scale=WIDTH)(small, num_samples, generator)
        return made[len(made) - 1]

    ours = tarp(hold_out(recorded, hr, lr, num_samples=100))
    draws = torch.stack(list(made.values())).flatten(2)
    references = reference_images(hr, lr).flatten(1)
    settings = {"references": references, "num_posterior_samples": 100, "z_score_theta": False}
    ecp, alpha = sbi.run_tarp(hr.flatten(1), lr.flatten(1), Recorded(draws), **settings, **QUIET)
    credibility = ours.ranks[:, 0].numpy() / 100
    expected = np.array([(credibility < level - 1e-6).mean() for level in alpha[:-1].tolist()] + [1.0])
    assert np.abs(ecp.numpy() - expected).max() < 2.5 / len(hr)
    assert ours.passed and sbi.check_tarp(ecp, alpha)[1] > 0.05


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_verdicts_on_models_whose_answer_is_known(temperature):
    """SBC and expected coverage pass the right model, and fail one whose draws are too narrow, as ours do."""
    from sbi.diagnostics.sbc import check_uniformity_frequentist

    flow, hr, lr = pairs()
    posterior = to_sbi(flow, (1, 2, 2), temperature=temperature, lr_log_scale=WIDTH)
    thetas, xs = hr.flatten(1), lr
    ranks, _ = sbi.run_sbc(thetas, xs, posterior, 100, **QUIET)
    coverage, _ = sbi.run_sbc(thetas, xs, posterior, 100, reduce_fns=posterior.log_prob, **QUIET)
    marginals = check_uniformity_frequentist(ranks, 100).min()
    expected = check_uniformity_frequentist(coverage, 100).min()
    held_out = hold_out(flow_sampler(flow, temperature=temperature, lr_log_scale=WIDTH), hr, lr, num_samples=100)
    assert simulation_based_calibration(held_out).passed == (temperature == 1.0)
    assert (marginals > 0.01 / 16) == (temperature == 1.0)
    assert (expected > 0.01) == (temperature == 1.0)


@pytest.mark.slow
def test_check_sbc_takes_what_is_handed_over():
    flow, hr, lr = pairs(200)
    held_out = hold_out(flow_sampler(flow, lr_log_scale=WIDTH), hr, lr, num_samples=100)
    found = sbi.check_sbc(**sbi_ranks(held_out))
    assert found["ks_pvals"].shape == (len(held_out.names),) and (found["c2st_dap"] < 0.65).all()
