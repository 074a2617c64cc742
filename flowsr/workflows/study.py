"""``flowsr study`` as a function: a named study is run on a model and images, and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.models import Capability, ConditionalModel, require
from flowsr.results import Result
from flowsr.workflows.processes import Processes
from flowsr.workflows.studies import StudySettings, study_named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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


def run_study(
    name: str,
    flow: ConditionalModel | None = None,
    images: Mapping[str, Tensor] | None = None,
    settings: StudySettings | None = None,
    *,
    processes: Processes | None = None,
    on_step: Callable[..., None] | None = None,
) -> StudyReport:
    """Run a named study on HR images.

    Cost: see the functions of :mod:`flowsr.posterior` and :mod:`flowsr.calibration` that it calls.

    Args:
        name: one of ``STUDIES``.
        flow: a model with the capability ``condition``; None for a study that is not of images.
        images: HR images ``(C, H, W)`` in [0, 1], by name; likewise.
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
    settings, images = settings or StudySettings(), images or {}
    more = {"processes": processes or Processes.from_environment()} if study.shared else {}
    given = (_checked(flow), images) if study.of_images else ()
    if bool(images) != study.of_images:
        wanted = "at least one image" if study.of_images else f"no images, as {name} makes its own problems"
        raise ValueError(f"expected {wanted}; got {len(images)}")
    found = study.run(*given, settings, on_step or (lambda *_: None), **more)
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


def _checked(flow: ConditionalModel | None) -> ConditionalModel:
    if flow is None:
        raise ValueError("expected a model to study; got None: load one, flowsr.load('sr-x4-small')")
    require(flow, Capability.CONDITION)
    return flow
