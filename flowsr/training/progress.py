"""How far a run is: a bar on a terminal, a line a minute in a file, as ``nohup`` and clusters have it."""

import time
from collections.abc import Callable
from datetime import timedelta

from flowsr.training.labels import in_words


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
        """Show a step and its numbers."""
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
            self._progress.stop()
