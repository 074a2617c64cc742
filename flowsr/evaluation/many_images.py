"""The result of an evaluation: rows of figures, their summary over the images, and both as card, CSV and JSON."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

from flowsr._support.json import json_number
from flowsr.evaluation.cards import Metric, MetricCard
from flowsr.evaluation.columns import Column
from flowsr.metrics.comparison import Score

Rows = Mapping[str, Mapping[str, Score]]
"""Figures by image and by key of the column."""

STATISTICS = ("mean", "standard error", "median", "worst")


@dataclass(frozen=True)
class Evaluation:
    """Figures of several images.

    Args:
        title: what was measured on what.
        columns: which figures there are.
        rows: image by image, its name and a figure, or the reason for none, under each column's key.

    Example:
        >>> bits = Column("bits", "Bits", "one draw", worse="high")
        >>> result = Evaluation("Two images", (bits,), {"a": {"bits": 3.0}, "b": {"bits": 5.0}})
        >>> result.summary("bits")
        {'mean': 4.0, 'standard error': 1.0, 'median': 4.0, 'worst': 5.0}
        >>> print(result.to_csv())
        image,bits
        a,3.0
        b,5.0
        <BLANKLINE>
    """

    title: str
    columns: tuple[Column, ...]
    rows: Rows

    def values(self, key: str) -> dict[str, float]:
        """The figures of a column by image, without those that have none."""
        return {name: row[key] for name, row in self.rows.items() if not isinstance(row[key], str)}  # type: ignore[misc]

    def reason(self, key: str) -> str:
        """Why the first image without a figure in this column has none."""
        return next((str(row[key]) for row in self.rows.values() if isinstance(row[key], str)), "")

    def summary(self, key: str) -> dict[str, float | None]:
        """Mean over images, its standard error (std/√n, unbiased), median, and the worst value."""
        values = list(self.values(key).values())
        if not values:
            return dict.fromkeys(STATISTICS)
        worse = self._column(key).worse
        finite = len(values) > 1 and all(map(math.isfinite, values))
        return {
            "mean": fmean(values),
            "standard error": stdev(values) / math.sqrt(len(values)) if finite else None,
            "median": median(values),
            "worst": {"low": min(values), "high": max(values), "": None}[worse],
        }

    def worst_image(self, key: str) -> str | None:
        """The name of the image with the worst value, if one end is worse."""
        values, worse = self.values(key), self._column(key).worse
        if not values or not worse:
            return None
        return (min if worse == "low" else max)(values, key=lambda name: values[name])

    def card(self) -> MetricCard:
        """The summary as a card: a row for each figure, the statistics over images as columns."""
        metrics, reasons = [], set()
        for column in self.columns:
            there = bool(self.values(column.key))
            values = self.summary(column.key) if there else {}
            reason = "" if there else self.reason(column.key)
            if reason in reasons:
                continue  # LPIPS is missing at every temperature for one reason: said once
            reasons.update([reason] if reason else [])
            metrics.append(Metric(column.name, column.convention, values, unit=column.unit, reason=reason))
        return MetricCard(self.title, STATISTICS, tuple(metrics))

    def to_csv(self) -> str:
        """One line per image under short heads, explained in :meth:`to_dict`; cells without a figure are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", *(column.short for column in self.columns)])
        for name, row in self.rows.items():
            writer.writerow([name, *("" if isinstance(row[c.key], str) else row[c.key] for c in self.columns)])
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Columns with conventions and summaries, and the figures of each image, JSON-ready."""
        columns = []
        for column in self.columns:
            summary = {name: json_number(value) for name, value in self.summary(column.key).items()}
            record = {
                **asdict(column),
                "csv": column.short,
                "over images": summary,
                "worst image": self.worst_image(column.key),
            }
            reason = self.reason(column.key)
            columns.append({**record, "reason": reason} if reason else record)
        images = [{"image": name, **self._plain(row)} for name, row in self.rows.items()]
        return {"title": self.title, "columns": columns, "images": images}

    def _plain(self, row: Mapping[str, Score]) -> dict[str, float | str | None]:
        values = ((column.key, row[column.key]) for column in self.columns)
        return {key: None if isinstance(value, str) else json_number(value) for key, value in values}

    def _column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)


def merge_rows(
    shares: Sequence[Mapping[str, Mapping[str, Score]]], order: Sequence[str]
) -> dict[str, dict[str, Score]]:
    """The rows of several processes as one table in the order of the images.

    Raises:
        ValueError: if some image is missing or was measured twice.

    Example:
        >>> merge_rows([{"b": {"x": 1.0}}, {"a": {"x": 2.0}}], ["a", "b"])
        {'a': {'x': 2.0}, 'b': {'x': 1.0}}
    """
    found = [name for share in shares for name in share]
    if sorted(found) != sorted(order):
        raise ValueError(f"expected each image once, {sorted(order)}; got {sorted(found)}")
    rows = {name: row for share in shares for name, row in share.items()}
    return {name: dict(rows[name]) for name in order}
