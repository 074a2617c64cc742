"""Chains that know the problem: what a guide or the curvature tells them, what stays true if it is wrong, the gain."""

import math
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flowsr.posterior import (
    HMC,
    Blur,
    Coordinates,
    CrankNicolson,
    GaussianNoise,
    Identity,
    InverseProblem,
    Langevin,
    LaplaceNoise,
    LinearGaussianFlow,
    PoissonNoise,
    gaussian_posterior,
    operator_matrix,
    sample_chains,
    solve,
)
from flowsr.posterior.curvature import informed_directions, laplace_coordinates
from flowsr.posterior.diagnostics import chain_statistics
from flowsr.posterior.starts import make_start

BLUR = Blur.gaussian(0.8)


def _problem(noise=None, *, operator: Any = BLUR, detail_std=(0.1,), side=2, seed=0):
    flow = LinearGaussianFlow(detail_std=detail_std).double()
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(1, side, side, generator=generator, dtype=torch.float64)
    noise = noise or GaussianNoise(0.02)
    observation = noise.simulate(operator(flow.sample(lr, generator=generator))[0], generator=generator)
    return InverseProblem(flow, lr, operator, observation, noise)


def _exact(problem):
    matrix = operator_matrix(problem.operator, problem.image_shape)
    prior = problem.flow.posterior(problem.lr)
    return gaussian_posterior(prior, matrix, problem.observation, noise_std=problem.noise.std)


def _of_latents(problem):
    """Mean and covariance of the posterior of a linear problem, from its Jacobian."""
    zeros = torch.zeros(problem.dims).double()
    jacobian = torch.autograd.functional.jacobian(lambda u: problem.observe(problem.decode(u)).flatten(), zeros)
    matrix = jacobian / problem.noise.std
    covariance = torch.linalg.inv(torch.eye(problem.dims).double() + matrix.T @ matrix)
    residual = (problem.observation - problem.observe(problem.decode(zeros))).flatten() / problem.noise.std
    return covariance @ matrix.T @ residual, covariance


def test_chains_that_start_at_one_place_are_moved_a_tenth_apart():
    problem = _problem(side=8)
    place = torch.randn(problem.dims).double()
    settings: Any = SimpleNamespace(num_chains=4, start=place)
    start = make_start(problem, settings)
    assert start.one_place and start.places.shape == (4, problem.dims)
    assert 0.09 < (start.places - place).std() < 0.11


# ------------------------------------------------------------------------------------------------------- curvature


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), LaplaceNoise(0.1), PoissonNoise(30.0, floor=0.35)], ids=repr)
def test_information_is_the_mean_square_of_the_score(noise):
    clean = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    observed = noise.simulate(clean.expand(40_000, 3), generator=torch.Generator().manual_seed(0))
    leaf = clean.expand(40_000, 3).clone().requires_grad_()
    (score,) = torch.autograd.grad(noise.distribution(leaf, event_dim=2).log_prob(observed), leaf)
    assert torch.allclose(score.square().mean(0), noise.information(clean), rtol=0.05)


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), PoissonNoise(30.0)], ids=repr)
def test_informed_directions_are_those_of_the_gauss_newton_matrix(noise):
    problem = _problem(noise, operator=lambda x: BLUR(x).square() if x.is_floating_point() else x)
    points = torch.randn(3, problem.dims, generator=torch.Generator().manual_seed(1)).double()
    matrix = torch.zeros(problem.dims, problem.dims).double()
    for u in points:
        jacobian = torch.autograd.functional.jacobian(lambda v: problem.observe(problem.decode(v)).flatten(), u)
        weights = noise.information(problem.observe(problem.decode(u))).flatten()
        matrix += jacobian.T @ (weights[:, None] * jacobian) / 3
    directions, values = informed_directions(problem, points, rank=4)
    expected, vectors = torch.linalg.eigh(matrix)
    assert torch.allclose(values, expected.flip(0)[:4], rtol=1e-6)
    assert torch.allclose(directions.T @ directions, torch.eye(4).double(), atol=1e-9)
    assert torch.allclose((directions * values) @ directions.T, (vectors[:, -4:] * expected[-4:]) @ vectors[:, -4:].T)


def test_a_linear_posterior_is_white_in_its_laplace_coordinates():
    problem = _problem()
    mean, covariance = _of_latents(problem)
    zeros = torch.zeros(1, problem.dims).double()
    found = laplace_coordinates(problem, zeros[0], zeros)
    assert torch.allclose(found.mean, mean, atol=1e-6)
    assert torch.allclose(found.factor() @ found.factor().T, covariance, atol=1e-8)


