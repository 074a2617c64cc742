"""deepinv's chains and diffusion samplers on posteriors known in closed form, and their own errors against formulas."""

import math
import pickle

import pytest
import torch
from libraries import optional

from flowsr.interop import (
    DEEPINV_SAMPLERS,
    DeepinvChains,
    DeepinvDiffusion,
    deepinv_diffusion,
    deepinv_samplers,
    to_deepinv_denoiser,
    to_deepinv_physics,
)
from flowsr.interop.deepinv_chains import largest_curvature
from flowsr.known_posteriors import Budget, known_posterior
from flowsr.posterior import Gaussian, GaussianLR, Identity, InverseProblem, gaussian_posterior
from flowsr.workflows.studies import STUDIES
from flowsr.workflows.studies.known import StudySettings
from flowsr.workflows.studies.known_truth import _samplers

deepinv, needs_deepinv = optional("deepinv")
pytestmark = needs_deepinv

KNOWN = known_posterior("linear deblurring")
SHAPE = KNOWN.problem.image_shape


def errors(images):
    """Root mean square error of the mean in units of the posterior's std, and mean bias of the std."""
    z = KNOWN.reference.standardized(images)
    return float(z.mean(0).square().mean().sqrt()), float((z.std(0) - 1).mean())


def drawn(draws):
    return draws.images if draws.latents is None else draws.latents


@pytest.mark.parametrize("method", ["ULA", "SKRock"])
def test_the_std_of_chains_is_that_of_the_formula(method):
    """Of independent directions, at half of the largest curvature SK-ROCK has hardly any."""
    curvatures = (
        torch.tensor([0.1, 0.3, 0.5, 1.0]) if method == "ULA" else torch.tensor([0.05, 0.1, 0.3, 0.5, 0.8, 1.0])
    )
    sampler = DeepinvChains(method, num_chains=4000, burn_in=0.95)
    torch.manual_seed(0)
    start = torch.randn(4000, len(curvatures))
    states = sampler._run(lambda x: 0.5 * (curvatures * x**2).sum(-1), start, 1.0 * sampler._gradients, 100)
    found = states[:, -1].std(0) * curvatures.sqrt()
    torch.testing.assert_close(found, sampler.std_ratio(curvatures * sampler._gradients), rtol=0.05, atol=0.005)
    assert abs(float(found[-1]) - 1) > 0.02  # the bias that the formula tells is there


@pytest.mark.parametrize("space", ["latents", "images"])
def test_the_energy_of_chains_is_that_of_the_closed_form(space):
    """The slope is minus the score of the posterior, whose gradient is linear; and its largest curvature is found."""
    sampler = DeepinvChains("ULA", space=space)
    problem, posterior = KNOWN.problem, KNOWN.moments.posterior
    energy, scale = sampler._energy(problem)
    torch.manual_seed(0)
    u = torch.randn(3, problem.dims, dtype=torch.float64)
    x = (u if space == "latents" else problem.decode(u)).requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x)
    centred = problem.decode(u).flatten(1) - posterior.mean
    precision = torch.linalg.inv(posterior.covariance)
    zero = torch.zeros(1, problem.dims, dtype=torch.float64)
    steps = problem.decode(torch.eye(problem.dims, dtype=torch.float64)) - problem.decode(zero)
    jacobian = steps.flatten(1).T if space == "latents" else torch.eye(64, dtype=torch.float64)
    torch.testing.assert_close(slope.flatten(1), centred @ precision @ jacobian, rtol=1e-5, atol=1e-4)
    largest = float(torch.linalg.eigvalsh(jacobian.T @ precision @ jacobian)[-1])
    assert 0.8 * largest < largest_curvature(energy, x.detach(), scale=scale) < 1.0001 * largest


@pytest.mark.parametrize(("space", "method"), [("latents", "SKRock"), ("images", "ULA")])
def test_chains_find_the_posterior_within_their_budget(space, method):
    budget = Budget(4000)
    sampler = DeepinvChains(method, space=space, num_chains=20)
    with budget.counting(KNOWN.problem):
        draws = sampler(KNOWN, budget, 100, 1)
    assert 0.95 * 4000 < budget.spent <= 4000
    images = KNOWN.decode(draws.latents.flatten(0, 1)) if space == "latents" else draws.images
    mean, std = errors(images)
    assert mean < 0.35 and abs(std) < 0.15


def test_a_seed_is_enough():
    before = torch.get_rng_state()
    for sampler in (DeepinvChains(num_chains=4), DeepinvDiffusion("DiffPIR")):
        first, again, other = (sampler(KNOWN, Budget(200), 5, seed) for seed in (3, 3, 4))
        assert torch.equal(drawn(first), drawn(again)) and not torch.equal(drawn(first), drawn(other))
    assert torch.equal(before, torch.get_rng_state())


