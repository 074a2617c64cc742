"""What came of many attempts: how many met which end, and those that met an end that must not be."""

import random
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowsr.errors import FlowsrError

MOST_CHARACTERS = 1000
MOST_SECONDS = 10.0
MOST_BYTES = 2**29
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


def outcome(load: Callable[[], str]) -> str:
    """How an attempt at loading ended: with what ``load`` returns, with a refusal, or as it must not.

    A refusal is one of flowsr's errors of at most a few lines. Nothing may take long or much memory, whatever a file
    says of its size.
    """
    start, before = time.monotonic(), _peak()
    try:
        with _alarm(MOST_SECONDS):
            end = load()
    except FlowsrError as error:
        end = "refused" if len(str(error)) <= MOST_CHARACTERS else "refused at length"
    except Exception as error:  # nothing else may come of it
        end = f"raised {type(error).__name__}"
    except _TooLate:
        end = "hung"
    if _peak() - before > MOST_BYTES:
        return "took much memory"
    return end if time.monotonic() - start < MOST_SECONDS else "took long"


class _TooLate(BaseException):
    """Not an Exception, which what is tried might catch."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLate

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
