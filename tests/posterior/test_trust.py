"""Whether a solution can be believed, and says so where it cannot: leaning, starts, modes, guides, and each advice."""

import json
import math
import warnings
from typing import Any, get_args

import pytest
import torch
from cases import tiny_flow

from flowsr.posterior import GaussianNoise, Identity, InverseProblem, LinearGaussianFlow, PoissonNoise, pareto_k, solve
from flowsr.posterior.diagnostics import chains_settled, start_remarks
from flowsr.posterior.modes import (
    _softest_direction,
    antithetic_draws,
    ascend,
    log_joint,
    saddle_rise,
    scattered_modes,
    unvisited_modes,
)
from flowsr.posterior.solve import SOLVERS
from flowsr.posterior.solver_settings import Method
from flowsr.training import set_memory

with warnings.catch_warnings():
    # ArviZ 0.23 announces its refactoring when it is imported.
    warnings.simplefilter("ignore")
    arviz = pytest.importorskip("arviz")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:arviz", "ignore::DeprecationWarning")


def _three(operator, observation, std):
    """A problem of three latents in float64: sums and differences of four pixels."""

    def of_details(hr):
        p, q, r, s = (10 * (hr.flatten(1) - 0.5)).unbind(-1)
        return operator((p - q + r - s) / 2, (p + q - r - s) / 2, (p - q - r + s) / 2)

    flow, lr = LinearGaussianFlow(detail_std=(0.1,)).double(), torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    problem = InverseProblem(flow, lr, of_details, torch.tensor(observation, dtype=torch.float64), GaussianNoise(std))
    corners = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    centre, *columns = problem.decode(corners)
    matrix = torch.stack(columns) - centre
    # The flow is affine: its passes would be most of the time of chains of so few latents.
    problem.decode = lambda u: centre + torch.tensordot(u, matrix, 1)
    assert torch.allclose(problem.decode(corners - 7), InverseProblem.decode(problem, corners - 7))
    return problem


def _skewed():
    """One hump, bent: a tanh, a product and a square.

    Not bent so far that chains seldom visit a tail: their error is then unknown to themselves, and too small where the
    standard deviation is too small.
    """
    return _three(
        lambda a, b, c: torch.stack([a.tanh(), b + 0.15 * a * c, c + 0.12 * b.square()], -1), [0.6, 0.7, 1.0], 0.6
    )


def _bimodal():
    """Two narrow humps of about the same mass, and 26 nats between them."""
    return _three(lambda a, b, c: (a + 0.15).square()[:, None], [1.44], 0.2)


def _linear(noise=0.05, truth_noise=None, seed=0, image=(1, 2, 2)):
    """Denoising, a right problem of few latents unless another noise is on the observation."""
    flow = LinearGaussianFlow(detail_std=(0.1,)).double()
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(image, generator=generator, dtype=torch.float64)
    hr = flow.sample(lr, generator=generator)[0]
    observation = GaussianNoise(truth_noise or noise).simulate(hr, generator=generator)
    return InverseProblem(flow, lr, Identity(), observation, GaussianNoise(noise))


def _by_quadrature(problem):
    grid = torch.linspace(-6, 6, 81, dtype=torch.float64)
    u = torch.cartesian_prod(grid, grid, grid)
    weights = torch.cat([log_joint(problem, part) for part in u.split(200_000)]).softmax(0)
    mean = weights @ u
    return mean, (weights @ (u - mean).square()).sqrt()


def _scores(problem, exact, method, seeds, **options):
    """(estimate − value)/MCSE of mean and standard deviation of each latent, by ArviZ's MCSE: ``(seeds, 6)``."""
    scores = []
    for seed in seeds:
        latents = solve(problem, method, seed=seed, **options).latents.numpy()
        rows = []
        for one, mean, std in zip(latents.transpose(2, 0, 1), *(part.tolist() for part in exact), strict=True):
            rows.append((one.mean() - mean) / float(arviz.mcse(one, method="mean")))
            rows.append((one.std(ddof=1) - std) / float(arviz.mcse(one, method="sd")))
        scores.append(rows)
    return torch.tensor(scores, dtype=torch.float64)


def _leans(scores):
    """The smallest p value of a t test per column, times their number."""
    from scipy import stats

    errors = scores.std(0) / len(scores) ** 0.5
    return 6 * float(2 * stats.t.sf((scores.mean(0) / errors).abs().max(), len(scores) - 1))


