"""Streaming summaries: against the same figures of all draws at once, in memory that does not grow, resumable."""

import math
import tracemalloc

import pytest
import torch

from flowsr._support.states import write_state
from flowsr.errors import CheckpointError
from flowsr.posterior import LinearGaussianFlow
from flowsr.posterior.streaming import StreamingSummary
from flowsr.posterior.summarize import PeakMemory, batch_for_memory, summarize_draws
from flowsr.posterior.uncertainty import uncertainty_quality
from flowsr.statistics import PixelQuantiles, PrincipalComponents


def _draws(n, shape=(2, 6, 5), rank=3, seed=0):
    """Images with a few strong directions, some skewed, around a mean away from zero."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(torch.Size(shape).numel(), rank, generator=generator))[0].T
    weights = torch.randn(n, rank, generator=generator) * torch.tensor([3.0, 2.0, 1.0])[:rank]
    weights[:, -1] = weights[:, -1].exp() / 2
    noise = 0.1 * torch.randn(n, *shape, generator=generator)
    return 0.5 + (weights @ directions).reshape(n, *shape) + noise


def test_everything_against_all_draws_at_once():
    x = _draws(3000)
    summary = StreamingSummary(thresholds=(0.5, 0.8), components=3, truth=torch.full((2, 6, 5), 0.5))
    for batch in x.split(70):
        summary.add(batch)
    found = summary.result()
    assert torch.allclose(found.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(found.std, x.std(0), rtol=1e-4)
    exact = torch.quantile(x, torch.tensor(found.levels), dim=0)
    assert ((found.quantiles - exact).abs() <= found.quantile_error).all()
    assert found.outside < 1e-3 and (found.quantile_error < 0.25 * found.std).all()
    assert torch.allclose(found.exceedance[1], (x > 0.8).float().mean(0))
    values, vectors = torch.linalg.eigh(torch.cov(x.flatten(1).T))
    top = values.flip(0)[:3]
    assert ((found.variances - top).abs() <= found.variance_error + 1e-4 * top).all()
    for vector, expected in zip(found.components.flatten(1), vectors.T.flip(0), strict=False):
        assert abs(float(vector @ expected)) > 0.999
    error = (x[:8].mean(0) - 0.5).square().mean()
    assert math.isclose(found.psnr_of_mean[found.psnr_counts.index(8)], float(-10 * error.log10()), rel_tol=1e-4)
    assert found.psnr_counts[-1] == 3000


def _flow():
    return LinearGaussianFlow(detail_std=(0.1, 0.05)), torch.rand(1, 4, 4)


def test_draws_of_a_known_posterior():
    flow, lr = _flow()
    exact = flow.posterior(lr)
    found = summarize_draws(flow, lr, num_samples=4000)
    assert ((found.mean.flatten() - exact.mean).abs() / exact.std * math.sqrt(4000)).max() < 4.5
    assert (found.std.flatten() / exact.std - 1).abs().max() < 4.5 / math.sqrt(8000)
    normal = torch.distributions.Normal(exact.mean, exact.std)
    expected = normal.icdf(torch.tensor(0.95).double())
    assert ((found.quantiles[-1].flatten() - expected).abs() / exact.std).max() < 0.2
    # Leading variances of a sample exceed those of the distribution, at most by Marchenko and Pastur's factor.
    top = torch.linalg.eigvalsh(exact.covariance).flip(0)[:4]
    edge = (1 + math.sqrt(len(exact.mean) / 4000)) ** 2
    assert (found.variances >= 0.95 * top - found.variance_error).all()
    assert (found.variances <= edge * top + found.variance_error).all()


def test_the_batch_does_not_matter_and_the_seed_does():
    flow, lr = _flow()
    one = summarize_draws(flow, lr, num_samples=50, memory=1.0)
    many = summarize_draws(flow, lr, num_samples=50, memory=1e9)
    assert torch.allclose(one.mean, many.mean, atol=1e-6) and torch.allclose(one.quantiles, many.quantiles, atol=1e-5)
    assert not torch.allclose(one.mean, summarize_draws(flow, lr, num_samples=50, seed=1).mean, atol=1e-4)


def test_a_run_can_stop_and_resume(tmp_path):
    flow, lr = _flow()
    file = tmp_path / "state.pt"
    whole = summarize_draws(flow, lr, num_samples=200, memory=1.0)

    class Stop(Exception):
        pass

    seen = []

    def stop(number):
        seen.append(number)
        if len(seen) == 95:
            raise Stop

    with pytest.raises(Stop):
        summarize_draws(flow, lr, num_samples=200, memory=1.0, checkpoint=file, checkpoint_every=20, on_draws=stop)
    after = []
    resumed = summarize_draws(flow, lr, num_samples=200, memory=1.0, checkpoint=file, on_draws=after.append)
    assert sum(after) == 120, "from the last state, at 80"
    for name in ("mean", "std", "quantiles", "components", "exceedance"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name)), name
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    with pytest.raises(ValueError, match="the same seed"):
        summarize_draws(flow, lr, num_samples=300, seed=1, checkpoint=file)
    with pytest.raises(ValueError, match="the same lr"):
        summarize_draws(flow, lr / 2, num_samples=300, checkpoint=file)
    with pytest.raises(ValueError, match="settings of the first run"):
        summarize_draws(flow, lr, num_samples=300, checkpoint=file, summary=StreamingSummary(bins=64))
    with pytest.raises(ValueError, match="the same model"):
        summarize_draws(LinearGaussianFlow(detail_std=(0.1, 0.06)), lr, num_samples=300, checkpoint=file)
    truth = StreamingSummary(truth=torch.rand(1, 16, 16))
    with pytest.raises(ValueError, match="the truth of the state"):
        summarize_draws(flow, lr, num_samples=300, checkpoint=file, summary=truth)


def test_a_state_that_is_damaged_is_refused_and_left_alone(tmp_path):
    flow, lr = _flow()
    file = tmp_path / "state.pt"
    summarize_draws(flow, lr, num_samples=40, checkpoint=file)
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        b"",
        whole[:middle],
        b"hello world",
        whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
    ):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="summary of draws"):
            summarize_draws(flow, lr, num_samples=60, checkpoint=file)
        assert file.read_bytes() == damaged
    write_state(file, {"summary": 3}, kind="summary of draws")
    with pytest.raises(CheckpointError, match=r"state\.pt is whole, but something in it is missing .*KeyError"):
        summarize_draws(flow, lr, num_samples=60, checkpoint=file)
    file.write_bytes(whole)
    assert summarize_draws(flow, lr, num_samples=60, checkpoint=file).count == 60


def test_a_state_that_cannot_be_written_is_found_out_before_the_first_draw(tmp_path):
    flow, lr = _flow()
    for path, error in ((tmp_path, CheckpointError), (tmp_path / "no" / "state.pt", FileNotFoundError)):
        with pytest.raises(error):
            summarize_draws(flow, lr, num_samples=40, checkpoint=path, on_draws=lambda _: pytest.fail("drawn"))
    assert not list(tmp_path.iterdir())


def test_batches_are_sized_by_measuring():
    with PeakMemory() as memory:
        x = torch.zeros(1000)
        y = x.exp()
        del x
        z = y.view(10, 100) + 1
    assert memory.peak == 8000 and z.shape == (10, 100)
    flow, lr = _flow()

    def peak(n):
        with PeakMemory() as memory:
            flow.sample(lr, num_samples=n)
        return memory.peak

    batch = batch_for_memory(lambda: flow.sample(lr), memory=40_000)
    assert 1 < batch < 64 and peak(batch) < 1.3 * 40_000
    with pytest.raises(ValueError, match="memory > 0"):
        batch_for_memory(lambda: None, memory=0)


@pytest.mark.slow
def test_ten_thousand_draws_of_160_pixels_in_memory_that_does_not_grow():
    import resource

    flow, lr = LinearGaussianFlow(detail_std=(0.08, 0.04)), torch.rand(1, 40, 40)
    peaks, seen = {}, []

    def watch(number):
        seen.append(number)
        count = sum(seen)
        for mark in (1000, 10_000):
            if count >= mark and mark not in peaks:
                peaks[mark] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    result = summarize_draws(flow, lr, num_samples=10_000, memory=5e7, on_draws=watch)
    assert result.count == 10_000 and result.mean.shape == (1, 160, 160)
    # In KiB: all draws would take a gigabyte.
    assert peaks[10_000] - peaks[1000] < 20_000, peaks
    assert (result.std > 0).all()


def test_python_memory_does_not_grow_either():
    flow, lr = _flow()
    tracemalloc.start()
    try:
        sizes = []
        summarize_draws(
            flow, lr, num_samples=600, memory=1.0, on_draws=lambda _: sizes.append(tracemalloc.get_traced_memory()[0])
        )
    finally:
        tracemalloc.stop()
    assert sizes[-1] < sizes[200] + 100_000


def test_uncertainty_of_a_right_model_and_of_one_too_sure():
    flow = LinearGaussianFlow(detail_std=(0.1, 0.05))
    levels = tuple(i / 10 for i in range(1, 10))
    pairs = []
    for seed, tau in ((0, 1.0), (1, 1.0), (2, 1.0), (0, 0.5), (1, 0.5), (2, 0.5)):
        generator = torch.Generator().manual_seed(seed)
        lr = torch.rand(1, 8, 8, generator=generator)
        truth = flow.sample(lr, generator=generator)[0]
        summary = StreamingSummary(levels=levels, truth=truth)
        pairs.append(
            (summarize_draws(flow, lr, num_samples=300, temperature=tau, summary=summary, seed=9 + seed), truth)
        )
    right = uncertainty_quality(*zip(*pairs[:3], strict=True))
    assert abs(right.calibration_slope - 1) < 0.1
    assert max(abs(b - q) for b, q in zip(right.below, right.levels, strict=True)) < 0.06
    sure = uncertainty_quality(*zip(*pairs[3:], strict=True))
    assert abs(sure.calibration_slope - 2) < 0.2
    assert sure.below[0] > 0.2
    assert len(right.plot().axes) == 3 and len(pairs[0][0].plot().axes) >= 8
    assert "AUSE" in right.to_text() and "PSNR of the mean of 256" in pairs[0][0].to_text()
    # The mean square error of the mean of n draws falls from twice the variance to once.
    summary = pairs[0][0]
    gain = summary.psnr_of_mean[-1] - summary.psnr_of_mean[0]
    assert 2.2 < gain < 3.8


def test_sparsification_by_hand():
    flow = LinearGaussianFlow(detail_std=(0.1,))
    summary = summarize_draws(flow, torch.rand(1, 8, 8), num_samples=40)
    std = torch.linspace(0.1, 1.0, 256).reshape(1, 16, 16)
    from dataclasses import replace

    good = uncertainty_quality([replace(summary, std=std)], [summary.mean + std])
    assert good.ause < 1e-6 and torch.allclose(good.std, good.rmse, rtol=1e-3)
    bad = uncertainty_quality([replace(summary, std=std.flip(1).flip(2))], [summary.mean + std])
    assert bad.ause > bad.ause_random > 0.1


def test_messages():
    with pytest.raises(ValueError, match="rising order"):
        StreamingSummary(levels=(0.5, 0.1))
    with pytest.raises(ValueError, match="8 bins"):
        PixelQuantiles(bins=2)
    with pytest.raises(ValueError, match="more rows"):
        PrincipalComponents(5, rows=5)
    summary = StreamingSummary()
    with pytest.raises(ValueError, match="at least two images"):
        summary.result()
    with pytest.raises(ValueError, match="NaN"):
        summary.add(torch.full((1, 1, 2, 2), math.nan))
    summary.add(torch.rand(2, 1, 2, 2))
    with pytest.raises(ValueError, match="shape of those before"):
        summary.add(torch.rand(2, 1, 3, 3))
    with pytest.raises(ValueError, match="num_samples >= 2"):
        summarize_draws(*_flow(), num_samples=1)
    flow, lr = _flow()
    summary = StreamingSummary()
    found = summarize_draws(flow, lr, num_samples=20, summary=summary)
    with pytest.raises(ValueError, match="summary without draws; got one of 20"):
        summarize_draws(flow, lr / 2, num_samples=40, summary=summary)
    with pytest.raises(ValueError, match="one LR image"):
        summarize_draws(flow, lr[None], num_samples=40)
    with pytest.raises(ValueError, match=r"truth of the images' shape, \(1, 16, 16\); got \(1, 8, 8\)"):
        summarize_draws(flow, lr, num_samples=40, summary=StreamingSummary(truth=torch.rand(1, 8, 8)))
    with pytest.raises(ValueError, match="truth: expected finite"):
        StreamingSummary(truth=torch.full((1, 16, 16), math.nan))
    with pytest.raises(ValueError, match="truth: expected finite"):
        uncertainty_quality([found], [torch.full((1, 16, 16), math.nan)])
    with pytest.raises(ValueError, match="thresholds that are numbers"):
        StreamingSummary(thresholds=(math.nan,))
    with pytest.raises(ValueError, match="as many truths"):
        uncertainty_quality([], [])
