"""Confidence masks: the region of an image where the mean of the draws can be relied on, with a stated probability."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsr.calibration.conformal import (
    FreshChecks,
    check_fresh,
    conformal_quantile,
    normal_quantile,
    share_of_images,
    truth_of,
)
from flowsr.plots import PALETTE, WIDTH, Panel, heat_limit, image_grid, new_figure, plain_axes
from flowsr.posterior.streaming import DrawSummary
from flowsr.results import text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ConfidenceMask:
    """A region that can be relied on: where the standard deviation of the draws is below a threshold.

    Attributes:
        threshold: the region is where the root mean square over channels of the draws' std is below it, in units of
            [0, 1]; ``inf`` for the whole image.
        bound: a pixel is wrong where the mean of the draws is further from the truth in some channel, of [0, 1].
        wrong: fraction of the region's pixels that may be wrong, rounded up to a whole number of them.
        promise: probability with which a fresh image has no more of them; 0 for what the model says.

    Example:
        >>> mask = ConfidenceMask.of_model(0.1, wrong=0.05, channels=1)
        >>> round(mask.threshold, 3)
        0.051
    """

    threshold: float
    bound: float
    wrong: float
    promise: float = 0.0

    @classmethod
    def of_model(cls, bound: float, *, wrong: float, channels: int) -> ConfidenceMask:
        """Where a model claims that a pixel is wrong with probability below ``wrong``, if draws are normal.

        ``std < bound / z(1 − wrong/(2·channels))``, z the normal quantile: nothing is calibrated.
        """
        return cls(bound / normal_quantile(1 - wrong / (2 * channels)), bound, wrong)

    def region(self, summary: DrawSummary) -> Tensor:
        """Which pixels can be relied on, ``(H, W)``, bool."""
        return spread_map(summary) < self.threshold

    def kept(self, summary: DrawSummary) -> bool:
        """Whether at most the allowed share of the region is wrong."""
        region = self.region(summary)
        wrong = int((error_map(summary) > self.bound)[region].sum())
        return wrong <= _allowed(int(region.sum()), self.wrong)


def spread_map(summary: DrawSummary) -> Tensor:
    """Root mean square over channels of the draws' standard deviation, ``(H, W)``."""
    return summary.std.double().square().mean(0).sqrt()


def error_map(summary: DrawSummary) -> Tensor:
    """Largest error over channels of the mean of the draws, ``(H, W)``; raises ValueError without a truth."""
    return (truth_of(summary) - summary.mean.double()).abs().amax(0)


def _allowed(pixels: int, wrong: float) -> int:
    return math.ceil(wrong * pixels - 1e-9)


def mask_score(summary: DrawSummary, *, bound: float, wrong: float) -> float:
    """The largest threshold up to which every region of this image keeps its share of wrong pixels; may be ``inf``."""
    spread, order = spread_map(summary).flatten().sort()
    bad = (error_map(summary).flatten()[order] > bound).cumsum(0)
    pixels = torch.arange(1, len(spread) + 1, device=spread.device)
    # Pixels of equal spread are in the region together or not at all.
    last = torch.cat([spread[1:] > spread[:-1], torch.ones(1, dtype=torch.bool, device=spread.device)])
    broken = last & (bad > (wrong * pixels - 1e-9).ceil())
    return float(spread[broken][0]) if bool(broken.any()) else math.inf


