"""Metric cards: figures that say under which conventions they hold, as a table for people and as JSON for programs.

Most disputes over figures of super-resolution are disputes over conventions: RGB or luma, which border, rounded or
not, at which temperature. So here a number cannot exist without the words that say how it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from flowsr._support.json import json_number
from flowsr.evaluation.encoded import dequantized_terms, encoded_lr, encoded_lr_psnr
from flowsr.likelihood import LogLikelihoodTerms, dequantized_bits_per_dim
from flowsr.likelihood.decompose import width_note
from flowsr.metrics import compare, lr_psnr, pixel_std
from flowsr.metrics.comparison import Score
from flowsr.models import Capability, ConditionalModel


@dataclass(frozen=True)
class Metric:
    """One figure for each of several images, with its convention.

    Args:
        name: what is measured, for example "PSNR".
        convention: how, for example "RGB, border 4, rounded to 8 bits".
        values: the figure of each column of the card; None where there is none.
        unit: for example "dB"; empty for a pure number.
        reason: why values are missing, and what would provide them.

    Raises:
        ValueError: without a convention, or without both values and a reason why there are none.

    Example:
        >>> Metric("PSNR", "RGB, border 4, rounded to 8 bits", {"bicubic": 28.42}, unit="dB").label
        'PSNR (RGB, border 4, rounded to 8 bits)'
    """

    name: str
    convention: str
    values: Mapping[str, float | None]
    unit: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.convention:
            raise ValueError(f"expected a convention for {self.name}: a number without one cannot be compared; got ''")
        if not self.values and not self.reason:
            raise ValueError(f"expected values for {self.name}, or a reason why there are none; got neither")

    @property
    def label(self) -> str:
        """Name and convention together."""
        return f"{self.name} ({self.convention})"

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        record: dict[str, Any] = {"name": self.name, "convention": self.convention, "unit": self.unit}
        record["values"] = {column: json_number(value) for column, value in self.values.items()}
        return {**record, "reason": self.reason} if self.reason else record


@dataclass(frozen=True)
class MetricCard:
    """Metrics of several images side by side.

    Args:
        title: what was measured on what.
        columns: the images or methods compared, in order.
        metrics: the rows.

    Raises:
        ValueError: if a metric has a value for something that is not a column.

    Example:
        >>> row = Metric("PSNR", "RGB, border 4, rounded to 8 bits", {"bicubic": 28.42, "flow": 29.1}, unit="dB")
        >>> print(MetricCard("Set5", ("bicubic", "flow"), (row,)).to_text())
        Set5
        PSNR (RGB, border 4, rounded to 8 bits), dB: bicubic 28.42, flow 29.10
    """

    title: str
    columns: tuple[str, ...]
    metrics: tuple[Metric, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        for metric in self.metrics:
            strange = set(metric.values) - set(self.columns)
            if strange:
                raise ValueError(f"expected values of {metric.name} for {self.columns}; got {sorted(strange)} too")

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        rows = [metric.to_dict() for metric in self.metrics]
        return {"title": self.title, "columns": list(self.columns), "metrics": rows}

    def to_text(self) -> str:
        """The card as plain lines."""
        lines = [self.title]
        for metric in self.metrics:
            shown = [f"{column} {format_value(value)}" for column, value in metric.values.items()]
            unit = f", {metric.unit}" if metric.unit else ""
            lines.append(f"{metric.label}{unit}: {', '.join(shown) or 'unavailable: ' + metric.reason}")
        return "\n".join(lines)


def format_value(value: float | None) -> str:
    """Two decimals from 1 on, four below.

    Example:
        >>> format_value(28.4166), format_value(0.81044), format_value(None), format_value(math.inf)
        ('28.42', '0.8104', '–', '∞')
    """
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def fidelity_metrics(images: Mapping[str, Tensor], hr: Tensor, lr: Tensor, *, upscale: int) -> list[Metric]:
    """PSNR, SSIM, LPIPS and LR-PSNR of several reconstructions, with a border as wide as the upscale factor.

    Images are rounded to 8 bits first, as if saved. Of several draws the average of their figures is taken.

    Cost: about ten filters per image; LPIPS a pass of its network if its weights are on this machine.

    Args:
        images: reconstructions by name, ``(C, H, W)`` or draws ``(S, C, H, W)``, RGB or gray; the names become columns.
        hr: the truth, ``(C, H, W)`` in [0, 1].
        lr: the LR image they were made from, ``(C, h, w)`` in [0, 1].
        upscale: the factor s.

    Returns:
        Metrics; one that cannot be computed here (luma of gray images, SSIM of tiny ones, LPIPS without weights) has
        no values and says why.

    Raises:
        ValueError: if sizes do not match.

    Example:
        >>> import torch
        >>> from flowsr.images import bicubic_down, bicubic_up
        >>> hr = torch.rand(3, 32, 32)
        >>> lr = bicubic_down(hr, 4).clamp(0, 1)
        >>> [metric.name for metric in fidelity_metrics({"bicubic": bicubic_up(lr, 4)}, hr, lr, upscale=4)]
        ['PSNR', 'PSNR-Y', 'SSIM', 'SSIM-Y', 'LPIPS', 'LR-PSNR', 'Diversity']
    """
    scores = {name: compare(image, hr, border=upscale) for name, image in images.items()}
    colours = "RGB" if hr.shape[-3] == 3 else "gray"
    how = f"border {upscale}, rounded to 8 bits"
    luma = f"BT.601 luma 16–235, {how}"
    consistency = {
        name: float(lr_psnr(image.clamp(0, 1), lr, upscale=upscale).mean()) for name, image in images.items()
    }
    return [
        _row("PSNR", f"{colours}, {how}", "psnr", scores, "dB"),
        _row("PSNR-Y", luma, "psnr_y", scores, "dB"),
        _row("SSIM", f"{colours}, {how}", "ssim", scores),
        _row("SSIM-Y", luma, "ssim_y", scores),
        _row("LPIPS", "AlexNet, version 0.1, RGB, no border, rounded to 8 bits", "lpips", scores),
        Metric(
            "LR-PSNR",
            f"{colours}, bicubic ÷{upscale} of the rounded image, rounded, against the LR image, no border",
            consistency,
            unit="dB",
        ),
        _diversity(images),
    ]


def _row(name: str, convention: str, key: str, scores: Mapping[str, Mapping[str, Score]], unit: str = "") -> Metric:
    """The row of a figure: what it is for all images, or why one has none."""
    values: dict[str, float | None] = {}
    for column, row in scores.items():
        score = row[key]
        if isinstance(score, str):
            return Metric(name, convention, {}, unit=unit, reason=score)
        values[column] = score
    return Metric(name, convention, values, unit=unit)


def _diversity(images: Mapping[str, Tensor]) -> Metric:
    """Only of what holds several draws, and of those as drawn, not rounded."""
    draws = {name: image for name, image in images.items() if image.ndim == 4 and len(image) > 1}
    values: dict[str, float | None] = {name: float(pixel_std(image)) for name, image in draws.items()}
    convention = "mean over pixels of the unbiased std over draws, not rounded"
    return Metric(
        "Diversity", convention, values, unit="grey levels of 255", reason="" if values else "needs at least two draws"
    )


def likelihood_metrics(
    flow: ConditionalModel,
    hr: Tensor,
    *,
    lr: Tensor,
    column: str,
    seed: int = 0,
    lr_log_scale: float | None = None,
) -> tuple[list[Metric], LogLikelihoodTerms]:
    """Bits per dimension of an 8-bit image, how well the flow's own LR image agrees, and the terms behind the bits.

    A model without an LR image in its latent has no second figure.

    Cost: two encoding passes.

    Args:
        flow: the model.
        hr: 8-bit HR image ``(C, H, W)`` in [0, 1], sides multiples of the upscale factor.
        lr: LR image ``(C, h, w)``, 8-bit too.
        column: the name under which the figures stand in the card.
        seed: of the dequantization noise, which is drawn on the CPU so that devices agree.
        lr_log_scale: log σ; by default the model's own, −6 for HCFlow.

    Returns:
        The metrics, and the terms of ``log p(hr + noise | lr)`` without a batch dimension.

    Raises:
        ValueError: on wrong shapes or values.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> from flowsr.images import round_to_8bit
        >>> hr, lr = round_to_8bit(torch.rand(3, 16, 16)), round_to_8bit(torch.rand(3, 4, 4))
        >>> metrics, terms = likelihood_metrics(flow, hr, lr=lr, column="flow")
        >>> metrics[0].convention
        'D = C·H·W = 768, σ = e^-6, uniform noise 1/256, one draw'
    """
    terms = dequantized_terms(flow, hr, lr, seed=seed, lr_log_scale=lr_log_scale)
    bits = float(dequantized_bits_per_dim(terms))
    metrics = [
        Metric(
            "Bits per dimension of p(hr | lr)",
            f"D = C·H·W = {terms.dims}{width_note(terms.lr_log_scale)}, uniform noise 1/256, one draw",
            {column: bits},
            unit="bits/dim",
        )
    ]
    if Capability.LR_LATENT in flow.capabilities:
        rule = "rounded to 8 bits" if Capability.DOWNSCALE in flow.capabilities else "clamped, not rounded"
        metrics.append(
            Metric(
                "Encoded LR-PSNR",
                f"encode(hr).lr {rule}, against the LR image given, all channels, no border",
                {column: encoded_lr_psnr(encoded_lr(flow, hr), lr)},
                unit="dB",
            )
        )
    return metrics, terms
