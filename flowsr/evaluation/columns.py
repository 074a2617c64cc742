"""What is measured, and how: the columns of an evaluation, each with the words that make its numbers comparable."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from flowsr.likelihood.decompose import width_note, width_used
from flowsr.models import Capability, ImageModel
from flowsr.models.conditional import as_conditional

BICUBIC = "bicubic"

_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How images are measured.

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
        >>> flow = flowsr.IRN.from_preset("irn-x3-small")
        >>> EvaluationPlan().temperatures_of(flow), EvaluationPlan().multiple_of(flow)
        ((0.0, 1.0), 3)
    """

    temperatures: tuple[float, ...] | None = None
    num_samples: int = 2
    multiple: int | None = None
    seed: int = 0
    lr_log_scale: float | None = None

    def __post_init__(self) -> None:
        given = self.temperatures
        if given is not None and (not given or any(not math.isfinite(tau) or tau < 0 for tau in given)):
            raise ValueError(f"expected finite temperatures >= 0; got {', '.join(map(str, given)) or 'none'}")
        if given is not None and len(set(map(column_of, given))) < len(given):
            raise ValueError(f"expected different temperatures; got {', '.join(f'{tau:g}' for tau in given)}")
        for name in ("num_samples", "multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected {name} >= 1; got {getattr(self, name)}")

    def temperatures_of(self, flow: ImageModel) -> tuple[float, ...]:
        """The temperatures measured for a model; none for a density of images alone."""
        if Capability.CONDITION not in flow.capabilities:
            return ()
        if self.temperatures is not None:
            return self.temperatures
        return (0.0, 1.0) if Capability.DOWNSCALE in flow.capabilities else (0.0, 0.8)

    def multiple_of(self, flow: ImageModel) -> int:
        """What the sides of a model's images are cropped to multiples of."""
        if self.multiple is not None:
            return self.multiple
        return flow.multiple if _MULTIPLE % flow.multiple else _MULTIPLE

    def draws_at(self, temperature: float) -> int:
        """How many draws are made: one at temperature 0, where all would be the same."""
        return self.num_samples if temperature > 0 else 1

    def check(self, flow: ImageModel) -> None:
        """Raise ValueError if a field does not fit the model."""
        if self.multiple_of(flow) % flow.multiple:
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

    def to_dict(self, flow: ImageModel) -> dict[str, Any]:
        """What is measured of a model, as JSON-ready values."""
        return {
            **asdict(self),
            "temperatures": list(self.temperatures_of(flow)),
            "multiple": self.multiple_of(flow),
            "lr_log_scale": width_used(flow, self.lr_log_scale),
        }


@dataclass(frozen=True)
class Column:
    """One figure that every image gets.

    Attributes:
        key: short name, for example ``psnr τ=0``.
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

    @property
    def label(self) -> str:
        """Name, unit and convention in one."""
        return f"{self.name}{f' [{self.unit}]' if self.unit else ''} ({self.convention})"

    @property
    def short(self) -> str:
        """The key as the head of a CSV column.

        Example:
            >>> Column("psnr_y τ=0.8", "PSNR-Y", "BT.601 luma").short
            'psnr_y_tau0.8'
        """
        return self.key.replace(" ", "_").replace("τ=", "tau")


def list_columns(flow: ImageModel, plan: EvaluationPlan, *, given_lr: bool = False) -> list[Column]:
    """The columns of an evaluation of this model, in order.

    Args:
        flow: the model.
        plan: what is measured.
        given_lr: whether LR images are given rather than made from the HR ones.

    Example:
        >>> import flowsr
        >>> columns = list_columns(flowsr.HCFlow.from_preset("sr-x4-small"), EvaluationPlan())
        >>> print(columns[0].label)
        Bits per dimension [bits/dim] (p(hr | lr), uniform noise 1/256, one draw, σ = e^-6, D = C·H·W)
    """
    where = f"wall clock, batch 1, on {flow.device}, {str(flow.dtype).removeprefix('torch.')}"
    encoding = Column("seconds encode", "Time of one encoding", where, "s", "high")
    width = width_note(width_used(flow, plan.lr_log_scale))
    noise = f"uniform noise 1/256, one draw{width}, D = C·H·W"
    conditional = as_conditional(flow)
    if conditional is None:
        return [Column("bits_per_dim", "Bits per dimension", f"p(hr), {noise}", "bits/dim", "high"), encoding]
    s, rescaling = conditional.upscale, Capability.DOWNSCALE in flow.capabilities
    columns: list[Column] = []
    if rescaling:
        source = "the model's own LR image, rounded to 8 bits"
        how = f"{source}, against bicubic ÷{s} rounded to 8 bits, RGB, no border"
        columns.append(Column("encoded_lr_psnr", "Encoded LR-PSNR", how, "dB", "low"))
    else:
        source = "the LR image given" if given_lr else f"LR = bicubic ÷{s}, rounded to 8 bits"
        within = Capability.LR_LATENT in flow.capabilities
        bits = f"p(hr | lr), {noise}" + ("" if within else f"; {source}")
        columns.append(Column("bits_per_dim", "Bits per dimension", bits, "bits/dim", "high"))
        if within:
            how = f"clamp(encode(hr).lr), not rounded, against the LR image, no border; {source}"
            columns.append(Column("encoded_lr_psnr", "Encoded LR-PSNR", how, "dB", "low"))
    columns += _fidelity(BICUBIC, f"bicubic ·{s} of the {'bicubic' if rescaling else ''} LR image", s)
    for tau in plan.temperatures_of(flow):
        many = plan.draws_at(tau)
        made = f"average of the figures of {many} draws" if many > 1 else "one draw" if tau > 0 else "z = 0"
        columns += _fidelity(column_of(tau), made, s)
        columns += _of_draws(column_of(tau), many, s)
    return [*columns, encoding, Column("seconds draw", "Time of one draw", where, "s", "high")]


def column_of(temperature: float) -> str:
    """What results at a temperature are called."""
    return f"τ={temperature:g}"


def _fidelity(method: str, made: str, s: int) -> list[Column]:
    how = f"border {s}, rounded to 8 bits; {' '.join(made.split())}"
    window = f"11 x 11 Gaussian window, {how}"
    alex = f"AlexNet, version 0.1, RGB, no border, rounded to 8 bits; {' '.join(made.split())}"
    return [
        Column(f"psnr {method}", f"PSNR {method}", f"RGB, {how}", "dB", "low"),
        Column(f"psnr_y {method}", f"PSNR-Y {method}", f"BT.601 luma 16–235, {how}", "dB", "low"),
        Column(f"ssim {method}", f"SSIM {method}", f"RGB, {window}", "", "low"),
        Column(f"ssim_y {method}", f"SSIM-Y {method}", f"BT.601 luma 16–235, {window}", "", "low"),
        Column(f"lpips {method}", f"LPIPS {method}", alex, "", "high"),
    ]


def _of_draws(method: str, many: int, s: int) -> list[Column]:
    how = f"bicubic ÷{s} of the 8-bit image, rounded, against the LR image it was made from, RGB, no border"
    columns = [Column(f"lr_psnr {method}", f"LR-PSNR of the image {method}", how, "dB", "low")]
    if many > 1:
        std = f"mean over pixels of the unbiased std over {many} draws, not rounded"
        best = f"squared error averaged over channels as distance, {many} draws, not rounded"
        columns.append(Column(f"pixel_std {method}", f"Diversity (std) {method}", std, "grey levels of 255"))
        columns.append(Column(f"ntire {method}", f"Diversity (NTIRE) {method}", best, "%"))
    return columns
