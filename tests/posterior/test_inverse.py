"""Inverse problems: every solver against the closed formula, the kernels, and what is said when something is wrong."""

import math
import time
import warnings
from typing import Any, cast

import pyro
import pytest
import torch
from cases import tiny_flow
from pyro.ops.stats import effective_sample_size
from scipy import ndimage, stats

import flowsr
from flowsr.plots.style import new_figure
from flowsr.posterior import (
    Blur,
    Downscale,
    GaussianLR,
    GaussianNoise,
    Identity,
    InverseProblem,
    LaplaceNoise,
    LinearGaussianFlow,
    Mask,
    PoissonNoise,
    gaussian_posterior,
    operator_matrix,
    solve,
)
from flowsr.posterior.diagnostics import chain_remarks, chain_statistics, residual_interval, residual_remarks

STD = 0.05


def _inpainting(lr_log_scale=-math.inf, operator=None, seed=0):
    """A linear-Gaussian problem of 12 latents (16 with an uncertain LR image), with its exact posterior."""
    flow = LinearGaussianFlow(detail_std=(0.1,)).double()
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(1, 2, 2, generator=generator, dtype=torch.float64)
    hr = flow.sample(lr, lr_log_scale=lr_log_scale, generator=generator)[0]
    operator = operator or Mask((torch.rand(4, 4, generator=generator) < 0.6).int())
    observation = GaussianNoise(STD).simulate(operator(hr[None])[0], generator=generator)
    problem = InverseProblem(flow, lr, operator, observation, GaussianNoise(STD), lr_log_scale=lr_log_scale)
    matrix = operator_matrix(operator, (1, 4, 4))
    return problem, gaussian_posterior(
        flow.posterior(lr, lr_log_scale=lr_log_scale), matrix, observation, noise_std=STD
    )


def _agrees(solution, exact, *, independent=False):
    """Mean and covariance within Monte-Carlo error, by the effective number of draws."""
    x = solution.images().flatten(1)
    chains, draws, _ = solution.latents.shape
    grouped = x.reshape(chains, draws, -1)
    off = grouped - exact.mean
    if independent:
        count = count_squares = torch.full((x.shape[1],), float(len(x)))
    else:
        limit = float(len(x))
        count = effective_sample_size(grouped, sample_dim=1, chain_dim=0).clamp(4, limit)
        count_squares = effective_sample_size(off.square(), sample_dim=1, chain_dim=0).clamp(4, limit)
    z = (x.mean(0) - exact.mean).abs() / (exact.std / count.sqrt())
    assert z.max() < 4.5, z
    variances = exact.std.square()
    scale = (
        (exact.covariance.square() + variances.outer(variances)) / torch.minimum(count, count_squares).min()
    ).sqrt()
    assert ((torch.cov(x.T) - exact.covariance).abs() / scale).max() < 5


def test_hmc_agrees_with_the_formula():
    problem, exact = _inpainting()
    solution = solve(problem, "hmc", num_samples=300, num_warmup=100, num_chains=2)
    _agrees(solution, exact)
    assert solution.mixed and solution.require_mixed() is solution
    assert set(solution.seconds) == {"warmup", "sampling", "checking"}
    assert len(solution.diagnostics.acceptance) == 2
    assert "largest R-hat" in solution.to_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hmc", {"num_samples": 1200}),
        ("nuts", {"num_samples": 200, "num_warmup": 100}),
        ("pcn", {"num_samples": 600, "num_steps": 20, "num_warmup": 100}),
        ("langevin", {"num_samples": 500, "num_warmup": 100}),
    ],
)
def test_samplers_agree_with_the_formula(method, options):
    problem, exact = _inpainting(seed=1)
    solution = solve(problem, method, num_chains=2, **options)
    assert solution.mixed, solution.to_text()
    assert not solution.diagnostics.remarks, solution.to_text()
    _agrees(solution, exact)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("guide", "options"),
    [("normal", {"operator": Identity()}), ("lowrank", {"rank": 12, "num_particles": 16}), ("flow", {})],
)
def test_guides_that_hold_the_posterior_find_it(guide, options):
    """Denoising leaves the latents of one Haar level independent, which is what the guide "normal" can be."""
    problem, exact = _inpainting(seed=1, operator=options.pop("operator", None))
    solution = solve(problem, "svi", guide=guide, steps=2000, num_samples=1000, **{"num_particles": 8, **options})
    _agrees(solution, exact, independent=True)
    assert not solution.diagnostics.remarks


