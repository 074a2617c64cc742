"""Two models on the same images: the mean of the paired differences of every figure, with an interval.

Images differ far more from each other than models do on one image. So the means of two models, each with an interval of
its own, say little, where the differences image by image may say much. Figures are paired only where both were measured
under the same convention; the others are listed with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from flowsr._support.json import to_plain
from flowsr.evaluation.columns import BICUBIC, Column
from flowsr.evaluation.many_images import Evaluation
from flowsr.models import Capability, ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.plots import WIDTH, ForestRow, draw_forest, new_figure, plain_text
from flowsr.results import Figure, Result, csv_table, format_value, text_table
from flowsr.statistics import Interval, bootstrap_interval

if TYPE_CHECKING:
    import matplotlib.figure
    from matplotlib.axes import Axes

FOREST_HEAD = "B − A  [interval]  better / worse / same"
FOREST_NOTE = (
    "ticks: images; dot and bar: mean and interval, coloured where it leaves 0 out; each row has its own scale"
)
NOTES = (
    "B − A: the mean over images of their differences. Its interval is of these, not of two means, and one figure at a",
    "time: of twenty figures of equal models, one is expected to leave 0 out.",
)


@dataclass(frozen=True)
class PairedFigure:
    """One figure of two models, A and B, on the same images.

    Attributes:
        key: short name, the head of columns of :meth:`Comparison.to_csv`.
        name: what is measured.
        convention: how.
        unit: empty for a pure number.
        better: which end is better, "low", "high", or "" for neither.
        a: the figure of the first model by image.
        b: that of the second, of the same images.
        difference: mean of b − a over the images where both are finite, with its interval; none of a single image.
        reason: why an image is missing from ``a`` and ``b``.

    Example:
        >>> a, b = {"cat": 3.0, "dog": 4.0}, {"cat": 2.5, "dog": 3.75}
        >>> about = dict(key="bits", name="Bits", convention="one draw", unit="bits/dim", better="low")
        >>> figure = PairedFigure(**about, a=a, b=b, difference=Interval(-0.375, -0.5, -0.25))
        >>> figure.means, figure.differences, figure.record
        ((3.5, 3.125), {'cat': -0.5, 'dog': -0.25}, (2, 0, 0))
    """

    key: str
    name: str
    convention: str
    unit: str
    better: Literal["low", "high", ""]
    a: Mapping[str, float]
    b: Mapping[str, float]
    difference: Interval
    reason: str = ""

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def differences(self) -> dict[str, float]:
        """b − a by image; without the images where one of them is infinite."""
        return _finite_differences(self.a, self.b)

    @property
    def means(self) -> tuple[float, float]:
        """The mean figure of A and that of B, over the images that have a difference."""
        images = self.differences
        return fmean(self.a[name] for name in images), fmean(self.b[name] for name in images)

    @property
    def record(self) -> tuple[int, int, int]:
        """On how many images B is better than A, worse and the same; larger and smaller, where neither end is better.

        Infinite figures count here.
        """
        sign = -1 if self.better == "low" else 1
        pairs = [(sign * self.a[name], sign * self.b[name]) for name in self.a]
        better, worse = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
        return better, worse, len(pairs) - better - worse

    @property
    def cells(self) -> tuple[str, ...]:
        """n, both means, their difference, its interval, and the record, as tables show them."""
        found = self.difference
        span = "–" if math.isnan(found.low) else f"[{_number(found.low)}, {_number(found.high)}]"
        means = map(format_value, self.means)
        record = " / ".join(map(str, self.record))
        return (str(len(self.differences)), *means, _signed(found.value), span, record)

    def to_dict(self) -> dict[str, Any]:
        """The summary, JSON-ready; the interval is null where there is none, with the reason."""
        about = {"key": self.key, "name": self.name, "convention": self.convention, "unit": self.unit}
        found = Figure(**about, value=self.difference).to_dict()
        (mean_a, mean_b), (better, worse, same) = self.means, self.record
        return {
            **about,
            "better": self.better,
            "num_images": len(self.differences),
            "mean_a": mean_a,
            "mean_b": mean_b,
            "mean_difference": found["value"],
            "interval": found["interval"],
            "images_better": better,
            "images_worse": worse,
            "images_same": same,
            "reasons": {} if found["interval"] else {"interval": "a single image has no interval"},
        }


@dataclass(frozen=True)
class Comparison(Result):
    """Two models, A and B, figure by figure on the same images; from :func:`compare_evaluations`.

    Attributes:
        title: what was measured.
        models: the names of A and B.
        images: the names of the images.
        figures: those that both models have under one convention.
        not_compared: the others by name, with the reason.
    """

    title: str
    models: tuple[str, str]
    images: tuple[str, ...]
    figures: tuple[PairedFigure, ...]
    not_compared: Mapping[str, str]

    @property
    def head(self) -> tuple[str, ...]:
        """What the cells of a figure are, for tables."""
        level = f"{self.figures[0].difference.level:.0%}" if self.figures else "95%"
        return "n", "A", "B", "B − A", f"{level} interval", "better / worse / same"

    @property
    def heading(self) -> str:
        """The title with what A and B are."""
        return f"{self.title}\nA: {self.models[0]}\nB: {self.models[1]}"

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the table, how each figure is measured, and what is not in it."""
        names: dict[str, list[str]] = {}
        for name, reason in self.not_compared.items():
            names.setdefault(reason, []).append(name)
        measured = (f"{figure.name}: {figure.convention}." for figure in self.figures)
        partial = (
            f"{figure.name} is not averaged over {missing} of {len(self.images)} images: "
            f"{figure.reason or 'infinite there'}."
            for figure in self.figures
            if (missing := len(self.images) - len(figure.differences))
        )
        return (
            " ".join(NOTES),
            *measured,
            *partial,
            *(f"Not compared: {', '.join(of)}: {why}." for why, of in names.items()),
        )

    def to_text(self) -> str:
        """A line for each figure."""
        rows = [(figure.label, *figure.cells) for figure in self.figures]
        return text_table(("", *self.head), rows, title=self.heading, notes=self.notes)

    def to_csv(self) -> str:
        """A line for each image: of every figure that of A, of B, and B − A; empty where one has none."""
        keys = [f"{figure.key}_{part}" for figure in self.figures for part in ("a", "b", "difference")]
        parts = [part for figure in self.figures for part in (figure.a, figure.b, figure.differences)]
        return csv_table(["image", *keys], [[name, *(part.get(name) for part in parts)] for name in self.images])

    def to_dict(self) -> dict[str, Any]:
        """Summaries with conventions, what is not compared, and the figures of each image, JSON-ready."""
        images = [self._image(name) for name in self.images]
        missing = [{"name": name, "reason": reason} for name, reason in self.not_compared.items()]
        figures = [figure.to_dict() for figure in self.figures]
        return to_plain({"title": self.title, "figures": figures, "not_compared": missing, "images": images})

    def _image(self, name: str) -> dict[str, Any]:
        a, b = ({f.key: getattr(f, part).get(name) for f in self.figures} for part in ("a", "b"))
        return {"image": name, "a": a, "b": b, "reasons": {f.key: f.reason for f in self.figures if name not in f.a}}

    def _draw_figure(self) -> matplotlib.figure.Figure:
        figure = new_figure(WIDTH + 1, 1.9 + 0.32 * len(self.figures))
        self._draw_main(figure.subplots())
        figure.suptitle(plain_text(self.heading), x=0.01, ha="left", fontsize=10)
        return figure

    def _draw_main(self, ax: Axes) -> None:
        """The differences of each figure, its mean and interval, on a scale of its own; better is to the right."""
        draw_forest(ax, [_forest_row(figure) for figure in self.figures], left="A", right="B", head=FOREST_HEAD)
        ax.set_xlabel(FOREST_NOTE, fontsize=8)