def test_nuts_does_not_lean():
    problem = _skewed()
    exact = _by_quadrature(problem)
    scores = _scores(problem, exact, "nuts", range(10), num_samples=40, num_warmup=40, num_chains=2, max_tree_depth=3)
    assert _leans(scores) > 1e-3, scores.mean(0)
    assert _leans(scores - 2) < 1e-3, "a lean of two errors would be seen"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nuts", "hmc", "langevin", "pcn"])
def test_no_sampler_leans(method):
    problem = _skewed()
    scores = _scores(problem, _by_quadrature(problem), method, range(10), num_samples=200, num_warmup=150)
    assert _leans(scores) > 1e-3, scores.mean(0)
    # ArviZ's error is that of the mean over seeds too: neither much too small nor much too large.
    assert 0.5 < scores.std(0).mean() < 1.6


def test_each_method_is_run_by_one_solver_and_judged_in_one_place():
    assert set(SOLVERS) == set(get_args(Method))


_SHORT: dict[str, dict[str, Any]] = {
    "nuts": {"num_samples": 15, "num_warmup": 20, "max_tree_depth": 3},
    "hmc": {"num_samples": 15, "num_warmup": 0, "trajectory": 0.8},
    "langevin": {"num_samples": 20, "num_warmup": 20},
    "pcn": {"num_samples": 20, "num_warmup": 20},
    "svi": {"num_samples": 50, "steps": 400},
    "map": {"steps": 150},
}


@pytest.mark.parametrize("method", get_args(Method))
def test_no_method_is_silent_about_one_mode_of_two(method):
    solution = solve(_bimodal(), method, seed=3, **_SHORT[method])
    remarks = solution.diagnostics.remarks
    said = " ".join(remarks)
    sides = {bool(side) for side in (solution.latents[..., 0] > 0).flatten()}
    # A guide may also lie across both, and then fits neither.
    said_so = "no draw is near" if len(sides) == 1 else "do not explain" if method == "svi" else "Chains have not mixed"
    assert said_so in said, solution.to_text()
    if len(sides) == 1:
        assert solution.other_modes is not None and bool(solution.other_modes[0, 0] > 0) not in sides
    assert all(remark in solution.to_text() for remark in remarks)
    assert json.loads(json.dumps(solution.to_dict()))["diagnostics"]["remarks"] == list(remarks)


def test_chains_that_start_in_one_mode_are_told_of_the_other():
    start = torch.tensor([0.525, 0.3, 0.0])
    solution = solve(_bimodal(), "langevin", start=start, num_samples=20, num_warmup=20, num_chains=2)
    said = " ".join(solution.diagnostics.remarks)
    assert "started closer together" in said and "1 mode that no draw is near" in said, said
    each = torch.stack([start, torch.as_tensor(solution.other_modes)[0].float()])
    again = solve(_bimodal(), "langevin", start=each, num_samples=20, num_warmup=20, num_chains=2)
    said = " ".join(again.diagnostics.remarks)
    assert "no draw is near" not in said and "Chains have not mixed" in said, said


@pytest.mark.slow
@pytest.mark.parametrize("start", ["draw", "mode"])
@pytest.mark.parametrize("seed", range(5))
def test_chains_are_never_silent_about_one_mode_of_two(start, seed):
    options: dict[str, Any] = {"num_samples": 100, "num_warmup": 60, "max_tree_depth": 4, "steps": 300}
    solution = solve(_bimodal(), "nuts", start=start, seed=seed, **options)
    assert any("not mixed" in remark or "no draw" in remark for remark in solution.diagnostics.remarks)


@pytest.mark.parametrize("how", ["draw", "mode"])
def test_starts_lie_in_both_modes(how):
    """Of 60 times four independent draws about eight would miss one."""
    problem, chains, cases = _bimodal(), 4, 60
    torch.manual_seed(0)
    if how == "draw":
        ends, _ = ascend(problem, antithetic_draws(problem, chains * cases), steps=60, learning_rate=0.1)
    else:
        ends = scattered_modes(problem, chains * cases, steps=60, learning_rate=0.1)
    sides = (ends[:, 0] > 0).reshape(cases, chains)
    both = sides.any(1) & ~sides.all(1)
    assert int(both.sum()) >= 56, int(both.sum())


