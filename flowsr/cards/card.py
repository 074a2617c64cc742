"""A metric with its convention, and a card of them.

Most disputes over figures of super-resolution are disputes over conventions: RGB or luma, which border, rounded or
not, at which temperature. So here a number cannot exist without the words that say how it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowsr._json import json_number


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