def test_mean_field_svi_has_the_mean_and_the_variances_of_its_formula():
    """Among independent normals the closest one has the posterior's mean and the reciprocals of its precisions."""
    problem, exact = _inpainting()
    solution = solve(problem, "svi", guide="normal", steps=800, num_samples=2000, num_particles=8)
    matrix = torch.autograd.functional.jacobian(
        lambda u: problem.observe(problem.decode(u)), torch.zeros(problem.dims, dtype=torch.float64)
    )
    precision = torch.eye(problem.dims, dtype=torch.float64) + matrix.T @ matrix / STD**2
    expected = precision.diagonal().rsqrt()
    assert ((solution.latents[0].std(0) / expected).log().abs()).max() < 0.15
    x = solution.images().flatten(1)
    assert ((x.mean(0) - exact.mean).abs() / exact.std).max() < 0.25
    # The evidence of a Gaussian is known, and so is how far below it the best of these guides stays.
    b = problem.observation
    clean = problem.observe(problem.decode(torch.zeros(problem.dims, dtype=torch.float64)))
    evidence = torch.distributions.MultivariateNormal(
        clean, matrix @ matrix.T + STD**2 * torch.eye(len(b), dtype=torch.float64)
    ).log_prob(b)
    gap = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    assert len(solution.diagnostics.objective) == 800
    assert abs(solution.diagnostics.objective[-100:].mean() - (evidence - gap)) < 0.5


def test_map_is_the_mean_of_a_gaussian():
    problem, exact = _inpainting(operator=Blur.gaussian(0.6))
    solution = solve(problem, "map", steps=600)
    assert ((solution.images()[0].flatten() - exact.mean).abs() / exact.std).max() < 0.05
    assert solution.latents.shape == (1, 1, 12)
    assert math.isnan(solution.diagnostics.worst_rhat)


@pytest.mark.slow
def test_a_width_of_the_lr_image_is_part_of_the_posterior():
    problem, exact = _inpainting(lr_log_scale=math.log(0.1))
    assert problem.dims == 16
    begin = time.perf_counter()
    solution = solve(problem, "nuts", num_samples=200, num_warmup=100, num_chains=2)
    assert 0 < sum(solution.seconds.values()) < time.perf_counter() - begin
    _agrees(solution, exact)


@pytest.mark.slow
def test_blind_lr():
    """lr unknown: the prior on it is one more Gaussian, and the posterior stays a formula."""
    flow = LinearGaussianFlow(detail_std=(0.1,)).double()
    prior = GaussianLR(torch.full((1, 2, 2), 0.5, dtype=torch.float64), std=0.2, correlation=0.8)
    generator = torch.Generator().manual_seed(2)
    lr = prior(torch.randn(1, 2, 2, generator=generator, dtype=torch.float64))
    hr = flow.sample(lr, generator=generator)[0]
    mask = Mask((torch.rand(4, 4, generator=generator) < 0.7).int())
    observation = GaussianNoise(STD).simulate(mask(hr[None])[0], generator=generator)
    problem = InverseProblem(flow, prior, mask, observation, GaussianNoise(STD))
    jacobian = torch.autograd.functional.jacobian(
        lambda u: problem.decode(u).flatten(), torch.zeros(problem.dims, dtype=torch.float64)
    )
    centre = problem.decode(torch.zeros(problem.dims, dtype=torch.float64)).flatten()
    before = flowsr.posterior.Gaussian(centre, jacobian @ jacobian.T)
    exact = gaussian_posterior(before, operator_matrix(mask, (1, 4, 4)), observation, noise_std=STD)
    solution = solve(problem, "nuts", num_samples=250, num_warmup=100, num_chains=2)
    _agrees(solution, exact)


