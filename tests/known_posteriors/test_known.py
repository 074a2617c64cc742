"""References of known posteriors, against formulas and integrals that share nothing with them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowsr.errors import CheckpointError
from flowsr.known_posteriors import PROBLEMS, known_posterior, model_problems
from flowsr.known_posteriors.quadrature import grid_reference
from flowsr.posterior import LaplaceNoise

LINEAR = ("linear deblurring", "linear inpainting")
BENT = ("two modes", "ring")


@pytest.mark.parametrize("name", LINEAR)
def test_the_evidence_is_what_bayes_rule_says_at_any_image(name):
    known = known_posterior(name)
    problem, posterior = known.problem, known.moments.posterior
    prior = problem.flow.condition(problem.lr, lr_log_scale=math.log(0.05))
    for image in known.reference.exact(3, 0):
        covariance = posterior.covariance
        there = torch.distributions.MultivariateNormal(posterior.mean, covariance).log_prob(image.flatten())
        found = prior.log_prob(image) + problem.log_likelihood(image[None])[0] - there
        assert float(found) == pytest.approx(known.reference.log_evidence, abs=1e-5)


@pytest.mark.parametrize("name", LINEAR + BENT)
def test_exact_draws_have_the_moments_of_the_reference(name):
    reference = known_posterior(name).reference
    z = reference.standardized(reference.exact(20_000, 3))
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(20_000)
    assert float((z.std(0) - 1).abs().max()) < 0.03
    assert not torch.equal(reference.exact(5, 0), reference.exact(5, 1))
    assert torch.equal(reference.exact(5, 1), reference.exact(5, 1))


@pytest.mark.parametrize("name", BENT)
def test_a_grid_knows_the_evidence_that_draws_of_the_prior_estimate(name):
    known = known_posterior(name)
    u = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = known.problem.latent_log_likelihood(u).exp()
    error = float(weights.std() / weights.mean()) / math.sqrt(len(u))
    assert float(weights.mean().log()) == pytest.approx(known.reference.log_evidence, abs=5 * error)
    coarser = grid_reference(known.problem, (101, 111, 21))
    assert coarser.log_evidence == pytest.approx(known.reference.log_evidence, abs=1e-5)
    assert torch.allclose(coarser.std, known.reference.std, atol=1e-7)


def test_two_modes_are_two_of_different_weight():
    known = known_posterior("two modes")
    share = float(known.mode_of(known.reference.exact(5000, 0)).double().mean())
    assert 0.7 < share < 0.8


def test_what_a_grid_cannot_integrate_is_refused():
    problem = known_posterior("ring").problem
    with pytest.raises(ValueError, match="2 points along each of 3 latents; got"):
        grid_reference(problem, (11, 11))
    problem.noise, kept = LaplaceNoise(0.1), problem.noise
    with pytest.raises(ValueError, match="expected Gaussian noise"):
        grid_reference(problem, (11, 11, 11))
    problem.noise = kept
    with pytest.raises(ValueError, match="did you mean two modes"):
        known_posterior("two mode")


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in LINEAR + BENT])
def test_a_reference_of_the_shipped_model_agrees_with_its_kept_draws(name):
    known = known_posterior(name)
    reference = known.reference
    assert reference.mean.shape == reference.std.shape == known.problem.image_shape
    assert 0 < reference.mean_error < 0.2 and 0 < reference.std_error < 0.2
    assert reference.attained == (reference.rhat < 1.005)
    assert float(known.problem.residual_rms(reference.mean[None].float())) < 1.1  # it explains what was observed
    if reference.kept is not None:
        z = reference.standardized(reference.kept)
        assert float(z.mean(0).square().mean().sqrt()) < 2.5 / math.sqrt(len(z))
        assert float(z.std(0).mean()) == pytest.approx(1, abs=0.06)


@pytest.mark.skipif(not model_problems.reference_names(), reason="no reference is there")
def test_references_of_other_weights_are_refused(tmp_path):
    name = model_problems.reference_names()[0]
    with np.load(model_problems._folder() / f"{name}.npz") as file:
        arrays = dict(file)
    about = {**json.loads(str(arrays["about"])), "digest": "0" * 16}
    np.savez(tmp_path / "other.npz", **{**arrays, "about": np.array(json.dumps(about))})
    with pytest.raises(CheckpointError, match=r"digest 0000000000000000; got .*benchmarks.posterior.references"):
        model_problems.read_reference(tmp_path / "other.npz")


def test_a_reference_that_is_not_attained_says_so_above_its_table():
    from flowsr.known_posteriors import FAULTS, contest

    known = known_posterior("linear deblurring")
    slack = replace(known, reference=replace(known.reference, rhat=1.02))
    told = contest([slack, known], {"prior": FAULTS["prior draws"]}, num_samples=50, seeds=1).to_text()
    assert told.count("Reference NOT attained: its R-hat is 1.020, asked was below 1.005") == 1
