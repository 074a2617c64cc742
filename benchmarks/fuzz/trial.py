"""What came of many attempts: how many met which end, and those that met an end that must not be."""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Attempt = Callable[["Trial", random.Random, Path], None]


@dataclass
class Trial:
    """The ends of attempts by name, and name and content of each attempt whose end must not be."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, bytes]] = field(default_factory=list)

    def note(self, end: str, name: str, content: bytes = b"", *, fine: bool) -> None:
        """Count one attempt; where its end is not fine, keep what it was made with."""
        self.counts[end] += 1
        if not fine:
            self.failures.append((end, name, content))

    def keep(self, folder: Path) -> None:
        """Write the content of every failure into a folder, to look at."""
        folder.mkdir(parents=True, exist_ok=True)
        for index, (end, name, content) in enumerate(self.failures):
            (folder / f"{index:04}-{end.replace(' ', '-')}-{name}").write_bytes(content)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.counts.items()))
        return f"tried {self.counts.total()}, failed {len(self.failures)}: {ends}"


def attempts(attempt: Attempt, *, seconds: float, seed: int) -> Trial:
    """Repeat an attempt for a time in a folder of its own; the same seed tries the same things in the same order."""
    rng, trial, end = random.Random(seed), Trial(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            attempt(trial, rng, Path(folder))
    return trial