def test_starts_around_the_mode_scatter_twice_as_wide_as_the_posterior():
    """For a linear problem they are draws of a Gaussian with four times the posterior's covariance."""
    problem = _linear()
    torch.manual_seed(0)
    starts = scattered_modes(problem, 2000, steps=150, learning_rate=0.1)
    zeros = torch.zeros(problem.dims, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda u: problem.observe(problem.decode(u)).flatten(), zeros)
    covariance = (torch.eye(problem.dims, dtype=torch.float64) + matrix.T @ matrix / 0.05**2).inverse()
    residual = (problem.observation - problem.decode(zeros)).flatten()
    mean = covariance @ matrix.T @ residual / 0.05**2
    std = covariance.diagonal().sqrt()
    assert ((starts.mean(0) - mean) / std).abs().max() < 0.15
    assert (torch.cov(starts.T) / (4 * std.outer(std)) - covariance / std.outer(std)).abs().max() < 0.12
    counts = InverseProblem(problem.flow, problem.lr, Identity(), torch.ones(1, 4, 4), PoissonNoise(2.0))
    assert torch.isfinite(scattered_modes(counts, 6, steps=20, learning_rate=0.1)).all()


def test_starts_that_are_too_narrow_are_remarked_and_others_not():
    generator = torch.Generator().manual_seed(0)
    wrong = {0.03: 0, 1.0: 0, 2.0: 0}
    for dims in (3, 60, 3000):
        mixing = torch.randn(dims, dims, generator=generator).div(dims**0.5) if dims <= 60 else torch.eye(dims)
        for _ in range(100 if dims <= 60 else 5):
            draws = torch.randn(4, 50, dims, generator=generator) @ mixing
            starts = torch.randn(4, dims, generator=generator) @ mixing
            for factor in wrong:
                wrong[factor] += bool(start_remarks(factor * starts + 7, draws, one_place=False))
    assert wrong[0.03] == 205 and wrong[1.0] <= 3 and wrong[2.0] == 0, wrong


