"""What is measured, and how: the columns of an evaluation, each with the words that make its numbers comparable."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from flowsr._support.temperatures import (
    DRAW_TEMPERATURE,
    MODEL_TEMPERATURE,
    RESTORE_TEMPERATURE,
    check_temperatures,
)
from flowsr.likelihood.bounds import bits_convention
from flowsr.likelihood.decompose import width_used
from flowsr.metrics.comparison import Score
from flowsr.models import Capability, ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.results import Figure

BICUBIC = "bicubic"

_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How images are measured; ``resolve`` says what that means for a model.

    Args:
        temperatures: τ ≥ 0 of the draws, all different; None takes 0 and 0.8, or 0 and 1 for a rescaling model. Of a
            density of images alone, which has no image to restore, none are made.
        num_samples: draws per temperature above 0, of whose figures the average is taken; two or more measure
            diversity.
        multiple: both sides of an HR image are cropped, from the top left, to multiples of it; None takes 16, or what
            the model needs where 16 is no multiple of that.
        seed: of dequantization noise and draws, the same for every image: the draws are those of ``flowsr sample``.
        lr_log_scale: log σ of the LR image in the likelihood; None takes the model's own, −6 for HCFlow. Only for
            models with an LR image in their latent.

    Raises:
        ValueError: for values out of range.

    Example:
        >>> import flowsr
        >>> plan = EvaluationPlan().resolve(flowsr.IRN.from_preset("irn-x3-small"))
        >>> plan.temperatures, plan.multiple
        ((0.0, 1.0), 3)
    """

    temperatures: tuple[float, ...] | None = None
    num_samples: int = 2
    multiple: int | None = None
    seed: int = 0
    lr_log_scale: float | None = None

    def __post_init__(self) -> None:
        if self.temperatures is not None:
            check_temperatures(self.temperatures)
        for name in ("num_samples", "multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected {name} >= 1; got {value}")

    def resolve(self, flow: ImageModel, *, given_lr: bool = False) -> ResolvedPlan:
        """What is measured of a model, as plain values that need no model any more.

        Args:
            flow: the model.
            given_lr: whether LR images are given rather than made from the HR ones.

        Raises:
            ValueError: if a field does not fit the model.
        """
        self._check(flow)
        resolved = ResolvedPlan(
            temperatures=self._temperatures(flow),
            num_samples=self.num_samples,
            multiple=self._multiple(flow),
            seed=self.seed,
            lr_log_scale=width_used(flow, self.lr_log_scale),
            columns=(),
        )
        return replace(resolved, columns=tuple(_list_columns(flow, resolved, given_lr=given_lr)))

    def _temperatures(self, flow: ImageModel) -> tuple[float, ...]:
        if Capability.CONDITION not in flow.capabilities:
            return ()
        own = MODEL_TEMPERATURE if Capability.DOWNSCALE in flow.capabilities else DRAW_TEMPERATURE
        return (RESTORE_TEMPERATURE, own) if self.temperatures is None else self.temperatures

    def _multiple(self, flow: ImageModel) -> int:
        if self.multiple is not None:
            return self.multiple
        return flow.multiple if _MULTIPLE % flow.multiple else _MULTIPLE

    def _check(self, flow: ImageModel) -> None:
        if self._multiple(flow) % flow.multiple:
            raise ValueError(
                f"expected images cropped to a multiple of {flow.multiple}, as sides of this {type(flow).__name__}'s "
                f"images are; got {self.multiple}"
            )
        for name, needed in (("temperatures", Capability.CONDITION), ("lr_log_scale", Capability.LR_LATENT)):
            if getattr(self, name) is not None and needed not in flow.capabilities:
                raise ValueError(
                    f"expected no {name} for {type(flow).__name__}, as it lacks the capability {needed.value}; got "
                    f"{getattr(self, name)}: leave it out"
                )


@dataclass(frozen=True, kw_only=True)
class ResolvedPlan:
    """What is measured of one model, see :meth:`EvaluationPlan.resolve`.

    Attributes:
        temperatures: τ of the draws; none for a density of images alone.
        num_samples: draws per temperature above 0.
        multiple: what the sides of the images are cropped to multiples of.
        seed: of dequantization noise and draws.
        lr_log_scale: log σ of the LR image; None for a model without one in its latent.
        columns: which figures every image gets, in order.
    """

    temperatures: tuple[float, ...]
    num_samples: int
    multiple: int
    seed: int
    lr_log_scale: float | None
    columns: tuple[Column, ...]

    def draws_at(self, temperature: float) -> int:
        """How many draws are made: one at temperature 0, where all would be the same."""
        return self.num_samples if temperature > 0 else 1

    def figures(self, scores: dict[str, Score]) -> dict[str, Figure]:
        """What was measured under the keys of the columns, as figures in the order of the columns."""
        return {column.key: column.figure(scores[column.key]) for column in self.columns if column.key in scores}

    def to_dict(self) -> dict[str, Any]:
        """All fields but the columns, JSON-ready."""
        values = {name: value for name, value in asdict(self).items() if name != "columns"}
        return {**values, "temperatures": list(self.temperatures)}