def test_solving_leaves_no_trace():
    problem, _ = _inpainting()
    flow = tiny_flow("sr-x4", levels=1, image_channels=1).double()
    problem = InverseProblem(flow, problem.lr, problem.operator, problem.observation, problem.noise)
    pyro.param("mine", torch.ones(1))
    state = torch.get_rng_state()
    one = solve(problem, "svi", steps=3, num_samples=5, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(pyro.get_param_store()) == ["mine"]
    assert all(p.requires_grad and p.grad is None for p in flow.parameters())
    two = solve(problem, "svi", steps=3, num_samples=5, seed=4)
    assert torch.equal(one.latents, two.latents)
    assert not torch.equal(one.latents, solve(problem, "svi", steps=3, num_samples=5, seed=5).latents)


def test_progress_is_reported_once_per_step():
    problem, _ = _inpainting()
    counts = []
    solve(problem, "pcn", num_samples=6, num_warmup=4, num_chains=2, num_steps=1, on_step=lambda: counts.append(1))
    assert len(counts) == 20
    counts.clear()
    solve(problem, "map", steps=7, on_step=lambda: counts.append(1))
    assert len(counts) == 7


def test_warm_start_from_an_image():
    problem, _ = _inpainting()
    hr = torch.rand(1, 4, 4, dtype=torch.float64)
    u = problem.whiten(hr)
    assert problem.flow.encode(problem.decode(u)).z[0].allclose(problem.flow.encode(hr).z[0])
    assert solve(problem, "pcn", start=u, num_samples=4, num_warmup=2, num_chains=1).latents.shape == (1, 4, 12)
    blind = InverseProblem(
        problem.flow,
        GaussianLR(problem.lr, std=0.2, correlation=1.0),
        problem.operator,
        problem.observation,
        problem.noise,
    )
    assert blind.decode(blind.whiten(hr)).allclose(hr)


@pytest.mark.parametrize(
    ("noise", "make"),
    [
        (GaussianNoise(0.1), lambda x: x + 0.1),
        (LaplaceNoise(0.1), lambda x: x - 0.2),
        (PoissonNoise(50.0), lambda x: (50 * x.clamp_min(0)).round()),
    ],
)
def test_noise_models(noise, make):
    clean = torch.full((200_000,), 0.6, dtype=torch.float64)
    simulated = noise.simulate(clean, generator=torch.Generator().manual_seed(0))
    residual = noise.residual(clean, simulated)
    assert abs(residual.mean()) < 0.02 and abs(residual.var() - 1) < 0.03
    problem, _ = _inpainting()
    observation = make(torch.rand(1, 4, 4, dtype=torch.float64))
    poisson = InverseProblem(problem.flow, problem.lr, Identity(), observation, noise)
    poisson.check_differentiable("hmc")
    assert torch.isfinite(poisson.log_likelihood(poisson.decode(torch.zeros(3, 12, dtype=torch.float64)))).all()
    assert noise.distribution(clean, event_dim=1).log_prob(simulated).shape == ()


class _Physics:
    """What deepinv's physics look like from outside: a noise-free map A, a noisy call."""

    def A(self, x):
        return x[..., ::2, ::2]

    def __call__(self, x):
        raise AssertionError("the noise of the physics must not be used")


def test_operators():
    x = torch.rand(2, 3, 8, 8)
    assert Downscale(2)(x).shape == (2, 3, 4, 4)
    assert Blur.gaussian(1.0)(torch.ones(2, 3, 8, 8)).allclose(torch.ones(2, 3, 8, 8))
    image = torch.rand(1, 12, 14)
    expected = ndimage.gaussian_filter(image[0].numpy(), 1.3, truncate=3.0)
    assert Blur.gaussian(1.3)(image)[0, 4:-4, 4:-4].allclose(torch.from_numpy(expected)[4:-4, 4:-4], atol=1e-5)
    kernel = torch.rand(3, 3)
    blurred = Blur(kernel)(x)[:, :, 2, 3]
    assert torch.allclose(blurred, (x[:, :, 1:4, 2:5] * kernel / kernel.sum()).sum((-2, -1)), atol=1e-6)
    mask = Mask(torch.randint(0, 2, (3, 8, 8)))
    assert torch.equal(mask.picture(mask(x)[0], (3, 8, 8)), x[0] * mask.mask)
    assert torch.equal(mask.picture(mask(x), (3, 8, 8)), x * mask.mask)
    problem, _ = _inpainting()
    physics = InverseProblem(problem.flow, problem.lr, _Physics(), torch.rand(1, 2, 2), GaussianNoise(0.1))
    assert physics.observe(torch.rand(5, 1, 4, 4)).shape == (5, 1, 2, 2)


def _problem(operator, observation, noise=None, **kwargs):
    flow = LinearGaussianFlow(detail_std=(0.1,))
    lr = kwargs.pop("lr", torch.full((1, 2, 2), 0.5))
    return InverseProblem(flow, lr, operator, observation, noise or GaussianNoise(0.1), **kwargs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _problem(Identity(), torch.rand(1, 1, 4, 4)), "observation without a batch dimension"),
        (lambda: _problem(Identity(), torch.rand(1, 5, 5)), r"expected the operator to make \(2, 1, 5, 5\)"),
        (lambda: _problem(lambda x: x @ torch.ones(3, 3), torch.rand(1, 4, 3)), "it failed with"),
        (lambda: _problem(lambda x: 3, torch.rand(1, 4, 4)), "return a tensor; got int"),
        (lambda: _problem(lambda x: (x - 1).log(), torch.rand(1, 4, 4)), "logarithm of a negative"),
        (lambda: _problem(lambda x: (255 * x).long(), torch.rand(1, 4, 4)), "floating point values"),
        (lambda: _problem(lambda x: x.mul_(0.5), torch.rand(1, 4, 4)), "work on a copy"),
        (lambda: _problem(lambda x: x + torch.randn_like(x), torch.rand(1, 4, 4)), "by the argument noise"),
        (lambda: _problem(Identity(), [0.0]), "observation to be a tensor; got list"),
        (lambda: Mask(cast(Any, [[1, 0]])), "mask to be a tensor; got list"),
        (lambda: _problem("blur", torch.rand(1, 4, 4)), "a method A, as deepinv's"),
        (lambda: _problem(Identity(), torch.full((1, 4, 4), math.nan)), "leave unobserved values out"),
        (lambda: _problem(Identity(), torch.rand(1, 4, 4), PoissonNoise(10.0)), "multiply an image"),
        (lambda: _problem(Identity(), torch.rand(1, 4, 4), noise="gaussian"), "GaussianNoise, LaplaceNoise"),
        (lambda: _problem(Identity(), torch.rand(1, 4, 4), temperature=0.0), "temperatures > 0"),
        (lambda: _problem(Identity(), torch.rand(1, 4, 4), lr_log_scale=1.0), "lr_log_scale from -40 to 0"),
        (lambda: _problem(Identity(), torch.rand(1, 4, 4), lr=torch.rand(2, 1, 2, 2)), "solve one by one"),
        (lambda: GaussianNoise(0.0), "finite and > 0; got 0.0"),
        (lambda: PoissonNoise(math.inf), "the peak of Poisson noise"),
        (lambda: GaussianLR(torch.rand(1, 2, 2), std=25.0), "for grey levels divide by 255"),
        (lambda: GaussianLR(torch.rand(1, 2, 2), std=0.1, correlation=9.0), "half of the longer side"),
        (lambda: GaussianLR(torch.full((1, 2, 2), 128.0), std=0.1), "divide 8-bit images by 255"),
        (
            lambda: _problem(
                Identity(), torch.rand(1, 4, 4), lr=GaussianLR(torch.rand(1, 2, 2), std=0.1), lr_log_scale=-2.0
            ),
            "either a prior on lr or lr_log_scale",
        ),
        (lambda: Mask(torch.zeros(4, 4)), "observes something"),
        (lambda: Mask(torch.rand(4, 4)), "zeros and ones"),
        (lambda: Blur(torch.ones(2, 2)), "odd sides"),
        (lambda: Downscale(1), "factor >= 2"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x: x.detach(), "without a gradient"),
        (lambda x: (8 * x).round() / 8, "gradient of zero everywhere"),
        (lambda x: x + (0 * (x - x.detach())).sqrt(), "NaN or infinity"),
    ],
)
def test_gradients_are_asked_for_where_they_are_needed(operator, message):
    problem = _problem(operator, torch.rand(1, 4, 4))
    for method in ("hmc", "svi", "map"):
        with pytest.raises(ValueError, match=message + ".*use 'pcn'"):
            solve(problem, method)
    solution = solve(problem, "pcn", num_samples=4, num_warmup=2, num_chains=1, num_steps=1)
    assert solution.latents.shape == (1, 4, 12)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"method": "gibbs"}, "nuts, hmc, pcn"),
        ({"guide": "full"}, "normal, lowrank, flow"),
        ({"num_samples": 2}, "num_samples >= 4"),
        ({"target_accept": 1.5}, "target_accept in"),
        ({"start": torch.zeros(3)}, r"whitened vector \(12,\)"),
        ({"start": "best"}, "draw, mode, laplace, a whitened vector or a Solution"),
        ({"start": torch.full((12,), math.nan)}, "finite start"),
        ({"trajectory": 0.0}, "trajectory"),
        ({"trajectory": math.inf}, "finite trajectory"),
        ({"max_tree_depth": 0}, "max_tree_depth >= 1"),
        ({"method": "pcn", "num_steps": 0}, "num_steps >= 1"),
        ({"method": "svi", "guide": "lowrank", "rank": 0}, "rank >= 1"),
        ({"start": "laplace", "rank": 1.5}, r"an integer rank >= 1; got 1\.5"),
        ({"num_samples": True}, "an integer num_samples >= 4; got True"),
        ({"num_warmup": -1}, "an integer num_warmup >= 0; got -1"),
        ({"num_chains": None}, "an integer num_chains >= 1; got None"),
        ({"method": "svi", "steps": "many"}, "an integer steps >= 1; got 'many'"),
        ({"start": torch.zeros(12, dtype=torch.complex64)}, "start to be real; got dtype torch.complex64"),
        ({"method": "svi", "learning_rate": 1e30}, "lower learning_rate"),
    ],
)
def test_solver_messages(kwargs, message):
    with pytest.raises(ValueError, match=message):
        solve(_problem(Identity(), torch.rand(1, 4, 4)), **kwargs)


