"""Checkpoints that survive: each appears whole or not at all, proves that it is whole, and has a predecessor."""

import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowsr._support.atomic import sweep_unfinished
from flowsr._support.states import read_state, write_state
from flowsr.errors import CheckpointError

_KIND = "training checkpoint"
_NAME = re.compile(r"step-(\d+)\.ckpt")


class CheckpointFolder:
    """The checkpoints of a run, the newest few of them kept.

    A checkpoint is written beside its place, flushed to the disk, and renamed, so that a kill or a power cut at any
    moment leaves the earlier ones untouched. It carries a digest of its content; reading falls back to the newest one
    whose digest fits, and says which ones did not.

    Args:
        folder: where they are; created when first written to.
        keep: how many to keep, at least 2, so that there is always one to fall back to.

    Example:
        >>> import tempfile
        >>> checkpoints = CheckpointFolder(tempfile.mkdtemp())
        >>> _ = checkpoints.write(100, {"weights": torch.zeros(3)})
        >>> checkpoints.read_last()[0]
        100
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        if keep < 2:
            raise ValueError(f"expected keep >= 2, to have one to fall back to; got {keep}")
        self.folder, self.keep = Path(folder), keep
        self._last: int | None = None

    def steps(self) -> list[int]:
        """Steps of the checkpoints present, oldest first."""
        if not self.folder.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"step-{step:08d}.ckpt"

    def write(self, step: int, state: dict[str, Any]) -> bool:
        """Write a checkpoint and remove those no longer kept; on a full disk warn, keep the old ones, return False."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_state(self.path(step), state, kind=_KIND)
        except OSError as error:
            # Not by looking into the folder, which takes an open file: that there is none may be the error.
            last = "there is none yet" if self._last is None else f"the last good one is of step {self._last}"
            warnings.warn(f"could not write the checkpoint of step {step}: {error}; {last}", stacklevel=2)
            return False
        self._last = step
        with suppress(OSError):  # what cannot be removed now can be later
            for old in self.steps()[: -self.keep]:
                self.path(old).unlink(missing_ok=True)
            sweep_unfinished(self.folder)
        return True

    def read_last(self, *, fault: Callable[[dict[str, Any]], str] | None = None) -> tuple[int, dict[str, Any]] | None:
        """The newest good checkpoint as ``(step, state)``, or None if there are none at all.

        Damaged ones are named in a warning, and moved aside as ``….damaged`` if there is a good one; so are whole ones
        with a fault, as ``….faulty``.

        Args:
            fault: says what is wrong with a whole state, if anything is; nothing by default.

        Raises:
            CheckpointError: if there are checkpoints, but none of them is good.
        """
        aside: dict[Path, str] = {}
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                reason, suffix = str(error), ".damaged"
            else:
                reason, suffix = fault(state) if fault is not None else "", ".faulty"
                if not reason:
                    _put_aside(aside)
                    self._last = step
                    return step, state
            warnings.warn(f"{reason}; falling back to the checkpoint before it", stacklevel=2)
            aside[path] = suffix
        if aside:
            whole = ".faulty" in aside.values()
            raise CheckpointError(
                f"expected a {'good' if whole else 'whole'} checkpoint in {self.folder}; all {len(aside)} are damaged"
                f"{' or have a fault' if whole else ''}: start a new run in another folder, from model.safetensors if "
                "that is whole"
            )
        return None


def _put_aside(checkpoints: dict[Path, str]) -> None:
    """Give files another ending, or they would count among those kept; another process may have done so already."""
    for path, suffix in checkpoints.items():
        with suppress(OSError):
            path.rename(path.with_suffix(suffix))


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one checkpoint, without running code from it.

    Raises:
        CheckpointError: if it is truncated, altered, or not a checkpoint of a training run.
    """
    return read_state(path, kind=_KIND)
