"""A study of guarantees: what held-out images let one promise of fresh ones, and whether fresh ones keep to it."""

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass

from flowsr.calibration import (
    ComponentChecks,
    ComponentIntervals,
    ConfidenceMask,
    IntervalChecks,
    MaskChecks,
    PixelIntervals,
    calibrate_components,
    calibrate_intervals,
    calibrate_mask,
    check_components,
    check_intervals,
    check_masks,
    coverage_range,
    flow_sampler,
    least_images,
    summarize_pairs,
)
from flowsr.calibration.pixel_intervals import Guarantee, Width
from flowsr.images import make_lr
from flowsr.models import ConditionalModel
from flowsr.posterior import DrawSummary
from flowsr.workflows.pairs import random_crops
from flowsr.workflows.studies.known import Advance, Findings, Images, StudySettings, count_text, register

_ALPHA, _WRONG, _BOUND, _COMPONENTS = 0.1, 0.05, 20 / 255, 3


def _crops_of_each(images: int, settings: StudySettings) -> int:
    return max(1, round(settings.pairs / images))


@register(
    "Which intervals and regions hold on fresh images, whatever the model (trained on others), and what do they cost?",
    parts=("intervals", "components", "mask"),
    steps=lambda images, settings: images * _crops_of_each(images, settings),
)
def conformal(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """Bounds calibrated on half of the images, checked on the other half."""
    if len(images) < 2:
        raise ValueError("expected at least two images, one to calibrate and one to check; got one")
    names = random.Random(settings.seed).sample(list(images), len(images))
    calibrated_on = (len(names) + 1) // 2
    alpha = max(_ALPHA, 1 / (calibrated_on + 1))
    size, crops = settings.crop or 32, _crops_of_each(len(images), settings)
    hr = random_crops({name: images[name] for name in names}, crops * len(names), size, seed=settings.seed)
    of = names * crops  # as random_crops takes them, in turn
    summaries = summarize_pairs(
        flow_sampler(flow, temperature=settings.temperature, lr_log_scale=settings.lr_log_scale),
        hr,
        make_lr(hr, flow.upscale),
        num_samples=settings.num_samples or 64,
        levels=(alpha / 2, 1 - alpha / 2),
        components=_COMPONENTS,
        seed=settings.seed,
        on_pair=advance,
    )
    halves = _split(summaries, of, set(names[:calibrated_on]))
    known = {"alpha": alpha, "calibrated_on": calibrated_on}
    intervals = _intervals(*halves, **known)
    pixels = intervals.checks["conformal, std"].intervals
    parts = {
        "intervals": intervals,
        "components": _components(*halves, pixels=pixels, **known),
        "mask": _mask(*halves, **known),
    }
    subject = (
        f"{count_text(crops, 'crop')} of {size}x{size} pixels of each of {count_text(calibrated_on, 'image')} to "
        f"calibrate and {count_text(len(names) - calibrated_on, 'fresh one')}"
    )
    return Findings(subject, parts, _remarks(alpha, calibrated_on))


@dataclass(frozen=True)
class _Half:
    """Draws of crops, and of which image each is."""

    summaries: list[DrawSummary]
    images: list[str]


def _split(summaries: Sequence[DrawSummary], of: Sequence[str], first: Set[str]) -> tuple[_Half, _Half]:
    places = [[i for i, name in enumerate(of) if (name in first) is kept] for kept in (True, False)]
    one, other = (_Half([summaries[i] for i in half], [of[i] for i in half]) for half in places)
    return one, other


def _intervals(calibration: _Half, fresh: _Half, *, alpha: float, calibrated_on: int) -> IntervalChecks:
    def calibrated(width: Width, guarantee: Guarantee = "pixels") -> PixelIntervals:
        return calibrate_intervals(
            calibration.summaries,
            alpha=alpha,
            width=width,
            guarantee=guarantee,
            confidence=1 - alpha,
            images=calibration.images,
        )

    rules = {f"model, {width}": PixelIntervals.of_model(width, alpha) for width in ("std", "quantiles")}
    rules |= {f"conformal, {width}": calibrated(width) for width in ("std", "quantiles", "constant")}
    rules["conformal, std, by image"] = calibrated("std", "images")
    if calibrated_on >= least_images(alpha, confidence=1 - alpha):
        rules["risk-controlling, std"] = calibrated("std", "risk")
    return check_intervals(rules, fresh.summaries, alpha=alpha, calibrated_on=calibrated_on, images=fresh.images)


def _components(
    calibration: _Half, fresh: _Half, *, pixels: PixelIntervals, alpha: float, calibrated_on: int
) -> ComponentChecks:
    rules = {
        "model": ComponentIntervals.of_model(alpha, components=len(fresh.summaries[0].variances)),
        "conformal": calibrate_components(calibration.summaries, alpha=alpha, images=calibration.images),
    }
    return check_components(
        rules, fresh.summaries, alpha=alpha, calibrated_on=calibrated_on, pixels=pixels, images=fresh.images
    )


def _mask(calibration: _Half, fresh: _Half, *, alpha: float, calibrated_on: int) -> MaskChecks:
    masks = {
        "model": ConfidenceMask.of_model(_BOUND, wrong=_WRONG, channels=len(fresh.summaries[0].std)),
        "conformal": calibrate_mask(
            calibration.summaries, bound=_BOUND, wrong=_WRONG, alpha=alpha, images=calibration.images
        ),
    }
    return check_masks(masks, fresh.summaries, alpha=alpha, calibrated_on=calibrated_on, images=fresh.images)


def _remarks(alpha: float, calibrated_on: int) -> tuple[str, ...]:
    """What the number of images allows, and what it does not."""
    low, high = coverage_range(calibrated_on, alpha)
    found = [
        f'promises are kept on average over sets of {calibrated_on} images to calibrate with: one set\'s "by image" '
        f"holds for {low:.0%} to {high:.0%} of fresh images in nine cases of ten, and more images narrow that"
    ]
    if alpha > _ALPHA:
        found.append(
            f"{count_text(calibrated_on, 'image')} cannot promise {1 - _ALPHA:.0%}, only {1 - alpha:.0%}: "
            f"{2 * least_images(_ALPHA)} images in all could"
        )
    if calibrated_on < (needed := least_images(alpha, confidence=1 - alpha)):
        found.append(
            f"risk-controlling intervals, which hold with confidence {1 - alpha:.0%} for the set at hand, need "
            f"{needed} images to calibrate, {2 * needed} in all, and are left out"
        )
    return tuple(found)
