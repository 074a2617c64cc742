"""What is found: figures with their conventions, cards of them, and the results of analyses; each rendered in one way.

Most disputes over figures of super-resolution are disputes over conventions: RGB or luma, which border, rounded or
not, at which temperature. So here a number cannot exist without the words that say how it was measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flowsr._support.json import to_plain
from flowsr.plots import new_figure
from flowsr.statistics.intervals import FEW, Interval

if TYPE_CHECKING:
    import matplotlib.figure
    from matplotlib.axes import Axes


_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")  # spreadsheets take the wide signs for the others
_ENDS_CELL = re.compile("[,;|\"'\t\r\n]")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number with what it is of, or the reason why there is none.

    Args:
        key: its name for programs, snake case: the head of a CSV column and a key of JSON, for example ``psnr_y``.
        name: its name for people, for example "PSNR-Y".
        convention: how it was measured, for example "BT.601 luma 16–235, border 4, rounded to 8 bits".
        unit: for example "dB"; empty for a pure number.
        value: the number, alone or with its confidence interval; None where there is none.
        reason: why there is none, and what would provide it.

    Raises:
        ValueError: without a convention, or without exactly one of a value and a reason.

    Example:
        >>> how = "RGB, border 4, rounded to 8 bits"
        >>> figure = Figure(key="psnr", name="PSNR", convention=how, unit="dB", value=28.4166)
        >>> print(figure)
        PSNR (RGB, border 4, rounded to 8 bits): 28.42 dB
        >>> float(figure)
        28.4166
    """

    key: str
    name: str
    convention: str
    unit: str = ""
    value: float | Interval | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.convention:
            raise ValueError(f"expected a convention for {self.name}: a number without one cannot be compared; got ''")
        if (self.value is None) != bool(self.reason):
            got = f"{self.value} and the reason {self.reason!r}" if self.reason else "neither"
            raise ValueError(f"expected a value for {self.name}, or else a reason why there is none; got {got}")

    @property
    def number(self) -> float | None:
        """The value without its interval."""
        return self.value.value if isinstance(self.value, Interval) else self.value

    @property
    def interval(self) -> Interval | None:
        """The value with its confidence interval, if it has one; that of a single image has none."""
        found = self.value
        return found if isinstance(found, Interval) and not math.isnan(found.low) else None

    @property
    def cell(self) -> str:
        """The value as tables show it, its interval behind; a dash where there is none."""
        text = format_value(self.number)
        if self.interval is None:
            return text
        few = f" (n = {self.interval.count})" if 0 < self.interval.count < FEW else ""
        return f"{text} [{format_value(self.interval.low)}, {format_value(self.interval.high)}]{few}"

    @property
    def label(self) -> str:
        """Name and unit together."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def __float__(self) -> float:
        if self.number is None:
            raise ValueError(f"expected a figure that has a value; got {self.name} without: {self.reason}")
        return self.number

    def __str__(self) -> str:
        value = f"{self.cell} {self.unit}".rstrip() if not self.reason else f"unavailable: {self.reason}"
        return f"{self.name} ({self.convention}): {value}"

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON-ready; value, interval and reason are null where there is none."""
        found = self.interval
        ends = None
        if found is not None:
            ends = {"low": found.low, "high": found.high, "level": found.level, "count": found.count or None}
        about = {"key": self.key, "name": self.name, "unit": self.unit, "convention": self.convention}
        return to_plain({**about, "value": self.number, "interval": ends, "reason": self.reason or None})


@dataclass(frozen=True)
class Card:
    """Figures of several things side by side: images, methods, or statistics over images.

    Args:
        title: what was measured on what.
        columns: the figures of each thing under its name; a row of the card is what shares key and convention.

    Example:
        >>> def psnr(value):
        ...     return Figure(key="psnr", name="PSNR", convention="RGB, border 4", unit="dB", value=value)
        >>> card = Card("Set5", {"bicubic": (psnr(28.42),), "flow": (psnr(29.1),)})
        >>> print(card.to_text())
        Set5
        PSNR (RGB, border 4), dB: bicubic 28.42, flow 29.10
        >>> print(card.to_csv())
        column,psnr
        bicubic,28.42
        flow,29.1
        <BLANKLINE>
    """

    title: str
    columns: Mapping[str, Sequence[Figure]]

    @property
    def rows(self) -> list[CardRow]:
        """The card row by row, in the order in which figures first appear."""
        rows: dict[tuple[str, str], dict[str, Figure]] = {}
        for column, figures in self.columns.items():
            for figure in figures:
                rows.setdefault((figure.key, figure.convention), {})[column] = figure
        return [CardRow(tuple(self.columns), found) for found in rows.values()]

    def figure(self, key: str, column: str) -> Figure:
        """The figure of a key in a column.

        Raises:
            KeyError: if there is none.
        """
        found = {figure.key: figure for figure in self.columns[column]}
        return found[key]

    def to_dict(self) -> dict[str, Any]:
        """Title, columns, and a list of all figures, each with the column it is of; JSON-ready."""
        rows = [(column, figure) for row in self.rows for column, figure in row.figures.items()]
        figures = [{"column": column, **figure.to_dict()} for column, figure in rows]
        return {"title": self.title, "columns": list(self.columns), "figures": figures}

    def to_text(self) -> str:
        """A line for each row."""
        lines = [self.title]
        for row in self.rows:
            first = row.first
            unit = f", {first.unit}" if first.unit else ""
            shown = [f"{column} {figure.cell}" for column, figure in row.figures.items() if not figure.reason]
            words = ", ".join(shown) or f"unavailable: {'; '.join(row.reasons)}"
            lines.append(f"{first.name} ({first.convention}){unit}: {words}")
        return "\n".join(lines)

    def to_csv(self, *, of: str = "column") -> str:
        """A line for each column of the card under the keys of the figures; cells without a figure are empty.

        Args:
            of: head of the first column, which names what a line is of.
        """
        keys = dict.fromkeys(figure.key for figures in self.columns.values() for figure in figures)
        found = {name: {figure.key: figure.number for figure in figures} for name, figures in self.columns.items()}
        return csv_table([of, *keys], [[name, *map(numbers.get, keys)] for name, numbers in found.items()])


