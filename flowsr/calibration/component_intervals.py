"""Intervals along the principal components of the draws: what pixels do together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.calibration.conformal import (
    FreshChecks,
    check_fresh,
    conformal_quantile,
    normal_quantile,
    share_of_images,
    telling_example,
    truth_of,
)
from flowsr.calibration.pixel_intervals import ROUNDING, PixelIntervals
from flowsr.plots import PALETTE, WIDTH, Panel, image_grid, new_figure, plain_axes
from flowsr.posterior.streaming import DrawSummary
from flowsr.results import text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ComponentIntervals:
    """An interval along each of the K leading principal components of the draws, and a bound on what they leave.

    The truth is ``mean + Σ_k c_k·v_k + rest``. The box is ``|c_k| ≤ λ·sqrt(var_k + 1/(12·255²))`` for all k together,
    and ``|rest| ≤ ρ`` times the norm that draws have beyond these components.

    Attributes:
        threshold: λ.
        remainder: ρ.
        promise: probability that the box holds a fresh image, and that the bound does; 0 for what the model says.

    Example:
        >>> round(ComponentIntervals.of_model(0.1, components=3).threshold, 3)
        2.114
    """

    threshold: float
    remainder: float
    promise: float = 0.0

    @classmethod
    def of_model(cls, alpha: float, *, components: int) -> ComponentIntervals:
        """What a model claims of normal, independent coefficients: nothing is calibrated.

        Of the rest it claims its root mean square.
        """
        return cls(normal_quantile((1 + (1 - alpha) ** (1 / components)) / 2), 1.0)

    def bounds(self, summary: DrawSummary) -> Tensor:
        """Half the length of the interval along each component, ``(K,)``, as a norm of images in [0, 1]."""
        return self.threshold * (summary.variances.double() + ROUNDING).sqrt()

    def holds(self, summary: DrawSummary) -> tuple[bool, bool]:
        """Whether the box, and whether the bound on the rest, holds the truth."""
        box, rest = component_scores(summary)
        return box <= self.threshold, rest <= self.remainder


def coefficients(summary: DrawSummary) -> tuple[Tensor, Tensor]:
    """Coefficients ``(K,)`` of the truth along the components, about the mean of the draws, and the rest ``(C, H, W)``.

    Raises:
        ValueError: for a summary without truth.
    """
    off = truth_of(summary) - summary.mean.double()
    vectors = summary.components.double()
    along = vectors.flatten(1) @ off.flatten()
    return along, off - (along @ vectors.flatten(1)).reshape(off.shape)


def component_scores(summary: DrawSummary) -> tuple[float, float]:
    """How large λ and ρ must be for the truth: see :class:`ComponentIntervals`."""
    along, rest = coefficients(summary)
    expected = summary.std.double().square().sum() - summary.variances.double().sum()
    expected = (expected.clamp_min(0) + rest.numel() * ROUNDING).sqrt()
    box = (along.abs() / (summary.variances.double() + ROUNDING).sqrt()).max()
    return float(box), float(rest.norm() / expected)


def calibrate_components(
    summaries: Sequence[DrawSummary], *, alpha: float = 0.1, images: Sequence[Hashable] | None = None
) -> ComponentIntervals:
    """Intervals along the components of the draws that hold a fresh image together with probability 1 − α.

    ``P(|c_k| ≤ λ·std_k for all k) ≥ 1 − α`` and ``P(|rest| ≤ ρ·|rest of draws|) ≥ 1 − α``, each for a crop of a fresh
    image that is exchangeable with those given. λ is the conformal quantile of the crops' largest ``|c_k|/std_k``.

    Cost: an inner product per component and crop.

    Args:
        summaries: of held-out pairs, see :func:`flowsr.calibration.summarize_pairs`.
        alpha: in (0, 1); at least ``1/α − 1`` images are needed.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: for too few images, saying how many are needed, or an alpha out of range.

    References:
        Belhasin, Romano, Freedman, Rivlin and Elad, Principal uncertainty quantification with spatial correlation for
        image restoration problems (TPAMI 2023), section 4. There a share of the coefficients may lie outside; here all
        are within.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> rule = calibrate_components(summarize_pairs(flow_sampler(flow, temperature=0.5), hr, lr, num_samples=32))
        >>> rule.threshold > 1.2 * ComponentIntervals.of_model(0.1, components=3).threshold
        True
    """
    scores = [component_scores(summary) for summary in summaries]
    box, rest = (conformal_quantile([score[i] for score in scores], alpha, images=images) for i in (0, 1))
    return ComponentIntervals(box, rest, 1 - alpha)


@dataclass(frozen=True)
class ComponentCheck:
    """What intervals along components did on fresh images.

    Attributes:
        intervals: that were checked.
        box: fraction of images whose coefficients all lie inside.
        rest: fraction of images whose rest keeps its bound.
        length: mean over components and crops of the intervals' length, as a norm of images in [0, 1].
    """

    intervals: ComponentIntervals
    box: Interval
    rest: Interval
    length: Interval


@dataclass(frozen=True)
class ComponentChecks(FreshChecks):
    """Intervals along principal components on fresh images, beside what the model claims and what pixels leave open.

    Attributes:
        checks: by name.
        alpha: probability with which each promise may fail.
        calibrated_on: number of images that the thresholds come from.
        pixel_length: how far along the same components intervals of pixels reach, each pixel free in its own.
        explained: share of the squared error of the draws' mean that the components explain, over fresh images.
        example: draws of the fresh crop whose spread varies most, with its truth.
    """

    checks: Mapping[str, ComponentCheck]
    alpha: float
    calibrated_on: int
    pixel_length: Interval
    explained: Interval
    example: DrawSummary = field(repr=False)

    def to_text(self) -> str:
        """Coverage and length by kind."""
        rows = [
            [name, f"{check.intervals.threshold:.2f}", f"{check.box:.0%}", f"{check.rest:.0%}", f"{check.length:.3f}"]
            for name, check in self.checks.items()
        ]
        rows.append(["intervals of pixels", "", "", "", f"{self.pixel_length:.3f}"])
        notes = [
            f"promised {1 - self.alpha:.0%} for each of both by {self.calibrated_on} images, checked on others",
            f"length as a norm of images in [0, 1]; the {len(self.example.variances)} components explain "
            f"{self.explained:.0%} of the squared error",
        ]
        head = ["intervals along components", "λ", "images inside", "rest within", "length"]
        return text_table(head, rows, title="Principal components of the draws on fresh images", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        along, _ = coefficients(self.example)
        for place, value in enumerate(along.tolist()):
            for offset, (check, colour) in enumerate(zip(self.checks.values(), ("red", "blue"), strict=False)):
                reach = float(check.intervals.bounds(self.example)[place])
                y = -place - 0.12 + 0.24 * (offset == 0)
                ax.plot([-reach, reach], [y, y], color=PALETTE[colour], linewidth=3, solid_capstyle="butt")
            ax.plot(value, -place, "o", color=PALETTE["ink"], markersize=5)
        for (name, check), colour in zip(self.checks.items(), ("red", "blue"), strict=False):
            label = f"{name}: {check.box.value:.0%} of fresh images inside"
            ax.plot([], [], color=PALETTE[colour], linewidth=3, label=label)
        ax.plot([], [], "o", color=PALETTE["ink"], markersize=5, linestyle="none", label="the truth")
        ax.set_yticks([-i for i in range(len(along))], [f"component {i + 1}" for i in range(len(along))], fontsize=8)
        ax.set_ylim(-len(along) + 0.3, 0.7)
        ax.set_xlabel("distance from the mean of the draws", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.set_title("a fresh crop: intervals and truth", loc="left", fontsize=9)
        ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
        plain_axes(ax)

    def _draw_figure(self) -> Figure:
        figure = new_figure(WIDTH, 4.7)
        top, bottom = figure.subfigures(2, 1, height_ratios=(2.4, 2.3), squeeze=False).flat
        self._draw_main(top.subplots())
        total = float(self.example.std.square().sum()) or 1.0
        panels = [Panel(truth_of(self.example).float(), "the crop")]
        for i, (vector, variance) in enumerate(zip(self.example.components, self.example.variances, strict=True)):
            shown = 0.5 + 0.45 * vector / vector.abs().max().clamp_min(1e-12)
            panels.append(Panel(shown, f"component {i + 1}\n{float(variance) / total:.0%} of the draws' variance"))
        image_grid(panels, columns=max(4, len(panels)), into=bottom)
        return figure


def check_components(
    intervals: Mapping[str, ComponentIntervals],
    summaries: Sequence[DrawSummary],
    *,
    alpha: float,
    calibrated_on: int,
    pixels: PixelIntervals,
    images: Sequence[Hashable] | None = None,
) -> ComponentChecks:
    """How often intervals along components hold fresh images, and how long they are beside those of pixels.

    Intervals of pixels with ends ``low`` and ``high`` reach over ``Σ_p |v_p|·(high_p − low_p)`` along a component v:
    they do not know that its pixels move together.

    Cost: an inner product per component and crop.

    Args:
        intervals: by name; the figure shows the first two.
        summaries: of pairs that took no part in the calibration.
        alpha: probability with which each promise may fail.
        calibrated_on: number of images that the thresholds come from.
        pixels: intervals of pixels to compare with.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: without intervals or summaries, or for summaries without truth.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> fresh = summarize_pairs(flow_sampler(flow), hr, lr, num_samples=32)
        >>> claims = {"claim": ComponentIntervals.of_model(0.1, components=3)}
        >>> pixels = PixelIntervals.of_model("std", 0.1)
        >>> checks = check_components(claims, fresh, alpha=0.1, calibrated_on=0, pixels=pixels)
        >>> checks.pixel_length.value > checks.checks["claim"].length.value
        True
    """
    check_fresh(summaries, images)
    if not intervals:
        raise ValueError("expected at least one kind of intervals; got none")

    def check(one: ComponentIntervals) -> ComponentCheck:
        box, rest = zip(*(one.holds(summary) for summary in summaries), strict=True)
        lengths = [2 * float(one.bounds(summary).mean()) for summary in summaries]
        return ComponentCheck(
            one,
            share_of_images([float(inside) for inside in box], images),
            share_of_images([float(inside) for inside in rest], images),
            bootstrap_interval(lengths, clusters=images),
        )

    return ComponentChecks(
        {name: check(one) for name, one in intervals.items()},
        alpha,
        calibrated_on,
        bootstrap_interval([_reach(pixels, summary) for summary in summaries], clusters=images),
        bootstrap_interval([_explained(summary) for summary in summaries], clusters=images),
        telling_example(summaries),
    )


def _reach(pixels: PixelIntervals, summary: DrawSummary) -> float:
    low, high = pixels.bounds(summary)
    return float((summary.components.double().abs() * (high - low).clamp_min(0)).sum((1, 2, 3)).mean())


def _explained(summary: DrawSummary) -> float:
    along, rest = coefficients(summary)
    inside = float(along.square().sum())
    return inside / max(inside + float(rest.square().sum()), 1e-30)
