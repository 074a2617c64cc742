"""The logs of a run: rows in CSV files, TensorBoard on request, and how far it is, in words."""

import csv
import io
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from flowsr._support.atomic import atomic_path
from flowsr._support.extras import import_extra

_NAMES = {
    "bits_per_dim": ("bits/dim", ""),
    "encoded_lr_psnr": ("encoded LR-PSNR", "dB"),
    "psnr": ("PSNR τ = 0", "dB"),
    "psnr_mean": ("PSNR τ = 0", "dB"),
    "psnr_draw": ("PSNR of a draw", "dB"),
    "psnr_y_mean": ("PSNR-Y τ = 0", "dB"),
    "psnr_y_draw": ("PSNR-Y of a draw", "dB"),
    "images_per_second": ("images/s", ""),
}
_SUFFIXES = {"_median": "median", "_worst": "worst image"}


def label_of(key: str) -> str:
    """The label of a column of the logs, with its unit.

    Example:
        >>> label_of("psnr_mean"), label_of("bits_per_dim_worst"), label_of("psnr_draw_median")
        ('PSNR τ = 0, dB', 'bits/dim, worst image', 'PSNR of a draw, dB, median')
    """
    for suffix, word in _SUFFIXES.items():
        if key.endswith(suffix):
            return f"{label_of(key.removesuffix(suffix))}, {word}"
    name, unit = _NAMES.get(key, (key, ""))
    return f"{name}, {unit}" if unit else name


def in_words(numbers: dict[str, float]) -> str:
    """Numbers of the logs in a line.

    Example:
        >>> in_words({"bits_per_dim": 3.4567, "psnr_mean": 27.25})
        'bits/dim: 3.457, PSNR τ = 0: 27.25 dB'
    """
    parts = []
    for key, value in numbers.items():
        name, unit = _NAMES.get(key, (key, ""))
        parts.append(f"{name}: {value:.4g} {unit}".rstrip())
    return ", ".join(parts)


class CsvLog:
    """Rows of numbers appended to a CSV file, one per call, on the disk as soon as written.

    A resumed run continues the file: rows after the step it resumes from are dropped first, and a last line that a
    kill cut short. On a full disk rows wait in memory, with a warning, until there is room.

    Args:
        path: the file.
        columns: its columns; the first must be ``step``.
        start: the step the run starts at; rows of later steps are dropped.

    Example:
        >>> import tempfile
        >>> log = CsvLog(Path(tempfile.mkdtemp()) / "log.csv", ["step", "loss"])
        >>> log.write({"step": 1, "loss": 0.5})
        >>> log.close()
        >>> read_csv(log.path)
        [{'step': 1.0, 'loss': 0.5}]
    """

    def __init__(self, path: Path, columns: list[str], *, start: int = 0) -> None:
        self.path, self.columns = path, columns
        rows = [row for row in read_csv(path) if row.get("step", 0) <= start] if start and path.exists() else []
        with atomic_path(path) as temporary:
            head = f"{','.join(columns)}\n".encode()
            temporary.write_bytes(b"".join([head, *map(self._line, rows)]))
        self._unwritten = b""
        # Without a buffer of its own, whose content is lost or doubled when a write fails.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - held for the length of the run

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; columns that are missing stay empty."""
        waiting = bool(self._unwritten)
        self._unwritten += self._line(row)
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not waiting:
                warnings.warn(f"could not write {self.path.name}: {error}; rows wait until there is room", stacklevel=2)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, row: dict[str, Any]) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writerow({key: _format(key, value) for key, value in row.items()})
        return text.getvalue().encode()


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of a log as numbers, without empty cells and without a last line that was cut short."""
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for row in csv.DictReader(whole.splitlines()):
        try:
            rows.append({key: float(value) for key, value in row.items() if value})
        except (TypeError, ValueError):
            continue
    return rows


def _format(key: str, value: Any) -> Any:
    if key in ("step", "skipped"):
        return int(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def tensorboard_writer(folder: Path, *, start: int = 0) -> Any:
    """Lightning's TensorBoard logger, which a run that goes on at ``start`` lets forget the steps after it."""
    loggers = import_extra("lightning.fabric.loggers.tensorboard", to="write TensorBoard's logs")
    return loggers.TensorBoardLogger(folder, name="", version="", purge_step=start + 1 if start else None)


class ProgressBar:
    """A bar with speed, time left and the latest numbers; without a terminal, a line at most once a minute.

    Args:
        total: steps of the whole run.
        start: step it starts at.
        enabled: False shows nothing.
        every: seconds between lines.
        clock: seconds that have passed since some time.

    Example:
        >>> seconds = iter([0.0, 30.0, 90.0])
        >>> bar = ProgressBar(100, start=10, clock=lambda: next(seconds))
        >>> bar.update(20, {"bits_per_dim": 5.1})
        >>> bar.update(40, {"bits_per_dim": 4.5, "images_per_second": 2.0})
        step 40 of 100, bits/dim: 4.5, images/s: 2, 0:03:00 left
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        enabled: bool = True,
        every: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._prints = None, False
        if not enabled:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
        )
        progress = Progress(*columns, speed_estimate_period=120.0)
        if progress.console.is_terminal:
            progress.start()
            self._progress = progress
            self._task = progress.add_task("train", total=total, completed=start, numbers="")
            return
        self._prints, self._total, self._start, self._every, self._clock = True, total, start, every, clock
        self._began = self._last = clock()

    def update(self, step: int, numbers: dict[str, float]) -> None:
        """Show a step and its numbers, to nobody if the terminal is gone."""
        with suppress(OSError):
            self._show(step, numbers)

    def _show(self, step: int, numbers: dict[str, float]) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=step, numbers=in_words(numbers))
        elif self._prints and (now := self._clock()) >= self._last + self._every:
            self._last = now
            left = (now - self._began) / (step - self._start) * (self._total - step)
            words = f", {in_words(numbers)}" if numbers else ""
            print(f"step {step} of {self._total}{words}, {timedelta(seconds=round(left))} left", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            with suppress(OSError):
                self._progress.stop()
