"""Exact tests by exchangeability: if the model is right the truth is one more draw, so any draw may take its place.

A statistic of the truths is compared with its values after each truth has changed places with one image of its pair,
drawn at random among itself and the draws. Whatever the statistic, and however its parts depend on each other, under a
right model all these values are equally probable; so the p-values here hold for any number of pairs and draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ALPHA = 1e-4
"""Smaller probabilities of a false alarm would take too many replicates."""

_REPLICATES = 1999
_ROUNDING = 1e-6  # relative, of sums of float32: it must not decide between equal values


def num_replicates(alpha: float) -> int:
    """How many replicates resolve p-values for a probability of a false alarm.

    Raises:
        ValueError: for an alpha out of range.

    Example:
        >>> num_replicates(0.01), num_replicates(1e-4)
        (1999, 39999)
    """
    if not LEAST_ALPHA <= alpha < 1:
        raise ValueError(
            f"expected alpha in [{LEAST_ALPHA}, 1), as exchanges of truth and draws resolve no smaller p; got {alpha}"
        )
    return max(_REPLICATES, round(4 / alpha) - 1)


def exchanges(pairs: int, images: int, *, replicates: int, seed: int) -> Tensor:
    """Which image of each pair stands as the truth: the truth itself in the first row, any of all in the others.

    Args:
        pairs: how many.
        images: of a pair, the truth (number 0) and its draws.
        replicates: rows after the first.
        seed: of the choice.

    Returns:
        Numbers of images ``(replicates + 1, pairs)``.

    Example:
        >>> exchanges(3, 20, replicates=4, seed=0)[0]
        tensor([0, 0, 0])
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(images, (replicates + 1, pairs), generator=generator, device=generator.device)
    chosen[0] = 0
    return chosen


def exchanged_sums(scores: Tensor, chosen: Tensor) -> Tensor:
    """Sums over pairs of scores of the images that stand as the truth.

    Cost: as many additions as there are chosen images, for each score.

    Args:
        scores: ``(pairs, images, scores)``.
        chosen: from :func:`exchanges`.

    Returns:
        ``(replicates + 1, scores)``.

    Example:
        >>> exchanged_sums(torch.tensor([[[1.0], [10.0]], [[2.0], [20.0]]]), torch.tensor([[0, 0], [1, 0]]))
        tensor([[ 3.],
                [12.]])
    """
    pairs, images, _ = scores.shape
    rows = chosen + images * torch.arange(pairs, device=chosen.device)
    return F.embedding_bag(rows, scores.flatten(0, 1), mode="sum")


def moments(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all exchanges of the sums over pairs: exchanges of different pairs are independent.

    Args:
        scores: ``(pairs, images, scores)``.

    Returns:
        Two tensors ``(scores,)``.

    Example:
        >>> [float(value) for value in moments(torch.tensor([[[1.0], [3.0]], [[1.0], [3.0]]]))]
        [4.0, 2.0]
    """
    return scores.mean(1).sum(0), scores.var(1, correction=0).sum(0)


def standardized(sums: Tensor, mean: Tensor, variance: Tensor, *, positive: bool = False) -> Tensor:
    """Sums over pairs less their mean over all exchanges, in their standard deviations.

    A sum of squares is skewed; its cube root is nearly normal if the squares are of normal values.

    Args:
        sums: from :func:`exchanged_sums`, ``(replicates + 1, scores)``.
        mean: from :func:`moments`, of a shape that fits.
        variance: likewise.
        positive: take the cube root of sums of squares.

    Returns:
        Of the shape of ``sums``; 0 where nothing varies.

    References:
        Wilson and Hilferty, The distribution of chi-square (PNAS 1931).

    Example:
        >>> standardized(torch.tensor([[2.0], [6.0]]), torch.tensor([4.0]), torch.tensor([2.0])).flatten()
        tensor([-1.4142,  1.4142])
    """
    if positive:
        mean = mean.clamp_min(1e-30)
        skewed = variance / (9 * mean.square())
        sums, mean, variance = (sums / mean).clamp_min(0).pow(1 / 3), 1 - skewed, skewed
    return torch.where(variance > 1e-12, (sums - mean) / variance.sqrt().clamp_min(1e-12), 0.0)


def exact_p(statistic: Tensor) -> Tensor:
    """For each replicate, the share of all of them whose statistic is at least as large.

    Args:
        statistic: ``(replicates + 1, *)``, of the data first; the larger, the less it looks like a right model.

    Returns:
        p-values of the same shape; those of the data in the first row.

    References:
        Phipson and Smyth, Permutation p-values should never be zero (2010).

    Example:
        >>> exact_p(torch.tensor([5.0, 1.0, 7.0, 5.0]))
        tensor([0.7500, 1.0000, 0.2500, 0.7500], dtype=torch.float64)
    """
    values = statistic.double().movedim(0, -1).contiguous()
    below = torch.searchsorted(values.sort(-1).values, values - _ROUNDING * values.abs())
    return (1 - below.double() / values.shape[-1]).movedim(-1, 0)


def family_wise(largest: Tensor, observed: Tensor) -> Tensor:
    """p-values of many statistics at once: the share of replicates whose largest is at least as large as each.

    The probability that any statistic of a right model has a p-value below alpha is at most alpha, and the dependence
    of the statistics is used, where Bonferroni's correction supposes the worst.

    Args:
        largest: of all statistics of each replicate ``(replicates + 1,)``, of the data first.
        observed: statistics of the data, of any shape.

    Returns:
        Of the shape of ``observed``.

    References:
        Westfall and Young, Resampling-based multiple testing (1993), section 2.3.

    Example:
        >>> family_wise(torch.tensor([9.0, 3.0, 1.0, 4.0]), torch.tensor([9.0, 1.0]))
        tensor([0.2500, 1.0000], dtype=torch.float64)
    """
    ordered = largest.double().sort().values * (1 + _ROUNDING)
    return 1 - torch.searchsorted(ordered, observed.double().contiguous()).double() / len(ordered)