def test_chains_that_do_not_mix_are_reported():
    """A step that cannot adapt, in a narrow posterior, from far-off places."""
    problem = _problem(Identity(), torch.rand(1, 4, 4), GaussianNoise(0.001))
    solution = solve(problem, "pcn", num_samples=20, num_warmup=0, num_chains=2, num_steps=1)
    assert not solution.mixed
    text = solution.to_text()
    assert "Chains have not mixed" in text and "num_warmup" in text
    assert "do not explain the observation" in text
    with pytest.raises(ValueError, match="expected chains that have mixed"):
        solution.require_mixed()


@pytest.mark.slow
def test_a_trajectory_ends_however_small_its_steps():
    """In a posterior a millionth wide a trajectory of the usual length would take a million steps, per draw."""
    calls = []
    problem = _problem(lambda x: calls.append(1) or x, torch.rand(1, 4, 4), GaussianNoise(1e-6))
    solution = solve(problem, "hmc", num_samples=4, num_warmup=1, num_chains=1)
    assert 1024 < len(calls) < 6 * 1024
    assert not solution.mixed


def test_an_operator_that_fails_off_the_mean_is_reported_at_the_start():
    problem = _problem(lambda x: (x - 0.45).sqrt(), torch.rand(1, 4, 4))
    for method in ("hmc", "pcn", "langevin"):
        with pytest.raises(ValueError, match="finite likelihood where chain 1 starts; got nan"):
            solve(problem, method, num_samples=4, num_warmup=2)


