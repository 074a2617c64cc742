"""Whether ranks are uniform: the empirical distribution function with bands that hold at all points at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def uniformity_p_value(ranks: np.ndarray, *, cells: int, seed: int = 0) -> float:
    """The probability that uniform ranks look at least as uneven as these, by their distribution function.

    With ``R_k`` the number of ranks below k, binomial with n trials and probability k/cells under uniformity, the
    statistic is ``min_k 2·min(P(R ≤ R_k), P(R ≥ R_k))``: the most surprising of all points. Its distribution is
    simulated.

    Cost: 4000 simulations of n ranks, kept for the next call with the same numbers.

    Args:
        ranks: whole numbers from 0 to ``cells − 1``, ``(n,)``.
        cells: number of values, at least 2.
        seed: of the simulation.

    Returns:
        A p-value; below 1/4001 an upper bound of it.

    Raises:
        ValueError: for no ranks, or ranks out of range.

    References:
        Säilynoja, Bürkner and Vehtari, Graphical test for discrete uniformity and its applications in goodness-of-fit
        evaluation and multiple sample comparison (Statistics and Computing 2022), section 2.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> uniformity_p_value(rng.integers(0, 20, 300), cells=20) > 0.01
        True
        >>> uniformity_p_value(rng.integers(3, 17, 300), cells=20) < 0.001
        True
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.size < 1 or cells < 2:
        raise ValueError(f"expected ranks (n,) and at least 2 cells; got shape {ranks.shape} and {cells}")
    if ranks.min() < 0 or ranks.max() >= cells:
        raise ValueError(f"expected ranks from 0 to {cells - 1}; got {ranks.min()} to {ranks.max()}")
    below = np.bincount(ranks, minlength=cells).cumsum()[:-1]
    statistic = _surprise(below[None], len(ranks), cells)[0]
    null = _null(len(ranks), cells, seed)
    # Rounding must not decide between equal values.
    simulated = (1 + np.count_nonzero(null <= statistic * (1 + 1e-9))) / (1 + len(null))
    # Beyond what simulation resolves, Bonferroni over the points is a bound.
    return float(min(simulated, (cells - 1) * statistic))


def p_text(p: float) -> str:
    """A p-value for tables: four decimals, or one digit and the power of ten where those would say 0.

    Example:
        >>> p_text(0.0123), p_text(2.1e-21), p_text(0.0)
        ('0.0123', '2e-21', '<1e-300')
    """
    if p < 1e-300:
        return "<1e-300"
    return f"{p:.4f}" if p >= 1e-3 else f"{p:.0e}"


def simultaneous_band(count: int, *, cells: int, level: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Band around the distribution function of uniform ranks, which holds all of it with probability ``level``.

    Args:
        count: n, number of ranks.
        cells: number of values.
        level: in (0, 1), such as 0.99.
        seed: of the simulation.

    Returns:
        Lower and upper ends of the fraction of ranks below k, at ``k = 1 … cells − 1``.

    Raises:
        ValueError: for a level out of range.

    References:
        Säilynoja et al. (2022), section 2.2.

    Example:
        >>> low, high = simultaneous_band(300, cells=20, level=0.95)
        >>> bool((low < np.arange(1, 20) / 20).all() and (high > np.arange(1, 20) / 20).all())
        True
    """
    from scipy import stats

    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1); got {level}")
    pointwise = float(np.quantile(_null(count, cells, seed), 1 - level))
    points = np.arange(1, cells) / cells
    low = stats.binom.ppf(pointwise / 2, count, points)
    high = stats.binom.isf(pointwise / 2, count, points)
    return low / count, high / count


@lru_cache(maxsize=32)
def _null(count: int, cells: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(count, np.full(cells, 1 / cells), size=4000)
    return _surprise(draws.cumsum(1)[:, :-1], count, cells)


def _surprise(below: np.ndarray, count: int, cells: int) -> np.ndarray:
    tails = _tails(count, cells)
    return np.take_along_axis(tails, below.T, axis=1).min(0)


@lru_cache(maxsize=32)
def _tails(count: int, cells: int) -> np.ndarray:
    """Two-sided tail probability of each number of ranks below each point, ``(cells − 1, count + 1)``."""
    from scipy import stats

    numbers, points = np.arange(count + 1), np.arange(1, cells)[:, None] / cells
    return 2 * np.minimum(stats.binom.cdf(numbers, count, points), stats.binom.sf(numbers - 1, count, points))
