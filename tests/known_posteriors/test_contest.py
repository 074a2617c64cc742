"""Budgets that the model counts, floors, and whether faults of samplers are found."""

import math

import pytest
import torch

from flowsr.known_posteriors import FAULTS, SAMPLERS, Budget, Draws, contest, known_posterior
from flowsr.known_posteriors.accuracy import accuracy, mixing, nominal_coverage
from flowsr.known_posteriors.contenders import _until_spent


@pytest.fixture(scope="module")
def deblurring():
    return known_posterior("linear deblurring")


@pytest.fixture(scope="module")
def modes():
    return known_posterior("two modes")


@pytest.mark.parametrize("name", ["linear deblurring", "two modes", "ring"])
def test_exact_draws_stand_at_their_floor(name):
    standing = contest([known_posterior(name)], {"exact": SAMPLERS["exact"]}, seeds=2).standings[0]
    (score,) = standing.scores
    assert standing.found(score) == () and score.mean("evidence_error") == 0 and score.tarp > 1e-3
    assert standing.floors["mean_error"][0] == pytest.approx(1 / math.sqrt(400), rel=0.2)
    assert standing.floors["coverage"][0] == pytest.approx(nominal_coverage(400), abs=0.02)


FOUND = {
    "std 1.3 times too wide": {"std_bias", "std_error", "coverage", "energy"},
    "mean shifted by 0.3 std": {"mean_error", "energy"},
    "prior draws": {"std_bias", "std_error", "mean_error", "energy"},
}


@pytest.mark.parametrize("fault", FOUND)
@pytest.mark.parametrize("name", ["linear deblurring", "two modes"])
def test_a_fault_is_found(fault, name):
    standing = contest([known_posterior(name)], {fault: FAULTS[fault]}, seeds=2).standings[0]
    assert FOUND[fault] <= set(standing.found(standing.scores[0]))


def test_a_forgotten_mode_is_found_where_there_are_several(modes, deblurring):
    fault = {"one mode": FAULTS["one mode forgotten"]}
    found, refused = contest([modes, deblurring], fault, seeds=2).standings
    assert {"mean_error", "std_bias", "coverage", "energy"} <= set(found.found(found.scores[0]))
    assert refused.scores[0].reason == "expected a problem with several modes; got linear deblurring"
    assert refused.found(refused.scores[0]) == ()


def test_the_model_counts_whichever_way_it_is_asked(deblurring):
    problem, budget = deblurring.problem, Budget(100)
    u = torch.zeros(3, problem.dims, dtype=torch.float64, requires_grad=True)
    with budget.counting(problem):
        problem.latent_log_likelihood(u).sum().backward()
        assert (budget.taken, budget.passes) == (3, 3)
        with torch.no_grad():
            problem.decode(u)
        assert budget.spent == 3 + 1.5
        hr = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
        score = problem.flow.condition(problem.lr, lr_log_scale=-3.0).log_prob(hr).sum()
        score.backward(retain_graph=True)
        assert (budget.taken, budget.passes) == (5, 8)
        score.backward()  # again through the same pass
        assert budget.taken == 7
        problem.whiten(hr.detach())
        assert budget.passes == 10 and budget.taken == 7
        problem.flow.encode(hr=hr).z[0].sum().backward()
        assert budget.passes == 12 and budget.taken == 9, "given by its name"
    problem.decode(u)
    assert budget.passes == 12 and "decode" not in vars(problem.flow.transform)
    assert budget.left == 100 - 9 - 1.5 and budget.seconds > 0


def test_a_sampler_cannot_hide_its_gradients(deblurring):
    def greedy(known, budget, num_samples, seed):
        u = torch.zeros(50, known.problem.dims, dtype=torch.float64, requires_grad=True)
        for _ in range(4):
            known.problem.latent_log_likelihood(u).sum().backward()
        budget.gradients = 10**6  # as if there were more
        return SAMPLERS["exact"](known, budget, num_samples, seed)

    found = contest([deblurring], {"greedy": greedy, "exact": SAMPLERS["exact"]}, gradients=100, seeds=1)
    assert found.standings[0].scores[0].mean("spent") == 200
    told = {line.split()[0]: line for line in found.to_text().splitlines() if line}
    assert "200%!" in told["greedy"] and "!" not in told["exact"]


