"""The shipped model's posterior under inpainting and deblurring: solvers agree, and it fits what was observed."""

import pytest
import skimage.data
import torch

import flowsr
from flowsr.images import make_lr
from flowsr.models.weights import shipped_path
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, solve

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shipped_path("sr-x4-small") is None, reason="needs the shipped weights"),
]

STD = 0.04


def _problem(operator):
    image = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
    hr = image[:, 100:108, 164:172]  # the rim of the cat's eye
    flow = flowsr.load("sr-x4-small")
    lr = make_lr(hr, flow.upscale)
    observation = GaussianNoise(STD).simulate(operator(hr[None])[0], generator=torch.Generator().manual_seed(0))
    return InverseProblem(flow, lr, operator, observation, GaussianNoise(STD))


def _variational(problem):
    return solve(
        problem, "svi", guide="lowrank", rank=20, steps=1000, num_particles=8, num_samples=300, learning_rate=0.05
    )


def _agree(solution, reference, *, bias=0.0):
    """Means differ by no more than their Monte-Carlo errors and a share of the posterior std, on average of pixels."""
    moments, expected = solution.moments(), reference.moments()
    errors = []
    for each in (solution, reference):
        # SVI draws are independent.
        count = torch.tensor(list(each.diagnostics.ess.values()) or [float(each.latents.shape[1])]).median()
        errors.append(1 / float(count))
    off = float(((moments.mean - expected.mean) / expected.std).square().mean().sqrt())
    print(f"{solution.method}: mean off by {off:.3f} std; Monte-Carlo error {sum(errors) ** 0.5:.3f} std", flush=True)
    assert off < 1.5 * sum(errors) ** 0.5 + bias


def _is_the_posterior(solution):
    assert solution.diagnostics.worst_rhat < 1.05
    _fits(solution)


def _fits(solution):
    print(solution.to_text(), flush=True)
    low, high = solution.diagnostics.expected_residual
    assert low < solution.diagnostics.residual_rms < high


def _walk(problem, centre):
    """pCN: it needs a hundred times HMC's passes to mix as well, so only its mean is asked for, within its errors."""
    return solve(problem, "pcn", start=centre, num_chains=2, num_warmup=50, num_samples=150, num_steps=10)


def test_inpainting():
    visible = torch.ones(8, 8)
    visible[:, 4:] = 0
    problem = _problem(Mask(visible))
    svi = _variational(problem)
    centre = svi.latents[0].mean(0)
    hmc = solve(problem, "hmc", start=centre, num_chains=2, num_warmup=50, num_samples=250)
    _is_the_posterior(hmc)
    _agree(svi, hmc, bias=0.2)
    pcn = _walk(problem, centre)
    _fits(pcn)
    _agree(pcn, hmc)
    for solution in (svi, hmc, pcn):
        std = solution.moments().std
        print(solution.method, "std where seen", float(std[..., :4].mean()), "and not", float(std[..., 4:].mean()))
        assert std[..., 4:].mean() > 1.2 * std[..., :4].mean()


def test_deblurring():
    problem = _problem(Blur.gaussian(1.0))
    svi = _variational(problem)
    centre = svi.latents[0].mean(0)
    hmc = solve(problem, "hmc", start=centre, num_chains=2, num_warmup=50, num_samples=400)
    _is_the_posterior(hmc)
    _agree(svi, hmc, bias=0.2)
    pcn = _walk(problem, centre)
    _fits(pcn)
    _agree(pcn, hmc)
    prior = problem.flow.sample(problem.lr, num_samples=60).detach()
    assert hmc.moments().std.mean() < 0.9 * prior.std(0).mean()
