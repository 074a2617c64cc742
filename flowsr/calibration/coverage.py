"""How often central intervals of the draws contain the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.held_out import HeldOut, ranks
from flowsr.calibration.uniformity import p_text
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Coverage(Result):
    """Coverage of central intervals.

    Attributes:
        names: of the test functions.
        nominal: probability that an interval between order statistics of the draws holds the truth, exactly, one per
            level; as near to what was asked as the number of draws allows.
        observed: fraction of pairs in which it does, ``(functions, levels)``.
        p_values: two-sided, binomial, ``(functions, levels)``.
        count: number of pairs.
        alpha: probability that a right model fails, all functions and levels together.
    """

    names: tuple[str, ...]
    nominal: tuple[float, ...]
    observed: Tensor
    p_values: Tensor
    count: int
    alpha: float

    @property
    def threshold(self) -> float:
        """The p-value at which a function fails at a level: ``alpha`` divided by their number (Bonferroni)."""
        return self.alpha / self.p_values.numel()

    @property
    def passed(self) -> bool:
        """Whether no function fails at a level."""
        return float(self.p_values.min()) > self.threshold

    def to_text(self) -> str:
        """Observed coverage by function and level."""
        head = ["test function", *(f"{level:.0%}" for level in self.nominal)]
        rejected = self.p_values <= self.threshold
        rows = [
            [name, *(f"{float(v):.1%}{'*' if bad else ' '}" for v, bad in zip(row, marks, strict=True))]
            for name, row, marks in zip(self.names, self.observed, rejected.tolist(), strict=True)
        ]
        note = (
            f"{'passed' if self.passed else 'FAILED'}: {self.count} pairs, alpha {self.alpha:.2g} for all together; "
            f"* p up to the threshold per cell, {p_text(self.threshold)}"
        )
        return text_table(head, rows, title="Coverage of central intervals", notes=[note])

    def plot(self, ax: Axes | None = None) -> Figure:
        """Observed against nominal coverage, with the range of the functions and binomial bands."""
        from scipy import stats

        figure = None
        if ax is None:
            figure = new_figure(4.2, 3.8)
            ax = figure.subplots()
        nominal = np.array(self.nominal)
        reach = self.threshold / 2
        low, high = (stats.binom.ppf(q, self.count, nominal) / self.count for q in (reach, 1 - reach))
        ax.fill_between(nominal, low, high, color=PALETTE["grey"], alpha=0.25, linewidth=0, label="allowed by chance")
        ax.plot(nominal, nominal, color=PALETTE["ink"], linewidth=0.8)
        for i, row in enumerate(self.observed):
            label = "test functions" if i == 0 else None
            ax.plot(nominal, row.numpy(), ".-", color=PALETTE["blue"], linewidth=0.6, alpha=0.7, label=label)
        plain_axes(ax, keep=("left", "bottom"))
        ax.set_title(f"Coverage: {'passed' if self.passed else 'FAILED'}", loc="left", fontsize=9)
        ax.set_xlabel("nominal coverage", fontsize=8)
        ax.set_ylabel("observed coverage", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7, frameon=False, loc="upper left")
        return figure if figure is not None else ax.figure  # type: ignore[return-value]


def interval_coverage(
    held_out: HeldOut, *, levels: Sequence[float] = (0.2, 0.5, 0.8, 0.9), alpha: float = 0.01, seed: int = 0
) -> Coverage:
    """How often central intervals of the draws contain the truth, for each test function and level.

    The interval between the k-th smallest and the k-th largest of L draws holds an exchangeable truth with probability
    ``(L + 1 − 2k)/(L + 1)``; k is chosen next to the level asked for, and this probability is what is tested.

    Cost: n·draws per function.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        levels: probabilities in (0, 1).
        alpha: probability that a right model fails.
        seed: for ties.

    Raises:
        ValueError: for levels out of range, or finer than the number of draws can tell.

    References:
        Gneiting, Balabdaoui and Raftery, Probabilistic forecasts, calibration and sharpness (JRSS B 2007), section 3.

    Example:
        >>> held_out = HeldOut(("x",), torch.randn(200, 1), torch.randn(200, 19, 1), *torch.zeros(3, 200))
        >>> interval_coverage(held_out, levels=(0.5, 0.9)).nominal
        (0.5, 0.9)
    """
    from scipy import stats

    if not levels or any(not 0 < level < 1 for level in levels):
        raise ValueError(f"expected levels in (0, 1); got {tuple(levels)}")
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha in (0, 1); got {alpha}")
    values = held_out.num_samples + 1
    cuts = [round((1 - level) / 2 * values) for level in levels]
    if min(cuts) < 1:
        raise ValueError(
            f"expected at least {2 / (1 - max(levels)):.0f} draws for a level of {max(levels)}; got {values - 1}"
        )
    found = ranks(held_out.truth, held_out.draws, generator=torch.Generator().manual_seed(seed))
    nominal = tuple((values - 2 * cut) / values for cut in cuts)
    inside = torch.stack([((found >= cut) & (found < values - cut)).sum(0) for cut in cuts], -1)
    count = len(held_out)
    p_values = [
        [stats.binomtest(int(number), count, p).pvalue for number, p in zip(row, nominal, strict=True)]
        for row in inside
    ]
    return Coverage(
        held_out.names, nominal, inside.double() / count, torch.tensor(p_values, device="cpu"), count, alpha
    )
