"""Chains as one batch: every kernel leaves its target invariant, in any coordinates, and finds what is known."""

import math

import pytest
import torch

from flowsr.posterior import EnoughDraws, GaussianNoise, Identity, InverseProblem, LinearGaussianFlow, solve
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.diagnostics import chain_statistics
from flowsr.posterior.kernels import HMC, CrankNicolson, Langevin
from flowsr.posterior.samplers import sample_chains
from flowsr.posterior.target import Target

KERNELS = {
    "hmc": lambda: HMC(trajectory=1.0, step_size=0.2),
    "hmc of many steps": lambda: HMC(trajectory=3.0, step_size=0.1, num_steps=2),
    "langevin": lambda: Langevin(step_size=0.5, num_steps=3),
    "pcn": lambda: CrankNicolson(step_size=0.4, num_steps=4),
}


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _coordinates(dims=3, seed=3):
    """Shifted, scaled, and with two directions of their own."""
    generator = _generator(seed)
    mean, scale = (torch.rand(dims, generator=generator, dtype=torch.float64) for _ in range(2))
    return Coordinates.of_low_rank(mean, 0.5 + scale, torch.randn(dims, 2, generator=generator, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------- coordinates


def test_coordinates_are_an_affine_map_with_the_covariance_they_were_made_of():
    generator = _generator()
    std, factor = torch.rand(5, generator=generator).double() + 0.5, torch.randn(5, 2, generator=generator).double()
    found = Coordinates.of_low_rank(torch.ones(5).double(), std, factor)
    assert torch.allclose(found.factor() @ found.factor().T, std.square().diag() + factor @ factor.T)
    v = torch.randn(4, 5, generator=generator).double()
    assert torch.allclose(found.to_latents(v), 1 + v @ found.factor().T)
    assert torch.allclose(found.from_latents(found.to_latents(v)), v)


def test_coordinates_of_a_precision():
    directions = torch.linalg.qr(torch.randn(4, 2, generator=_generator()).double())[0]
    values = torch.tensor([3.0, 99.0]).double()
    found = Coordinates.of_precision(torch.zeros(4).double(), directions, values)
    precision = torch.eye(4).double() + directions @ values.diag() @ directions.T
    assert torch.allclose(found.factor() @ found.factor().T @ precision, torch.eye(4).double())


def test_coordinates_that_are_none_are_refused():
    with pytest.raises(ValueError, match="finite scale > 0; got 0 to 1"):
        Coordinates(torch.zeros(2), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"a scale \(2,\)"):
        Coordinates(torch.zeros(2), torch.ones(3))


# ---------------------------------------------------------------------------------------------------------- target


def test_the_energy_and_its_slope_in_any_coordinates_and_batches():
    coordinates = _coordinates()

    def log_likelihood(u):
        return -u.pow(4).sum(-1)

    v = torch.randn(5, 3, generator=_generator(), dtype=torch.float64)
    for batch in (None, 2):
        energy, slope = Target(log_likelihood, coordinates, exponent=0.3, batch=batch).slope(v)
        leaf = v.clone().requires_grad_()
        u = coordinates.mean + leaf @ coordinates.factor().T
        expected = 0.5 * u.square().sum(-1) + 0.3 * u.pow(4).sum(-1)
        assert torch.allclose(energy, expected) and energy.dtype == torch.float64
        assert torch.allclose(slope, torch.autograd.grad(expected.sum(), leaf)[0])


def test_an_impossible_place_has_an_infinite_energy_and_spoils_no_other_chain():
    def log_likelihood(u):
        return u.sum(-1).log()  # NaN where the sum is negative

    target = Target(log_likelihood, Coordinates.standard(torch.zeros(2)))
    energy, slope = target.slope(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]))
    assert energy.isfinite().tolist() == [True, False, False]
    assert slope.isfinite().all() and slope[0].abs().sum() > 0
    with pytest.raises(ValueError, match="where chain 2 starts"):
        starts = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
        sample_chains(log_likelihood, starts, HMC(), num_samples=1, num_warmup=0, seed=0)
    run = sample_chains(log_likelihood, torch.ones(4, 2), HMC(), num_samples=200, num_warmup=50, seed=0)
    assert (run.draws.sum(-1) > 0).all()


