"""Where a command prints: results on stdout, progress and remarks on stderr, JSON alone when asked for."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flowsr._json import to_json


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