def test_the_range_is_found_in_single_precision_by_few_products():
    problem = _problem(detail_std=(0.1, 0.05), side=3)
    flow = problem.flow.float()
    single = InverseProblem(flow, problem.lr.float(), BLUR, problem.observation.float(), problem.noise)
    torch.manual_seed(0)
    few = informed_directions(single, torch.zeros(1, single.dims), rank=30)[1]
    flow.double()
    every = informed_directions(problem, torch.zeros(1, problem.dims).double())[1]
    # From within a subspace eigenvalues are too small, never too large.
    assert torch.allclose(few[:15].double(), every[:15], rtol=0.08) and (few[:15] < 1.001 * every[:15]).all()


# ---------------------------------------------------------------------------------------------------------- guides


@pytest.mark.parametrize("guide", ["normal", "lowrank"])
def test_a_solution_by_svi_knows_the_gaussian_that_it_drew_from(guide):
    found = solve(_problem(), "svi", guide=guide, rank=3, steps=30, num_samples=4000)
    coordinates = found.coordinates
    assert coordinates is not None and not coordinates.mean.requires_grad and not coordinates.scale.requires_grad
    covariance = coordinates.factor() @ coordinates.factor().T
    assert torch.allclose(found.latents[0].mean(0), coordinates.mean, atol=0.05)
    assert torch.allclose(torch.cov(found.latents[0].T), covariance, atol=0.03)


@pytest.mark.parametrize("method", ["hmc", "langevin", "pcn"])
def test_chains_from_a_wrong_guide_draw_from_the_posterior(method):
    """A guide of too low a rank, moved and widened."""
    problem = _problem(GaussianNoise(0.1))
    guide = solve(problem, "svi", guide="lowrank", rank=2, steps=300, num_samples=25)
    assert guide.coordinates is not None
    off = 0.4 * torch.randn(problem.dims, generator=torch.Generator().manual_seed(2)).double()
    wrong = replace(guide.coordinates, mean=guide.coordinates.mean + off, scale=1.2 * guide.coordinates.scale)
    options = {"num_samples": 150, "num_warmup": 60, "num_steps": {"hmc": None, "langevin": 5, "pcn": 40}[method]}
    solution = solve(problem, method, start=replace(guide, coordinates=wrong), **options)
    exact, x, ess = _exact(problem), solution.images().flatten(1), solution.diagnostics.least_ess
    assert ess > 40, solution.to_text()
    assert ((x.mean(0) - exact.mean).abs() / exact.std).max() < 4.5 / math.sqrt(ess)
    assert (x.std(0) / exact.std - 1).abs().max() < 4.5 / math.sqrt(2 * ess)
    mean, covariance = _of_latents(problem)
    assert (((wrong.mean - mean) / covariance.diagonal().sqrt()).abs() > 0.4).any(), "the guide was not wrong"


def test_chains_start_at_draws_of_the_guide_and_keep_its_coordinates():
    problem = _problem()
    guide = solve(problem, "svi", steps=60, num_samples=10)
    still = solve(problem, "hmc", start=guide, num_samples=4, num_warmup=0, trajectory=1e-9)
    assert torch.allclose(still.latents[:, 0], guide.latents[0, :4], atol=0.2)
    assert (still.latents[:, 0] - guide.latents[0, 4:8]).norm() > 5 * (
        still.latents[:, 0] - guide.latents[0, :4]
    ).norm()
    flow = solve(problem, "svi", guide="flow", steps=20, num_samples=60)
    assert flow.coordinates is not None
    assert torch.allclose(flow.coordinates.scale.cpu(), flow.latents[0].std(0))
    for method in ("svi", "map"):  # at the mean of a solution
        begun = solve(problem, method, start=guide, steps=1, num_samples=300, learning_rate=1e-9)
        near = begun.latents[0].mean(0) - guide.latents[0].mean(0)
        assert near.abs().max() < (1e-6 if method == "map" else 0.1)
    begin = time.perf_counter()
    solution = solve(problem, "nuts", start=guide, num_samples=4, num_warmup=0, max_tree_depth=1)
    assert len(solution.latents) == 4 and sum(solution.seconds.values()) < time.perf_counter() - begin
    assert solution.diagnostics.divergences == 0


# ------------------------------------------------------------------------------------------------------------ gain


def _ess_per_evaluation(problem, kernel, coordinates):
    """Effective draws per thousand images that the chains decode."""
    starts = torch.randn(4, problem.dims, generator=torch.Generator().manual_seed(0)).double()
    if coordinates is not None:
        starts = coordinates.to_latents(starts)
    run = sample_chains(
        lambda u: problem.log_likelihood(problem.decode(u)),
        starts,
        kernel,
        num_samples=60,
        num_warmup=60,
        seed=0,
        coordinates=coordinates,
    )
    values = {str(i): run.draws[..., i] for i in range(problem.dims)}
    return 1000 * min(chain_statistics(values)[1].values()) / run.evaluations