def test_a_gradient_that_vanishes_by_symmetry_is_one():
    """No photons at all: at the mean the likelihood is stationary, but the operator is not constant."""
    problem = _problem(Identity(), torch.zeros(1, 4, 4), PoissonNoise(10.0))
    assert solve(problem, "map", steps=3).latents.shape == (1, 1, 12)


def test_one_number_is_an_observation():
    problem = _problem(lambda x: x[:, 0, 0, 0], torch.tensor(0.7))
    solution = solve(problem, "hmc", num_samples=50, num_warmup=50, num_chains=2)
    assert abs(float(solution.images()[:, 0, 0, 0].mean()) - 0.6) < 0.1
    assert "residual / noise" in solution.to_text()


def test_rank_normalized_statistics_are_those_of_arviz():
    with warnings.catch_warnings():
        # ArviZ 0.23 announces its refactoring when it is imported.
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    generator = torch.Generator().manual_seed(3)
    steps = torch.randn(4, 4001, generator=generator, dtype=torch.float64)
    chains = [steps[:, 0]]
    for step in steps.T[1:]:
        chains.append(0.8 * chains[-1] + step)
    walk = torch.stack(chains, 1)
    wide = walk * torch.tensor([1.0, 1.0, 1.0, 3.0])[:, None]
    cauchy = torch.randn(4, 200, generator=generator) / torch.randn(4, 200, generator=generator)
    summaries = {"walk": walk, "wide": wide, "cauchy": cauchy, "short": walk[:2, :4]}
    rhat, ess = chain_statistics(summaries)
    for name, values in summaries.items():
        assert math.isclose(rhat[name], float(arviz.rhat(values.numpy())), rel_tol=1e-9), name
        assert math.isclose(ess[name], float(arviz.ess(values.numpy())), rel_tol=1e-9), name
    assert rhat["wide"] > 1.1, "chains of one mean and several widths"
    for coefficient in (-0.9, -0.4, 0.3, 0.95):
        for draws in (4, 7, 50, 501):
            chains = torch.randn(3, draws, generator=generator, dtype=torch.float64)
            for t in range(1, draws):
                chains[:, t] += coefficient * chains[:, t - 1]
            _, ess = chain_statistics({"x": chains})
            assert math.isclose(ess["x"], float(arviz.ess(chains.numpy())), rel_tol=1e-9), (coefficient, draws)
    assert ess["x"] < 300 < 3 * 501


