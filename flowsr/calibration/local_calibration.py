"""Whether draws are as right on one kind of content as on another: coverage against difficulty."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.exchangeability import (
    exchanged_sums,
    exchanges,
    family_wise,
    moments,
    num_replicates,
    standardized,
)
from flowsr.calibration.held_out import HeldOut
from flowsr.calibration.pixel_ranks import CONTENT, PixelRanks
from flowsr.calibration.uniformity import p_text
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.results import Result, text_table
from flowsr.statistics import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ENDS = {
    "brightness": ("dark", "bright"),
    "texture": ("smooth", "textured"),
    "slope": ("flat", "steep"),
    "spread": ("sure", "unsure"),
}


@dataclass(frozen=True)
class Bin(Result):
    """Pixels whose content lies between two values.

    Attributes:
        content: what they are sorted by, a key of :data:`flowsr.calibration.CONTENT`.
        low: smallest value, in the unit that ``CONTENT`` says.
        high: largest.
        pixels: how many, over all pairs.
        coverage: fraction of truths inside the central interval of the draws, with a 95 % interval over images.
        ratio: root mean square of the normal scores of the truth's ranks: 1 if the spread of the draws is right, above
            1 if they are too narrow for the error that they make.
        shift: sum of the normal scores, in standard deviations under a right model; above 0 the truth lies above.
        spread: likewise of their squares; above 0 the draws are too narrow.
        p_value: that location and spread are right here, corrected for all bins of all kinds of content.
    """

    content: str
    low: float
    high: float
    pixels: int
    coverage: Interval
    ratio: float
    shift: float
    spread: float
    p_value: float


@dataclass(frozen=True)
class LocalCalibration(Result):
    """Coverage of intervals at single pixels, by what the LR image shows there.

    Attributes:
        bins: of each kind of content, from low to high.
        nominal: coverage that a right model has everywhere.
        pairs: number of pairs.
        num_samples: draws per pair.
        alpha: probability that a right model fails, all bins together.
    """

    bins: tuple[Bin, ...]
    nominal: float
    pairs: int
    num_samples: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether no bin is rejected."""
        return min(found.p_value for found in self.bins) > self.alpha

    @property
    def rejected(self) -> list[Bin]:
        """The bins with a corrected p-value up to alpha, in order."""
        return [found for found in self.bins if found.p_value <= self.alpha]

    def words(self, found: Bin) -> str:
        """What is wrong with the draws where the content is such."""
        if found.p_value > self.alpha:
            return "about right"
        if abs(found.shift) > abs(found.spread):
            return "too low: the truth lies above" if found.shift > 0 else "too high: the truth lies below"
        return "too narrow: over-confident" if found.spread > 0 else "too wide: under-confident"

    def of(self, content: str) -> list[Bin]:
        """The bins of one kind of content, from low to high."""
        return [found for found in self.bins if found.content == content]

    def to_text(self) -> str:
        """A row for each bin."""
        rows = [
            [
                f"{found.content} {found.low:.3g} to {found.high:.3g}",
                f"{found.coverage:.1%}",
                f"{found.ratio:.2f}",
                p_text(found.p_value),
                self.words(found),
            ]
            for found in self.bins
        ]
        notes = [
            f"{'passed' if self.passed else 'FAILED'}: {self.pairs} pairs, {self.num_samples} draws, alpha "
            f"{self.alpha:.2g} for all together; coverage of the central {self.nominal:.1%} of the draws at single "
            "pixels, with 95 % intervals over images",
            "error/spread: root mean square of normal scores of ranks, 1 if right; p is corrected for all rows",
            "; ".join(f"{name}: {CONTENT[name]}" for name in dict.fromkeys(found.content for found in self.bins)),
        ]
        head = ["where the content is", "coverage", "error/spread", "p", "the draws are"]
        return text_table(head, rows, title="Coverage against difficulty", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """Coverage against texture, or what there is first."""
        names = list(dict.fromkeys(found.content for found in self.bins))
        self._draw_content(ax, "texture" if "texture" in names else names[0])

    def _draw_figure(self) -> Figure:
        names = list(dict.fromkeys(found.content for found in self.bins))
        figure = new_figure(7.0, 0.7 + 2.6 * ((len(names) + 1) // 2))
        for axes, name in zip(figure.subplots((len(names) + 1) // 2, 2).flat, names, strict=False):
            self._draw_content(axes, name)
        figure.suptitle(
            f"Coverage against difficulty: {'passed' if self.passed else 'FAILED'}\n"
            "Above the line draws are too wide, below it too narrow for the errors they make\n"
            "Red squares: more than chance allows, given these LR images; bars: how far images differ (95 %)",
            fontsize=9,
        )
        return figure

    def _draw_content(self, ax: Axes, name: str) -> None:
        bins = self.of(name)
        ax.axhline(100 * self.nominal, color=PALETTE["ink"], linewidth=0.9)
        ax.text(len(bins) - 0.55, 100 * self.nominal, "right", fontsize=7, va="bottom", ha="right")
        for place, found in enumerate(bins):
            wrong = found.p_value <= self.alpha
            style = {"color": PALETTE["red" if wrong else "blue"], "marker": "s" if wrong else "o", "markersize": 5}
            ends = [
                100 * (found.coverage.value - found.coverage.low),
                100 * (found.coverage.high - found.coverage.value),
            ]
            ends = np.nan_to_num(np.array(ends)).clip(min=0)[:, None]
            ax.errorbar([place], [100 * found.coverage.value], yerr=ends, linewidth=1.2, **style)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, 100 * self.nominal - 8), max(high, 100 * self.nominal + 8))
        ax.set_xlim(-0.5, len(bins) - 0.5)
        ticks = [f"{found.low:.2g}–\n{found.high:.2g}" for found in bins]
        ax.set_xticks(range(len(bins)), ticks, fontsize=7)
        ax.tick_params(labelsize=7)
        first, last = _ENDS[name]
        ax.set_xlabel(f"← {first}                {last} →", fontsize=7)
        ax.set_ylabel("truths inside, %", fontsize=8)
        ax.set_title(f"by {name}: {CONTENT[name].partition(', ')[0]}", loc="left", fontsize=7.5)
        plain_axes(ax, keep=("left", "bottom"))


def local_calibration(
    held_out: HeldOut,
    *,
    bins: int = 5,
    level: float = 0.8,
    images: Sequence[Hashable] | None = None,
    alpha: float = 0.01,
    seed: int = 0,
) -> LocalCalibration:
    """Coverage at single pixels by brightness, texture and slope of the LR image there, and by the draws' own spread.

    Simulation-based calibration averages over LR images: draws too narrow on texture and too wide on smooth ground can
    pass it. Here pixels of all pairs are sorted by content into bins of equal size; in each, the truth's ranks must
    still be uniform. A shift is seen by the sum of their normal scores, a wrong spread by the sum of squares. p-values
    are exact for independent pairs, whatever the dependence of pixels: content is known without the truth, or the
    same whichever image is the truth, so that truths may change places with draws.

    Cost: pairs·draws·pixels, and additions of the bins for each of some 2000 exchanges.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        bins: of each kind of content, at least 2; fewer where many values are equal.
        level: coverage of the interval, in (0, 1); the nearest that the number of draws allows is taken.
        images: of which image each pair is a crop, for the intervals of the coverage.
        alpha: probability that a right model fails, in [1e-4, 1).
        seed: of exchanges and resampling.

    Raises:
        ValueError: for numbers out of range, or held-out pairs without ranks of pixels.

    References:
        Zhao, Dalmasso, Izbicki and Lee, Diagnostics for conditional density models and Bayesian inference algorithms
        (UAI 2021), section 3; Gneiting, Balabdaoui and Raftery (JRSS B 2007), section 3.

    Example:
        >>> from flowsr.calibration import flow_sampler, hold_out, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 4, 4), 0.5), std=0.2), 40)
        >>> found = local_calibration(hold_out(flow_sampler(flow), hr, lr, num_samples=19), bins=3)
        >>> found.passed, len(found.of("texture"))
        (True, 3)
    """
    pixels, replicates = held_out.pixel_ranks, num_replicates(alpha)
    pairs, values = pixels.ranks.shape[:2]
    cut = round((1 - level) / 2 * values)
    if bins < 2 or not 0 < level < 1 or cut < 1:
        raise ValueError(
            f"expected at least 2 bins and a level in (0, 1) that {values - 1} draws can tell; got {bins} and {level}"
        )
    members = {name: _members(found.flatten(1), bins) for name, found in pixels.content.items()}
    masks = torch.cat([mask for mask, _ in members.values()], -1)
    scores = _sums(pixels, masks)
    chosen = exchanges(pairs, values, replicates=replicates, seed=seed)
    shift, spread = (
        standardized(exchanged_sums(part, chosen), *moments(part), positive=positive)
        for part, positive in zip(scores, (False, True), strict=True)
    )
    worse = torch.maximum(shift.abs(), spread.abs())
    p_values = family_wise(worse.max(-1).values, worse[0])
    ends = [(name, *pair) for name, (_, pairs_) in members.items() for pair in pairs_]
    channels = pixels.ranks.shape[2]
    ranks = pixels.ranks[:, 0].flatten(2)
    inside = ((ranks >= cut) & (ranks < values - cut)).double().mean(1)
    clusters: Sequence[Hashable] = range(pairs) if images is None else images
    square = pixels.normal_scores().square().mean()  # of ranks that are uniform: below 1, as ranks are few
    found = [
        Bin(
            name,
            low,
            high,
            channels * int(mask.sum()),
            _coverage(inside, mask, clusters, seed),
            float((scores[1][:, 0, i].sum() / (channels * mask.sum() * square)).sqrt()),
            float(shift[0, i]),
            float(spread[0, i]),
            float(p_values[i]),
        )
        for i, ((name, low, high), mask) in enumerate(zip(ends, masks.unbind(-1), strict=True))
    ]
    return LocalCalibration(tuple(found), (values - 2 * cut) / values, pairs, values - 1, alpha)


def _members(content: Tensor, bins: int) -> tuple[Tensor, list[tuple[float, float]]]:
    """Which pixels are in which bin, ``(n, pixels, bins)``, and the smallest and largest value of each."""
    levels = torch.arange(1, bins, dtype=content.dtype, device=content.device) / bins
    inner = torch.from_numpy(np.unique(np.quantile(content.numpy(), levels.numpy())))
    place = torch.bucketize(content, inner)
    held = place.unique().tolist()
    ends = [(float(content[place == i].min()), float(content[place == i].max())) for i in held]
    return torch.stack([place == i for i in held], -1), ends


def _sums(pixels: PixelRanks, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Normal scores and their squares, summed over the pixels of each bin: two of ``(n, draws + 1, bins)``."""
    table, weights = pixels.normal_scores(), masks.double()
    sums, squares = [], []
    for ranks, mask in zip(pixels.ranks.flatten(3), weights, strict=True):
        scores = table[ranks.long()]
        sums.append(scores.sum(1) @ mask)
        squares.append(scores.square().sum(1) @ mask)
    return torch.stack(sums), torch.stack(squares)


def _coverage(inside: Tensor, mask: Tensor, clusters: Sequence[Hashable], seed: int) -> Interval:
    pair, pixel = mask.nonzero(as_tuple=True)
    of = [clusters[i] for i in pair.tolist()]
    return bootstrap_interval(inside[pair, pixel].numpy(), clusters=of, num_resamples=500, seed=seed)
