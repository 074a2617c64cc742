"""Whether the spread of draws says where the mean is wrong: error against std, reliability, sparsification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flowsr.images import check_image
from flowsr.plots import PALETTE, WIDTH, new_figure, plain_axes
from flowsr.posterior.streaming import DrawSummary
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class UncertaintyQuality(Result):
    """How well the draws' spread predicts the error of their mean, over pixels.

    Attributes:
        std: mean standard deviation in each of the bins of equally many pixels, in units of [0, 1], rising.
        rmse: root mean square error of the mean in the same bins; ``std`` times √(1 + 1/n) if the draws are right.
        levels: nominal levels of the quantiles.
        below: fraction of pixels whose true value is below the quantile: the reliability curve, the diagonal if right.
        removed: fractions of pixels removed, the most uncertain first.
        by_std: RMSE of the rest, as a fraction of that of all.
        by_error: the same when the largest errors are removed first, the best any ordering can do.
        ause: area between the two, 0 for a perfect ordering.
        ause_random: that of an ordering that knows nothing.
        pixels: number of values.
    """

    std: Tensor
    rmse: Tensor
    levels: tuple[float, ...]
    below: tuple[float, ...]
    removed: Tensor
    by_std: Tensor
    by_error: Tensor
    ause: float
    ause_random: float
    pixels: int

    @property
    def calibration_slope(self) -> float:
        """RMSE of all over the root mean square std: 1 if right, above 1 for draws that are too sure."""
        return float(self.rmse.square().mean().sqrt() / self.std.square().mean().sqrt().clamp_min(1e-12))

    def to_text(self) -> str:
        """Both curves as tables, and the areas."""
        rows = [
            [f"{255 * s:.2f}", f"{255 * e:.2f}"] for s, e in zip(self.std.tolist(), self.rmse.tolist(), strict=True)
        ]
        notes = [
            f"RMSE / std over all pixels {self.calibration_slope:.2f} (1 if right)",
            f"AUSE {self.ause:.3f}, of a random order {self.ause_random:.3f} (0 is perfect)",
            "true value below quantile: "
            + ", ".join(f"{q:g}: {b:.1%}" for q, b in zip(self.levels, self.below, strict=True)),
        ]
        return text_table(["std, grey levels", "RMSE"], rows, title="Error against std", notes=notes)

    def plot(self, ax: Axes | None = None) -> Figure:
        """Error against std, reliability, and sparsification; into ``ax`` the first alone."""
        if ax is not None:
            self._draw_errors(ax)
            return ax.figure  # type: ignore[return-value]
        figure = new_figure(WIDTH, 5.6)
        *axes, spare = figure.subplots(2, 2).flat
        spare.remove()
        self._draw_errors(axes[0])
        self._draw_reliability(axes[1])
        self._draw_sparsification(axes[2])
        return figure

    def _draw_errors(self, axes: Axes) -> None:
        axes.plot(255 * self.std.numpy(), 255 * self.rmse.numpy(), "o-", color=PALETTE["blue"], markersize=3)
        top = 255 * float(torch.maximum(self.std, self.rmse).max())
        axes.plot([0, top], [0, top], color=PALETTE["ink"], linewidth=0.8)
        _label(axes, "std of the draws, grey levels", "RMSE of their mean", "error against std")

    def _draw_reliability(self, axes: Axes) -> None:
        axes.plot(self.levels, self.below, "o-", color=PALETTE["blue"], markersize=3)
        axes.plot([0, 1], [0, 1], color=PALETTE["ink"], linewidth=0.8)
        _label(axes, "quantile of the draws", "fraction of true values below", "reliability")

    def _draw_sparsification(self, axes: Axes) -> None:
        axes.plot(self.removed, self.by_std, color=PALETTE["blue"], label="most uncertain first")
        axes.plot(self.removed, self.by_error, color=PALETTE["orange"], label="largest error first")
        axes.axhline(1.0, color=PALETTE["grey"], linewidth=0.8, label="at random")
        axes.legend(fontsize=7, frameon=False, loc="lower left")
        _label(axes, "fraction of pixels removed", "RMSE of the rest / of all", f"sparsification, AUSE {self.ause:.3f}")


def _label(axes: Axes, x: str, y: str, title: str) -> None:

    plain_axes(axes, keep=("left", "bottom"))
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.set_title(title, loc="left", fontsize=9)
    axes.tick_params(labelsize=8)


def uncertainty_quality(
    summaries: Sequence[DrawSummary], truths: Sequence[Tensor], *, bins: int = 10
) -> UncertaintyQuality:
    """Compare the draws' spread with the error of their mean, over the pixels of one or more images.

    Cost: sorting all pixels.

    Args:
        summaries: of draws, with the same quantile levels.
        truths: the true images ``(C, H, W)``, in the same order.
        bins: of pixels, by their std.

    Raises:
        ValueError: for numbers or shapes that do not fit.

    References:
        Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow (ECCV 2018), section 4, for
        sparsification and AUSE; Kuleshov et al. (ICML 2018), section 3, for reliability.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow, summarize_draws
        >>> flow, lr = LinearGaussianFlow(), torch.full((1, 8, 8), 0.5)
        >>> summary = summarize_draws(flow, lr, num_samples=200)
        >>> truth = flow.sample(lr, generator=torch.Generator().manual_seed(1))[0]
        >>> 0.7 < uncertainty_quality([summary], [truth]).calibration_slope < 1.3
        True
    """
    if not summaries or len(summaries) != len(truths) or len({s.levels for s in summaries}) != 1:
        raise ValueError(
            f"expected as many truths as summaries, at least one, of the same quantile levels; got {len(summaries)} "
            f"summaries and {len(truths)} truths"
        )
    for summary, truth in zip(summaries, truths, strict=True):
        check_image(truth, name="truth", tolerance=None)
        if summary.mean.shape != truth.shape:
            raise ValueError(f"expected a truth of shape {tuple(summary.mean.shape)}; got {tuple(truth.shape)}")
    std = torch.cat([summary.std.flatten() for summary in summaries]).double()
    off = torch.cat([(s.mean - t.cpu()).flatten() for s, t in zip(summaries, truths, strict=True)]).double()
    if len(std) < bins or bins < 1:
        raise ValueError(f"expected at least as many pixels as bins; got {len(std)} and {bins}")
    order = std.argsort()
    groups = order.tensor_split(bins)
    below = [
        float(
            torch.cat([(t.cpu() <= s.quantiles[i]).flatten() for s, t in zip(summaries, truths, strict=True)])
            .double()
            .mean()
        )
        for i in range(len(summaries[0].levels))
    ]
    removed = torch.linspace(0, 0.98, 50, dtype=torch.float64, device="cpu")
    by_std = _sparsify(off, order, removed)
    by_error = _sparsify(off, off.abs().argsort(), removed)
    x = removed.numpy()
    return UncertaintyQuality(
        std=torch.stack([std[group].square().mean().sqrt() for group in groups]),
        rmse=torch.stack([off[group].square().mean().sqrt() for group in groups]),
        levels=summaries[0].levels,
        below=tuple(below),
        removed=removed,
        by_std=by_std,
        by_error=by_error,
        ause=float(np.trapezoid((by_std - by_error).numpy(), x)),
        ause_random=float(np.trapezoid((1 - by_error).numpy(), x)),
        pixels=len(std),
    )


def _sparsify(off: Tensor, order: Tensor, removed: Tensor) -> Tensor:
    """RMSE of the first pixels in an order, relative to that of all, for each fraction removed from its end."""
    sums = off[order].square().cumsum(0)
    kept = ((1 - removed) * len(off)).long().clamp(1, len(off))
    means = sums[kept - 1] / kept
    return (means / means[0].clamp_min(1e-30)).sqrt()
