"""A local classifier two-sample test: where, over all kinds of content at once, truth and draws can be told apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsr.calibration.exchangeability import exact_p, exchanged_sums, exchanges, family_wise, num_replicates
from flowsr.calibration.held_out import HeldOut
from flowsr.calibration.pixel_ranks import PixelRanks
from flowsr.calibration.uniformity import p_text
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 8
_HERMITE = (1.0, 2.0)  # variances of z and z² − 1 for a normal z


@dataclass(frozen=True)
class LocalC2ST(Result):
    """Whether a classifier that sees the content tells truth from draws, for all pairs and for each.

    Attributes:
        names: of the pairs.
        shift: what the classifier finds at the mean content of each pair: by how many standard deviations the truth
            lies above the draws, to first order, ``(n,)``.
        spread: likewise, error over spread of the draws: above 1 they are too narrow, ``(n,)``.
        p_values: that what the classifier finds given the LR image of each pair is chance, corrected for all pairs,
            ``(n,)``. One classifier is fitted to all: a fault on some content may show at LR images that are like it,
            so that what holds at the level of alpha is that a model that is right given all is named nowhere.
        p_value: that the draws are right given all LR images.
        num_samples: draws per pair.
        alpha: probability that a right model fails.
    """

    names: tuple[str, ...]
    shift: Tensor
    spread: Tensor
    p_values: Tensor
    p_value: float
    num_samples: int
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether the classifier finds no more than chance allows, by the sum over pairs; each is tested besides."""
        return self.p_value > self.alpha

    @property
    def rejected(self) -> list[int]:
        """Numbers of the pairs with a corrected p-value up to alpha, the most probable fault first."""
        found = (self.p_values <= self.alpha).nonzero()[:, 0].tolist()
        return sorted(found, key=lambda i: -abs(float(self.spread[i]) - 1) - abs(float(self.shift[i])))

    def words(self, pair: int) -> str:
        """What the classifier finds wrong given the LR image of a pair."""
        shift, spread = float(self.shift[pair]), float(self.spread[pair]) - 1
        if abs(shift) > 2 * abs(spread):
            return "too low: the truth lies above" if shift > 0 else "too high: the truth lies below"
        return "too narrow: over-confident" if spread > 0 else "too wide: under-confident"

    def to_text(self) -> str:
        """The verdict, and the pairs where the draws are wrong."""
        rejected, count = self.rejected, len(self.names)
        rows = [self._row(i) for i in rejected[:_SHOWN]] or [["none", "", "", "", ""]]
        notes = [
            f"{'passed' if self.passed else 'FAILED'}: p = {p_text(self.p_value)}, alpha {self.alpha:.2g}; {count} "
            f"pairs, {self.num_samples} draws",
            f"what the classifier finds is beyond chance given {len(rejected)} of {count} LR images"
            + (f"; the worst {_SHOWN} by what is found" if len(rejected) > _SHOWN else ""),
            "shift in standard deviations of the draws, error/spread 1 if right; p exact, corrected for all pairs",
        ]
        head = ["pair", "shift", "error/spread", "p", "the draws are"]
        return text_table(head, rows, title="Local two-sample test", notes=notes)

    def _row(self, pair: int) -> list[str]:
        found = f"{float(self.shift[pair]):+.2f}", f"{float(self.spread[pair]):.2f}"
        return [self.names[pair], *found, p_text(float(self.p_values[pair])), self.words(pair)]

    def _draw_main(self, ax: Axes) -> None:
        """Error over spread that the classifier finds for each pair, in order."""
        order = self.spread.argsort()
        wrong = (self.p_values <= self.alpha)[order]
        places = torch.arange(len(order), device="cpu")
        ax.axhline(1.0, color=PALETTE["ink"], linewidth=0.9)
        for chosen, colour, label in (
            (~wrong, "blue", "as chance allows"),
            (wrong, "red", "differs by more than chance"),
        ):
            if bool(chosen.any()):
                style = {"color": PALETTE[colour], "markersize": 4, "linestyle": "none", "label": label}
                style["marker"] = "s" if colour == "red" else "o"
                ax.plot(places[chosen].numpy(), self.spread[order][chosen].numpy(), **style)
        ax.set_title(
            f"Local two-sample test: {'passed' if self.passed else 'FAILED'}, p = {p_text(self.p_value)}",
            loc="left",
            fontsize=9,
        )
        ax.set_xlabel("LR images, in order", fontsize=8)
        ax.set_ylabel("error / spread of the draws\n< 1 too wide, > 1 too narrow", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7, frameon=False, loc="upper left")
        plain_axes(ax, keep=("left", "bottom"))

    def _draw_figure(self) -> Figure:
        figure = new_figure(6.0, 3.4)
        self._draw_main(figure.subplots())
        return figure