def test_chains_may_start_at_places_of_their_own():
    problem = _linear()
    starts = 2 * torch.randn(3, problem.dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options: dict[str, Any] = {"num_samples": 30, "num_warmup": 30, "num_chains": 3, "num_steps": 3}
    solution = solve(problem, "langevin", start=starts, **options)
    assert not any("started" in remark for remark in solution.diagnostics.remarks)
    close = solve(problem, "langevin", start=1e-3 * starts, **options)
    assert any("started closer together" in remark for remark in close.diagnostics.remarks)
    with pytest.raises(ValueError, match=r"\(12,\), or one per chain \(4, 12\); got shape \(3, 12\)"):
        solve(problem, "langevin", start=starts)
    with pytest.raises(ValueError, match=r"whitened vector \(12,\); got shape \(4, 12\)"):
        solve(problem, "map", start=torch.zeros(4, 12))
    with pytest.raises(ValueError, match=r"start='mode' needs gradients.*or use start='draw'"):
        detached = InverseProblem(problem.flow, problem.lr, lambda x: x.detach(), problem.observation, problem.noise)
        solve(detached, "pcn", start="mode")


def test_an_optimization_starts_where_it_is_told():
    problem = _bimodal()
    for side in (0.5, -0.7):
        start = torch.tensor([side, 0.0, 0.0])
        assert float(solve(problem, "map", start=start, steps=100).latents[0, 0, 0]) * side > 0
        assert float(solve(problem, "svi", start=start, steps=100, num_samples=30).latents[0, :, 0].mean()) * side > 0


# ---------------------------------------------------------------- modes


def test_a_mode_that_is_none_is_remarked():
    problem = _linear(0.01)
    cut = solve(problem, "map", steps=20, learning_rate=0.01)
    text = cut.to_text()
    assert "still rising after 20 steps" in text and "does not explain the observation" in text
    assert cut.diagnostics.gradient_norm > 100 and "norm of the gradient" in text
    still = solve(_linear(), "map", steps=200, learning_rate=1e-6)
    assert any("still rising" in remark for remark in still.diagnostics.remarks)


def _saddle():
    """By symmetry the gradient vanishes at the mean of the prior, between two modes."""
    return _three(lambda a, b, c: torch.stack([a.square(), b], -1), [1.44, 0.3], 0.3)


def test_a_saddle_is_remarked_and_left_by_its_advice():
    problem = _saddle()
    at_saddle = solve(problem, "map", steps=200)
    assert abs(float(at_saddle.latents[0, 0, 0])) < 1e-6
    assert any("at a saddle" in remark for remark in at_saddle.diagnostics.remarks), at_saddle.to_text()
    start = 0.1 * torch.randn(problem.dims, generator=torch.Generator().manual_seed(0))
    beside = solve(problem, "map", start=start, steps=200)
    assert not any("saddle" in remark for remark in beside.diagnostics.remarks)
    assert beside.diagnostics.objective[-1] > at_saddle.diagnostics.objective[-1] + 5


def test_the_softest_direction_is_that_of_the_hessian():
    for problem, u in ((_saddle(), torch.zeros(3)), (_bimodal(), torch.tensor([0.1, 0.2, -0.3]))):
        u = u.double()
        hessian = torch.autograd.functional.hessian(lambda v, p=problem: -log_joint(p, v[None]).sum(), u)
        assert isinstance(hessian, torch.Tensor)
        values, vectors = torch.linalg.eigh(hessian)
        assert values[0] < 0
        torch.manual_seed(0)
        line = _softest_direction(problem, u)
        assert line is not None and abs(float(line @ vectors[:, 0])) > 0.999
    assert saddle_rise(_linear(), torch.zeros(12, dtype=torch.float64)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_without_second_derivatives_are_judged_too(dtype):
    flow = tiny_flow("sr-x4", levels=1, image_channels=1).to(dtype)
    set_memory(flow, "reversible")
    lr = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    hr = flow.sample(lr, generator=torch.Generator().manual_seed(1))[0].detach()
    problem = InverseProblem(flow, lr, Identity(), hr, GaussianNoise(1.0))
    solution = solve(problem, "map", steps=300, learning_rate=0.1)
    assert not solution.diagnostics.remarks, solution.to_text()
    assert math.isfinite(solution.diagnostics.gradient_norm)


def test_a_mode_near_which_no_draw_is_found_leads_to_it():
    problem = _bimodal()
    first = solve(problem, "map", steps=200)
    assert first.other_modes is not None and first.to_dict()["other_modes"] == 1
    second = solve(problem, "map", steps=200, start=first.other_modes[0])
    assert float(first.latents[0, 0, 0]) * float(second.latents[0, 0, 0]) < 0
    assert second.other_modes is not None and torch.allclose(second.other_modes, first.latents[0], atol=0.3)
    ways = torch.stack([first.latents[0, 0], second.latents[0, 0]])
    torch.manual_seed(0)
    assert len(unvisited_modes(problem, ways, steps=100)) == 0


# ---------------------------------------------------------------- guides


def test_pareto_k_is_that_of_arviz():
    generator = torch.Generator().manual_seed(0)
    for count in (30, 200, 1500):
        for spread in (0.1, 1.0, 4.0):
            weights = spread * torch.randn(count, generator=generator, dtype=torch.float64)
            assert math.isclose(pareto_k(weights), float(arviz.psislw(weights.numpy())[1]), abs_tol=1e-6)
    assert math.isnan(pareto_k(torch.randn(24))) and pareto_k(torch.full((30,), 3.0)) == -math.inf
    assert pareto_k(torch.tensor([0.0] * 29 + [math.inf])) == math.inf


def test_a_guide_that_never_moved_is_remarked_in_spite_of_its_falling_rate():
    solution = solve(_linear(0.1), "svi", steps=100, learning_rate=1e-4, num_samples=50)
    text = " ".join(solution.diagnostics.remarks)
    assert "still rising after 100 steps" in text and "fresh constant rate" in text, text
    assert "k-hat of the weights" in solution.to_text()


@pytest.mark.parametrize("guide", ["normal", "lowrank", "flow"])
def test_judging_a_guide_leaves_it_as_it_was(guide):
    """The draws are those of the fit, whose parameters are tried and put back; each guide has its weights."""
    problem = _skewed()
    solution = solve(problem, "svi", guide=guide, steps=300, num_samples=200, learning_rate=0.02)
    assert math.isfinite(solution.diagnostics.pareto_k)
    assert solution.to_dict()["diagnostics"]["pareto_k"] == solution.diagnostics.pareto_k


# ---------------------------------------------------------------- right problems, and advice that works


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param(
            "nuts", {"num_samples": 150, "num_warmup": 100, "max_tree_depth": 4}, marks=pytest.mark.long
        ),  # 20 problems one chain after the other: minutes
        ("hmc", {"num_samples": 300, "num_warmup": 100}),
        ("svi", {"num_samples": 300, "num_particles": 8}),
        ("map", {"steps": 400}),
    ],
)
def test_right_problems_get_no_remark(method, options):
    """Of 20 right problems at most one may: the residual has 1 in 1000 outside, R-hat and starts as few."""
    remarks = [solve(_linear(0.1, seed=seed), method, seed=seed, **options).diagnostics.remarks for seed in range(20)]
    assert sum(map(bool, remarks)) <= 1, [found for found in remarks if found]


@pytest.mark.parametrize("method", ["svi", "map"])
def test_right_optimizations_get_no_remark(method):
    for seed in range(3):
        options: dict[str, Any] = {"num_samples": 200, "steps": 400, "num_particles": 8}
        found = solve(_linear(0.1, seed=seed, image=(1, 1, 1)), method, seed=seed, **options)
        assert not found.diagnostics.remarks, found.to_text()


