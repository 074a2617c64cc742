"""The terms of a log-likelihood as bars: what costs bits, what saves them, and what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from flowsr.likelihood import LogLikelihoodTerms
from flowsr.plots.style import PALETTE, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TermBar:
    """One bar.

    Args:
        label: what the term is.
        bits: its share of the bits per dimension; positive costs, negative saves.
        colour: a name in :data:`flowsr.plots.PALETTE`.
    """

    label: str
    bits: float
    colour: str


_KINDS = {
    "LR": ("LR image under N(lr, σ²)", "orange"),
    "latent": ("latents z_{} under N(0, 1)", "blue"),
    "main": ("log-det of main flow {}", "green"),
    "conditional": ("log-det of conditional steps {}", "sky"),
    "Gaussian": ("log-det of Gaussian head {}", "purple"),
}


def term_bars(terms: LogLikelihoodTerms, *, bins: int | None = 256) -> list[TermBar]:
    """The terms as shares ``−term/(D·ln 2)`` of the bits per dimension, and last their sum; batches are averaged.

    Args:
        terms: from :func:`flowsr.likelihood.decompose`.
        bins: grey levels of the dequantized image, which cost ``log2(bins)`` bits each; None for the density's bits.

    Raises:
        ValueError: if a term is not finite.

    Example:
        >>> import torch, flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> terms = flowsr.likelihood.decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4))
        >>> bars = term_bars(terms)
        >>> abs(sum(bar.bits for bar in bars[:-1]) - bars[-1].bits) < 1e-4
        True
    """
    scale = -1.0 / (terms.dims * math.log(2.0))
    bars = []
    for name, value in terms.named().items():
        value = value.detach()
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"expected finite terms; got {value.tolist()} for {name}")
        label, colour = _KINDS[name.split(" ", 1)[0]]
        level = name.rsplit(" ", 1)[-1].removeprefix("z_")
        bars.append(TermBar(label.format(level), scale * float(value.mean()), colour))
    if bins is not None:
        bars.append(TermBar(f"grey levels: log₂ {bins}", math.log2(bins), "grey"))
    return [*bars, TermBar("total", sum(bar.bits for bar in bars), "ink")]


def likelihood_bars(terms: LogLikelihoodTerms, *, bins: int | None = 256, width: float = 8.0) -> Figure:
    """A figure of :func:`term_bars`.

    Example:
        >>> import torch, flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> terms = flowsr.likelihood.decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4))
        >>> likelihood_bars(terms).axes[0].get_xlabel()
        'bits per dimension (D = C·H·W = 768)'
    """
    bars = term_bars(terms, bins=bins)
    figure = new_figure(width, 0.9 + 0.3 * len(bars))
    draw_term_bars(figure.subplots(), bars, dims=terms.dims)
    return figure


def draw_term_bars(axes: Axes, bars: Sequence[TermBar], *, dims: int) -> None:
    """Draw bars from top to bottom with their values; the last one is the sum of the others."""

    low, high = min(0.0, *(bar.bits for bar in bars)), max(0.0, *(bar.bits for bar in bars))
    room = 0.02 * (high - low or 1.0)
    total = len(bars) - 1
    # The sum stands a little apart, under a line, as in a written addition.
    positions = [-row - (0.4 if row == total else 0.0) for row in range(len(bars))]
    for row, (bar, y) in enumerate(zip(bars, positions, strict=True)):
        axes.barh(y, bar.bits, height=0.66, color=PALETTE[bar.colour])
        text = f"{bar.bits:.2f}" if row == total else f"{bar.bits:+.2f}"
        side, weight = "left" if bar.bits >= 0 else "right", "bold" if row == total else "normal"
        at = bar.bits + math.copysign(room, bar.bits)
        axes.text(at, y, text.replace("-", "−"), ha=side, va="center", fontsize=8, weight=weight)
    axes.set_yticks(positions, [bar.label for bar in bars], fontsize=8)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axvline(0.0, color=PALETTE["ink"], linewidth=0.8)
    axes.axhline(positions[-1] + 0.7, color=PALETTE["grey"], linewidth=0.6)
    axes.set_xlim(low - 8 * room, high + 8 * room)
    axes.set_xlabel(f"bits per dimension (D = C·H·W = {dims})", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
