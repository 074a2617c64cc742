"""Latent surgery: what must stay stays, what is drawn has the model's distribution, and ends meet."""

import pytest
import torch
from cases import tiny_flow

from flowsr.posterior import LinearGaussianFlow
from flowsr.posterior.surgery import interpolate, resample, restore, sample_with_temperature_map, transfer


@pytest.fixture
def flow():
    return tiny_flow().double().requires_grad_(False)


def _image(flow, size=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    lr = torch.rand(3, size // 4, size // 4, generator=generator, dtype=torch.float64)
    return flow.sample(lr, temperature=0.5, generator=generator)[0]


def test_resampling_a_level_keeps_the_others(flow):
    hr = _image(flow)
    before = flow.encode(hr)
    for drawn in resample(flow, hr, levels=[1], num_samples=3):
        after = flow.encode(drawn)
        assert torch.allclose(after.lr, before.lr, atol=1e-8) and torch.allclose(after.z[0], before.z[0], atol=1e-6)
        assert (after.z[1] - before.z[1]).abs().mean() > 0.3
    assert torch.allclose(resample(flow, hr, levels=[])[0], hr, atol=1e-8)


def test_a_masked_region_is_drawn_and_the_rest_of_the_latents_kept(flow):
    hr = _image(flow)
    mask = torch.zeros(16, 16)
    mask[:, 8:] = 1
    before, after = flow.encode(hr), flow.encode(resample(flow, hr, mask=mask)[0])
    for old, new in zip(before.z, after.z, strict=True):
        half = old.shape[-1] // 2
        assert torch.allclose(new[..., :half], old[..., :half], atol=1e-6)
        assert (new[..., half:] - old[..., half:]).abs().mean() > 0.3


def test_far_from_the_mask_pixels_stay_in_a_local_flow():
    flow = LinearGaussianFlow(detail_std=(0.1, 0.05))
    hr = flow.sample(torch.rand(1, 8, 8))[0]
    mask = torch.zeros(32, 32)
    mask[:, 16:] = 1
    drawn = resample(flow, hr, mask=mask)[0]
    assert torch.allclose(drawn[..., :12], hr[..., :12], atol=1e-6)
    assert (drawn[..., 16:] - hr[..., 16:]).abs().mean() > 0.02


def test_partial_masks_keep_the_distribution():
    """√(1−m)·old + √m·new of standard normals is standard normal: so are the latents of the result."""
    flow = LinearGaussianFlow(detail_std=(0.1, 0.05))
    hr = flow.sample(torch.rand(1, 8, 8))[0]
    drawn = resample(flow, hr, mask=torch.full((32, 32), 0.3), num_samples=40)
    z = flow.encode(drawn).z[1]
    assert abs(float(z.var()) - 1) < 0.1


def test_a_temperature_map_works_pixel_by_pixel():
    flow, lr = LinearGaussianFlow(detail_std=(0.1, 0.05)), torch.rand(1, 4, 4)
    tau = torch.ones(16, 16)
    tau[:8] = 0
    draws = sample_with_temperature_map(flow, lr, tau, num_samples=200, generator=torch.Generator().manual_seed(0))
    still = flow.posterior(lr).mean.reshape(1, 16, 16)
    assert torch.allclose(draws[:, :, :6], still[:, :6].float().expand(200, -1, -1, -1), atol=1e-5)
    exact = flow.posterior(lr).std.reshape(16, 16)
    assert (draws.std(0)[0, 12:] / exact[12:] - 1).abs().max() < 0.3
    plain = sample_with_temperature_map(flow, lr, [1.0, 1.0], generator=torch.Generator().manual_seed(3))
    assert torch.equal(plain, sample_with_temperature_map(flow, lr, 1.0, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(plain, flow.sample(lr, generator=torch.Generator().manual_seed(3)))


def test_a_path_ends_where_it_should_and_keeps_the_norm(flow):
    a, b = _image(flow, seed=1), _image(flow, seed=2)
    path = interpolate(flow, a, b, steps=5)
    assert torch.allclose(path[0], a, atol=1e-7) and torch.allclose(path[-1], b, atol=1e-7)
    middle = flow.encode(path[2])
    straight = flow.encode(interpolate(flow, a, b, steps=5, spherical=False)[2])
    ends = (flow.encode(a), flow.encode(b))
    for i, z in enumerate(middle.z):
        mean = sum(float(end.z[i].norm()) for end in ends) / 2
        assert abs(float(z.norm()) / mean - 1) < 0.1
        assert float(straight.z[i].norm()) < 0.85 * mean
    assert torch.allclose(middle.lr, (ends[0].lr + ends[1].lr) / 2, atol=1e-7)
    assert torch.allclose(interpolate(flow, a, a)[1], a, atol=1e-7)


def test_transfer_takes_the_latents(flow):
    source, other = _image(flow, seed=1), _image(flow, seed=2)
    lr = flow.encode(other).lr
    result = flow.encode(transfer(flow, source, lr))
    assert torch.allclose(result.lr, lr, atol=1e-8)
    assert all(torch.allclose(z, own, atol=1e-6) for z, own in zip(result.z, flow.encode(source).z, strict=True))
    fine = flow.encode(transfer(flow, source, lr, levels=[1]))
    assert fine.z[0].abs().max() < 1e-6
    assert torch.allclose(transfer(flow, source, flow.encode(source).lr), source, atol=1e-7)


def test_restoring_takes_noise_away():
    """Details of a known model with noise on top: normal latents are nearer to the truth."""
    flow = LinearGaussianFlow(detail_std=(0.03, 0.015))
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(1, 16, 16, generator=generator)
    clean = flow.sample(lr, generator=generator)[0]
    noisy = clean + 0.08 * torch.randn(clean.shape, generator=generator)
    restored = restore(flow, noisy, lr)
    assert (restored - clean).square().mean() < 0.4 * (noisy - clean).square().mean()
    assert abs(float(flow.encode(restored).z[1].std()) - 1) < 1e-3


def test_messages(flow):
    hr = _image(flow)
    for call, message in [
        (lambda: resample(flow, hr, levels=[3]), r"levels among 1 or 2, 1 the finest; got \[3\]"),
        (lambda: resample(flow, hr, mask=torch.ones(4, 4)), r"size, \(16, 16\); got \(4, 4\)"),
        (lambda: resample(flow, hr, mask=torch.full((16, 16), 2.0)), r"mask in \[0, 1\]"),
        (lambda: resample(flow, hr, mask=torch.full((16, 16), torch.nan)), "finite map; got NaN"),
        (lambda: resample(flow, hr, lr=torch.rand(3, 8, 8)), r"own size, \(3, 4, 4\); got \(3, 8, 8\)"),
        (lambda: restore(flow, hr, torch.rand(2, 3, 4, 4)), r"own size, \(3, 4, 4\); got \(2, 3, 4, 4\)"),
        (lambda: resample(flow, hr[None]), "one image"),
        (lambda: transfer(flow, hr, torch.rand(3, 2, 2)), "own size"),
        (lambda: transfer(flow, hr, flow.encode(hr).lr, levels=[0]), "levels among 1 or 2"),
        (lambda: interpolate(flow, hr, hr[:, :8]), "one shape"),
        (lambda: sample_with_temperature_map(flow, torch.rand(3, 4, 4), [1.0]), "one map or 2"),
        (lambda: sample_with_temperature_map(flow, torch.rand(3, 4, 4), -torch.ones(16, 16)), ">= 0 in the map"),
        (lambda: restore(flow, hr, temperature=-1.0), "temperatures >= 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