def test_a_denoiser_is_the_posterior_mean_given_a_noisy_image():
    prior, sigma = KNOWN.moments.prior, 0.07
    budget = Budget(10)
    denoiser = to_deepinv_denoiser(prior, SHAPE, budget=budget)
    assert isinstance(denoiser, deepinv.models.Denoiser)
    noisy = torch.rand(3, *SHAPE).requires_grad_()
    clean = denoiser(noisy, torch.tensor([sigma, sigma, 1e-6]))
    for one in range(2):
        exact = gaussian_posterior(prior, torch.eye(64), noisy[one].detach(), noise_std=sigma)
        torch.testing.assert_close(clean[one].detach().flatten().double(), exact.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clean[2], noisy[2], rtol=1e-4, atol=1e-4)
    assert (budget.passes, budget.taken) == (3, 0)
    weights = torch.randn(3, *SHAPE)
    (slope,) = torch.autograd.grad((weights * clean).sum(), noisy)
    # D is affine with a symmetric matrix, so that its gradient is what it does to a difference.
    torch.testing.assert_close(slope, denoiser(noisy + weights, torch.tensor([sigma, sigma, 1e-6])) - clean)
    assert (budget.passes, budget.taken, budget.spent) == (6, 3, 4.5)
    other = pickle.loads(pickle.dumps(denoiser))
    torch.testing.assert_close(other(noisy, sigma), denoiser(noisy, sigma))