def local_c2st(
    held_out: HeldOut, *, names: Sequence[Hashable] | None = None, alpha: float = 0.01, seed: int = 0
) -> LocalC2ST:
    """Whether a small classifier tells truth from draws by a pixel's rank and the content around it, and where.

    The classifier is a least-squares regression of "is the truth" on ``(z, z² − 1) ⊗ (1, c, c·cᵀ)``: z the normal score
    of the rank of a pixel's value among truth and draws, c the content of :data:`flowsr.calibration.CONTENT` there, as
    normal scores. Its answer less the prior ``d(z, c)`` is 0 everywhere if the draws are right; the statistic of an LR
    image is the mean of d² over draws and pixels, as in L-C2ST, and their sum over pairs is that of all. It sees faults
    where kinds of content meet, such as dark texture. For each exchange of truths with draws it is fitted anew, at the
    cost of a product of small matrices, so p-values are exact for independent pairs.

    Cost: pairs·draws·pixels·30, and pairs·900 for each of some 2000 exchanges.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        names: of the pairs, such as that of their image; by default numbers.
        alpha: probability that a right model fails, in [1e-4, 1).
        seed: of the exchanges.

    Raises:
        ValueError: for an alpha out of range, names of another number, or held-out pairs without ranks of pixels.

    References:
        Linhart, Gramfort and Rodrigues, L-C2ST: local diagnostics for posterior approximations in simulation-based
        inference (NeurIPS 2023); Kim, Lee and Lei, Global and local two-sample tests via regression (Electronic Journal
        of Statistics 2019), section 3, for regression as the classifier.

    Example:
        >>> from flowsr.calibration import flow_sampler, hold_out, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 4, 4), 0.5), std=0.2), 40)
        >>> local_c2st(hold_out(flow_sampler(flow), hr, lr, num_samples=19)).passed
        True
    """
    pixels = held_out.pixel_ranks
    replicates = num_replicates(alpha)
    pairs, images, channels = pixels.ranks.shape[:3]
    known = tuple(map(str, range(pairs) if names is None else names))
    if len(known) != pairs:
        raise ValueError(f"expected a name for each of {pairs} pairs; got {len(known)}")
    basis = _basis(pixels)
    gradients = _gradients(pixels, basis)
    chosen = exchanges(pairs, images, replicates=replicates, seed=seed)
    grams = basis.transpose(1, 2) @ basis
    whole = channels * grams.sum(0)
    ridge = 1e-3 * whole.diagonal().mean() * torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
    found = [_fitted(gradients[..., i, :], chosen, whole + ridge) / _HERMITE[i] for i in range(2)]
    quadratic = [torch.einsum("bp,npq,bq->bn", fit, grams, fit) for fit in found]
    local = _HERMITE[0] * quadratic[0] + _HERMITE[1] * quadratic[1]
    p_value = exact_p(local.sum(1))[0]
    scaled = local / local.mean(0)
    p_values = family_wise(scaled.max(1).values, scaled[0])
    first, second = (basis.mean(1) @ fit[0] for fit in found)
    # A density ratio of 1 + a z + b (z² − 1) has mean a and variance 1 + 2 b - a².
    spread = (1 + 2 * second - first.square()).clamp_min(0.01).sqrt()
    return LocalC2ST(known, first, spread, p_values, float(p_value), images - 1, alpha)


def _basis(pixels: PixelRanks) -> Tensor:
    """One, content, and products of two kinds at each pixel of each pair, ``(n, pixels, terms)``."""
    kinds = [_normal(found.flatten(1)) for found in pixels.content.values()]
    ones = torch.ones_like(kinds[0])
    products = [one * other for one, other in combinations_with_replacement(kinds, 2)]
    return torch.stack([ones, *kinds, *products], -1)


def _normal(content: Tensor) -> Tensor:
    """Normal scores of values among all; equal ones have equal scores."""
    from scipy.stats import rankdata

    ranks = torch.from_numpy(rankdata(content.numpy())).reshape(content.shape)
    return torch.special.ndtri(((ranks - 0.5) / content.numel()).clamp(1e-6, 1 - 1e-6))


def _gradients(pixels: PixelRanks, basis: Tensor) -> Tensor:
    """Sums over the pixels of each image of both powers of z times the basis, ``(n, draws + 1, 2, terms)``."""
    table = pixels.normal_scores()
    rows = []
    for ranks, terms in zip(pixels.ranks.flatten(3), basis, strict=True):
        scores = table[ranks.long()]
        powers = torch.stack([scores.sum(1), (scores.square() - 1).sum(1)], 1)
        rows.append(powers @ terms)
    found = torch.stack(rows)
    return found - found.mean(1, keepdim=True)


def _fitted(gradients: Tensor, chosen: Tensor, whole: Tensor) -> Tensor:
    """Coefficients of the regression for each exchange, ``(replicates + 1, terms)``."""
    return torch.linalg.solve(whole, exchanged_sums(gradients, chosen).T).T
