"""Whether the draws are right at every single pixel: faults of one place, which averages over an image do not see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsr.calibration.exchangeability import (
    exact_p,
    exchanged_sums,
    exchanges,
    family_wise,
    num_replicates,
    standardized,
)
from flowsr.calibration.held_out import HeldOut
from flowsr.calibration.pixel_ranks import PixelRanks
from flowsr.calibration.uniformity import p_text
from flowsr.plots import PALETTE, draw_heat_map, new_figure
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_AT_ONCE = 2000  # replicates, and below it places: what is in memory at a time
_SHOWN = 8


@dataclass(frozen=True)
class PixelTest(Result):
    """Whether location and spread of the draws are right at each pixel, all pixels together.

    Attributes:
        shift: mean normal score of the truth's rank at each place, in standard deviations under a right model,
            ``(C, h, w)``; above 0 the truth lies above the draws.
        spread: of the sum of its squares, likewise; above 0 the draws are too narrow.
        p_values: of shift and spread at each place, corrected for all of them, ``(2, C, h, w)``.
        p_largest: of the largest of all.
        p_criticism: of higher criticism, which sees several small faults.
        p_value: of the smaller of the two, corrected for taking it.
        pairs: number of pairs.
        num_samples: draws per pair.
        cell: side of a place in HR pixels: 1 unless the images are large.
        alpha: probability that a right model fails.
    """

    shift: Tensor
    spread: Tensor
    p_values: Tensor
    p_largest: float
    p_criticism: float
    p_value: float
    pairs: int
    num_samples: int
    cell: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether the smaller of both p-values, corrected for taking it, is above alpha.

        Places are rejected by the largest score alone, so that one with a p-value just below alpha may be named though
        the test passes.
        """
        return self.p_value > self.alpha

    @property
    def rejected(self) -> list[tuple[int, int, int]]:
        """Channel, row and column of the places with a corrected p-value up to alpha, the worst first."""
        smallest = self.p_values.min(0).values
        places = (smallest <= self.alpha).nonzero().tolist()
        return sorted((tuple(place) for place in places), key=lambda place: -self._size(place))  # type: ignore[misc]

    def words(self, place: tuple[int, int, int]) -> str:
        """What is wrong at a place: channel, row and column."""
        shift, spread = float(self.shift[place]), float(self.spread[place])
        if abs(shift) > abs(spread):
            return "too low: the truth lies above" if shift > 0 else "too high: the truth lies below"
        return "too narrow: over-confident" if spread > 0 else "too wide: under-confident"

    def _size(self, place: tuple[int, ...]) -> float:
        return max(abs(float(self.shift[place])), abs(float(self.spread[place])))

    def to_text(self) -> str:
        """The verdict, and the places that are rejected."""
        rows = [self._row(place) for place in self.rejected[:_SHOWN]] or [["none", "", "", "", ""]]
        count, places = len(self.rejected), self.shift.numel()
        what = "pixels" if self.cell == 1 else f"cells of {self.cell}x{self.cell} pixels"
        verdict = "passed" if self.passed else "FAILED"
        notes = [
            f"{verdict}: p = {p_text(self.p_value)}, alpha {self.alpha:.2g}; {self.pairs} pairs, {self.num_samples} "
            f"draws; largest score p = {p_text(self.p_largest)}, higher criticism p = {p_text(self.p_criticism)}",
            f"{count} of {places} {what} rejected, channels apart"
            + (f"; the worst {_SHOWN}" if count > _SHOWN else ""),
            "scores are in standard deviations under a right model; p is corrected for all places, and exact",
        ]
        head = ["channel, row, column", "shift", "spread", "p", "the model's values are"]
        return text_table(head, rows, title="Every single pixel", notes=notes)

    def _row(self, place: tuple[int, int, int]) -> list[str]:
        p = float(self.p_values[(slice(None), *place)].min())
        scores = [f"{float(scores[place]):+.1f}" for scores in (self.shift, self.spread)]
        return [", ".join(map(str, place)), *scores, p_text(p), self.words(place)]

    def _draw_main(self, ax: Axes) -> None:
        """Where the spread is wrong, the worst channel of each place; places that are rejected are framed."""
        self._draw_map(ax, self.spread, 1, "spread: too narrow > 0 > too wide")

    def _draw_figure(self) -> Figure:
        figure = new_figure(7.0, 3.9)
        self.draw(figure)
        return figure

    def draw(self, into: Figure | SubFigure) -> None:
        """Draw the maps of shift and spread into a figure or a part of one."""
        left, right = into.subplots(1, 2)
        self._draw_map(left, self.shift, 0, "shift: truth above draws > 0 > below")
        self._draw_main(right)
        where = " of the worst channel" if len(self.shift) > 1 else ""
        into.suptitle(
            f"Every single pixel: {'passed' if self.passed else 'FAILED'}, p = {p_text(self.p_value)}\n"
            f"How far ranks of the truth are off{where}; framed: more than chance allows anywhere",
            fontsize=9,
        )

    def _draw_map(self, ax: Axes, scores: Tensor, kind: int, title: str) -> None:
        from matplotlib.patches import Rectangle

        worst = scores.gather(0, scores.abs().argmax(0, keepdim=True))[0]
        reach = max(4.0, float(worst.abs().max()))
        draw_heat_map(ax, worst, title=title, unit="standard deviations", limits=(-reach, reach))
        for row, column in (self.p_values[kind].min(0).values <= self.alpha).nonzero().tolist():
            ax.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=PALETTE["ink"], linewidth=1.2)
            )