# ----------------------------------------------------------------------------------------------------- invariance


def _moved(kernel, *, coordinates, steps=4):
    """Truths and data from the joint distribution, and the truths after steps of chains that see their own data."""
    generator = _generator(1)
    matrix = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, -1.0]], dtype=torch.float64)
    u = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    data = torch.tanh(u @ matrix.T) + 0.5 * torch.randn(4000, 2, generator=generator, dtype=torch.float64)

    def log_likelihood(u):
        return -(data - torch.tanh(u @ matrix.T)).square().sum(-1) / (2 * 0.5**2)

    target = Target(log_likelihood, coordinates or Coordinates.standard(u[0]))
    state = kernel.begin(target, target.coordinates.from_latents(u))
    for _ in range(steps):
        state = kernel.step(target, state, generator, warming=False).state
    return u, target.coordinates.to_latents(state.position), data


def _largest_z(before, after, data):
    """Of the change of the means of functions of truth and data, which a kernel that is invariant does not move."""
    functions = [
        *(lambda u, b, i=i, j=j: u[:, i] * b[:, j] for i in range(3) for j in range(2)),
        *(lambda u, b, i=i: u[:, i].square() for i in range(3)),
        lambda u, b: torch.cos(u.sum(-1) + b.sum(-1)),
        lambda u, b: (u[:, 0] > b[:, 0]).double(),
    ]
    changes = [f(after, data) - f(before, data) for f in functions]
    return max(abs(float(change.mean() / (change.std() / math.sqrt(len(change))))) for change in changes)


@pytest.mark.parametrize("coordinates", [None, _coordinates()], ids=["standard", "affine"])
@pytest.mark.parametrize("name", KERNELS)
def test_posterior_draws_stay_posterior_draws(name, coordinates):
    """Truth and data are a draw of the joint distribution; a step given the data leaves it one."""
    before, after, data = _moved(KERNELS[name](), coordinates=coordinates)
    assert (before != after).any(-1).double().mean() > 0.5
    assert _largest_z(before, after, data) < 4


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_accepts_everything_is_found(name, monkeypatch):
    kernel = KERNELS[name]()
    propose = kernel.propose

    def wrong(*arguments):
        proposal, log_ratio = propose(*arguments)
        return proposal, torch.zeros_like(log_ratio)

    monkeypatch.setattr(kernel, "propose", wrong)
    kernel._step.value = min(kernel.largest_step, 8 * kernel.step_size)
    assert _largest_z(*_moved(kernel, coordinates=None, steps=8)) > 6


# ---------------------------------------------------------------------------------------------- known posteriors


def _gaussian(dims=12, seed=0):
    """A likelihood on four of twelve directions, and the posterior's mean and covariance."""
    generator = _generator(seed)
    matrix = torch.randn(4, dims, generator=generator, dtype=torch.float64)
    data = torch.randn(4, generator=generator, dtype=torch.float64)

    def log_likelihood(u):
        return -(data - u @ matrix.T).square().sum(-1) / (2 * 0.5**2)

    covariance = torch.linalg.inv(torch.eye(dims).double() + matrix.T @ matrix / 0.5**2)
    return log_likelihood, covariance @ matrix.T @ data / 0.5**2, covariance


