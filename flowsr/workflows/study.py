"""Named studies: a question about a model and a folder of images, answered with figures, tables and numbers.

To add one, write a function here that takes what ``Work`` says, and put :func:`register` on it: the command
``flowsr study`` then knows it by the function's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.temperatures import MODEL_TEMPERATURE
from flowsr.calibration import Recalibration, calibrate, flow_sampler, latent_pit, recalibrate_temperature
from flowsr.calibration.simulation_based import RankTest
from flowsr.errors import did_you_mean
from flowsr.images import make_lr
from flowsr.models import Capability, ConditionalModel, require
from flowsr.posterior import (
    Blur,
    DrawSummary,
    GaussianNoise,
    InverseProblem,
    Mask,
    StreamingSummary,
    solve,
    summarize_draws,
    uncertainty_quality,
)
from flowsr.posterior.solve import Method
from flowsr.results import Result
from flowsr.workflows.pairs import centre_crop, random_crops, varied_crop
from flowsr.workflows.processes import Processes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OPTIMIZATION = 600  # steps of SVI and MAP


@dataclass(frozen=True)
class StudySettings:
    """What a study can be told.

    Args:
        crop: side of the HR crops in pixels, a multiple of 8 and at least 16; None for the study's own. Inpainting and
            deblurring take the square of the first image that varies most, uncertainty the middle of each.
        num_samples: draws per image (uncertainty), per pair (calibration) or per chain; None for the study's own.
        pairs: crops for calibration, at least 20.
        temperature: τ of the draws; 1 is the model.
        lr_log_scale: log σ of the flow's LR image, at most 0; ``-inf`` is the Dirac limit.
        noise: standard deviation of the observation's noise, for inpainting and deblurring.
        method: solver, for inpainting and deblurring.
        seed: of all randomness.

    Raises:
        ValueError: for numbers out of range.
    """

    crop: int | None = None
    num_samples: int | None = None
    pairs: int = 60
    temperature: float = MODEL_TEMPERATURE
    lr_log_scale: float = -math.inf
    noise: float = 0.02
    method: Method = "svi"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop is not None and (self.crop < 16 or self.crop % 8):
            raise ValueError(f"expected a crop of at least 16 pixels, a multiple of 8; got {self.crop}")
        if self.pairs < 20 or (self.num_samples is not None and self.num_samples < 4):
            raise ValueError(f"expected pairs >= 20 and num_samples >= 4; got {self.pairs} and {self.num_samples}")
        if not self.temperature > 0 or not self.lr_log_scale <= 0 or not self.noise > 0:
            raise ValueError(
                "expected temperature and noise > 0 and lr_log_scale at most 0; got "
                f"{self.temperature}, {self.noise} and {self.lr_log_scale}"
            )


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


@dataclass(frozen=True)
class StudyReport(Result):
    """What a study found: one or more results, each with a table and a figure.

    Attributes:
        name: of the study.
        question: it answers.
        subject: what of the images was looked at.
        parts: results by name.
        remarks: what a reader could misread.
        settings: it was run with.
        images: names of the images.
    """

    name: str
    question: str
    subject: str
    parts: Mapping[str, Result]
    remarks: tuple[str, ...]
    settings: StudySettings
    images: tuple[str, ...]

    def to_text(self) -> str:
        """All tables under each other, and the remarks."""
        tables = [part.to_text() for part in self.parts.values()]
        remarks = ["\n".join(["Remarks", *(f"- {remark}" for remark in self.remarks)])] if self.remarks else []
        return "\n\n".join([f"{self.question}\n{self.subject}", *tables, *remarks])

    def plot(self, ax: Axes | None = None) -> Figure:
        """The figure of the first part; :meth:`figures` has all."""
        return next(iter(self.parts.values())).plot(ax)

    def figures(self) -> dict[str, Figure]:
        """A figure for each part."""
        return {name: part.plot() for name, part in self.parts.items()}


@dataclass(frozen=True)
class Findings:
    """What the work of a study returns: see :class:`StudyReport`."""

    subject: str
    parts: Mapping[str, Result]
    remarks: tuple[str, ...] = ()


Images = Mapping[str, Tensor]
Advance = Callable[..., None]

Work = Callable[..., Findings]
"""What a study does with a model, HR images by name and settings; the fourth argument is to be called at each step. One
that is shared out takes :class:`~flowsr.workflows.processes.Processes` as ``processes`` too."""


@dataclass(frozen=True)
class Study:
    """A named study.

    Attributes:
        question: it answers.
        parts: names of its results, each with a figure.
        run: its work.
        steps: how many steps of a progress bar it takes for a number of images.
        shared: whether several processes share the images out; of others the first does all.
    """

    question: str
    parts: tuple[str, ...]
    run: Work
    steps: Callable[[int, StudySettings], int] = field(repr=False)
    shared: bool = False


STUDIES: dict[str, Study] = {}
"""Studies by name; :func:`register` adds to them."""


def register(
    question: str, *, parts: tuple[str, ...], steps: Callable[[int, StudySettings], int], shared: bool = False
) -> Callable[[Work], Work]:
    """Make a function a study of its own name, see :class:`Study` for the arguments."""

    def add(work: Work) -> Work:
        STUDIES[work.__name__] = Study(question, parts, work, steps, shared)
        return work

    return add


def study_named(name: str) -> Study:
    """A study by its name; raises ValueError that lists the names.

    Example:
        >>> study_named("inpainting").parts
        ('solution',)
    """
    if name not in STUDIES:
        raise ValueError(f"expected a study among {', '.join(STUDIES)}; got {name!r}{did_you_mean(name, STUDIES)}")
    return STUDIES[name]


def run_study(
    name: str,
    flow: ConditionalModel,
    images: Mapping[str, Tensor],
    settings: StudySettings | None = None,
    *,
    processes: Processes | None = None,
    on_step: Callable[..., None] | None = None,
) -> StudyReport:
    """Run a named study on HR images.

    Cost: see the functions of :mod:`flowsr.posterior` and :mod:`flowsr.calibration` that it calls.

    Args:
        name: one of ``STUDIES``.
        flow: a model with the capability ``condition``.
        images: HR images ``(C, H, W)`` in [0, 1], by name.
        settings: by default ``StudySettings()``.
        processes: which of several processes this is; by default what torchrun's environment says. All of them call
            this for a study that is shared, and one of them does for another.
        on_step: called after each step, ``STUDIES[name].steps(len(images), settings)`` times.

    Raises:
        ValueError: for an unknown study, no images, or images that are too small.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> settings = StudySettings(crop=16, num_samples=8)
        >>> sorted(run_study("uncertainty", flow, {"noise": torch.rand(3, 20, 20)}, settings).parts)
        ['draws', 'uncertainty']
    """
    study = study_named(name)
    require(flow, Capability.CONDITION)
    if not images:
        raise ValueError("expected at least one image; got none")
    settings = settings or StudySettings()
    more = {"processes": processes or Processes.from_environment()} if study.shared else {}
    found = study.run(flow, images, settings, on_step or (lambda *_: None), **more)
    assert tuple(found.parts) == study.parts, f"expected the parts {study.parts} of {name}; got {tuple(found.parts)}"
    return StudyReport(
        name=name,
        question=study.question,
        subject=found.subject,
        parts=found.parts,
        remarks=found.remarks,
        settings=settings,
        images=tuple(images),
    )


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
    subject = f"the {size}x{size} pixels in the middle of {_count(len(images), 'image')}"
    if len(images) > 1:
        subject += "; the draws shown are of the first"
    quality = uncertainty_quality(summaries, list(truths.values()))
    return Findings(subject, {"uncertainty": quality, "draws": summaries[0]})


@register(
    "Are the draws given LR images what they claim to be, on pairs (the model must not have been trained on them)?",
    parts=("calibration", "latent PIT", "temperature"),
    steps=lambda _, settings: settings.pairs + 2,
)
def calibration(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """Whether draws and latents of crops are as probable as the model says, and at which temperature they would be."""
    size = settings.crop or 16
    hr = random_crops(images, settings.pairs, size, seed=settings.seed)
    names = [list(images)[i % len(images)] for i in range(settings.pairs)]  # as random_crops takes them, in turn
    lr = make_lr(hr, flow.upscale)
    draws = max(19, settings.num_samples or 49)
    sampler = flow_sampler(flow, temperature=settings.temperature, lr_log_scale=settings.lr_log_scale)
    report = calibrate(sampler, hr, lr, num_samples=draws, images=names, seed=settings.seed, on_pair=advance)
    pit = latent_pit(flow, hr, lr, lr_log_scale=settings.lr_log_scale)
    advance()
    recalibrated = recalibrate_temperature(
        flow, hr, lr, lr_log_scale=settings.lr_log_scale, num_samples=19, images=names, sweeps=1, seed=settings.seed
    )
    advance()
    used = min(settings.pairs, len(images))
    remarks = (pairs_remark(settings.pairs, used), temperature_remark(pit, recalibrated))
    return Findings(
        f"{settings.pairs} crops of {size}x{size} pixels of {_count(used, 'image')}",
        {"calibration": report, "latent PIT": pit, "temperature": recalibrated},
        tuple(remark for remark in remarks if remark),
    )


def _solver_steps(_images: int, settings: StudySettings) -> int:
    return _OPTIMIZATION if settings.method in ("svi", "map") else 4 * (settings.num_samples or 200)


@register(
    "What may be hidden in the middle of a crop of the first image, where it varies most?",
    parts=("solution",),
    steps=_solver_steps,
)
def inpainting(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """The posterior of a crop given its LR image and all but its middle."""
    size = settings.crop or 32
    mask = torch.ones(size, size, device="cpu")
    mask[size // 4 : -(size // 4), size // 4 : -(size // 4)] = 0
    return _solve(Mask(mask), flow, images, settings, advance, size)


@register(
    "What may a crop of the first image be, where it varies most, given its LR image and a blurred one?",
    parts=("solution",),
    steps=_solver_steps,
)
def deblurring(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """The posterior of a crop given its LR image and a blurred one."""
    return _solve(Blur.gaussian(1.5), flow, images, settings, advance, settings.crop or 32)


def _solve(
    operator: Any, flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance, size: int
) -> Findings:
    name, image = next(iter(images.items()))
    hr = varied_crop(image, size, name=name).to(flow.device, flow.dtype)
    noise = GaussianNoise(settings.noise)
    generator = torch.Generator().manual_seed(settings.seed)
    observation = noise.simulate(operator.to(flow.device)(hr[None])[0], generator=generator)
    problem = InverseProblem(
        flow,
        make_lr(hr, flow.upscale),
        operator,
        observation,
        noise,
        temperature=settings.temperature,
        lr_log_scale=settings.lr_log_scale,
    )
    draws = settings.num_samples or 200
    solution = solve(
        problem,
        settings.method,
        num_samples=draws,
        num_warmup=draws,
        num_chains=2,
        steps=_OPTIMIZATION,
        guide="lowrank",
        start="mode" if settings.method != "pcn" else "draw",
        seed=settings.seed,
        on_step=advance,
    )
    return Findings(f"{size}x{size} pixels of {name}", {"solution": replace(solution, truth=hr.cpu())})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
