"""Conformal quantiles of held-out scores: bounds that a fresh image keeps with a probability, whatever the model.

What is exchangeable is the *image*. Crops of one image are alike, and so are its pixels: to count them as independent
would promise what ten images cannot keep. So every image has the same weight here, which its crops and their pixels
share, and one more image, the fresh one, stands at infinity.

Libraries of conformal prediction (MAPIE, crepes, TorchCP) take a table of independent rows with one prediction each:
neither draws, nor maps of pixels, nor rows that belong together. What remains once scores are weighted by image is an
order statistic and a tail of the binomial distribution, which SciPy has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr.calibration.held_out import Sampler, check_pairs, checked_draws
from flowsr.posterior.streaming import DrawSummary, StreamingSummary
from flowsr.results import Result
from flowsr.statistics.intervals import Interval, cluster_names

_ROUNDING = 1e-9  # of sums of weights


def least_images(alpha: float, *, confidence: float | None = None) -> int:
    """How many images calibrate a bound that a fresh one exceeds with probability at most α.

    ``ceil(1/α) − 1`` on average over calibration sets; ``ceil(log(1 − confidence) / log(1 − α))`` for a bound on the
    risk with a confidence, the number of images that without any fault speak for a risk below α.

    Args:
        alpha: in (0, 1).
        confidence: of :func:`risk_quantile`, in (0, 1).

    Raises:
        ValueError: for numbers out of range.

    References:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), section 2.2; Bates et al.,
        Distribution-free, risk-controlling prediction sets (J. ACM 2021), section 3.1.

    Example:
        >>> least_images(0.1), least_images(0.05), least_images(0.1, confidence=0.9)
        (9, 19, 22)
    """
    check_fraction(alpha, "alpha")
    if confidence is None:
        return math.ceil(1 / alpha - 1 - _ROUNDING)
    check_fraction(confidence, "confidence")
    return math.ceil(math.log(1 - confidence) / math.log(1 - alpha) - _ROUNDING)


def conformal_quantile(scores: Iterable[Any], alpha: float, *, images: Sequence[Hashable] | None = None) -> float:
    """The bound that a score of a fresh image exceeds with probability at most α, if images are exchangeable.

    The ``(1 − α)``-quantile of ``Σ_k Σ_i δ(s_ki) / ((n + 1)·N_k) + δ(∞) / (n + 1)`` over the ``N_k`` scores of each of
    n images; where crops of one differ in size, each has an equal share. With one score of each image it is the
    ``ceil((n + 1)·(1 − α))``-th smallest. A score of the fresh image, taken at random from its own, stays within it
    with probability 1 − α to ``1 − α + 1/(n + 1)`` if scores are continuous and one for each image. It is the mean over
    all calibration sets and fresh images: see :func:`coverage_range` for what one set gives.

    Cost: sorting the scores.

    Args:
        scores: of each pair one number or a tensor of several, for example one per pixel; larger is worse.
        alpha: in (0, 1), at least ``1/(n + 1)``.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: for too few images, saying how many are needed, NaN among the scores, or an alpha out of range.

    References:
        Lee, Barber and Willett, Distribution-free inference with hierarchical data (arXiv 2306.06342), section 3;
        Angelopoulos et al., Conformal risk control (ICLR 2024), theorem 1, of which this is the case of the fraction of
        scores beyond the bound.

    Example:
        >>> conformal_quantile([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 8.0, 9.0, 7.0], 0.2)
        8.0
        >>> conformal_quantile([1.0, 2.0, 9.0], 0.4, images=["cat", "cat", "dog"])
        9.0
        >>> conformal_quantile([1.0, 2.0, 9.0], 0.1)
        Traceback (most recent call last):
            ...
        ValueError: expected at least 9 images for alpha 0.1; got 3: give more images (crops of one do not count), or...
    """
    needed = least_images(alpha)
    values, weights, count = _weighted(scores, images)
    if count < needed:
        raise ValueError(
            f"expected at least {needed} images for alpha {alpha:g}; got {count}: give more images (crops of one do "
            f"not count), or ask for an alpha of at least {math.ceil(1000 / (count + 1)) / 1000:g}"
        )
    return _quantile(values, weights, (1 - alpha) * (count + 1) / count)


def risk_quantile(
    scores: Iterable[Any], alpha: float, *, confidence: float = 0.9, images: Sequence[Hashable] | None = None
) -> float:
    """The bound that, with a confidence, at most a fraction α of the scores of fresh images exceeds on average.

    The loss of an image is the fraction of its scores beyond the bound. Of bounds λ the smallest is taken for which the
    mean loss over n images rejects a risk of α: Hoeffding's and Bentkus's p-value, ``min(exp(−n·kl(R, α)),
    e·P(Bin(n, α) ≤ ceil(n·R)))``, is at most ``1 − confidence``. So a calibration set for which the risk is above α
    has probability at most ``1 − confidence``: more than :func:`conformal_quantile` promises, for a wider bound. It
    asks more too: images must be drawn independently of each other, not only be exchangeable.

    Cost: sorting the scores.

    Args:
        scores: of each pair one number or a tensor of several; larger is worse.
        alpha: in (0, 1).
        confidence: in (0, 1).
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: for too few images, saying how many are needed, NaN among the scores, or numbers out of range.

    References:
        Bates et al., Distribution-free, risk-controlling prediction sets (J. ACM 2021), section 3.1; Angelopoulos et
        al., Image-to-image regression with distribution-free uncertainty quantification (ICML 2022), section 2.

    Example:
        >>> scores = torch.linspace(0, 1, 1000).expand(50, 1000)
        >>> round(conformal_quantile(scores, 0.1), 3), round(risk_quantile(scores, 0.1), 3)
        (0.918, 0.977)
    """
    needed = least_images(alpha, confidence=confidence)
    values, weights, count = _weighted(scores, images)
    if count < needed:
        raise ValueError(
            f"expected at least {needed} images to bound a risk by {alpha:g} with confidence {confidence:g}; got "
            f"{count}: give more images (crops of one do not count), or take conformal_quantile, which needs "
            f"{least_images(alpha)}"
        )
    return _quantile(values, weights, 1 - _tolerated_loss(count, alpha, 1 - confidence))


def risk_p_value(loss: float, alpha: float, count: int) -> float:
    """Hoeffding's and Bentkus's p-value of a risk above α, for a mean loss in [0, 1] over ``count`` images.

    Args:
        loss: mean over the images, in [0, 1].
        alpha: in (0, 1).
        count: number n ≥ 1 of independent images.

    References:
        Bates et al., Distribution-free, risk-controlling prediction sets (J. ACM 2021), section 3.1.1.

    Example:
        >>> f"{risk_p_value(0.0, 0.1, 22):.3f} {risk_p_value(0.05, 0.1, 100):.3f} {risk_p_value(0.1, 0.1, 9):.0f}"
        '0.098 0.157 1'
    """
    from scipy import special, stats

    low = min(loss, alpha)
    divergence = float(special.rel_entr(low, alpha) + special.rel_entr(1 - low, 1 - alpha))
    bentkus = math.e * float(stats.binom.cdf(math.ceil(count * loss - _ROUNDING), count, alpha))
    return min(math.exp(-count * divergence), bentkus, 1.0)


def coverage_range(count: int, alpha: float, *, level: float = 0.9) -> tuple[float, float]:
    """Between which coverages one calibration set of ``count`` images lies with probability ``level``.

    Of continuous scores, one for each image, the coverage given the calibration set has the distribution
    ``Beta(k, n + 1 − k)``, ``k = ceil((n + 1)·(1 − α))``, whatever the scores' own; its mean is at least 1 − α.

    Args:
        count: number n of images.
        alpha: in (0, 1).
        level: in (0, 1).

    Raises:
        ValueError: for too few images or numbers out of range.

    References:
        Vovk, Conditional validity of inductive conformal predictors (ACML 2012), proposition 2a.

    Example:
        >>> ["{:.2f} to {:.2f}".format(*coverage_range(n, 0.1)) for n in (9, 50, 1000)]
        ['0.72 to 0.99', '0.83 to 0.96', '0.88 to 0.92']
    """
    from scipy import stats

    check_fraction(level, "level")
    if count < (needed := least_images(alpha)):
        raise ValueError(f"expected at least {needed} images for alpha {alpha:g}; got {count}: give more images")
    place = math.ceil((count + 1) * (1 - alpha) - _ROUNDING)
    low, high = stats.beta.interval(level, place, count + 1 - place)
    return float(low), float(high)


@torch.no_grad()
def summarize_pairs(
    sampler: Sampler,
    hr: Tensor,
    lr: Tensor,
    *,
    num_samples: int = 64,
    levels: tuple[float, float] = (0.05, 0.95),
    components: int = 3,
    seed: int = 0,
    on_pair: Callable[[], None] | None = None,
) -> list[DrawSummary]:
    """Draw given the LR image of each held-out pair, and keep what intervals are made of, with the truth beside it.

    Cost: ``num_samples`` decoded images per pair; memory for their summaries.

    Args:
        sampler: the model, see :func:`flowsr.calibration.flow_sampler`.
        hr: true images ``(n, C, H, W)``.
        lr: their LR images ``(n, C, h, w)``.
        num_samples: per pair, at least 4.
        levels: of the two quantiles of the draws between which a truth lies with probability ``1 − α``.
        components: number of principal components.
        seed: of all noise.
        on_pair: called after each pair, for a progress bar.

    Raises:
        ValueError: for shapes that do not fit, too few draws, or draws that are not finite.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 3)
        >>> len(summarize_pairs(flow_sampler(flow), hr, lr, num_samples=8))
        3
    """
    check_pairs(hr, lr)
    if num_samples < 4:
        raise ValueError(f"expected at least 4 draws of each pair; got {num_samples}")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, (image, small) in enumerate(zip(hr, lr, strict=True)):
        summary = StreamingSummary(levels=levels, components=components, thresholds=(), truth=image)
        summary.add(checked_draws(sampler, small, image.shape, num_samples, generator, pair=i))
        found.append(summary.result())
        if on_pair is not None:
            on_pair()
    return found


def truth_of(summary: DrawSummary) -> Tensor:
    """The truth beside the draws, as float64; raises ValueError if there is none."""
    if summary.truth is None:
        raise ValueError("expected summaries of draws with their truth; got one without: summarize_pairs keeps it")
    return summary.truth.double()


def share_of_images(values: Sequence[float], images: Sequence[Hashable] | None) -> Interval:
    """The fraction of fresh images that kept a promise, each by the share of its crops, with a 95 % interval.

    Clopper's and Pearson's, as if each image kept it as a whole or not at all: too wide, if anything.

    Example:
        >>> f"{share_of_images([1.0, 1.0, 0.0, 1.0], ['cat', 'cat', 'dog', 'cow']):.2f}"
        '0.67 [0.09, 0.99] (n = 3)'
    """
    from scipy import stats

    _, weights, count = _weighted(values, images)
    share = float((np.asarray(values, dtype=np.float64) * weights).sum())
    kept, tail = share * count, 0.025
    low = float(stats.beta.ppf(tail, kept, count - kept + 1)) if kept > _ROUNDING else 0.0
    high = float(stats.beta.ppf(1 - tail, kept + 1, count - kept)) if kept < count - _ROUNDING else 1.0
    return Interval(share, low, high, count=count)


def telling_example(summaries: Sequence[DrawSummary]) -> DrawSummary:
    """The crop whose standard deviation varies most from pixel to pixel, for a figure: smooth and rough parts."""
    return max(summaries, key=lambda summary: float(summary.std.double().mean(0).std()))


@dataclass(frozen=True)
class FreshChecks(Result):
    """What promises did on fresh images: a subclass has ``checks`` by name, and ``example``, a crop to look at."""

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the example, as JSON-ready values."""
        return {name: to_plain(value) for name, value in vars(self).items() if name != "example"}


