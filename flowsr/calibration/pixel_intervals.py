"""Intervals for every pixel that hold on fresh images, whatever is wrong with the model's spread."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.conformal import (
    FreshChecks,
    check_fraction,
    check_fresh,
    conformal_quantile,
    least_images,
    normal_quantile,
    risk_quantile,
    share_of_images,
    telling_example,
    truth_of,
)
from flowsr.plots import PALETTE, WIDTH, Panel, heat_limit, image_grid, new_figure, plain_axes, plain_text
from flowsr.posterior.streaming import DrawSummary
from flowsr.results import text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval, cluster_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Width = Literal["std", "quantiles", "constant"]
"""What intervals are as wide as: λ standard deviations of the draws about their mean, quantiles of the draws moved
apart by λ, or λ about the mean everywhere, which needs no draws."""

Guarantee = Literal["pixels", "images", "risk"]
"""What holds of a fresh image: see :func:`calibrate_intervals`."""

ROUNDING = (1 / 255) ** 2 / 12
"""Variance of what rounding to 8 bits does to a truth: draws that agree to the bit do not know it better."""


@dataclass(frozen=True)
class PixelIntervals:
    """An interval for every pixel, from what draws of an LR image have in common.

    ``mean ± λ·sqrt(std² + 1/(12·255²))`` for ``std``, ``[q_first − λ, q_last + λ]`` for ``quantiles``, ``mean ± λ`` for
    ``constant``.

    Attributes:
        width: what they are as wide as.
        threshold: λ; in units of [0, 1] but for ``std``, and below zero for quantiles that were too wide.
        promise: what holds of a fresh image, in words; empty for what the model itself says.

    Example:
        >>> PixelIntervals.of_model("std", 0.1).threshold
        1.6448536269514722
    """

    width: Width
    threshold: float
    promise: str = ""

    @classmethod
    def of_model(cls, width: Width, alpha: float) -> PixelIntervals:
        """Those that a model itself claims to hold the truth with probability ``1 − α``: nothing is calibrated.

        Raises:
            ValueError: for a constant width, of which a model says nothing.
        """
        if width == "constant":
            raise ValueError("expected std or quantiles: a model claims no constant width; got constant")
        return cls(width, normal_quantile(1 - alpha / 2) if width == "std" else 0.0)

    def bounds(self, summary: DrawSummary) -> tuple[Tensor, Tensor]:
        """Lower and upper ends ``(C, H, W)``, float64, not clamped to [0, 1]; crossed where an interval is empty."""
        if self.width == "quantiles":
            return summary.quantiles[0].double() - self.threshold, summary.quantiles[-1].double() + self.threshold
        half = self.threshold * (summary.std.double().square() + ROUNDING).sqrt()
        half = torch.full_like(half, self.threshold) if self.width == "constant" else half
        return summary.mean.double() - half, summary.mean.double() + half

    def misses(self, summary: DrawSummary) -> Tensor:
        """Which values of the truth lie outside, ``(C, H, W)``."""
        return pixel_scores(summary, self.width) > self.threshold

    def size(self, summary: DrawSummary) -> float:
        """Mean width, in units of [0, 1]."""
        low, high = self.bounds(summary)
        return float((high - low).clamp_min(0).mean())


def pixel_scores(summary: DrawSummary, width: Width) -> Tensor:
    """How large λ must be for the interval of each value to reach the truth, ``(C, H, W)``.

    Raises:
        ValueError: for a summary without truth.
    """
    truth = truth_of(summary)
    if width == "quantiles":
        return torch.maximum(summary.quantiles[0].double() - truth, truth - summary.quantiles[-1].double())
    off = (truth - summary.mean.double()).abs()
    return off if width == "constant" else off / (summary.std.double().square() + ROUNDING).sqrt()


def calibrate_intervals(
    summaries: Sequence[DrawSummary],
    *,
    alpha: float = 0.1,
    width: Width = "std",
    guarantee: Guarantee = "pixels",
    confidence: float = 0.9,
    images: Sequence[Hashable] | None = None,
) -> PixelIntervals:
    """Widen or narrow the intervals of a model until they hold on fresh images, by held-out pairs.

    Three promises, each for a crop of a fresh image that is exchangeable with those given:

    * ``pixels``: a value taken at random from it lies inside with probability at least 1 − α. At least ``1/α − 1``
      images.
    * ``images``: with probability ``confidence`` at most a fraction α of its values lies outside. At least ``1/(1 −
      confidence) − 1`` images.
    * ``risk``: with ``confidence`` over sets of images to calibrate with, ``pixels`` holds for the set at hand, not
      only on average over sets. At least ``log(1 − confidence)/log(1 − α)`` images.

    They say nothing of one pixel at one place, nor of one kind of image: a smooth sky is covered more often than hair.
    Images that the model was trained on are not exchangeable with fresh ones: intervals made of them are too narrow.
    Nor are summaries of other draws: of a fresh image they must be as many, of the same sampler, on a crop of the same
    size. ``risk`` asks that images be drawn independently of each other.

    Cost: sorting all pixels.

    Args:
        summaries: of held-out pairs, see :func:`flowsr.calibration.summarize_pairs`; for ``quantiles`` with levels that
            are α apart from 1 together.
        alpha: in (0, 1).
        width: what intervals are as wide as.
        guarantee: which promise.
        confidence: of ``images`` and ``risk``, in (0, 1).
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: for too few images, saying how many are needed, or for numbers out of range.

    References:
        Romano, Patterson and Candès, Conformalized quantile regression (NeurIPS 2019), equation 6, for ``quantiles``;
        Lei et al., Distribution-free predictive inference for regression (JASA 2018), section 5.2, for ``std``;
        Angelopoulos et al., Image-to-image regression with distribution-free uncertainty quantification (ICML 2022),
        for ``risk``; Lee, Barber and Willett (arXiv 2306.06342) for several crops of one image.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> too_sure = summarize_pairs(flow_sampler(flow, temperature=0.5), hr, lr, num_samples=32)
        >>> claimed, right = PixelIntervals.of_model("std", 0.1), calibrate_intervals(too_sure)
        >>> 1.7 < right.threshold / claimed.threshold < 2.6
        True
    """
    if width not in get_args(Width) or guarantee not in get_args(Guarantee):
        raise ValueError(
            f"expected a width among {', '.join(get_args(Width))} and a guarantee among "
            f"{', '.join(get_args(Guarantee))}; got {width!r} and {guarantee!r}"
        )
    scores = [pixel_scores(summary, width) for summary in summaries]
    if guarantee == "pixels":
        return PixelIntervals(width, conformal_quantile(scores, alpha, images=images), f"{1 - alpha:.0%} of pixels")
    if guarantee == "risk":
        found = risk_quantile(scores, alpha, confidence=confidence, images=images)
        return PixelIntervals(width, found, f"{1 - alpha:.0%} of pixels, confidence {confidence:.0%}")
    check_fraction(alpha, "alpha")
    check_fraction(confidence, "confidence")
    count = len(summaries) if images is None else len(set(cluster_names(images)))
    if count < (least := least_images(1 - confidence)):  # which conformal_quantile would tell of alpha
        raise ValueError(
            f"expected at least {least} images for confidence {confidence:g}; got {count}: give more images (crops of "
            "one do not count), or ask for less confidence"
        )
    needed = [float(np.quantile(score.numpy(), 1 - alpha, method="inverted_cdf")) for score in scores]
    found = conformal_quantile(needed, 1 - confidence, images=images)
    return PixelIntervals(width, found, f"{1 - alpha:.0%} of pixels in {confidence:.0%} of images")


@dataclass(frozen=True)
class IntervalCheck:
    """What intervals did on fresh images.

    Attributes:
        intervals: that were checked.
        coverage: fraction of values inside.
        images: fraction of images, by their crops, with at most a fraction α of values outside.
        size: mean width, in units of [0, 1].
    """

    intervals: PixelIntervals
    coverage: Interval
    images: Interval
    size: Interval


@dataclass(frozen=True)
class IntervalChecks(FreshChecks):
    """Intervals of several kinds on fresh images, beside what the model claims.

    Attributes:
        checks: by name.
        alpha: fraction of values that may lie outside.
        calibrated_on: number of images that the thresholds come from.
        example: draws of the fresh crop whose spread varies most, with its truth.
    """

    checks: Mapping[str, IntervalCheck]
    alpha: float
    calibrated_on: int
    example: DrawSummary = field(repr=False)

    def to_text(self) -> str:
        """Coverage and width by kind."""
        rows = [
            [
                name,
                check.intervals.promise or "none",
                f"{check.coverage:.1%}",
                f"{check.images:.0%}",
                f"{_levels(check.size):.1f}",
            ]
            for name, check in self.checks.items()
        ]
        notes = [
            f"promises by {self.calibrated_on} images, checked on others; intervals are 95 %, over images",
            f"images: those with at most {self.alpha:.0%} of their values outside",
        ]
        head = ["intervals", "promise", "values inside", "images", "width, grey levels"]
        return text_table(head, rows, title="Intervals of pixels on fresh images", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        self._draw_dots(ax, "coverage", 100, "values inside, percent")
        ax.axvline(100 * (1 - self.alpha), color=PALETTE["ink"], linewidth=0.8, linestyle=":")
        ax.set_title(f"inside on fresh images; dotted: {1 - self.alpha:.0%}", loc="left", fontsize=9)

    def _draw_figure(self) -> Figure:
        figure = new_figure(WIDTH, 3.5 + 0.28 * len(self.checks))
        top, bottom = figure.subfigures(2, 1, height_ratios=(0.9 + 0.28 * len(self.checks), 2.6), squeeze=False).flat
        left, right = top.subplots(1, 2, sharey=True)
        self._draw_main(left)
        self._draw_dots(right, "size", 255, "mean width, grey levels of 255")
        right.set_title("width: smaller says more", loc="left", fontsize=9)
        right.set_xlim(left=0)
        image_grid(self._panels(), columns=4, into=bottom)
        return figure

    def _draw_dots(self, ax: Axes, what: str, scale: float, label: str) -> None:
        for place, check in enumerate(self.checks.values()):
            found: Interval = getattr(check, what)
            colour = PALETTE["blue" if check.intervals.promise else "red"]
            ax.plot([scale * found.low, scale * found.high], [-place, -place], color=colour, linewidth=1.4)
            ax.plot(scale * found.value, -place, "o", color=colour, markersize=5)
        ax.set_yticks(-np.arange(len(self.checks)), [plain_text(name) for name in self.checks], fontsize=8)
        ax.set_ylim(-len(self.checks) + 0.4, 0.6)
        ax.set_xlabel(label, fontsize=8)
        ax.tick_params(labelsize=8)
        plain_axes(ax)

    def _panels(self) -> list[Panel]:
        """A fresh crop: the truth, how wide its intervals are, and which values lie outside."""
        chosen = [
            next((c for c in self.checks.values() if bool(c.intervals.promise) is kept), None) for kept in (False, True)
        ]
        truth = truth_of(self.example)
        panels = [Panel(truth.float(), "a fresh crop")]
        for check, name in zip(chosen, ("model", "conformal"), strict=True):
            if check is not None:
                outside = check.intervals.misses(self.example).any(0).float()
                panels.append(
                    Panel(1 - outside[None], f"outside: {name}\n{float(outside.mean()):.0%} of pixels, black")
                )
        if chosen[1] is not None:
            low, high = chosen[1].intervals.bounds(self.example)
            width = (high - low).clamp_min(0).float()
            panels.append(Panel(width, "width, conformal\nmean over the channels", heat=heat_limit(width)))
        return panels


def check_intervals(
    intervals: Mapping[str, PixelIntervals],
    summaries: Sequence[DrawSummary],
    *,
    alpha: float,
    calibrated_on: int,
    images: Sequence[Hashable] | None = None,
) -> IntervalChecks:
    """How often intervals hold on fresh images, and how wide they are.

    Cost: a comparison per pixel.

    Args:
        intervals: by name.
        summaries: of pairs that took no part in the calibration.
        alpha: fraction of values that may lie outside.
        calibrated_on: number of images that the thresholds come from.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: without intervals or summaries, or for summaries without truth.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> fresh = summarize_pairs(flow_sampler(flow), hr, lr, num_samples=32)
        >>> checks = check_intervals({"claim": PixelIntervals.of_model("std", 0.1)}, fresh, alpha=0.1, calibrated_on=0)
        >>> 0.85 < checks.checks["claim"].coverage.value < 0.95
        True
    """
    check_fresh(summaries, images)
    if not intervals:
        raise ValueError("expected at least one kind of intervals; got none")

    def check(one: PixelIntervals) -> IntervalCheck:
        inside = [1 - float(one.misses(summary).double().mean()) for summary in summaries]
        return IntervalCheck(
            one,
            bootstrap_interval(inside, clusters=images),
            share_of_images([float(share >= 1 - alpha - 1e-9) for share in inside], images),
            bootstrap_interval([one.size(summary) for summary in summaries], clusters=images),
        )

    found = {name: check(one) for name, one in intervals.items()}
    return IntervalChecks(found, alpha, calibrated_on, telling_example(summaries))


def _levels(found: Interval) -> Interval:
    return Interval(255 * found.value, 255 * found.low, 255 * found.high, found.level, found.count)