def test_remarks():
    assert not chain_remarks({"a": 1.0}, {"a": 500.0}, draws=1000)
    assert "3 of 1000 transitions diverged" in chain_remarks({}, {}, divergences=3, draws=1000)[0]
    assert "hardly moved" in chain_remarks({}, {}, moved=0.01, draws=1000)[0]
    assert "num_chains=4" in chain_remarks({}, {}, chains=1, draws=1000)[0]
    assert "Few effective draws: 20" in chain_remarks({"a": 1.0}, {"a": 20.0}, draws=1000)[0]
    low, high = residual_interval(GaussianNoise(0.1), torch.zeros(1, 100))
    assert "too large" in residual_remarks(low / 2, (low, high))[0]
    rhat, _ = chain_statistics({"stuck": torch.tensor([[1.0] * 8, [2.0] * 8]), "fixed": torch.ones(2, 8)})
    assert rhat == {"stuck": math.inf}
    rhat, ess = chain_statistics({"all": torch.ones(1, 8)})
    assert rhat == {"all": math.inf} and ess == {"all": 1.0}, "a chain that never moved has not mixed"
    with pytest.raises(ValueError, match="raise num_samples"):
        chain_statistics({"short": torch.randn(2, 3)})


def test_an_optimization_cut_short_says_so():
    problem = _problem(Identity(), torch.rand(1, 4, 4), GaussianNoise(0.001))
    solution = solve(problem, "map", steps=50, learning_rate=0.003)
    assert any("still rising" in remark for remark in solution.diagnostics.remarks)


def test_a_diverging_point_is_rejected_not_an_error():
    problem, _ = _inpainting()
    u = torch.full((2, problem.dims), math.inf, dtype=torch.float64)
    assert torch.isnan(problem.decode(u)).all() and problem.decode(u).shape == (2, 1, 4, 4)


