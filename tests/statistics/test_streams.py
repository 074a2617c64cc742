"""Quantiles and principal components of streams: against those of all images at once."""

from dataclasses import replace

import pytest
import torch

from flowsr.posterior import LinearGaussianFlow, StreamingSummary, summarize_draws
from flowsr.statistics import PixelQuantiles, PrincipalComponents, RunningMoments


def _leading(x, number):
    return torch.linalg.eigvalsh(torch.cov(x.flatten(1).double().T)).flip(0)[:number].float()


def test_quantiles_of_few_draws_are_exact():
    x, quantiles = torch.randn(20, 2, 6, 5), PixelQuantiles()
    quantiles.add(x)
    assert torch.allclose(quantiles.quantile([0.3]), torch.quantile(x, 0.3, dim=0)[None])
    assert not quantiles.error.any()


def test_quantiles_of_pixels_that_never_change():
    quantiles = PixelQuantiles()
    quantiles.add(torch.full((100, 1, 2, 2), 0.25))
    assert torch.allclose(quantiles.quantile([0.5]), torch.tensor(0.25), atol=1e-6)


@pytest.mark.parametrize("n", [30, 400])
def test_the_sketch_keeps_its_bound_on_a_flat_spectrum(n):
    """Nothing to compress: the error bound is large, and still holds."""
    x = torch.randn(n, 1, 8, 10)
    pca = PrincipalComponents(4, rows=12)
    pca.add(x)
    _, found = pca.components()
    top = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T)).flip(0)[:4]
    assert ((found - top).abs() <= pca.error + 1e-4 * top).all()
    energy = float((x - x.mean(0)).square().sum())
    assert pca.shrunk <= (energy + n * float(pca._sum.square().sum()) / n**2) / 12 * 1.01


def test_images_of_fewer_pixels_than_rows():
    x = torch.randn(500, 1, 1, 3) * torch.tensor([3.0, 1.0, 0.1])
    pca = PrincipalComponents(2)
    pca.add(x)
    _, found = pca.components()
    assert torch.allclose(found, torch.linalg.eigvalsh(torch.cov(x.flatten(1).T)).flip(0)[:2], rtol=1e-3)
    assert pca.error == 0


@pytest.mark.parametrize("spectrum", ["flat", "falling", "one that stands out"])
def test_variances_are_those_of_the_same_images(spectrum):
    """The sketch's own eigenvalues are shrunk: a share of 2.8 % was shown as 0.8 %."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, 16, 16, generator=generator)
    if spectrum == "falling":
        x *= torch.linspace(1, 0.05, 768).square().reshape(3, 16, 16)
    if spectrum == "one that stands out":
        x += 40 * torch.randn(400, 1, 1, 1, generator=generator) * x[0] / x[0].norm()
    pca = PrincipalComponents(3)
    for batch in x.split(7):
        pca.add(batch)
    vectors, found = pca.components()
    assert pca.error == 0 and torch.allclose(found, _leading(x, 3), rtol=1e-3)
    along = ((x - x.mean(0)).flatten(1) @ vectors.flatten(1).T).var(0)
    assert torch.allclose(found, along, rtol=1e-3)


def test_what_does_not_fit_says_how_far_it_may_be_off():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1, 20, 20, generator=generator)
    x += 60 * torch.randn(300, 1, 1, 1, generator=generator) * x[0] / x[0].norm()
    pca = PrincipalComponents(2, rows=10)
    pca.add(x)
    _, found = pca.components()
    top = _leading(x, 2)
    assert 0 < pca.error < 0.05 * float(top[0])
    assert ((found - top).abs() <= pca.error + 1e-3 * top).all()


KINDS = {
    "components": (lambda: PrincipalComponents(2, rows=8), lambda stream: stream.components()),
    "moments": (RunningMoments, lambda stream: (stream.mean, stream.std)),
    "quantiles": (lambda: PixelQuantiles(bins=16, pilot=8), lambda stream: [stream.quantile((0.1, 0.5))]),
    "summary": (
        lambda: StreamingSummary(components=2, truth=torch.zeros(1, 4, 4)),
        lambda stream: [getattr(stream.result(), name) for name in ("mean", "quantiles", "variances", "exceedance")],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_stays_what_it_was_while_its_stream_and_those_resumed_from_it_go_on(kind):
    make, read = KINDS[kind]

    def add(stream, images):
        for batch in images if kind == "moments" else [images]:
            stream.add(batch)

    images = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    stream = make()
    add(stream, images[:150])
    then, state = [value.clone() for value in read(stream)], stream.state_dict()
    add(stream, images[150:])  # the stream goes on
    for _ in range(2):  # so do two others, one after the other
        resumed = make()
        resumed.load_state_dict(state)
        assert all(map(torch.equal, read(resumed), then))
        add(resumed, images[150:])
        assert all(map(torch.equal, read(resumed), read(stream)))


def test_a_summary_shows_a_range_where_shares_are_open():
    flow, lr = LinearGaussianFlow(detail_std=(0.1, 0.05)), torch.rand(1, 4, 4)
    exact = summarize_draws(flow, lr, num_samples=200)
    open_ = replace(exact, variance_error=float(exact.variances[0]) / 4)
    shares = [s.to_text().split("leading components")[1].splitlines()[0].split("  ")[-1] for s in (exact, open_)]
    assert exact.variance_error == 0 and "to" not in shares[0]
    share = 100 * float(exact.variances[0]) / float(exact.std.square().sum())
    assert shares[1].strip().startswith(f"{0.75 * share:.1f} to {1.25 * share:.1f}%")