_QUICK: dict[str, Any] = {"num_samples": 60, "num_warmup": 60, "num_chains": 2}
_ADVICE: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "hardly moved": (
        lambda: _linear(0.002),
        "pcn",
        {"num_warmup": 0, "num_steps": 1, "start": "mode", "steps": 600, "learning_rate": 0.1},
        {"num_warmup": 100, "num_steps": 10},
    ),
    "raise num_warmup and num_samples": (
        _linear,
        "pcn",
        {"num_warmup": 0, "num_samples": 20, "num_steps": 1},
        {"method": "hmc", "num_samples": 300, "num_warmup": 100},
    ),
    "Few effective draws": (lambda: _linear(0.2), "langevin", {"num_steps": 2}, {"num_samples": 300}),
    "start='laplace', which needs gradients": (
        _linear,
        "pcn",
        {"num_steps": 5, "num_samples": 40},
        {"start": "laplace", "steps": 100, "learning_rate": 0.1, "num_samples": 200},
    ),
    "or take start='laplace'": (
        _linear,
        "pcn",
        {"num_steps": 10, "num_samples": 120},
        {"start": "laplace", "steps": 100, "learning_rate": 0.1},
    ),
    "take num_chains=4": (_linear, "langevin", {"num_chains": 1, "num_steps": 1}, {"num_chains": 4}),
    "started closer together": (
        _linear,
        "langevin",
        {"start": torch.zeros(12), "num_steps": 3},
        {"start": "mode", "steps": 200},
    ),
    "noise given is too large": (lambda: _linear(0.5, 0.01), "langevin", {"num_steps": 3}, {"problem": _linear}),
    "still rising": (_linear, "map", {"steps": 20, "learning_rate": 0.01}, {"steps": 400, "learning_rate": 0.05}),
    "The mode does not explain": (lambda: _linear(0.01), "map", {"steps": 20}, {"steps": 600}),
    "raise num_samples.": (_linear, "svi", {"num_samples": 20, "steps": 50}, {"num_samples": 30}),
}


@pytest.mark.parametrize("remark", _ADVICE)
def test_who_follows_an_advice_is_rid_of_the_remark(remark):
    make, method, options, advice = _ADVICE[remark]
    found = solve(make(), method, **{**_QUICK, **options})
    assert any(remark in one for one in found.diagnostics.remarks), found.to_text()
    followed = {**_QUICK, **options, **advice}
    problem = followed.pop("problem", make)()
    again = solve(problem, followed.pop("method", method), **followed)
    assert not any(remark in one for one in again.diagnostics.remarks), again.to_text()


@pytest.mark.slow
def test_pcn_with_large_steps_steps_between_modes():
    apart = solve(_bimodal(), "nuts", num_samples=60, num_warmup=60, max_tree_depth=4)
    remarks = " ".join(apart.diagnostics.remarks)
    assert "settled in a place of its own" in remarks and "target_accept=0.05 and num_steps=200" in remarks
    mixed = solve(_bimodal(), "pcn", target_accept=0.05, num_steps=200, num_samples=100, num_warmup=30)
    assert mixed.mixed and not mixed.diagnostics.remarks, mixed.to_text()
    u = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    density = torch.exp(-0.5 * u.square() - 0.5 * (((2 * u + 0.15).square() - 1.44) / 0.2).square())
    right = float(density[u > -0.075].sum() / density.sum())
    assert abs(float((mixed.latents[..., 0] > -0.075).double().mean()) - right) < 0.08


@pytest.mark.slow
def test_a_guide_with_correlations_cures_k_hat():
    problem = _three(lambda a, b, c: torch.stack([a + b], -1), [0.5], 0.2)
    independent = solve(problem, "svi", guide="normal", steps=600, num_particles=8)
    assert any("k-hat" in remark and "guide='lowrank'" in remark for remark in independent.diagnostics.remarks)
    followed = solve(problem, "svi", guide="lowrank", rank=2, steps=2500, num_particles=16, learning_rate=0.01)
    assert not any("k-hat" in remark for remark in followed.diagnostics.remarks), followed.to_text()


def test_chains_are_settled_where_each_agrees_with_itself_half_as_far_as_they_differ():
    drifting = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    drifting[:, 200:] += 4  # each alone has an R-hat of 2.12
    assert not chains_settled({"a": drifting}, {"a": 3.0}) and chains_settled({"a": drifting}, {"a": 3.4})
    still = drifting[:, 200:]
    assert not chains_settled({"a": still}, {"a": 1.19}) and chains_settled({"a": still}, {"a": 1.3})
    assert not chains_settled({"a": drifting[:1]}, {"a": 9.0})
