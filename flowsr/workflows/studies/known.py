"""What a study is, what it can be told, and which there are by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from flowsr._support.temperatures import MODEL_TEMPERATURE
from flowsr.errors import did_you_mean
from flowsr.posterior.solve import Method
from flowsr.results import Result


@dataclass(frozen=True)
class StudySettings:
    """What a study can be told.

    Args:
        crop: side of the HR crops in pixels, a multiple of 8 and at least 16; None for the study's own. Inpainting and
            deblurring take the square of the first image that varies most, uncertainty the middle of each.
        num_samples: draws per image (uncertainty), per pair (calibration, local_calibration, conformal) or per chain,
            of samplers those that are judged, at least 20; None for the study's own.
        pairs: crops of all images for calibration, local_calibration and conformal, at least 20; conformal takes
            equally many of each image, as near to it as that allows.
        temperature: τ of the draws; 1 is the model.
        lr_log_scale: log σ of the flow's LR image, at most 0; ``-inf`` is the Dirac limit.
        noise: standard deviation of the observation's noise, for inpainting and deblurring.
        method: solver, for inpainting and deblurring.
        seed: of all randomness.
        problems: names of known posteriors, for samplers; empty for two small ones.
        samplers: names of samplers to compare; empty for all but NUTS, the slowest.
        budget: gradients of each run of a sampler, at least 100.
        seeds: runs of each sampler on each problem, at least 1.
        classify: whether samplers are told from the truth by a classifier too, which needs sbi.

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
    problems: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    budget: int = 4000
    seeds: int = 3
    classify: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None and (self.crop < 16 or self.crop % 8):
            raise ValueError(f"expected a crop of at least 16 pixels, a multiple of 8; got {self.crop}")
        if self.pairs < 20 or (self.num_samples is not None and self.num_samples < 4):
            raise ValueError(f"expected pairs >= 20 and num_samples >= 4; got {self.pairs} and {self.num_samples}")
        if self.budget < 100 or self.seeds < 1:
            raise ValueError(f"expected a budget >= 100 and seeds >= 1; got {self.budget} and {self.seeds}")
        if not self.temperature > 0 or not self.lr_log_scale <= 0 or not self.noise > 0:
            raise ValueError(
                "expected temperature and noise > 0 and lr_log_scale at most 0; got "
                f"{self.temperature}, {self.noise} and {self.lr_log_scale}"
            )


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
        of_images: whether it is of a model and images; the work of another takes settings and the callback alone.
    """

    question: str
    parts: tuple[str, ...]
    run: Work
    steps: Callable[[int, StudySettings], int] = field(repr=False)
    shared: bool = False
    of_images: bool = True


STUDIES: dict[str, Study] = {}
"""Studies by name; :func:`register` adds to them."""


def register(
    question: str,
    *,
    parts: tuple[str, ...],
    steps: Callable[[int, StudySettings], int],
    shared: bool = False,
    of_images: bool = True,
) -> Callable[[Work], Work]:
    """Make a function a study of its own name, see :class:`Study` for the arguments."""

    def add(work: Work) -> Work:
        STUDIES[work.__name__] = Study(question, parts, work, steps, shared, of_images)
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


def count_text(number: int, what: str) -> str:
    """A number of things, in words.

    Example:
        >>> count_text(2, "image")
        '2 images'
    """
    return f"{number} {what}{'' if number == 1 else 's'}"
