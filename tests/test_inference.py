"""Pyro's inference over programs with a flow in them: what an engine finds is what a grid finds, and no run dies."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from cases import tiny
from pyro import poutine
from pyro.infer import HMC, MCMC, NUTS, SVI, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoStructured
from pyro.infer.inspect import get_dependencies, get_model_relations
from pyro.ops.indexing import Vindex

from flowsr.programs import super_resolution

FLOWS = {
    "sr-x4": {"levels": 1, "steps": 1, "image_channels": 1, "hidden_channels": 3},
    "irn-x4": {"image_channels": 1},
    "srflow-x4": {"image_channels": 1},
}
ALL = ["sr-x4", "rescaling-x4", "sr-x8", "irn-x3", "irn-x4", "srflow-x4"]


def small(name):
    return tiny(name, strength=0.1, **FLOWS[name]).double().requires_grad_(False).eval()


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def problem(name, argument):
    """A program in which an argument of the posterior is random, and one image of it; its prior by mean and width."""
    flow = small(name)
    lr = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    mean, width = {"lr_log_scale": (-3.0, 0.5), "temperature": (0.0, 0.5)}[argument]
    truth = {argument: math.exp(-0.3) if argument == "temperature" else -2.5}
    hr = flow.condition(lr, **truth).sample()

    def model():
        s = pyro.sample("s", dist.Normal(double(mean), width))
        value = s.exp() if argument == "temperature" else s
        pyro.sample("x", flow.condition(lr, **{argument: value}), obs=hr)

    def log_joint(grid):
        values = grid.exp() if argument == "temperature" else grid
        prior = dist.Normal(double(mean), width).log_prob(grid)
        return flow.condition(lr, **{argument: values}).log_prob(hr) + prior

    grid = torch.linspace(-6, 2, 4001, dtype=torch.float64)
    weights = log_joint(grid).softmax(0)
    center = float((weights * grid).sum())
    spread = float((weights * (grid - center) ** 2).sum().sqrt())
    return model, center, spread


PROBLEMS = [
    ("sr-x4", "lr_log_scale"),
    ("irn-x4", "lr_log_scale"),
    ("sr-x4", "temperature"),
    ("irn-x4", "temperature"),
    ("srflow-x4", "temperature"),
]


@pytest.mark.parametrize(("name", "argument"), PROBLEMS)
@pytest.mark.parametrize("engine", ["hmc", pytest.param("nuts", marks=pytest.mark.slow)])
def test_mcmc_finds_what_a_grid_finds(name, argument, engine):
    model, center, spread = problem(name, argument)
    if engine == "hmc":
        kernel = HMC(model, step_size=0.6 * spread, num_steps=3, adapt_step_size=False, adapt_mass_matrix=False)
    else:
        kernel = NUTS(model, max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=200, warmup_steps=50, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()["s"]
    assert abs(float(draws.mean()) - center) < 0.45 * spread
    assert abs(float(draws.std()) / spread - 1) < 0.4


@pytest.mark.parametrize("particles", [pytest.param("one by one", marks=pytest.mark.slow), "vectorized"])
@pytest.mark.parametrize(("name", "argument"), PROBLEMS)
def test_svi_finds_what_a_grid_finds(name, argument, particles):
    model, center, spread = problem(name, argument)

    def guide():
        loc = pyro.param("loc", double(center + 0.3))
        scale = pyro.param("scale", double(2 * spread), constraint=dist.constraints.positive)
        pyro.sample("s", dist.Normal(loc, scale))

    vectorized = particles == "vectorized"
    elbo = Trace_ELBO(num_particles=20 if vectorized else 3, vectorize_particles=vectorized, max_plate_nesting=0)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.03, "lrd": 0.99}), elbo)
    for _ in range(300):
        svi.step()
    # The best normal is not quite the posterior, which is skewed.
    assert abs(pyro.param("loc").item() - center) < 0.3 * spread
    assert abs(pyro.param("scale").item() / spread - 1) < 0.3


@pytest.mark.parametrize("nesting", [0, 1, 3])
def test_particles_have_the_batch_that_plates_give_them(nesting):
    flow, lr = small("sr-x4"), torch.rand(2, 1, 2, 2, dtype=torch.float64)
    hr = flow.condition(lr).sample()
    shapes = []

    def model():
        tau = pyro.sample("tau", dist.LogNormal(double(0.0), 0.1))
        with pyro.plate("images", 2, dim=-1) if nesting else poutine.mask(mask=True):
            posterior = flow.condition(lr if nesting else lr[0], temperature=tau)
            shapes.append(tuple(posterior.batch_shape))
            pyro.sample("x", posterior, obs=hr if nesting else hr[0])

    def guide():
        pyro.sample("tau", dist.LogNormal(pyro.param("m", double(0.0)), 0.1))

    elbo = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=nesting)
    loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), elbo).step()
    assert math.isfinite(loss)
    assert shapes[-1] == {0: (5,), 1: (5, 2), 3: (5, 1, 1, 2)}[nesting]


# ---------------------------------------------------------------- no run dies


def _random_width(flow, lr, hr):
    def model():
        width = pyro.sample("s", dist.Normal(double(-3.0), 0.5))
        pyro.sample("x", flow.condition(lr, lr_log_scale=width), obs=hr)

    return model


def _random_temperatures(flow, lr, hr):
    """Normal, so that negative ones are proposed."""

    def model():
        taus = pyro.sample("s", dist.Normal(torch.ones(len(flow.latent_levels())).double(), 0.5).to_event(1))
        pyro.sample("x", flow.condition(lr, temperature=taus.unbind(-1)), obs=hr)

    return model


def _random_lr_image(flow, lr, hr):
    def model():
        guess = pyro.sample("s", dist.Normal(lr, 0.05).to_event(3))
        pyro.sample("x", flow.condition(guess), obs=hr)

    return model


def _program(flow, lr, hr):
    """Through the program, with its latents to infer."""

    def model():
        tau = pyro.sample("s", dist.Normal(double(1.0), 0.5))
        x = super_resolution(flow, lr, temperature=tau)
        pyro.sample("observed", dist.Normal(x, 0.1).to_event(3), obs=hr)

    return model


def _scored_program(flow, lr, hr):
    def model():
        tau = pyro.sample("s", dist.Normal(double(1.0), 0.5))
        super_resolution(flow, lr, hr, temperature=tau)

    return model


MODELS = [
    *[(name, _random_width) for name in ("sr-x4", "irn-x4")],
    *[(name, build) for name in FLOWS for build in (_random_temperatures, _random_lr_image, _scored_program, _program)],
]


@pytest.mark.parametrize("engine", ["hmc", "nuts"])
@pytest.mark.parametrize(("name", "build"), MODELS, ids=lambda value: getattr(value, "__name__", value))
def test_no_run_dies_of_what_it_proposes(name, build, engine):
    """Ten seeds each, from steps so long that scales of zero, negative ones and images far out are proposed."""
    flow, lr = small(name), torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    hr = torch.rand(1, 2 * flow.upscale, 2 * flow.upscale, dtype=torch.float64)
    for seed in range(10):
        pyro.set_rng_seed(seed)
        pyro.clear_param_store()
        model = build(flow, lr, hr)
        # A step that adapts gets short, and then a trajectory of this length takes thousands of them.
        steps = {"hmc": {"num_steps": 2, "adapt_step_size": False}, "nuts": {"max_tree_depth": 2}}[engine]
        kernel = {"hmc": HMC, "nuts": NUTS}[engine](model, step_size=3.0, **steps)
        mcmc = MCMC(kernel, num_samples=2, warmup_steps=2, disable_progbar=True)
        mcmc.run()
        assert all(torch.isfinite(draws).all() for draws in mcmc.get_samples().values())


@pytest.mark.parametrize("value", [-151.0, 200.0, math.nan])
@pytest.mark.parametrize("name", ["sr-x4", "irn-x4"])
def test_the_potential_energy_of_an_impossible_width_is_infinite(name, value):
    flow, lr = small(name), torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    hr = torch.rand(1, 2 * flow.upscale, 2 * flow.upscale, dtype=torch.float64)
    width = double(value).requires_grad_()
    # A prior that allows everything, so that what is not finite comes from the flow.
    for call in (
        lambda: pyro.sample("x", flow.condition(lr, lr_log_scale=width), obs=hr),
        lambda: super_resolution(flow, lr, hr, lr_log_scale=width),
    ):
        energy = -poutine.trace(call).get_trace().log_prob_sum()
        assert energy == math.inf
        (slope,) = torch.autograd.grad(energy, width)
        assert torch.isfinite(slope)


# ---------------------------------------------------------------- inspection and guides


def _larger_program(name):
    flow = tiny(name, strength=0.1, image_channels=1).requires_grad_(False).eval()
    lr = torch.full((1, 2, 2), 0.5)
    hr = torch.rand(1, 2 * flow.upscale, 2 * flow.upscale)

    def model():
        tau = pyro.sample("tau", dist.LogNormal(0.0, 0.2))
        x = super_resolution(flow, lr, temperature=tau)
        gain = pyro.sample("gain", dist.Normal(1.0, 0.1))
        pyro.sample("photo", dist.Normal(gain * x, 0.1).to_event(3), obs=hr)

    def density():
        tau = pyro.sample("tau", dist.LogNormal(0.0, 0.2))
        pyro.sample("x", flow.condition(lr, temperature=tau), obs=hr)

    latents = [f"z_{level}" for level in flow.latent_levels()]
    return model, density, latents, ["lr"] * (name != "srflow-x4")


@pytest.mark.parametrize("name", ALL)
def test_what_depends_on_what_is_found(name):
    model, density, latents, lr = _larger_program(name)
    prior = get_dependencies(model)["prior_dependencies"]
    assert {site: set(of) - {site} for site, of in prior.items()} == {
        "tau": set(),
        **{site: {"tau"} for site in latents},
        **{site: set() for site in lr},
        "gain": set(),
        "photo": {"gain", *latents, *lr},
    }
    assert set(get_model_relations(density)["sample_sample"]["x"]) == {"tau"}
    assert "photo" in get_model_relations(model)["observed"]


@pytest.mark.parametrize("name", ALL)
def test_programs_are_drawn_as_graphs(name):
    model, density, latents, lr = _larger_program(name)
    source = pyro.render_model(model, render_distributions=True).source
    assert all(f"tau -> {site}" in source for site in latents)
    assert all(f"{site} -> photo" in source for site in (*latents, *lr, "gain"))
    assert "tau -> x" in pyro.render_model(density).source


@pytest.mark.parametrize("name", ["sr-x4", "irn-x4", "srflow-x4"])
@pytest.mark.parametrize("loss", [TraceGraph_ELBO, Trace_ELBO])
def test_structured_guides_are_fitted(name, loss):
    for model in _larger_program(name)[:2]:
        pyro.clear_param_store()
        guide = AutoStructured(model, conditionals="normal", dependencies="linear")
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss())
        before = svi.step()
        assert math.isfinite(before)
        parameters = {key: value.clone() for key, value in pyro.get_param_store().items()}
        svi.step()
        assert any(not torch.equal(parameters[key], value) for key, value in pyro.get_param_store().items())


@pytest.mark.parametrize(("name", "argument"), PROBLEMS)
def test_laplace_approximation(name, argument):
    """The mode, and the curvature there, against those of a grid."""
    model, center, spread = problem(name, argument)
    guide = AutoLaplaceApproximation(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(250):
        svi.step()
    normal = guide.laplace_approximation().get_posterior()
    assert abs(float(normal.mean) - center) < 0.3 * spread
    assert abs(float(normal.variance.sqrt()) / spread - 1) < 0.2


# ---------------------------------------------------------------- mixtures over LR images


@pytest.mark.parametrize("name", FLOWS)
def test_a_mixture_of_lr_images_is_enumerated(name):
    flow = small(name)
    hypotheses = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    hr = torch.rand(2, 1, 2 * flow.upscale, 2 * flow.upscale, dtype=torch.float64)
    shares = double([0.5, 0.3, 0.2])

    def model():
        with pyro.plate("images", 2):
            k = pyro.sample("k", dist.Categorical(shares), infer={"enumerate": "parallel"})
            pyro.sample("x", flow.condition(Vindex(hypotheses)[k], temperature=3.0, **wide(name)), obs=hr)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    log_prob = flow.condition(hypotheses[:, None], temperature=3.0, **wide(name)).log_prob(hr)
    assert log_prob.shape == (3, 2)
    expected = torch.logsumexp(log_prob + shares.log()[:, None], 0).sum()
    assert math.isclose(-loss, float(expected), rel_tol=1e-9)


def wide(name):
    return {} if name == "srflow-x4" else {"lr_log_scale": 0.0}
