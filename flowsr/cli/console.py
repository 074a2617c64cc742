"""Where a command prints: results on stdout, progress and remarks on stderr, JSON alone when asked for.

Printing comes last and may fail: what is written to files is whole by then. What cannot be said on stderr is not said;
what cannot be printed on stdout is an error. Nothing printed acts on a terminal but its own colours.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from flowsr._support.json import to_json
from flowsr._support.names import escaped_bytes, visible

UNREAD = 1
"""The exit code where a reader closed the pipe, as ``head`` does: nothing went wrong, and not all was read."""

_SIGNS = """
·=* −=- –=- —=- ×=x ÷=/ ±=+- ≥=>= ≤=<= ≠=!= ²=^2 ³=^3 √=sqrt ∞=inf …=... →=-> ∂=d ℓ=l •=* ‘=' ’=' “=" ”="
τ=tau σ=sigma α=alpha β=beta δ=delta ε=epsilon θ=theta χ=chi Σ=sum Π=product Δ=Delta Φ=Phi
"""
_SPELT = {sign[0]: sign[2:] for sign in _SIGNS.split()}
"""What flowsr says itself where an encoding lacks its signs."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Signs that an encoding lacks in words, and letters of names as their bytes; for :func:`codecs.register_error`."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SPELT.get(letter) or escaped_bytes(letter) for letter in lacking), error.end


class _Said(io.TextIOWrapper):
    """Text that is lost where it cannot be written, as what is said beside the work must not end it."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


class _Printed(io.TextIOWrapper):
    """Text that arrives or ends the command: quietly where a reader has had enough, else with an error."""

    def write(self, text: str) -> int:
        with self._arriving():
            return super().write(text)

    def flush(self) -> None:
        with self._arriving():
            super().flush()

    @contextmanager
    def _arriving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What waits in the buffer would fail once more when Python ends, with words of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise typer.Exit(UNREAD) from None
            reason = error.strerror or str(error)
            raise OSError(f"the results could not be printed ({reason}); files that were written are whole") from error


def open_streams() -> None:
    """Make of stdout and stderr what can be printed to: in any encoding, closed, or a pipe that nobody reads.

    A stream that was closed leads nowhere from here on. Left closed, its number would go to the next file opened.
    """
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
    codecs.register_error("flowsr.spell", _spell)
    sys.stdout = _stream(sys.stdout, 1, _Printed)
    sys.stderr = _stream(sys.stderr, 2, _Said)


def _stream(stream: TextIO | None, number: int, kind: type[io.TextIOWrapper]) -> TextIO:
    if stream is None:  # it was closed when Python began
        return open(number, "w", encoding="utf-8", closefd=False)
    if not isinstance(stream, io.TextIOWrapper):  # a notebook's
        return stream
    opened: Any = kind(stream.buffer, stream.encoding, "flowsr.spell", line_buffering=stream.isatty())
    opened.before = stream  # which would close the file if nobody held it
    return opened


def say(text: str) -> None:
    """A line on stderr."""
    print(visible(text), file=sys.stderr, flush=True)


class _Visible:
    """Anything that rich shows, with nothing in its texts that acts on a terminal."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._shown, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


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
        self._out = Console(highlight=False, markup=False, emoji=False)
        self._err = Console(highlight=False, markup=False, emoji=False, stderr=True)

    def remark(self, text: str) -> None:
        """A line about what is going on, on stderr."""
        if not self.quiet:
            self._err.print(visible(text), soft_wrap=True)

    def result(self, renderable: RenderableType) -> None:
        """A table or a text that is the result, on stdout."""
        if not self.quiet and not self.json_only:
            # A terminal wraps what is longer than its lines; breaking it here would break numbers and paths.
            self._out.print(_Visible(renderable), soft_wrap=True)

    def document(self, document: dict[str, Any]) -> None:
        """The result as JSON on stdout, if asked for: in UTF-8, as JSON is, or in ASCII where stdout is anything else.

        Programs that read it need not know the encoding of a terminal.
        """
        if self.json_only and sys.stdout is not None:
            print(to_json(document, ascii_only=self._out.encoding not in ("utf-8", "utf8")), end="", flush=True)

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
                    bar.update(task, remark=visible(remark))

            try:
                yield advance
            except BaseException:
                # A bar that did not get there is cleared before the error is said, and leaves no empty line.
                bar.live.transient = True
                bar.live.stop()
                bar.disable = True
                raise
