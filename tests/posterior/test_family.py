"""Posterior studies ask what a model offers: they serve SRFlow and IRN too."""

import math

import pytest
import torch
from analyses import STUDIES
from cases import tiny

import flowsr
from flowsr.calibration import flow_sampler, latent_pit
from flowsr.images import make_lr
from flowsr.posterior import (
    GaussianLR,
    GaussianNoise,
    Identity,
    InverseProblem,
    Mask,
    interpolate,
    lr_consistency,
    resample,
    solve,
    summarize_draws,
    transfer,
)


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


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4"])
def test_studies_serve_every_conditional_model(name, study):
    model, hr = tiny(name, strength=0.05).requires_grad_(False), torch.rand(3, 16, 16)
    assert torch.isfinite(STUDIES[study](model, hr, make_lr(hr, 4))).all()


@pytest.mark.parametrize("study", STUDIES)
def test_studies_refuse_a_density_of_images_alone(study):
    hr = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match="expected a model with the capability condition; got Glow, which has density"):
        STUDIES[study](tiny("glow"), hr, make_lr(hr, 4))


def test_surgery_of_srflow_is_that_of_its_latents():
    """With the LR image as it is told, and the bicubic one otherwise."""
    model = tiny("srflow-x4", strength=0.1).double().requires_grad_(False)
    hr, other = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    lr, else_lr = make_lr(hr, 4), torch.rand(3, 4, 4, dtype=torch.float64)
    own = model.encode(hr, lr)
    kept = model.encode(resample(model, hr, levels=[1])[0], lr)
    assert torch.allclose(kept.z[0], own.z[0]) and not torch.allclose(kept.z[1], own.z[1], atol=0.1)
    assert model.latent_levels() == (3, 1)
    told = model.encode(resample(model, hr, lr=else_lr, levels=[3])[0], else_lr)
    assert torch.allclose(told.z[1], model.encode(hr, else_lr).z[1])
    for path in (interpolate(model, hr, other), interpolate(model, hr, other, lr=else_lr, other_lr=else_lr)):
        assert torch.allclose(path[0], hr, atol=1e-8) and torch.allclose(path[-1], other, atol=1e-8)
    given = transfer(model, hr, else_lr)
    assert all(torch.allclose(a, b) for a, b in zip(model.encode(given, else_lr).z, own.z, strict=True))
    with pytest.raises(ValueError, match=r"levels among 1 or 3, 1 the finest; got \[2\]"):
        resample(model, hr, levels=[2])


def test_whitening_is_the_inverse_for_srflow():
    model = tiny("srflow-x4", strength=0.1).double().requires_grad_(False)
    hr, lr = torch.rand(3, 16, 16, dtype=torch.float64), torch.rand(3, 4, 4, dtype=torch.float64)
    problem = InverseProblem(model, lr, Identity(), hr, GaussianNoise(0.1))
    assert torch.allclose(problem.decode(problem.whiten(hr)), hr, atol=1e-8)
    assert torch.allclose(problem.decode(problem.whiten(hr.expand(2, 3, 16, 16))), hr.expand(2, 3, 16, 16), atol=1e-8)
    blind = InverseProblem(model, GaussianLR(lr, std=0.1), Identity(), hr, GaussianNoise(0.1))
    assert torch.allclose(blind.unwhiten(blind.whiten(hr))[0], make_lr(hr, 4), atol=1e-8)
    assert torch.allclose(blind.decode(blind.whiten(hr)), hr, atol=1e-8)


def test_a_width_of_the_lr_image_is_refused_where_it_is_no_latent():
    model, hr = tiny("srflow-x4").requires_grad_(False), torch.rand(3, 16, 16)
    lr = make_lr(hr, 4)
    for call in (
        lambda: InverseProblem(model, lr, Identity(), hr, GaussianNoise(0.1), lr_log_scale=-3.0),
        lambda: latent_pit(model, hr.expand(10, 3, 16, 16), lr.expand(10, 3, 4, 4), lr_log_scale=-3.0),
    ):
        with pytest.raises(ValueError, match="the capability lr-latent; got SRFlow"):
            call()
    for call in (
        lambda: summarize_draws(model, lr, num_samples=4, lr_log_scale=-3.0),
        lambda: flow_sampler(model, lr_log_scale=-3.0)(lr, 3, torch.Generator()),
    ):
        with pytest.raises(ValueError, match="expected no lr_log_scale for SRFlow"):
            call()


@pytest.mark.parametrize("name", ["sr-x4", "irn-x4", "srflow-x4"])
def test_encoding_checks_the_lr_image_it_is_given(name):
    model = tiny(name).requires_grad_(False)
    hr = torch.rand(2, 3, 16, 16)
    lr = make_lr(hr, 4)
    assert model.encode(hr, lr).lr.shape == lr.shape
    padded = model.encode(hr[..., :14, :11], lr[..., :3], pad=True)
    assert padded.size == (14, 11) and model.decode(padded).shape == (2, 3, 14, 11)
    for given, message in [
        (lr[..., :2], "an lr of 4 × 4 pixels for this hr; got 2 × 4 pixels"),
        (255 * lr, r"lr: expected values in \[0, 1\]"),
        (lr[:, :1], "lr: expected 3 channels"),
        (lr.expand(3, 2, 3, 4, 4), "whose batch broadcasts to that of hr"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.encode(hr, given)


def test_srflow_encodes_given_the_lr_image():
    with pytest.raises(ValueError, match=r"LR image too, as SRFlow .*; got none: .* flowsr.images.make_lr\(hr, 4\)"):
        tiny("srflow-x4").encode(torch.rand(3, 16, 16))
