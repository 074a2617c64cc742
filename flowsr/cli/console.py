"""Where a command prints: results on stdout, progress and remarks on stderr, JSON alone when asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from flowsr._support.json import to_json

if TYPE_CHECKING:
    from flowsr.evaluation import Comparison
    from flowsr.results import Card


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Reporter:
    """One command's output.

    Args:
        quiet: no tables, remarks or progress bars.
        json_only: no tables; the document of :meth:`document` on stdout instead.
    """

    def __init__(self, *, quiet: bool, json_only: bool) -> None:
        self.quiet = quiet
        self.json_only = json_only
        self._out = Console(file=sys.stdout, highlight=False, soft_wrap=False)
        self._err = Console(file=sys.stderr, highlight=False)

    def remark(self, text: str) -> None:
        """A line about what is going on, on stderr."""
        if not self.quiet:
            self._err.print(text, markup=False, emoji=False, soft_wrap=True)

    def result(self, renderable: RenderableType) -> None:
        """A table or a text that is the result, on stdout."""
        if not self.quiet and not self.json_only:
            self._out.print(renderable, markup=False, emoji=False)

    def document(self, document: dict[str, Any]) -> None:
        """The result as JSON on stdout, if asked for."""
        if self.json_only:
            sys.stdout.write(to_json(document))

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[..., None]]:
        """A progress bar; the value is a function to call after each step, with what to show beside the bar."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}", markup=False),
        )
        with Progress(*columns, console=self._err, disable=self.quiet) as bar:
            task = bar.add_task(description, total=total, remark="")

            def advance(remark: str | None = None) -> None:
                bar.advance(task)
                if remark is not None:
                    bar.update(task, remark=remark)

            try:
                yield advance
            except BaseException:
                # A bar that did not get there is cleared before the error is said, and leaves no empty line.
                bar.live.transient = True
                bar.live.stop()
                bar.disable = True
                raise


def card_table(card: Card) -> Table:
    """A card with its conventions under the names, one column per image."""
    table = Table(title=card.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for column in card.columns:
        table.add_column(column, justify="right")
    missing = []
    for row in card.rows:
        table.add_row(Text.assemble((row.first.label, "bold"), "\n", (row.first.convention, "dim")), *row.cells)
        missing += [f"{row.first.name}: unavailable: {reason}" for reason in row.reasons]
    if missing:
        table.caption = "\n".join(missing)
        table.caption_justify = "left"
    return table


def comparison_table(comparison: Comparison) -> Table:
    """Two models figure by figure, with the conventions and what is not compared below."""
    table = Table(
        title=comparison.heading, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    *numbers, record = comparison.head
    for name in ("figure", *numbers, record):
        table.add_column(name, justify="left" if name == "figure" else "right", no_wrap=name not in ("figure", record))
    for figure in comparison.figures:
        table.add_row(figure.label, *figure.cells)
    table.caption, table.caption_justify = "\n".join(comparison.notes), "left"
    return table


def facts_table(title: str, facts: Mapping[str, object]) -> Table:
    """Names and values below each other."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE, show_header=False, pad_edge=False
    )
    table.add_column("name", style="dim")
    table.add_column("value")
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table