@dataclass(frozen=True)
class Column:
    """One quantity that every image gets a figure of: a :class:`flowsr.results.Figure` without its number.

    Attributes:
        key: its name for programs, for example ``psnr_tau0``: the head of the CSV column and the key in JSON.
        name: what is measured.
        convention: how.
        unit: empty for a pure number.
        worse: which end is worse, "low", "high", or "" for neither.
    """

    key: str
    name: str
    convention: str
    unit: str = ""
    worse: Literal["low", "high", ""] = ""

    def figure(self, score: Score | None) -> Figure:
        """The figure with a number, or with the reason that stands in its place.

        Example:
            >>> print(Column("lpips", "LPIPS", "AlexNet").figure("no weights here"))
            LPIPS (AlexNet): unavailable: no weights here
        """
        number, reason = (None, score) if isinstance(score, str) else (score, "")
        return Figure(
            key=self.key, name=self.name, convention=self.convention, unit=self.unit, value=number, reason=reason
        )

    @property
    def label(self) -> str:
        """Name, unit and convention in one."""
        return f"{self.name}{f' [{self.unit}]' if self.unit else ''} ({self.convention})"


def _list_columns(flow: ImageModel, plan: ResolvedPlan, *, given_lr: bool) -> list[Column]:
    """The columns of an evaluation of this model, in order."""
    where = f"wall clock, batch 1, on {flow.device}, {str(flow.dtype).removeprefix('torch.')}"
    encoding = Column("seconds_encode", "Time of one encoding", where, "s", "high")
    conditional = as_conditional(flow)
    if conditional is None:
        return [bits_column(f"p(hr), {bits_convention(lr_log_scale=None)}"), encoding]
    s, rescaling = conditional.upscale, Capability.DOWNSCALE in flow.capabilities
    columns: list[Column] = []
    if rescaling:
        source = "the model's own LR image, rounded to 8 bits"
        how = f"{source}, against bicubic ÷{s} rounded to 8 bits, RGB, no border"
        columns.append(encoded_lr_column(how))
    else:
        source = "the LR image given" if given_lr else f"LR = bicubic ÷{s}, rounded to 8 bits"
        within = Capability.LR_LATENT in flow.capabilities
        bits = f"p(hr | lr), {bits_convention(lr_log_scale=plan.lr_log_scale)}"
        columns.append(bits_column(bits if within else f"{bits}; {source}"))
        if within:
            how = f"clamp(encode(hr).lr), not rounded, against the LR image, no border; {source}"
            columns.append(encoded_lr_column(how))
    columns += _of_method(BICUBIC, BICUBIC, f"bicubic ·{s} of the {'bicubic ' if rescaling else ''}LR image", s)
    for tau in plan.temperatures:
        many = plan.draws_at(tau)
        made = f"average of the figures of {many} draws" if many > 1 else "one draw" if tau > 0 else "z = 0"
        columns += _of_method(key_of(tau), column_of(tau), made, s)
        columns += _of_draws(tau, many, s)
    return [*columns, encoding, Column("seconds_draw", "Time of one draw", where, "s", "high")]


def column_of(temperature: float) -> str:
    """What results at a temperature are called."""
    return f"τ={temperature:g}"


def key_of(temperature: float) -> str:
    """What results at a temperature are called in keys.

    Example:
        >>> key_of(0.8), key_of(1.0)
        ('tau0_8', 'tau1')
    """
    return f"tau{temperature:g}".replace(".", "_").replace("-", "_minus_")


def bits_column(convention: str) -> Column:
    """Bits per dimension of an 8-bit image."""
    return Column("bits_per_dim", "Bits per dimension", convention, "bits/dim", "high")


def encoded_lr_column(convention: str) -> Column:
    """How close the flow's own LR image is."""
    return Column("encoded_lr_psnr", "Encoded LR-PSNR", convention, "dB", "low")


def fidelity_columns(upscale: int, *, colours: str = "RGB") -> tuple[Column, ...]:
    """The figures of :func:`flowsr.metrics.compare`, with a border as wide as the upscale factor.

    Example:
        >>> [column.key for column in fidelity_columns(4)]
        ['psnr', 'psnr_y', 'ssim', 'ssim_y', 'lpips']
    """
    how, luma = f"border {upscale}, rounded to 8 bits", "BT.601 luma 16–235"
    window = f"11 x 11 Gaussian window, {how}"
    return (
        Column("psnr", "PSNR", f"{colours}, {how}", "dB", "low"),
        Column("psnr_y", "PSNR-Y", f"{luma}, {how}", "dB", "low"),
        Column("ssim", "SSIM", f"{colours}, {window}", "", "low"),
        Column("ssim_y", "SSIM-Y", f"{luma}, {window}", "", "low"),
        Column("lpips", "LPIPS", "AlexNet, version 0.1, RGB, no border, rounded to 8 bits", "", "high"),
    )


def lr_psnr_column(upscale: int, *, colours: str = "RGB") -> Column:
    """Whether an image shrinks to the LR image it was made from."""
    how = f"bicubic ÷{upscale} of the 8-bit image, rounded, against the LR image it was made from, {colours}, no border"
    return Column("lr_psnr", "LR-PSNR of the image", how, "dB", "low")


def diversity_column(draws: str = "draws") -> Column:
    """How much draws differ from each other."""
    how = f"mean over pixels of the unbiased std over {draws}, not rounded"
    return Column("pixel_std", "Diversity (std)", how, "grey levels of 255")


def _of_method(key: str, name: str, made: str, s: int) -> list[Column]:
    return [
        replace(c, key=f"{c.key}_{key}", name=f"{c.name} {name}", convention=f"{c.convention}; {made}")
        for c in fidelity_columns(s)
    ]


def _of_draws(tau: float, many: int, s: int) -> list[Column]:
    columns = [lr_psnr_column(s)]
    if many > 1:
        columns.append(diversity_column(f"{many} draws"))
        best = f"squared error averaged over channels as distance, {many} draws, not rounded"
        columns.append(Column("ntire", "Diversity (NTIRE)", best, "%"))
    return [replace(c, key=f"{c.key}_{key_of(tau)}", name=f"{c.name} {column_of(tau)}") for c in columns]