def calibrate_mask(
    summaries: Sequence[DrawSummary],
    *,
    bound: float,
    wrong: float = 0.05,
    alpha: float = 0.1,
    images: Sequence[Hashable] | None = None,
) -> ConfidenceMask:
    """The region where errors are below a bound, for all but a share of its pixels, with probability 1 − α.

    ``P(at most a fraction "wrong" of the pixels with std < λ are off by more than the bound) ≥ 1 − α``, for a crop of a
    fresh image that is exchangeable with those given. λ is a conformal quantile of the thresholds up to which each
    image's regions keep their share. A larger region is worth more; an empty one keeps every promise.

    Cost: sorting the pixels.

    Args:
        summaries: of held-out pairs, see :func:`flowsr.calibration.summarize_pairs`.
        bound: of the error, > 0, in units of [0, 1].
        wrong: fraction of the region's pixels that may be off by more, in [0, 1), rounded up to a whole number of them.
        alpha: in (0, 1); at least ``1/α − 1`` images are needed.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: for too few images, saying how many are needed, or for numbers out of range.

    References:
        Kutiel, Cohen, Elad, Freedman and Rivlin, Conformal prediction masks: visualizing uncertainty in medical imaging
        (ICLR 2023 workshop on trustworthy machine learning for healthcare), whose masks weigh pixels and bound a mean
        error; Angelopoulos et al., Conformal risk control (ICLR 2024), section 2.1, for losses that are not monotone.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> summaries = summarize_pairs(flow_sampler(flow), hr, lr, num_samples=32)
        >>> narrow, wide = (calibrate_mask(summaries, bound=b).threshold for b in (0.1, 0.4))
        >>> narrow < wide
        True
    """
    if not bound > 0 or not 0 <= wrong < 1:
        raise ValueError(f"expected a bound > 0 and wrong in [0, 1); got {bound} and {wrong}")
    scores = [-mask_score(summary, bound=bound, wrong=wrong) for summary in summaries]
    return ConfidenceMask(-conformal_quantile(scores, alpha, images=images), bound, wrong, 1 - alpha)


@dataclass(frozen=True)
class MaskCheck:
    """What a mask did on fresh images.

    Attributes:
        mask: that was checked.
        kept: fraction of images, by their crops, whose region has no more wrong pixels than allowed.
        area: mean share of the image that the region covers.
        wrong: fraction of all pixels in regions that are wrong.
    """

    mask: ConfidenceMask
    kept: Interval
    area: Interval
    wrong: float