def test_a_denoiser_of_a_singular_prior_keeps_to_its_images():
    direction = torch.full((4, 1), 0.5, dtype=torch.float64)
    denoiser = to_deepinv_denoiser(Gaussian(torch.zeros(4).double(), direction @ direction.T), (1, 2, 2))
    assert torch.equal(denoiser(torch.ones(1, 1, 2, 2), 0.0).isfinite(), torch.ones(1, 1, 2, 2).bool())
    torch.testing.assert_close(denoiser(torch.tensor([[[[3.0, 1.0], [1.0, -1.0]]]]), 0.0), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("observed", [3, 7])
def test_a_physics_is_its_matrix(observed):
    """With fewer measurements than pixels, and with more."""
    matrix = torch.randn(observed, 4, dtype=torch.float64)
    physics = to_deepinv_physics(matrix, (1, 2, 2), noise_std=0.1)
    x, y = torch.randn(5, 1, 2, 2), torch.randn(5, observed)
    torch.testing.assert_close(physics.A(x), x.flatten(1) @ matrix.T.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(physics.A_adjoint(y).flatten(1), y @ matrix.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(physics.A_A_adjoint(y), y @ (matrix @ matrix.T).float(), rtol=1e-4, atol=1e-4)
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)


def ancestral_std(sampler, steps):
    """Std of each pixel that the ancestral solver makes of a Gaussian whose score it knows exactly, by recursion."""
    values, vectors = torch.linalg.eigh(KNOWN.moments.posterior.covariance)
    sigmas = sampler.sigma_max * (sampler.sigma_min / sampler.sigma_max) ** torch.linspace(0, 1, steps + 1)
    variance = torch.full_like(values, float(sigmas[0]) ** 2)
    for before, after in zip(sigmas[:-1].double(), sigmas[1:].double(), strict=True):
        share = 1 - (after / before) ** 2
        variance = variance * (1 - before**2 * share / (values + before**2)) ** 2 + after**2 * share
    return (vectors.square() @ variance).sqrt().reshape(SHAPE)


@pytest.mark.parametrize("steps", [20, 60])
def test_what_moment_matching_misses_is_its_steps(steps):
    """With the exact denoiser its score is exact: mean and std are those of the solver's recursion, at any steps."""
    sampler, count = DeepinvDiffusion("moment matching", least_steps=steps, cg_steps=12), 400
    budget = Budget(count * (14 * steps + 1))
    images = sampler(KNOWN, budget, count, 0).images
    assert images.shape == (count, *SHAPE) and budget.spent == pytest.approx(14 * steps * count)
    expected = ancestral_std(sampler, steps) / KNOWN.reference.std
    found = KNOWN.reference.standardized(images).std(0).reshape(SHAPE)
    assert float((found - expected).mean().abs()) < 0.02 and float((found - expected).abs().max()) < 0.15
    assert float(expected.mean()) < (0.9 if steps == 20 else 0.96)
    assert errors(images)[0] < 0.1


def test_likelihoods_that_leave_out_the_spread_of_images_are_told():
    """Each at as many gradients as moment matching of 20 steps."""
    found = {}
    for method in ("DPS", "DPS annealed", "PiGDM", "DDRM", "DiffPIR"):
        budget = Budget(100 * 101)
        draws = DeepinvDiffusion(method)(KNOWN, budget, 100, 0)
        assert len(draws.images) == 100 and 0.97 * budget.gradients < budget.spent <= budget.gradients
        found[method] = errors(draws.images)
    assert found["DPS"][0] > 1 and found["DPS"][1] > 0.5
    assert found["DPS annealed"][0] > 0.5
    assert 0.1 < found["PiGDM"][0] < found["DPS annealed"][0]
    assert found["DDRM"][1] < -0.4
    assert found["DiffPIR"][0] > 0.1


def test_what_competes_depends_on_the_problem(monkeypatch):
    names = deepinv_samplers(KNOWN)
    assert {"deepinv-ula", "deepinv-skrock-images", "deepinv-moment-matching", "deepinv-ddrm"} <= names.keys()
    problem = KNOWN.problem
    blind = InverseProblem(problem.flow, GaussianLR(problem.lr, std=0.1, correlation=0.5), Identity(), *_seen())
    unknown = type(KNOWN)("blind", "", blind, KNOWN.reference)
    assert list(deepinv_samplers(unknown)) == ["deepinv-ula", "deepinv-skrock"]
    with pytest.raises(ValueError, match=r"images have a density.*take space='latents'"):
        DeepinvChains(space="images")(unknown, Budget(1000), 10, 0)
    with pytest.raises(ValueError, match="a linear-Gaussian problem, whose denoiser is known; got 'blind'"):
        DeepinvDiffusion()(unknown, Budget(1000), 10, 0)
    assert set(deepinv_samplers(unknown)) < set(deepinv_samplers(KNOWN)) == set(DEEPINV_SAMPLERS)
    monkeypatch.setattr(deepinv_diffusion, "find_spec", lambda name: None)
    assert deepinv_samplers(KNOWN) == {}


def test_they_stand_in_the_study_of_samplers():
    names = ("deepinv-pigdm", "deepinv-ula")
    settings = StudySettings(samplers=names, problems=(KNOWN.name,), budget=2400, seeds=1, num_samples=100)
    advanced = []
    contest = STUDIES["samplers"].run(settings, lambda: advanced.append(1)).parts["contest"]
    standing = contest.standings[0]
    assert [score.sampler for score in standing.scores] == list(names)
    assert len(advanced) == STUDIES["samplers"].steps(0, settings) == 2
    assert "mean_error" in standing.found(standing.scores[0])
    assert math.isnan(standing.scores[0].mean("ess")) and standing.scores[1].mean("ess") > 20
    everybody = dict(_samplers(StudySettings(), KNOWN))
    assert {"hmc", "deepinv-dps", "deepinv-ula-images"} <= everybody.keys()
    with pytest.raises(ValueError, match=r"got 'deepinv-ule'.*deepinv-ula"):
        STUDIES["samplers"].run(StudySettings(samplers=("deepinv-ule",)), lambda: None)


def _seen():
    return torch.full(SHAPE, 0.5, dtype=torch.float64), KNOWN.problem.noise


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"a method among ULA, SKRock; got 'ULE'"):
        DeepinvChains("ULE")
    with pytest.raises(ValueError, match=r"a space among latents, images; got 'image'"):
        DeepinvChains(space="image")
    with pytest.raises(ValueError, match=r"burn_in in \[0, 1\); got 20, 10 and 1"):
        DeepinvChains(burn_in=1.0)
    with pytest.raises(ValueError, match="a finite step > 0"):
        DeepinvChains(step=math.nan)
    with pytest.raises(ValueError, match="for ten steps of 20 chains; got 100: give more, or fewer chains"):
        DeepinvChains()(KNOWN, Budget(100), 10, 0)
    with pytest.raises(ValueError, match=r"a method among DPS, .*; got 'dps'"):
        DeepinvDiffusion("dps")
    with pytest.raises(ValueError, match="expected 0 < sigma_min < sigma_max"):
        DeepinvDiffusion(sigma_min=4.0)
    with pytest.raises(ValueError, match="least_steps >= 2 and cg_steps >= 1"):
        DeepinvDiffusion(least_steps=1)
    with pytest.raises(ValueError, match="at least 201 gradients, for two draws of 20 steps; got 100"):
        DeepinvDiffusion()(KNOWN, Budget(100), 10, 0)
    with pytest.raises(ValueError, match="images of 64 values; got"):
        to_deepinv_denoiser(KNOWN.moments.prior, (1, 4, 4))
    with pytest.raises(ValueError, match=r"a matrix \(K, 4\)"):
        to_deepinv_physics(torch.eye(3), (1, 2, 2), noise_std=0.1)