@dataclass(frozen=True)
class CardRow:
    """A row of a card: one quantity, measured of several things.

    Attributes:
        columns: all columns of the card, in order.
        figures: those there are, by column.
    """

    columns: tuple[str, ...]
    figures: Mapping[str, Figure]

    @property
    def first(self) -> Figure:
        """Any of the figures, for name, unit and convention, which all share."""
        return next(iter(self.figures.values()))

    @property
    def cells(self) -> list[str]:
        """A cell for each column of the card."""
        return [self.figures[column].cell if column in self.figures else "–" for column in self.columns]

    @property
    def reasons(self) -> list[str]:
        """Why there is no figure in the whole row, each reason once; empty if some column has one."""
        reasons = [figure.reason for figure in self.figures.values()]
        return list(dict.fromkeys(reasons)) if all(reasons) else []


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


@dataclass(frozen=True)
class Result:
    """The base of all results of analyses: a frozen dataclass with units in its docstring.

    A subclass defines :meth:`to_text` and what :meth:`plot` draws; :meth:`to_dict` follows from its fields.

    Example:
        >>> @dataclass(frozen=True)
        ... class Count(Result):
        ...     images: int
        >>> Count(3).to_dict()
        {'images': 3}
    """

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values: tensors become lists, infinities and NaN strings that ``float`` reads."""
        return {field.name: to_plain(getattr(self, field.name)) for field in fields(self)}

    def to_text(self) -> str:
        """The result as a table for people."""
        raise NotImplementedError

    def plot(self, ax: Axes | None = None) -> matplotlib.figure.Figure:
        """Draw the result: its main panel into ``ax`` if given, else all panels into a figure of their own.

        Returns:
            The figure drawn into; save it with :func:`flowsr.plots.save_figure`.
        """
        if ax is None:
            return self._draw_figure()
        self._draw_main(ax)
        return ax.get_figure(root=True)  # type: ignore[return-value]

    def _draw_main(self, ax: Axes) -> None:
        """The main panel; what a subclass defines."""
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def _draw_figure(self) -> matplotlib.figure.Figure:
        """All panels; a subclass with more than the main one defines this too."""
        figure = new_figure(5.0, 3.5)
        self._draw_main(figure.subplots())
        return figure


def csv_table(head: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """Rows under a head as CSV: texts, numbers, and nothing where there is None.

    A spreadsheet takes a text that begins like a formula for one, and runs it. So, as OWASP recommends, such a text has
    an apostrophe before it, which spreadsheets do not show, and what could end a cell in any country is quoted. Numbers
    are written as they are. To read a text back, take one apostrophe away where one or more stand before such a sign.

    Args:
        head: names of the columns.
        rows: cells, as many as there are columns.

    References:
        OWASP, "CSV Injection", https://owasp.org/www-community/attacks/CSV_Injection

    Example:
        >>> print(csv_table(["image", "psnr"], [["=1+1;2", -28.4], ["cat", None]]), end="")
        image,psnr
        "'=1+1;2",-28.4
        cat,
    """
    return "".join(",".join(map(_csv_cell, row)) + "\n" for row in (head, *rows))


def _csv_cell(value: str | float | None) -> str:
    if not isinstance(value, str):
        return "" if value is None else str(value)
    text = f"'{value}" if _FORMULA.match(value) else value
    return '"' + text.replace('"', '""') + '"' if _ENDS_CELL.search(text) else text


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", notes: Sequence[str] = ()
) -> str:
    """Rows under a head, the first column to the left and the others to the right, as plain text.

    Args:
        head: names of the columns, with their units.
        rows: cells, as many as there are columns.
        title: a line above.
        notes: lines below, for conventions.

    Raises:
        ValueError: if a row has not as many cells as the head.

    Example:
        >>> print(text_table(["level", "std"], [["1", "1.02"], ["2", "0.97"]], title="Latents"))
        Latents
        level   std
        1      1.02
        2      0.97
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"expected {len(head)} cells per row; got {len(row)}: {row}")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [title] if title else []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *notes])