def _statistics(draws, mean):
    """Effective number of draws, by the least of the coordinates and of their squares."""
    values = {f"{i}": draws[..., i] for i in range(draws.shape[-1])}
    values |= {f"{i}²": (draws[..., i] - mean[i]).square() for i in range(draws.shape[-1])}
    rhat, ess = chain_statistics(values)
    return max(rhat.values()), min(ess.values())


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    ("make", "num_samples"),
    [(HMC, 300), (lambda: Langevin(num_steps=30), 300), (lambda: CrankNicolson(num_steps=40), 400)],
    ids=["hmc", "langevin", "pcn"],
)
def test_the_posterior_of_a_linear_gaussian_problem(make, num_samples, fitted):
    log_likelihood, mean, covariance = _gaussian()
    coordinates = None
    if fitted:  # the posterior itself, from its leading directions
        values, vectors = torch.linalg.eigh(torch.linalg.inv(covariance) - torch.eye(12).double())
        coordinates = Coordinates.of_precision(mean, vectors[:, -4:], values[-4:])
    starts = 2 * torch.randn(8, 12, generator=_generator(5), dtype=torch.float64)
    run = sample_chains(
        log_likelihood, starts, make(), num_samples=num_samples, num_warmup=150, seed=2, coordinates=coordinates
    )
    rhat, ess = _statistics(run.draws, mean)
    assert rhat < 1.1 and ess > (500 if fitted else 60)
    x = run.draws.flatten(0, 1)
    assert ((x.mean(0) - mean).abs() / (covariance.diagonal() / ess).sqrt()).max() < 4.5
    variances = covariance.diagonal()
    scale = ((covariance.square() + variances.outer(variances)) / ess).sqrt()
    assert ((torch.cov(x.T) - covariance).abs() / scale).max() < 5
    assert run.divergences == 0 and min(run.acceptance) > 0.1


@pytest.mark.parametrize("make", [HMC, lambda: Langevin(num_steps=15), lambda: CrankNicolson(num_steps=10)])
def test_two_modes_against_quadrature(make):
    """|u₁² − 1| and a slope between the modes: weights and moments by a sum over a grid."""

    def log_likelihood(u):
        return -(u[..., 0].square() - 1 + 0.3 * u[..., 1]).square() / (2 * 0.5**2) + 0.3 * u[..., 0]

    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weight = (log_likelihood(grid) - 0.5 * grid.square().sum(-1)).softmax(0)
    run = sample_chains(
        log_likelihood,
        2 * torch.randn(16, 2, generator=_generator(), dtype=torch.float64),
        make(),
        num_samples=400,
        num_warmup=200,
        seed=1,
    )
    for f in (lambda u: u[..., 0], lambda u: u[..., 1], lambda u: (u[..., 0] > 0).double(), lambda u: u[..., 0] ** 2):
        values = f(run.draws)
        exact = float((weight * f(grid)).sum())
        std = math.sqrt(float((weight * (f(grid) - exact) ** 2).sum()))
        ess = chain_statistics({"f": values + 1e-9 * torch.randn(values.shape, generator=_generator())})[1]["f"]
        assert ess > 100
        assert abs(float(values.mean()) - exact) < 4.5 * std / math.sqrt(ess)


# ------------------------------------------------------------------------------------------------------ adaptation


def _ill_conditioned(u):
    scales = torch.logspace(-1.5, 0, 20, dtype=torch.float64)
    return -0.5 * (u.square() * (1 / scales.square() - 1)).sum(-1)


def test_trajectories_grow_to_what_decorrelates():
    """From a tenth of what the widest direction needs; the effective draws per gradient are those of a good length."""

    def run(kernel):
        starts = torch.randn(8, 20, generator=_generator(), dtype=torch.float64)
        coordinates = Coordinates.standard(starts[0])  # kept, so that the target stays ill-conditioned
        options = {"num_samples": 200, "num_warmup": 200, "seed": 0, "coordinates": coordinates}
        found = sample_chains(_ill_conditioned, starts, kernel, **options)
        return _statistics(found.draws, torch.zeros(20))[1] / found.evaluations

    adapted = HMC(trajectory=0.3)
    assert run(adapted) > 3 * run(HMC(trajectory=0.3, adapt_trajectory=False))
    assert 1.2 < adapted.trajectory < 4