def require_comparable(a: ImageModel, b: ImageModel) -> None:
    """Raise ValueError unless figures of two models may be compared at all.

    Args:
        a: a model.
        b: another, of the same kind of images: same channels, same factor, both for rescaling or neither.

    Raises:
        ValueError: saying what differs.

    Example:
        >>> import flowsr
        >>> require_comparable(*(flowsr.from_preset(name) for name in ("sr-x4-small", "srflow-x4-small")))
        >>> require_comparable(*(flowsr.from_preset(name) for name in ("sr-x4-small", "rescaling-x4-small")))
        Traceback (most recent call last):
            ...
        ValueError: expected two models for one task; got one for super-resolution (HCFlow) and one for rescaling ...
    """
    for what, of, why in _REQUIRED:
        one, other = of(a), of(b)
        if one != other:
            names = type(a).__name__, type(b).__name__
            raise ValueError(
                f"expected two models {what}; got one {one} ({names[0]}) and one {other} ({names[1]}): {why}"
            )


def _task(flow: ImageModel) -> str:
    if as_conditional(flow) is None:
        return "for images alone"
    return "for rescaling" if Capability.DOWNSCALE in flow.capabilities else "for super-resolution"


def _factor(flow: ImageModel) -> str:
    conditional = as_conditional(flow)
    return "without a factor" if conditional is None else f"of x{conditional.upscale}"


