"""Proper scores of draws: CRPS of test functions, energy score of whole images. Smaller is better."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.held_out import HeldOut
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.results import Result, text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def crps(truth: Tensor, draws: Tensor) -> Tensor:
    """Continuous ranked probability score of draws, ``E|X − x| − E|X − X'|/2``, unbiased in the number of draws.

    Cost: O(L·log L) per value for L draws.

    Args:
        truth: ``(n, *)``.
        draws: ``(n, L, *)`` with L ≥ 2.

    Returns:
        ``(n, *)``, in the unit of the values.

    Raises:
        ValueError: for fewer than two draws.

    References:
        Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation (JASA 2007), section 4.2;
        Ferro (QJRMS 2014) for the fair version.

    Example:
        >>> crps(torch.tensor([0.0]), torch.tensor([[-1.0, 1.0]]))
        tensor([0.])
    """
    number = draws.shape[1]
    if number < 2:
        raise ValueError(f"expected at least two draws; got {number}")
    ordered = draws.sort(1).values
    # Σ|x_i − x_j| over pairs of sorted values: each gets the number of values below minus those above.
    weights = torch.arange(1 - number, number, 2, dtype=draws.dtype, device=draws.device)
    weights = weights.reshape(1, -1, *[1] * (draws.dim() - 2))
    spread = 2 * (weights * ordered).sum(1) / (number * (number - 1))
    return (draws - truth.unsqueeze(1)).abs().mean(1) - 0.5 * spread


@dataclass(frozen=True)
class Scores(Result):
    """Proper scores, averaged over pairs, with intervals over their images.

    Attributes:
        names: of the test functions.
        crps: of each, in units of the standard deviation of its true values over pairs.
        energy: energy score of whole images, in units of the images' Euclidean norm.
    """

    names: tuple[str, ...]
    crps: tuple[Interval, ...]
    energy: Interval

    @property
    def mean_crps(self) -> float:
        """Average over test functions."""
        return float(np.mean([interval.value for interval in self.crps]))

    def to_text(self) -> str:
        """Scores with their intervals."""
        rows = [[name, f"{interval:.4f}"] for name, interval in zip(self.names, self.crps, strict=True)]
        rows.append(["energy score of images", f"{self.energy:.4f}"])
        note = "CRPS in standard deviations of the true values; intervals are 95 %, over images"
        return text_table(["test function", "CRPS"], rows, title="Proper scores, smaller is better", notes=[note])

    def plot(self, ax: Axes | None = None) -> Figure:
        """CRPS by test function."""
        figure = None
        if ax is None:
            figure = new_figure(5.0, 1.0 + 0.22 * len(self.names))
            ax = figure.subplots()
        places = -np.arange(len(self.names))
        for place, interval in zip(places, self.crps, strict=True):
            ax.plot([interval.low, interval.high], [place, place], color=PALETTE["blue"], linewidth=1.2)
            ax.plot(interval.value, place, "o", color=PALETTE["blue"], markersize=4)
        ax.set_yticks(places, self.names, fontsize=7)
        ax.set_xlim(left=0)
        ax.set_title("Scores, smaller is better; bars are 95 % intervals", loc="left", fontsize=9)
        ax.set_xlabel("CRPS, standard deviations of the true values", fontsize=8)
        ax.tick_params(labelsize=8)
        plain_axes(ax)
        return figure if figure is not None else ax.figure  # type: ignore[return-value]


def score_draws(held_out: HeldOut, *, images: Sequence[Hashable] | None = None, seed: int = 0) -> Scores:
    """CRPS of each test function and energy score, with intervals. Cost: see :func:`crps`.

    Args:
        held_out: truth and draws of pairs.
        images: of which image each pair is a crop, so that crops of one image count as one in the intervals; by default
            all are of different images.
        seed: of the intervals' resampling.

    Example:
        >>> held_out = HeldOut(("x",), torch.randn(200, 1), torch.randn(200, 19, 1), *torch.zeros(3, 200))
        >>> 0.4 < score_draws(held_out).mean_crps < 0.7
        True
    """
    values = crps(held_out.truth, held_out.draws) / _scale(held_out.truth)
    *intervals, energy = (
        bootstrap_interval(column.numpy(), clusters=images, num_resamples=500, seed=seed)
        for column in (*values.T, held_out.energy)
    )
    return Scores(held_out.names, tuple(intervals), energy)


def mean_crps(held_out: HeldOut) -> Tensor:
    """CRPS of each pair, averaged over test functions in units of their standard deviation, ``(n,)``."""
    return (crps(held_out.truth, held_out.draws) / _scale(held_out.truth)).mean(-1)


def _scale(truth: Tensor) -> Tensor:
    return truth.std(0).clamp_min(1e-12)