def test_scales_are_learned_from_all_chains():
    starts = torch.randn(8, 20, generator=_generator(), dtype=torch.float64)
    kernel = HMC()
    run = sample_chains(_ill_conditioned, starts, kernel, num_samples=100, num_warmup=150, seed=0)
    assert kernel.step_size > 0.3  # against 0.03 times one or two in the coordinates of the prior
    assert _statistics(run.draws, torch.zeros(20))[1] > 200


@pytest.mark.parametrize("make", [HMC, Langevin, CrankNicolson])
def test_the_step_size_reaches_the_usual_acceptance(make):
    kernel = make(step_size=0.001)
    log_likelihood, _, _ = _gaussian()
    run = sample_chains(log_likelihood, torch.zeros(8, 12).double(), kernel, num_samples=150, num_warmup=150, seed=0)
    # With gradients the harmonic mean is adapted, which is below the mean.
    assert -0.13 < sum(run.acceptance) / 8 - kernel.usual_accept < (0.25 if kernel.harmonic else 0.13)


def test_the_same_seed_gives_the_same_chains_in_any_batches_and_progress_is_told():
    log_likelihood, _, _ = _gaussian()
    told = []
    found = [
        sample_chains(
            log_likelihood,
            torch.zeros(4, 12).double(),
            HMC(),
            num_samples=5,
            num_warmup=5,
            seed=3,
            batch=batch,
            on_draw=lambda: told.append(1),
        )
        for batch in (None, 3)
    ]
    assert torch.allclose(found[0].draws, found[1].draws) and len(told) == 20
    assert found[0].draws.shape == (4, 5, 12) and found[0].seconds.keys() == {"warmup", "sampling"}


def test_pcn_accepts_everything_without_data():
    starts = torch.randn(8, 200, generator=_generator())
    kernel = CrankNicolson(step_size=0.7)
    run = sample_chains(lambda u: torch.zeros(len(u)), starts, kernel, num_samples=100, num_warmup=0, seed=0)
    assert min(run.acceptance) > 1 - 1e-12
    assert abs(float(run.draws.var()) - 1) < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrankNicolson(step_size=1.5), r"step_size in \(0, 1\]"),
        (lambda: HMC(step_size=math.nan), "step_size"),
        (lambda: Langevin(target_accept=1.0), "target_accept"),
        (lambda: Langevin(num_steps=0), "num_steps"),
        (lambda: HMC(trajectory=math.inf), "trajectory"),
    ],
)
def test_messages(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_chains_end_when_a_callback_has_enough():
    calls = []

    def enough():
        calls.append(1)
        if len(calls) == 12:
            raise EnoughDraws

    options = {"num_samples": 50, "num_warmup": 5, "seed": 0}
    starts = torch.randn(3, 2)
    run = sample_chains(lambda u: -u.square().sum(-1), starts, HMC(), on_draw=enough, **options)
    assert run.draws.shape == (3, 7, 2) and all(0 < value <= 1 for value in run.acceptance)
    whole = sample_chains(lambda u: -u.square().sum(-1), starts, HMC(), **options)
    assert torch.equal(run.draws, whole.draws[:, :7])
    calls[:] = [1] * 11
    with pytest.raises(EnoughDraws):  # while warming up there is nothing to end with
        sample_chains(lambda u: -u.square().sum(-1), starts, HMC(), on_draw=enough, **options)


def test_nuts_ends_when_a_callback_has_enough():
    flow, lr = LinearGaussianFlow(detail_std=(0.1,)), torch.full((1, 1, 1), 0.5)
    problem = InverseProblem(flow, lr, Identity(), torch.full((1, 2, 2), 0.5), GaussianNoise(0.1))
    calls = []

    def enough():
        calls.append(1)
        if len(calls) == 11:
            raise EnoughDraws

    solution = solve(problem, "nuts", num_samples=40, num_warmup=5, num_chains=1, on_step=enough)
    assert solution.latents.shape == (1, 6, 3) and 0 < solution.diagnostics.acceptance[0] <= 1
    whole = solve(problem, "nuts", num_samples=40, num_warmup=5, num_chains=1)
    assert torch.equal(solution.latents[0], whole.latents[0, :6])