@pytest.mark.parametrize(
    ("make", "least"),
    [(HMC, 2.0), (lambda: Langevin(num_steps=5), 4.0), (lambda: CrankNicolson(num_steps=5), 10.0)],
    ids=["hmc", "langevin", "pcn"],
)
def test_what_the_curvature_gains(make, least):
    """A sharp blurred observation tells some latents by hundreds of times more than the prior, others by nothing."""
    problem = _problem(GaussianNoise(0.005))
    zeros = torch.zeros(problem.dims).double()
    plain = _ess_per_evaluation(problem, make(), None)
    informed = _ess_per_evaluation(problem, make(), laplace_coordinates(problem, zeros, zeros[None]))
    print(f"{plain:.2f} effective draws per 1000 images in coordinates of the prior, {informed:.2f} by the curvature")
    assert informed > least * plain, (plain, informed)


def test_a_mode_is_a_start_with_its_curvature():
    problem = _problem()
    mode = solve(problem, "map", steps=300)
    solution = solve(problem, "pcn", start=mode, num_samples=100, num_warmup=40, num_steps=5)
    assert solution.mixed and solution.diagnostics.least_ess > 200, solution.to_text()
    exact, x = _exact(problem), solution.images().flatten(1)
    assert ((x.mean(0) - exact.mean).abs() / exact.std).max() < 4.5 / math.sqrt(solution.diagnostics.least_ess)


# ---------------------------------------------------------------------------------------------------------- honesty


def test_a_guide_of_one_mode_does_not_hide_the_other():
    """Chains from it agree with each other, and what tells is the search for modes."""
    flow = LinearGaussianFlow(detail_std=(0.1,)).double()
    decoded = flow.decode(torch.full((1, 1, 1), 0.5).double(), (torch.zeros(3, 1, 1).double(),))

    def operator(x):
        return ((x - decoded) * 20).flatten(1)[:, :1].square()

    lr = torch.full((1, 1, 1), 0.5).double()
    problem = InverseProblem(flow, lr, operator, torch.ones(1).double(), GaussianNoise(0.05))
    aside = solve(problem, "map", steps=100, start=torch.tensor([0.5, 0.5, 0.5]))
    guide = solve(problem, "svi", start=aside, steps=300, num_samples=25)
    solution = solve(problem, "hmc", start=guide, num_samples=20, num_warmup=20)
    assert "no draw is near" in " ".join(solution.diagnostics.remarks), solution.to_text()


def test_starts_of_a_guide_that_is_too_narrow_are_remarked():
    problem = _problem(GaussianNoise(0.5), operator=Identity())
    guide = solve(problem, "svi", steps=100, num_samples=20)
    narrow = replace(guide, latents=guide.latents.mean(1, keepdim=True) + 0.01 * guide.latents)
    solution = solve(problem, "hmc", start=narrow, num_samples=40, num_warmup=20)
    assert any("started closer together" in remark for remark in solution.diagnostics.remarks)


# ---------------------------------------------------------------------------------------------------------- messages


def test_a_start_that_does_not_fit_is_refused_in_words():
    problem = _problem()
    guide = solve(problem, "svi", steps=5, num_samples=30)
    chains = solve(problem, "hmc", num_samples=4, num_warmup=2, num_chains=2)
    single = InverseProblem(
        LinearGaussianFlow(detail_std=(0.1,)), problem.lr.float(), BLUR, problem.observation.float(), problem.noise
    )
    copy = InverseProblem(
        LinearGaussianFlow(detail_std=(0.1,)).double(), problem.lr, BLUR, problem.observation, problem.noise
    )
    for other, start, message in (
        (problem, chains, r"Solution of svi or map; got one of hmc.*start=solution.latents\[:, -1\]"),
        (_problem(side=3), guide, r"of another, whose images are \(1, 4, 4\) of 12 latents, not \(1, 6, 6\) of 27"),
        (_problem(seed=1), guide, "whose lr is another: solve this one"),
        (single, guide, "whose lr has dtype torch.float64, not torch.float32"),
        (copy, guide, "whose model is another"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(other, "hmc", start=start)
    few = replace(guide, latents=guide.latents[:, :3])
    with pytest.raises(ValueError, match="a draw for each of 4 chains; got 3: raise num_samples"):
        solve(problem, "pcn", start=few)
    detached = InverseProblem(problem.flow, problem.lr, lambda x: x.detach(), problem.observation, problem.noise)
    with pytest.raises(ValueError, match=r"start='laplace' needs gradients.*or use start='draw'"):
        solve(detached, "pcn", start="laplace")


def test_coordinates_go_to_another_dtype():
    found = Coordinates.of_low_rank(torch.zeros(3), torch.ones(3), torch.ones(3, 1)).to(torch.zeros(1).double())
    assert found.factor().dtype == torch.float64
