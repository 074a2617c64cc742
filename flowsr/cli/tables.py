"""Tables in which no value is broken: names fold, columns that do not fit go below each other, prose wraps at spaces.

Where nobody looks at a terminal of some width, a row stays one line, however long.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flowsr.evaluation import Comparison
    from flowsr.results import Card

_NAME = 24
"""What the column of names is given at least, if it needs as much."""
_HEAD = 12
"""How far the head of a column folds at most: names of images are longer than their figures."""
_BETWEEN = 3
"""What rich puts between two columns."""


class Columns:
    """A table of figures: names to the left, values to the right of them, each whole.

    Args:
        title: above.
        head: names of the columns, the first of them over the names of the figures.
        rows: the name of a figure and its values.
        notes: below.
    """

    def __init__(
        self, title: str, head: Sequence[str], rows: Sequence[tuple[Text, Sequence[str]]], notes: Sequence[str] = ()
    ) -> None:
        self._title, self._name, self._rows, self._notes = title, head[0], rows, notes
        cells = [[values[i] for _, values in rows] for i in range(len(head) - 1)]
        widest = [max(map(cell_len, column), default=0) for column in cells]
        self._head = [_folded(name, max(_HEAD, width)) for name, width in zip(head[1:], widest, strict=True)]
        named = [max(map(cell_len, name.splitlines()), default=0) for name in self._head]
        self._widths = [max(pair) for pair in zip(widest, named, strict=True)]
        self._least = min(
            _NAME, max((cell_len(line) for name, _ in rows for line in name.plain.split("\n")), default=0)
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _lines([self._title], console, options, style="bold")
        for group in self._groups(options.max_width) if _is_bounded(console) else [range(len(self._head))]:
            needed = self._least + 2 + sum(self._widths[i] + _BETWEEN for i in group)
            yield from console.render(self._table(group), options.update(width=max(needed, options.max_width)))
        yield from _lines(self._notes, console, options)

    def _groups(self, width: int) -> Iterator[Sequence[int]]:
        """The columns that fit beside the names, then those that fit below, and so on; at least one each time."""
        group: list[int] = []
        for i in range(len(self._head)):
            needed = self._least + 2 + sum(self._widths[j] + _BETWEEN for j in (*group, i))
            if group and needed > width:
                yield group
                group = []
            group.append(i)
        yield group

    def _table(self, group: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column(self._name, overflow="fold")
        for i in group:
            table.add_column(self._head[i], justify="right", no_wrap=True, min_width=self._widths[i])
        for name, values in self._rows:
            table.add_row(name, *(values[i] for i in group))
        return table


class Facts:
    """Names and values below each other; a value that is prose goes on below itself, and a path is never broken."""

    def __init__(self, title: str, facts: Mapping[str, object]) -> None:
        self._title, self._facts = title, {name: str(value) for name, value in facts.items()}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _lines([self._title], console, options, style="bold")
        indent = max(map(cell_len, self._facts), default=0) + 4
        for name, value in self._facts.items():
            first, *others = _wrapped(value, console, options.max_width - indent)
            yield Text.assemble(" ", (name, "dim"), " " * (indent - 1 - cell_len(name)), first, no_wrap=True)
            for line in others:
                yield Text(" " * indent + line, no_wrap=True)
        yield Segment.line()


def card_table(card: Card) -> Columns:
    """A card with its conventions under the names, one column per image."""
    rows = [
        (Text.assemble((row.first.label, "bold"), "\n", (row.first.convention, "dim")), row.cells) for row in card.rows
    ]
    missing = [f"{row.first.name}: unavailable: {reason}" for row in card.rows for reason in row.reasons]
    return Columns(card.title, ("figure", *card.columns), rows, missing)


def comparison_table(comparison: Comparison) -> Columns:
    """Two models figure by figure, with the conventions and what is not compared below."""
    rows = [(Text(figure.label), figure.cells) for figure in comparison.figures]
    return Columns(comparison.heading, ("figure", *comparison.head), rows, comparison.notes)


def _is_bounded(console: Console) -> bool:
    return console.is_terminal


def _folded(name: str, width: int) -> str:
    return "\n".join(textwrap.wrap(name, width)) or name


def _wrapped(text: str, console: Console, width: int) -> list[str]:
    """Lines of a text that break at spaces alone, on a terminal; as they are elsewhere."""
    lines = text.split("\n")
    if not _is_bounded(console):
        return lines
    pieces = (textwrap.wrap(line, max(width, 20), break_long_words=False, break_on_hyphens=False) for line in lines)
    return [piece for found in pieces for piece in (found or [""])]


def _lines(texts: Sequence[str], console: Console, options: ConsoleOptions, *, style: str = "") -> Iterator[Text]:
    for text in texts:
        for line in _wrapped(text, console, options.max_width):
            yield Text(line, style=style, no_wrap=True)
