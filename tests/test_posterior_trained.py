"""The shipped model's posterior under inpainting and deblurring: solvers agree, and it fits what was observed."""

import pytest
import skimage.data
import torch

import flowsr
from flowsr.images import bicubic_down, round_to_8bit
from flowsr.models.weights import shipped_path
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, solve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shipped_path("sr-x4-small") is None, reason="needs the shipped weights"),
]

STD = 0.02


def _visible():
    visible = torch.ones(8, 8)
    visible[:, 4:] = 0
    return visible


def _problem(operator):
    image = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
    hr = image[:, 100:108, 164:172]  # the rim of the cat's eye
    flow = flowsr.load("sr-x4-small")
    lr = round_to_8bit(bicubic_down(hr, flow.upscale))
    observation = GaussianNoise(STD).simulate(operator(hr[None])[0], generator=torch.Generator().manual_seed(0))
    return InverseProblem(flow, lr, operator, observation, GaussianNoise(STD))


def _report(name, solution):
    print(name, solution.to_text(), sep="\n", flush=True)
    return solution.moments()


def test_inpainting():
    visible = _visible()
    problem = _problem(Mask(visible))
    svi = solve(problem, "svi", guide="lowrank", rank=30, steps=500, num_particles=8, learning_rate=0.05)
    centre = svi.latents[0].mean(0)
    hmc = solve(problem, "hmc", start=centre, num_chains=2, num_warmup=60, num_draws=120, trajectory=1.2)
    pcn = solve(problem, "pcn", start=centre, num_chains=2, num_warmup=60, num_draws=200, num_steps=15)
    found = {name: _report(name, s) for name, s in {"svi": svi, "hmc": hmc, "pcn": pcn}.items()}
    assert hmc.diagnostics.worst_rhat < 1.05
    low, high = hmc.diagnostics.expected_residual
    assert low < hmc.diagnostics.residual_rms < high
    hidden = visible == 0
    for name, moments in found.items():
        assert moments.std[:, hidden].mean() > moments.std[:, ~hidden].mean(), name
        off = (moments.mean - found["hmc"].mean) / found["hmc"].std
        print(
            name,
            "mean off by",
            float(off.square().mean().sqrt()),
            "std, ratio of std",
            float((moments.std / found["hmc"].std).mean()),
        )
    for name in ("svi", "pcn"):
        off = (found[name].mean - found["hmc"].mean) / found["hmc"].std
        assert off.square().mean().sqrt() < 0.35, name


def test_deblurring():
    problem = _problem(Blur.gaussian(1.0))
    svi = solve(problem, "svi", guide="lowrank", rank=30, steps=500, num_particles=8, learning_rate=0.05)
    hmc = solve(
        problem, "hmc", start=svi.latents[0].mean(0), num_chains=2, num_warmup=60, num_draws=120, trajectory=1.2
    )
    found = {name: _report(name, s) for name, s in {"svi": svi, "hmc": hmc}.items()}
    assert hmc.diagnostics.worst_rhat < 1.05
    low, high = hmc.diagnostics.expected_residual
    assert low < hmc.diagnostics.residual_rms < high
    off = (found["svi"].mean - found["hmc"].mean) / found["hmc"].std
    print("mean off by", float(off.square().mean().sqrt()), float((found["svi"].std / found["hmc"].std).mean()))
    assert off.square().mean().sqrt() < 0.35
    prior = problem.flow.sample(problem.lr, num_samples=60).detach()
    assert found["hmc"].std.mean() < 0.9 * prior.std(0).mean()
