"""Posterior studies ask what a model offers: they serve SRFlow and IRN too."""

import math

import pytest
import torch
from cases import tiny

import flowsr
from flowsr.images import make_lr
from flowsr.posterior import GaussianNoise, InverseProblem, Mask, lr_consistency, solve, summarize_draws


@pytest.mark.parametrize("name", ["sr-x4", "srflow-x4", "irn-x4"])
def test_summaries_and_inverse_problems_serve_every_conditional_model(name):
    model = tiny(name, strength=0.05).requires_grad_(False)
    lr = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    summary = summarize_draws(model, lr, num_samples=20)
    draws = torch.stack([model.decode(lr, z) for z in _latents(model, lr, 20)])
    assert summary.mean.shape == (3, 8, 8) and (summary.std > 0).all()
    assert (summary.mean - draws.mean(0)).abs().mean() < draws.std(0).mean()
    visible = torch.ones(8, 8)
    visible[:, 4:] = 0
    truth = draws[0]
    problem = InverseProblem(model, lr, Mask(visible), Mask(visible)(truth[None])[0], GaussianNoise(0.05))
    found = solve(problem, "svi", steps=40, num_samples=20)
    moments = found.moments()
    assert moments.mean.shape == (3, 8, 8)
    # Where the image was seen the mean has moved towards it.
    seen = (..., slice(None, 4))
    assert (moments.mean - truth)[seen].abs().mean() < (summary.mean - truth)[seen].abs().mean()


def _latents(model, lr, count):
    generator = torch.Generator().manual_seed(1)
    return [model.draw_latents(lr, generator=generator) for _ in range(count)]


def test_consistency_of_the_shipped_model_and_its_drift():
    flow = flowsr.load("sr-x4-small")
    from skimage import data

    hr = torch.from_numpy(data.chelsea()[64:128, 128:192].copy()).movedim(-1, 0).float() / 255
    lr = make_lr(hr, 4)
    found = lr_consistency(
        flow, lr, num_samples=3, cycles=3, temperature=0.8, generator=torch.Generator().manual_seed(0)
    )
    assert len(found.draws) == 3 and min(found.draws) > 40
    # The first cycle is the first draw, and what is lost adds up.
    assert found.drift[0] == pytest.approx(found.draws[0], abs=1e-3)
    assert found.drift[2] < found.drift[0] and all(map(math.isfinite, found.drift))
    assert "target" in found.to_text() and len(found.plot().axes) == 1
    with pytest.raises(ValueError, match="at least one draw and one cycle"):
        lr_consistency(flow, lr, cycles=0)
