"""Bootstrap intervals: how far an average over images can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval.

    Attributes:
        value: the figure.
        low: lower end; NaN where there is no interval, as for a single image.
        high: upper end.
        level: probability that such intervals cover the truth.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __format__(self, spec: str) -> str:
        spec = spec or ".3g"
        if self.low != self.low:  # a single image has no interval
            return f"{self.value:{spec}}"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_interval(
    *samples: Sequence[float] | np.ndarray,
    statistic: Callable[..., float] = np.mean,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic of one or more samples of images with its bootstrap interval.

    Bias-corrected and accelerated where the jackknife allows, otherwise percentiles. Several samples are resampled
    independently, as for the area under the curve of two sets of images.

    Cost: ``num_resamples`` evaluations of the statistic.

    Args:
        *samples: one figure per image; NaN is refused.
        statistic: function of the samples; by default the mean.
        level: of confidence, in (0, 1).
        num_resamples: resamples drawn.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: for an empty sample, values that are not finite, or a level out of range.

    References:
        Efron, Better Bootstrap Confidence Intervals (JASA 1987); ``scipy.stats.bootstrap``.

    Example:
        >>> interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0])
        >>> interval.value, interval.low < 2.5 < interval.high
        (2.5, True)
    """
    from scipy import stats

    if not 0 < level < 1:
        raise ValueError(f"expected a level of confidence in (0, 1); got {level}")
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    if not arrays or any(array.ndim != 1 or array.size < 1 for array in arrays):
        raise ValueError(f"expected samples of one figure per image; got shapes {[array.shape for array in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("expected finite figures; got NaN or infinity: leave those images out, and say so")
    value = float(statistic(*arrays))
    if min(array.size for array in arrays) < 2:
        return Interval(value, float("nan"), float("nan"), level)
    if all(np.ptp(array) == 0 for array in arrays):
        return Interval(value, value, value, level)

    def resampled(method: str) -> tuple[float, float]:
        found = stats.bootstrap(
            arrays,
            lambda *parts: statistic(*parts),
            n_resamples=num_resamples,
            confidence_level=level,
            vectorized=False,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        return float(found.low), float(found.high)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of degenerate resamples, dealt with below
        low, high = resampled("BCa")
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high = resampled("percentile")
    return Interval(value, low, high, level)