def normal_quantile(level: float) -> float:
    """The standard normal's quantile, ``Φ⁻¹(level)``, by which a model's claims are told.

    Example:
        >>> round(normal_quantile(0.975), 3)
        1.96
    """
    from scipy import stats

    return float(stats.norm.ppf(level))


def check_fresh(summaries: Sequence[DrawSummary], images: Sequence[Hashable] | None) -> None:
    """Refuse nothing to check on, and names of another number than the summaries."""
    if not summaries or (images is not None and len(images) != len(summaries)):
        raise ValueError(
            f"expected at least one summary, and an image's name for each; got {len(summaries)} summaries and "
            f"{'no names' if images is None else f'{len(images)} names'}"
        )


def check_fraction(value: float, name: str) -> None:
    """Raise ValueError unless a number is in (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"expected {name} in (0, 1); got {value}")


def _weighted(scores: Iterable[Any], images: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray, int]:
    """All scores, their weights, which sum to 1 and are equal for all images, and the number of images."""
    parts = [torch.as_tensor(score, device="cpu").double().flatten().numpy() for score in scores]
    names = list(range(len(parts))) if images is None else cluster_names(images)
    if not parts or len(names) != len(parts) or any(not part.size or np.isnan(part).any() for part in parts):
        raise ValueError(
            f"expected scores that are numbers, of at least one pair, and an image's name for each; got {len(parts)} "
            f"pairs and {len(names)} names, or NaN"
        )
    crops = Counter(names)
    sizes = [len(crops) * crops[name] * part.size for part, name in zip(parts, names, strict=True)]
    each = [np.full(part.size, 1 / size) for part, size in zip(parts, sizes, strict=True)]
    return np.concatenate(parts), np.concatenate(each), len(crops)


def _quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The smallest value at or below which ``level`` of the weight lies."""
    order = values.argsort()
    place = int(np.searchsorted(weights[order].cumsum(), level - _ROUNDING))
    return float(values[order[min(place, len(values) - 1)]])


def _tolerated_loss(count: int, alpha: float, p_value: float) -> float:
    """The largest mean loss that still rejects a risk of α."""
    from scipy import optimize

    if risk_p_value(0.0, alpha, count) > p_value:
        return 0.0
    found: Any = optimize.bisect(lambda loss: risk_p_value(loss, alpha, count) - p_value, 0.0, alpha)
    return max(0.0, float(found) - _ROUNDING)
