"""The result of an evaluation: figures image by image and over all images, as card, CSV and JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import Any

from flowsr._support.json import json_number
from flowsr.evaluation.columns import Column, ResolvedPlan
from flowsr.results import Card, Figure

Rows = Mapping[str, Mapping[str, Figure]]
"""Figures by image and by key of the column."""

STATISTICS = {
    "mean": "no image has a figure",
    "standard error": "needs two images or more, all with finite figures",
    "median": "no image has a figure",
    "worst": "neither end is worse",
}
"""What is said of all images together, and why it may be missing."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of several images.

    Args:
        title: what was measured on what.
        plan: what was measured, with the columns: which figures there are.
        rows: image by image, its name and a figure under each column's key.

    Example:
        >>> bits = Column("bits", "Bits", "one draw", worse="high")
        >>> plan = ResolvedPlan(temperatures=(), num_samples=1, multiple=4, seed=0, lr_log_scale=None, columns=(bits,))
        >>> result = Evaluation("Two images", plan, {n: {"bits": bits.figure(v)} for n, v in (("a", 3.0), ("b", 5.0))})
        >>> result.summary("bits")
        {'mean': 4.0, 'standard error': 1.0, 'median': 4.0, 'worst': 5.0}
        >>> print(result.to_csv())
        image,bits
        a,3.0
        b,5.0
        <BLANKLINE>
    """

    title: str
    plan: ResolvedPlan
    rows: Rows

    @property
    def columns(self) -> tuple[Column, ...]:
        """Which figures there are."""
        return self.plan.columns

    def values(self, key: str) -> dict[str, float]:
        """The figures of a column by image, without those that have none."""
        return {name: number for name, row in self.rows.items() if (number := row[key].number) is not None}

    def reason(self, key: str) -> str:
        """Why the first image without a figure in this column has none."""
        return next((row[key].reason for row in self.rows.values() if row[key].reason), "")

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

    def card(self) -> Card:
        """The summary as a card: a row for each figure, the statistics over images as columns."""
        columns: dict[str, list[Figure]] = {name: [] for name in STATISTICS}
        reasons = set()
        for column in self.columns:
            missing = "" if self.values(column.key) else self.reason(column.key)
            if missing in reasons:
                continue  # LPIPS is missing at every temperature for one reason: said once
            reasons.update([missing] if missing else [])
            for name, value in self.summary(column.key).items():
                columns[name].append(column.figure((missing or STATISTICS[name]) if value is None else value))
        return Card(self.title, columns)

    def to_csv(self) -> str:
        """One line per image under the columns' keys, see :meth:`to_dict`; cells without a figure are empty."""
        return Card(self.title, {name: tuple(row.values()) for name, row in self.rows.items()}).to_csv(of="image")

    def to_dict(self) -> dict[str, Any]:
        """Columns with conventions and summaries, and the figures of each image, JSON-ready."""
        columns = [
            {
                **asdict(column),
                "over_images": self._over_images(column.key),
                "worst_image": self.worst_image(column.key),
                "reason": self.reason(column.key) or None,
            }
            for column in self.columns
        ]
        images = [{"image": name, **_plain(row)} for name, row in self.rows.items()]
        return {"title": self.title, "columns": columns, "images": images}

    def _over_images(self, key: str) -> dict[str, float | str | None]:
        return {name.replace(" ", "_"): json_number(value) for name, value in self.summary(key).items()}

    def _column(self, key: str) -> Column:
        return next(column for column in self.columns if column.key == key)


def _plain(row: Mapping[str, Figure]) -> dict[str, Any]:
    """Numbers under their keys, null where there is none, and the reasons beside them."""
    numbers = {key: json_number(figure.number) for key, figure in row.items()}
    return {"figures": numbers, "reasons": {key: figure.reason for key, figure in row.items() if figure.reason}}