SPREAD = {"hmc": 0.1, "langevin": 0.1, "pcn": 0.1, "svi": 0.15, "map": 0.0}


@pytest.mark.parametrize("method", [*SPREAD, pytest.param("nuts", marks=pytest.mark.slow)])
def test_methods_of_solve_keep_to_their_budget(method, modes):
    budget = Budget(800)
    with budget.counting(modes.problem):
        draws = SAMPLERS[method](modes, budget, 50, 0)
    assert budget.spent <= 800 * (1 + SPREAD.get(method, 0.2))
    assert method == "map" or budget.spent > 400
    assert bool(torch.isfinite(draws.latents).all())


@pytest.mark.slow
def test_more_gradients_take_hmc_nearer_to_the_truth(deblurring):
    errors = [
        contest([deblurring], {"hmc": SAMPLERS["hmc"]}, gradients=count, seeds=2).standings[0].scores[0]
        for count in (1500, 24_000)
    ]
    assert errors[1].mean("mean_error") < min(0.08, errors[0].mean("mean_error"))
    assert abs(errors[1].mean("std_bias")) < 0.04


def test_sequential_monte_carlo_knows_the_evidence(modes):
    found = contest([modes], {"smc": SAMPLERS["smc"]}, gradients=12_000, seeds=1, num_samples=100).standings[0]
    assert abs(found.scores[0].mean("evidence_error")) < 0.8


def test_chains_end_with_the_draws_there_are(modes):
    problem, budget = modes.problem, Budget(600)
    with budget.counting(problem):
        latents = _until_spent(problem, "langevin", budget, 600.0, 4, 0, {})
    assert latents.shape[0] == 4 and 4 <= latents.shape[1] < 20 and budget.spent < 660


def test_effective_draws_are_of_chains_alone(deblurring):
    images = deblurring.reference.exact(400, 0)
    ess, rhat = mixing(deblurring, Draws(images=images, chains=4))
    assert ess > 200 and rhat < 1.1
    assert all(math.isnan(value) for value in mixing(deblurring, Draws(images=images, correlated=False)))
    repeated = images[::10].repeat_interleave(10, 0)
    assert mixing(deblurring, Draws(images=repeated, chains=4))[0] < 80


@pytest.mark.slow
def test_a_classifier_tells_draws_apart(deblurring):
    pytest.importorskip("sbi")
    exact = deblurring.reference.exact(200, 7)
    right = accuracy(deblurring, exact, seed=0, classify=True)["c2st"]
    wrong = accuracy(deblurring, exact + 0.5 * deblurring.reference.std, seed=0, classify=True)["c2st"]
    assert right < 0.6 < 0.85 < wrong


def test_draws_of_the_wrong_shape_are_refused(deblurring):
    with pytest.raises(ValueError, match="expected draws of a sampler"):
        Draws()
    with pytest.raises(ValueError, match=r"expected latents \(chains, draws, dims\)"):
        Draws(latents=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="a multiple of the 3 chains"):
        Draws(images=torch.zeros(4, 1, 2, 2), chains=3)
    with pytest.raises(ValueError, match="a budget of at least one gradient"):
        Budget(0)
    with pytest.raises(ValueError, match="num_samples >= 20"):
        contest([deblurring], num_samples=5)


def test_the_picture_has_a_row_for_each_problem(deblurring, modes):
    found = contest([deblurring, modes], {"wide": FAULTS["std 1.3 times too wide"]}, seeds=1)
    figure = found.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes[::3]] == [
        "linear deblurring: truth by closed form",
        "two modes: truth by quadrature",
    ]
    spread = figure.axes[1].lines[-1].get_xdata()
    assert spread[0] == pytest.approx(30, abs=6)  # per cent too wide