@dataclass(frozen=True)
class MaskChecks(FreshChecks):
    """Confidence masks on fresh images, beside what the model claims.

    Attributes:
        checks: by name.
        alpha: probability with which a region may have too many wrong pixels.
        calibrated_on: number of images that the threshold comes from.
        right: mean share of pixels that are right: no region that keeps its promise for all images can be much larger.
        example: draws of the fresh crop of which the last mask covers nearest to half, with its truth.
    """

    checks: Mapping[str, MaskCheck]
    alpha: float
    calibrated_on: int
    right: Interval
    example: DrawSummary = field(repr=False)

    def to_text(self) -> str:
        """How often masks keep their promise, and how large they are."""
        rows = [
            [
                name,
                f"{255 * check.mask.threshold:.1f}",
                f"{check.kept:.0%}",
                f"{check.area:.0%}",
                f"{check.wrong:.1%}",
            ]
            for name, check in self.checks.items()
        ]
        rows.append(["right, of all pixels", "", "", f"{self.right:.0%}", ""])
        mask = next(iter(self.checks.values())).mask
        notes = [
            f"promised to {1 - self.alpha:.0%} of images, by {self.calibrated_on}, checked on others: at most "
            f"{mask.wrong:.0%} of the region off by more than {255 * mask.bound:.0f} grey levels",
        ]
        head = ["mask", "std below, grey levels", "images kept", "area", "wrong in it"]
        return text_table(head, rows, title="Confidence masks on fresh images", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        wrong = (error_map(self.example) > next(iter(self.checks.values())).mask.bound).double().flatten()
        order = spread_map(self.example).flatten().argsort()
        area = torch.arange(1, len(wrong) + 1, dtype=torch.float64, device="cpu")
        share = 100 * wrong[order].cumsum(0) / area
        ax.plot(100 * area / len(wrong), share, color=PALETTE["grey"], linewidth=1.2, label="regions of this crop")
        for (name, check), colour in zip(self.checks.items(), ("red", "blue"), strict=False):
            pixels = int(check.mask.region(self.example).sum())
            where = (100 * pixels / len(wrong), float(share[pixels - 1]) if pixels else 0.0)
            ax.plot(*where, "o", color=PALETTE[colour], label=f"{name}: kept in {check.kept.value:.0%} of fresh images")
        mask = next(iter(self.checks.values())).mask
        ax.axhline(100 * mask.wrong, color=PALETTE["ink"], linewidth=0.8, linestyle=":", label="allowed")
        ax.set_xlabel("region, percent of the crop, the surest pixels first", fontsize=8)
        ax.set_ylabel(f"off by more than\n{255 * mask.bound:.0f} grey levels, percent", fontsize=8)
        ax.set_title("a fresh crop: what its regions hold", loc="left", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7, frameon=False)
        plain_axes(ax, keep=("left", "bottom"))

    def _draw_figure(self) -> Figure:
        figure = new_figure(WIDTH, 5.2)
        top, bottom = figure.subfigures(2, 1, height_ratios=(2.8, 2.4), squeeze=False).flat
        image_grid(self._panels(), columns=4, into=top)
        self._draw_main(bottom.subplots())
        return figure

    def _panels(self) -> list[Panel]:
        truth, error = truth_of(self.example).float(), error_map(self.example)[None].float()
        panels = [Panel(truth, "a fresh crop"), Panel(error, "error of the mean", heat=heat_limit(error))]
        for name, check in list(self.checks.items())[:2]:
            region = check.mask.region(self.example)
            # What cannot be relied on is hatched.
            shown = torch.where(region, self.example.mean.clamp(0, 1), torch.full_like(truth, math.nan))
            panels.append(Panel(shown, f"mask: {name}\n{float(region.double().mean()):.0%}; the rest is hatched"))
        return panels


def check_masks(
    masks: Mapping[str, ConfidenceMask],
    summaries: Sequence[DrawSummary],
    *,
    alpha: float,
    calibrated_on: int,
    images: Sequence[Hashable] | None = None,
) -> MaskChecks:
    """How often masks keep their promise on fresh images, and how much they cover.

    Cost: a comparison per pixel.

    Args:
        masks: by name, with the same bound; the figure shows the first two.
        summaries: of pairs that took no part in the calibration.
        alpha: probability with which a region may have too many wrong pixels.
        calibrated_on: number of images that the threshold comes from.
        images: of which image each pair is a crop; by default all are of different images.

    Raises:
        ValueError: without masks or summaries, for masks of several bounds, or for summaries without truth.

    Example:
        >>> from flowsr.calibration import flow_sampler, model_pairs, summarize_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 40)
        >>> fresh = summarize_pairs(flow_sampler(flow), hr, lr, num_samples=32)
        >>> masks = {"claim": ConfidenceMask.of_model(0.2, wrong=0.05, channels=1)}
        >>> check_masks(masks, fresh, alpha=0.1, calibrated_on=0).checks["claim"].kept.value > 0.8
        True
    """
    check_fresh(summaries, images)
    if len({(mask.bound, mask.wrong) for mask in masks.values()}) != 1:
        raise ValueError(f"expected masks of one bound and one share of wrong pixels; got {list(masks.values())}")
    bound = next(iter(masks.values())).bound
    errors = [error_map(summary) > bound for summary in summaries]

    def check(mask: ConfidenceMask) -> MaskCheck:
        regions = [mask.region(summary) for summary in summaries]
        wrong = sum(int(error[region].sum()) for error, region in zip(errors, regions, strict=True))
        return MaskCheck(
            mask,
            share_of_images([float(mask.kept(summary)) for summary in summaries], images),
            bootstrap_interval([float(region.double().mean()) for region in regions], clusters=images),
            wrong / max(1, sum(int(region.sum()) for region in regions)),
        )

    right = bootstrap_interval([1 - float(error.double().mean()) for error in errors], clusters=images)
    found = {name: check(mask) for name, mask in masks.items()}
    last = list(masks.values())[-1]
    example = min(summaries, key=lambda summary: abs(float(last.region(summary).double().mean()) - 0.5))
    return MaskChecks(found, alpha, calibrated_on, right, example)
