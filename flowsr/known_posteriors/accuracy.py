"""How far draws are from a known posterior: moments, intervals, distances of distributions, a classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flowsr._support.extras import import_extra
from flowsr.calibration import HeldOut
from flowsr.known_posteriors.budget import Draws
from flowsr.known_posteriors.truth import KnownPosterior
from flowsr.posterior.diagnostics import chain_statistics

LEVEL = 0.9
"""Nominal coverage of the central intervals, or next to it as the number of draws allows."""

_PER_TRUTH = 9  # draws that TARP compares each truth with, none of them twice
_PIXELS = 64  # of which effective draws are counted, evenly spaced


def chosen_draws(known: KnownPosterior, draws: Draws, num_samples: int) -> Tensor:
    """The images that are judged, ``(n, C, H, W)`` in float64: evenly spaced over all there are.

    Cost: a decoding pass of as many images as are wanted, where the sampler returned latents.
    """
    given = draws.latents.flatten(0, 1) if draws.images is None and draws.latents is not None else draws.images
    assert given is not None, "Draws has latents or images"
    count = min(num_samples, len(given))
    some = given[torch.linspace(0, len(given) - 1, count, device=given.device).round().long()]
    return (some.detach() if draws.images is not None else known.decode(some)).double().cpu()


def accuracy(known: KnownPosterior, images: Tensor, *, seed: int, classify: bool = False) -> dict[str, float]:
    """Figures of draws against the known posterior; NaN where there is none.

    With ``z = (x − mean)/std`` pixel by pixel, of the reference:

    - ``mean_error``: root mean square over pixels of the mean of z: 0 is right, of n exact draws about ``1/√n``;
    - ``std_bias``: mean over pixels of the standard deviation of z, less 1: 0.3 is 30 % too wide;
    - ``std_error``: root mean square over pixels of the same;
    - ``coverage``: share of pixels of reference draws within the central interval of the draws;
    - ``energy``: ``(2·E|X − Y| − E|X − X'| − E|Y − Y'|)/(2·E|X − Y|)`` of z of draws X and reference draws Y, without
      bias: 0 for the same distribution, at most 1;
    - ``c2st``: accuracy of sbi's random forest that tells draws from reference draws, if asked for: 0.5 is right.

    Cost: the distances of n draws, and a forest.

    Args:
        known: the posterior.
        images: draws ``(n, C, H, W)``; of a single one there is no spread.
        seed: of the reference draws, and of the forest.
        classify: whether to grow the forest, a second or two; needs sbi.

    Raises:
        MissingExtraError: to classify without sbi.

    References:
        Székely and Rizzo, Energy statistics (J. Statistical Planning and Inference 2013), section 5; Lopez-Paz and
        Oquab, Revisiting classifier two-sample tests (ICLR 2017).

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known = known_posterior("linear deblurring")
        >>> found = accuracy(known, known.reference.mean + 0.5 * known.reference.std[None].repeat(4, 1, 1, 1), seed=0)
        >>> round(found["mean_error"], 3), found["std_bias"]
        (0.5, -1.0)
    """
    z = known.reference.standardized(images)
    spread = z.std(0) if len(z) > 1 else torch.zeros_like(z[0])
    found = {
        "mean_error": _rms(z.mean(0)),
        "std_bias": float(spread.mean()) - 1,
        "std_error": _rms(spread - 1),
        **dict.fromkeys(("coverage", "energy", "c2st"), math.nan),
    }
    truths = known.reference.images(len(z), seed)
    if truths is not None and len(z) > 1:
        y = known.reference.standardized(truths)
        found |= {"coverage": _coverage(z, y), "energy": energy_distance(z, y)}
        found["c2st"] = _two_sample(z, y, seed) if classify else math.nan
    return found


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def nominal_coverage(count: int) -> float:
    """Probability that the central interval of ``count`` exact draws holds another.

    Example:
        >>> nominal_coverage(99)
        0.9
    """
    return (count + 1 - 2 * _cut(count)) / (count + 1)


def _cut(count: int) -> int:
    return max(1, round((1 - LEVEL) / 2 * (count + 1)))


def _coverage(z: Tensor, truths: Tensor) -> float:
    ordered, cut = z.sort(0).values, _cut(len(z))
    return float(((truths > ordered[cut - 1]) & (truths < ordered[-cut])).double().mean())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """``(2·E|X − Y| − E|X − X'| − E|Y − Y'|)/(2·E|X − Y|)`` of samples ``(n, D)`` and ``(m, D)``, without bias.

    Cost: O((n + m)²·D).

    Args:
        x: at least two draws.
        y: at least two draws.

    References:
        Székely and Rizzo, Energy statistics (J. Statistical Planning and Inference 2013), section 5.

    Example:
        >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
        >>> abs(energy_distance(x[:150], x[150:])) < 0.01, energy_distance(x, x + 3) > 0.3
        (True, True)
    """
    between = 2 * float(torch.cdist(x, y).mean())
    within = sum(float(torch.pdist(part).mean()) for part in (x, y))
    return (between - within) / between


def _two_sample(x: Tensor, y: Tensor, seed: int) -> float:
    metrics = import_extra("sbi.utils.metrics", to="tell draws apart by a classifier", quietly=True)
    return float(metrics.c2st(x.float(), y.float(), seed=seed + 1, classifier="rf"))


def mixing(known: KnownPosterior, draws: Draws) -> tuple[float, float]:
    """Effective draws of the pixel that has fewest, of all chains, and the largest R-hat; NaN where nothing mixes.

    Cost: a decoding pass of all draws, where the sampler returned latents.
    """
    chains = draws.chains if draws.images is not None or draws.latents is None else len(draws.latents)
    if not draws.correlated:
        return math.nan, math.nan
    images = draws.images
    if images is None and draws.latents is not None:
        images = known.decode(draws.latents.flatten(0, 1))
    assert images is not None, "Draws has latents or images"
    pixels = images.detach().cpu().flatten(1).unflatten(0, (chains, -1))
    if pixels.shape[1] < 4:
        return math.nan, math.nan
    some = torch.linspace(0, pixels.shape[-1] - 1, min(_PIXELS, pixels.shape[-1]), device="cpu").round().long()
    rhat, ess = chain_statistics({str(i): pixels[..., i] for i in some.tolist()})
    return min(ess.values()), max(rhat.values())


def reference_pairs(known: KnownPosterior, images: Tensor, *, seed: int) -> HeldOut | None:
    """Reference draws as truths, each with nine of the draws, and a draw of the prior to take distances to.

    What :func:`flowsr.calibration.tarp` needs; None without reference draws, or for fewer than nine draws.

    Cost: as many decoding passes as there are truths.

    Args:
        known: the posterior.
        images: draws ``(n, C, H, W)``, no two of which meet one truth.
        seed: of truths, references and of who meets whom.
    """
    if len(images) < _PER_TRUTH:
        return None
    truths = known.reference.images(len(images) // _PER_TRUTH, seed)
    if truths is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    count = min(len(truths), len(images) // _PER_TRUTH)
    order = torch.randperm(len(images), generator=generator, device="cpu")[: count * _PER_TRUTH]
    chosen = torch.randperm(len(truths), generator=generator, device="cpu")[:count]
    white = torch.randn(count, known.problem.dims, generator=generator, device="cpu")
    prior = known.decode(white)
    z, y, places = (known.reference.standardized(part) for part in (images[order], truths[chosen], prior))
    z = z.unflatten(0, (count, _PER_TRUTH))
    pairs = _PER_TRUTH * (_PER_TRUTH - 1)
    return HeldOut(
        names=("first pixel",),
        truth=y[:, :1],
        draws=z[..., :1],
        reference_truth=(y - places).norm(dim=-1),
        reference_draws=(z - places[:, None]).norm(dim=-1),
        energy=(z - y[:, None]).norm(dim=-1).mean(-1) - 0.5 * torch.cdist(z, z).sum((-1, -2)) / pairs,
    )


def joined_pairs(parts: Sequence[HeldOut]) -> HeldOut:
    """The pairs of several seeds, at least one, as one."""

    def joined(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return HeldOut(
        names=parts[0].names,
        truth=joined("truth"),
        draws=joined("draws"),
        reference_truth=joined("reference_truth"),
        reference_draws=joined("reference_draws"),
        energy=joined("energy"),
    )