_REQUIRED: tuple[tuple[str, Callable[[ImageModel], str], str], ...] = (
    (
        "for images of the same channels",
        lambda flow: {1: "for grey images", 3: "for colour images"}.get(flow.config.image_channels, "for others"),
        "figures of grey images are others than those of colour images",
    ),
    (
        "for one task",
        _task,
        "what they are given differs: take two models for super-resolution, two for rescaling, or two of images alone",
    ),
    ("of the same upscale factor", _factor, "their LR images, and so their tasks, are not equally hard"),
)


def compare_evaluations(
    a: Evaluation, b: Evaluation, *, models: tuple[str, str], title: str = "", level: float = 0.95, seed: int = 0
) -> Comparison:
    """Pair two evaluations of the same images, figure by figure.

    Of each figure that both have under one convention, the mean of the differences b − a with its interval,

    .. math:: \\bar d = \\frac{1}{n} \\sum_i (b_i - a_i),

    by :func:`flowsr.statistics.bootstrap_interval` of the :math:`d_i`. Figures of neither model (bicubic) are left out;
    times are not compared, as the models run one after the other.

    Cost: an interval for each figure.

    Args:
        a: the evaluation of the first model.
        b: that of the second.
        models: their names.
        title: heading of the result.
        level: of confidence of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        ValueError: for evaluations of different images.

    Example:
        >>> import pathlib, tempfile
        >>> import flowsr
        >>> from flowsr.images import write_image
        >>> from flowsr.workflows.evaluate import evaluate_files
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "noise.png"
        >>> write_image(path, torch.rand(3, 16, 16))
        >>> of = [evaluate_files(flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), [path]) for _ in range(2)]
        >>> found = compare_evaluations(*of, models=("one", "the same start"))
        >>> found.figures[2].label, found.figures[2].difference.value, found.figures[2].record
        ('PSNR τ=0, dB', 0.0, (0, 0, 1))
    """
    if list(a.rows) != list(b.rows):
        raise ValueError(f"expected two evaluations of the same images; got {sorted(set(a.rows) ^ set(b.rows))} in one")
    figures: list[PairedFigure] = []
    missing: dict[str, str] = {}
    others = {column.key: column for column in b.columns}
    for column in a.columns:
        if column.key.endswith(BICUBIC):
            continue
        reason = _reason(column, others.get(column.key), a, b)
        if reason:
            missing[column.name] = reason
        else:
            figures.append(_pair(column, a, b, level=level, seed=seed))
    known = {column.key for column in a.columns}
    missing |= {column.name: "A has no such figure" for column in b.columns if column.key not in known}
    return Comparison(title, models, tuple(a.rows), tuple(figures), missing)


def _reason(column: Column, other: Column | None, a: Evaluation, b: Evaluation) -> str:
    """Why a figure is not compared; empty if it is."""
    if other is None:
        return "B has no such figure"
    if column.unit == "s":
        return "the models ran one after the other; flowsr evaluate has the times of each"
    if column.convention != other.convention:
        return f"measured in two ways: A {column.convention}; B {other.convention}"
    one, two = a.values(column.key), b.values(column.key)
    if not one.keys() & two.keys():
        return a.reason(column.key) or b.reason(column.key)
    return "" if _finite_differences(one, two) else "infinite for A or B on every image"


def _pair(column: Column, one: Evaluation, other: Evaluation, *, level: float, seed: int) -> PairedFigure:
    a, b = one.values(column.key), other.values(column.key)
    a, b = {name: a[name] for name in a if name in b}, {name: b[name] for name in a if name in b}
    return PairedFigure(
        key=column.key,
        name=column.name,
        convention=column.convention,
        unit=column.unit,
        better={"low": "high", "high": "low", "": ""}[column.worse],  # type: ignore[arg-type]
        a=a,
        b=b,
        difference=bootstrap_interval([*_finite_differences(a, b).values()], level=level, seed=seed),
        reason=one.reason(column.key) or other.reason(column.key),
    )


def _finite_differences(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    pairs = {name: (a[name], b[name]) for name in a if name in b}
    return {name: two - one for name, (one, two) in pairs.items() if math.isfinite(one) and math.isfinite(two)}


def _forest_row(figure: PairedFigure) -> ForestRow:
    found = figure.difference
    _, _, _, mean, span, record = figure.cells
    return ForestRow(
        label=figure.label,
        points=[*figure.differences.values()],
        mean=found.value,
        low=found.low,
        high=found.high,
        better=figure.better,
        text=f"{mean}  {span}  {record}",
    )


def _number(value: float) -> str:
    """Two decimals from 1 on, three digits below."""
    return (f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}").replace("-", "−")


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + _number(value)
