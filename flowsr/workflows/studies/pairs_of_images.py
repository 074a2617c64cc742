"""Studies of draws given LR images: whether their spread is honest, and whether they are what they claim to be."""

from dataclasses import replace

from torch import Tensor

from flowsr import calibration as tests
from flowsr.calibration import Recalibration, calibrate, flow_sampler, latent_pit, recalibrate_temperature
from flowsr.calibration.simulation_based import RankTest
from flowsr.images import make_lr
from flowsr.models import ConditionalModel
from flowsr.posterior import DrawSummary, StreamingSummary, summarize_draws, uncertainty_quality
from flowsr.workflows.pairs import centre_crop, random_crops
from flowsr.workflows.processes import Processes
from flowsr.workflows.studies.known import Advance, Findings, Images, StudySettings, count_text, register


@register(
    "Does the spread of the draws say where their mean is wrong?",
    parts=("uncertainty", "draws"),
    steps=lambda images, _: images,
    shared=True,
)
def uncertainty(
    flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance, *, processes: Processes
) -> Findings:
    """Draws of the middle of each image, against the truth."""
    size = settings.crop or 96
    truths = {name: centre_crop(image, size, name=name) for name, image in images.items()}

    def summary_of(name: str) -> DrawSummary:
        hr = truths[name]
        summary = StreamingSummary(levels=tuple(i / 10 for i in range(1, 10)), truth=hr)
        found = summarize_draws(
            flow,
            make_lr(hr, flow.upscale),
            num_samples=settings.num_samples or 100,
            summary=summary,
            temperature=settings.temperature,
            lr_log_scale=settings.lr_log_scale,
            seed=settings.seed,
        )
        advance()
        return replace(found, name=f"{name}, the {size}x{size} pixels in its middle")

    summaries = processes.each(list(images), summary_of)
    subject = f"the {size}x{size} pixels in the middle of {count_text(len(images), 'image')}"
    if len(images) > 1:
        subject += "; the draws shown are of the first"
    quality = uncertainty_quality(summaries, list(truths.values()))
    return Findings(subject, {"uncertainty": quality, "draws": summaries[0]})


@register(
    "Are the draws given LR images what they claim to be, on pairs (the model must not have been trained on them)?",
    parts=("calibration", "pixels", "latent PIT", "temperature"),
    steps=lambda _, settings: settings.pairs + 2,
)
def calibration(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """Whether draws and latents of crops are as probable as the model says, and at which temperature they would be."""
    hr, lr, names, subject = _crops(flow, images, settings, settings.crop or 16)
    draws = max(19, settings.num_samples or 49)
    sampler = flow_sampler(flow, temperature=settings.temperature, lr_log_scale=settings.lr_log_scale)
    report = calibrate(sampler, hr, lr, num_samples=draws, images=names, seed=settings.seed, on_pair=advance)
    pit = latent_pit(flow, hr, lr, lr_log_scale=settings.lr_log_scale)
    advance()
    recalibrated = recalibrate_temperature(
        flow, hr, lr, lr_log_scale=settings.lr_log_scale, num_samples=19, images=names, sweeps=1, seed=settings.seed
    )
    advance()
    remarks = (pairs_remark(settings.pairs, len(set(names))), temperature_remark(pit, recalibrated))
    return Findings(
        subject,
        {"calibration": report, "pixels": report.pixels, "latent PIT": pit, "temperature": recalibrated},
        tuple(remark for remark in remarks if remark),
    )


@register(
    "On which content are the draws too narrow or too wide (the model must not have been trained on it)?",
    parts=("coverage", "classifier"),
    steps=lambda _, settings: settings.pairs,
)
def local_calibration(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """Coverage of crops against what their LR images show, and where a classifier tells the truth from draws."""
    hr, lr, names, subject = _crops(flow, images, settings, settings.crop or 32)
    sampler = flow_sampler(flow, temperature=settings.temperature, lr_log_scale=settings.lr_log_scale)
    draws = max(19, settings.num_samples or 49)
    held_out = tests.hold_out(sampler, hr, lr, num_samples=draws, seed=settings.seed, on_pair=advance)
    coverage = tests.local_calibration(held_out, images=names, seed=settings.seed)
    crops = [f"{name}, crop {i}" for i, name in enumerate(names)]
    classifier = tests.local_c2st(held_out, names=crops, seed=settings.seed)
    remark = pairs_remark(settings.pairs, len(set(names)))
    return Findings(subject, {"coverage": coverage, "classifier": classifier}, (remark,) if remark else ())


def _crops(
    flow: ConditionalModel, images: Images, settings: StudySettings, size: int
) -> tuple[Tensor, Tensor, list[str], str]:
    """Crops, their LR images, of which image each is, and what they are in words."""
    hr = random_crops(images, settings.pairs, size, seed=settings.seed)
    names = [list(images)[i % len(images)] for i in range(settings.pairs)]  # as random_crops takes them, in turn
    used = count_text(len(set(names)), "image")
    return hr, make_lr(hr, flow.upscale), names, f"{settings.pairs} crops of {size}x{size} pixels of {used}"


def pairs_remark(pairs: int, images: int) -> str | None:
    """That crops of one image are not independent, if there are several of one.

    Example:
        >>> pairs_remark(20, 20) is None
        True
    """
    if pairs <= images:
        return None
    return (
        f"{pairs} pairs come from {images} image{'s' if images > 1 else ''}: crops of one image are alike. Intervals "
        "count them as one, yet p counts them as independent and is too small: give more images"
    )


def temperature_remark(pit: RankTest, recalibrated: Recalibration) -> str | None:
    """That τ may be below 1 although norms of latents are more spread out than the model says.

    Args:
        pit: of :func:`flowsr.calibration.latent_pit`.
        recalibrated: of :func:`flowsr.calibration.recalibrate_temperature`.
    """
    found = []
    for level, tau in zip(recalibrated.levels, recalibrated.temperature, strict=True):
        norm = f"z_{level} norm"
        if tau < 1 and norm in pit.names and pit.shape(norm).startswith("too narrow"):
            found.append(f"τ = {tau:.2f} for z_{level}")
    if not found:
        return None
    return (
        "norms of latents vary more between pairs than the model says: of some they are larger, of others smaller. "
        "That does not ask for a larger τ: CRPS, which rewards draws near their mean, is still least at "
        + ", ".join(found)
    )