def pixel_test(held_out: HeldOut, *, alpha: float = 0.01, seed: int = 0) -> PixelTest:
    """Test location and spread of the draws at each pixel: single pixels, the largest of them, and higher criticism.

    The rank r of the truth among the L draws at a pixel becomes the normal score ``Φ⁻¹((r + ½)/(L + 1))``. Over the
    pairs their sum sees a shift, the sum of their squares a wrong spread, which tests of the distribution function
    hardly see. The largest of the standardized sums finds one wrong pixel, higher criticism,
    ``max √N (i/N − p₍ᵢ₎)/√(p₍ᵢ₎(1 − p₍ᵢ₎))`` over the smaller half of the N p-values, several that are each a little
    wrong. p-values are exact, whatever the dependence of pixels, for independent pairs: they come from truths that
    changed places with draws.

    Cost: pairs·pixels additions for each of some 2000 exchanges, 4/alpha where that is more.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        alpha: probability that a right model fails, in [1e-4, 1).
        seed: of the exchanges.

    Raises:
        ValueError: for an alpha out of range, or held-out pairs without ranks of pixels.

    References:
        Donoho and Jin, Higher criticism for detecting sparse heterogeneous mixtures (Annals of Statistics 2004),
        section 1.2; Westfall and Young, Resampling-based multiple testing (1993); Talts et al. (arXiv 1804.06788).

    Example:
        >>> from flowsr.calibration import flow_sampler, hold_out, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 60)
        >>> pixel_test(hold_out(flow_sampler(flow), hr, lr, num_samples=19)).passed
        True
    """
    pixels = held_out.pixel_ranks
    pairs, images, *shape = pixels.ranks.shape
    chosen = exchanges(pairs, images, replicates=num_replicates(alpha), seed=seed)
    found = [_statistics(_scores(pixels, part)) for part in chosen.split(_AT_ONCE)]
    largest, criticism = (torch.cat(parts) for parts in zip(*found, strict=True))
    p_largest, p_criticism = exact_p(largest), exact_p(criticism)
    both = exact_p(-torch.minimum(p_largest, p_criticism))
    observed = _scores(pixels, chosen[:1])[0]
    corrected = family_wise(largest, observed.abs())
    shift, spread = observed.reshape(2, *shape)
    return PixelTest(
        shift,
        spread,
        corrected.reshape(2, *shape),
        float(p_largest[0]),
        float(p_criticism[0]),
        float(both[0]),
        pairs,
        images - 1,
        pixels.cell,
        alpha,
    )


def _scores(pixels: PixelRanks, chosen: Tensor) -> Tensor:
    """Shift, then spread, of all places for each row of exchanges, standardized: ``(rows, 2·places)``."""
    pairs = len(pixels.ranks)
    table = pixels.normal_scores().float()
    shifts, spreads = [], []
    for ranks in pixels.ranks.flatten(2).split(_AT_ONCE // 8, -1):
        scores = table[ranks.long()]
        shifts.append(exchanged_sums(scores, chosen))
        spreads.append(exchanged_sums(scores.square_(), chosen))
    # At each place all ranks occur once, so that what exchanges do is known without looking.
    square = table.square()
    shift = standardized(torch.cat(shifts, -1), *_of_pairs(table, pairs))
    return torch.cat([shift, standardized(torch.cat(spreads, -1), *_of_pairs(square, pairs), positive=True)], -1)


def _of_pairs(table: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    return pairs * table.mean(), pairs * table.var(correction=0)


def _statistics(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest score of each row without its sign, and higher criticism."""
    sizes = scores.abs()
    count = sizes.shape[-1]
    ordered = sizes.topk(max(1, count // 2), -1).values.double()
    p = torch.special.erfc(ordered / math.sqrt(2)).clamp(1e-300, 1 - 1e-12)
    expected = torch.arange(1, p.shape[-1] + 1, dtype=p.dtype, device=p.device) / count
    return sizes.max(-1).values, (math.sqrt(count) * (expected - p) / (p * (1 - p)).sqrt()).max(-1).values