def test_result():
    problem, _ = _inpainting()
    solution = solve(problem, "hmc", num_samples=6, num_warmup=4, num_chains=2)
    document = solution.to_dict()
    assert document["chains"] == 2 and document["dims"] == 12 and "latents" not in document
    assert len(solution.plot().axes) >= 4
    mode = solve(problem, "map", steps=5)
    panels = [axes.get_title(loc="left") for axes in mode.plot().axes]
    assert panels == ["observed", "the image, map", ""], panels
    picture = problem.observed_picture()
    assert picture is not None and torch.equal(picture[:, problem.operator.mask], problem.observation[None])
    counts = _problem(Downscale(2), torch.full((1, 2, 2), 30.0), PoissonNoise(60.0)).observed_picture()
    assert counts is not None and counts.allclose(torch.full((1, 2, 2), 0.5))
    assert _problem(lambda x: x.flatten(1), torch.rand(16)).observed_picture() is None
    figure = new_figure(4, 3)
    assert solution.plot(figure.subplots()) is figure
    moments = solution.moments()
    assert torch.allclose(moments.mean, solution.images().mean(0)) and moments.count == 12


@pytest.mark.parametrize(("guide", "advice"), [("normal", "guide='lowrank' or 'flow'"), ("lowrank", "raise rank")])
def test_a_guide_that_scatters_is_told_so(guide, advice):
    flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 2, 2), 0.5)
    problem = InverseProblem(flow, lr, Identity(), flow.sample(lr)[0], GaussianNoise(0.005))
    found = solve(problem, "svi", guide=guide, steps=12, num_samples=50)
    assert found.diagnostics.residual_rms > found.diagnostics.expected_residual[1]
    assert advice in found.to_text()


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), LaplaceNoise(0.1), PoissonNoise(10.0), PoissonNoise(500.0)])
@pytest.mark.parametrize("black", [False, True])
@pytest.mark.parametrize("count", [1, 2, 8, 64, 512, 4096])
def test_the_residual_of_the_truth_lies_where_it_is_said_to(noise, black, count):
    """With probability 0.999: by a fourth moment alone, 1.8 % of Gaussian observations of one value lay outside."""
    clean = torch.full((count,), 0.5, dtype=torch.float64)
    if black:
        clean[: count // 2] = 0
    low, high = residual_interval(noise, clean[None], seed=1)
    observed = noise.simulate(clean.expand(2000, count), generator=torch.Generator().manual_seed(2))
    residual = noise.residual(clean, observed).square().mean(-1).sqrt()
    outside = int(((residual < low) | (residual > high)).sum())
    assert outside <= 10, f"{outside} of 2000, expected 2"
    assert high - low > 0 and (count < 512 or high - low < 2)


@pytest.mark.parametrize(("count", "tolerance"), [(50, 0.03), (1000, 1e-3)])
def test_the_residual_of_gaussian_noise_is_that_of_chi_squared(count, tolerance):
    found = residual_interval(GaussianNoise(0.1), torch.zeros(1, count, dtype=torch.float64))
    expected = [math.sqrt(stats.chi2.ppf(p, count) / count) for p in (0.0005, 0.9995)]
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("noise", [GaussianNoise(0.05), LaplaceNoise(0.05)])
def test_zeros_where_nothing_is_observed_do_not_count(noise):
    """As deepinv's inpainting has them: the residual of a right problem was 0.77, and its noise called too large."""
    mask = (torch.arange(64).reshape(8, 8) % 11 < 6).double()
    generator = torch.Generator().manual_seed(0)
    flow, lr = LinearGaussianFlow(detail_std=(0.1,)).double(), torch.full((1, 4, 4), 0.5, dtype=torch.float64)
    rms = []
    for _ in range(40):
        truth = flow.sample(lr, generator=generator)[0]
        observed = mask * noise.simulate(truth, generator=generator)
        filled = InverseProblem(flow, lr, lambda hr: mask * hr, observed, noise)
        masked = InverseProblem(flow, lr, Mask(mask), observed[:, mask.bool()].flatten(), noise)
        assert int(filled.informative.sum()) == int(mask.sum()) and bool(masked.informative.all())
        assert torch.allclose(filled.residual_rms(truth), masked.residual_rms(truth))
        rms.append(float(filled.residual_rms(truth)))
    low, high = residual_interval(noise, filled.observe(truth)[None], informative=filled.informative)
    assert sum(not low <= value <= high for value in rms) <= 1
    assert abs(sum(rms) / len(rms) - 1) < 0.1
