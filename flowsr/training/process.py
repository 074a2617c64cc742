"""What a run shares with its process: signals that ask it to stop, and the global random generators."""

import os
import random
import signal
from contextlib import suppress
from types import FrameType
from typing import Any

import numpy as np
import torch


class StopSignals:
    """Within this context SIGINT and SIGTERM set ``received`` instead of ending the process; a second one ends it.

    Args:
        says_so: answer a signal with a line on stderr.
    """

    def __init__(self, *, says_so: bool = False) -> None:
        self._says_so = says_so
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: signals are somebody else's
                break
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._old[number])
        if self._says_so:
            # Not print: the signal may have come in the midst of one, whose stream does not bear another.
            with suppress(OSError):
                os.write(2, b"\nStopping after this step; once more ends at once, without a checkpoint\n")


def random_state() -> dict[str, Any]:
    """The states of the global random generators of Python, numpy and torch, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is what other code uses
    return {
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *(float(value) for value in rest)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
