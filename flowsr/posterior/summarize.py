"""Any number of draws of one LR image, summarized as they are made, in batches that fit into memory, and resumable."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flowsr._support.states import as_written, read_state, write_state
from flowsr.distributions import Temperature, level_temperatures
from flowsr.images import check_image
from flowsr.models import Capability, ConditionalModel, require
from flowsr.posterior.streaming import DrawSummary, StreamingSummary, same_up_to_rounding

_KIND = "summary of draws"


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors made inside its block, and their peak. Scratch space of kernels is not seen.

    Example:
        >>> with PeakMemory() as memory:
        ...     _ = torch.zeros(1000).exp().sum()
        >>> memory.peak >= 8000
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count the storages of what it returns."""
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        if not key or key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


@torch.no_grad()
def batch_for_memory(draw: Callable[[], Any], *, memory: float, largest: int = 64) -> int:
    """How many draws to decode at once, so that a pass stays within ``memory`` bytes: at least 1.

    Cost: one call of ``draw``.

    Args:
        draw: makes one draw.
        memory: bytes, > 0.
        largest: batch beyond which nothing is gained.

    Raises:
        ValueError: for a limit that is not positive.

    Example:
        >>> batch_for_memory(lambda: torch.zeros(1000).exp(), memory=100_000)
        12
    """
    if not memory > 0:
        raise ValueError(f"expected a limit of memory > 0 bytes; got {memory}")
    with PeakMemory() as used:
        draw()
    return max(1, min(largest, int(memory // max(1, used.peak))))


def summarize_draws(
    flow: ConditionalModel,
    lr: Tensor,
    *,
    num_samples: int,
    summary: StreamingSummary | None = None,
    temperature: Temperature = 1.0,
    lr_log_scale: float = -math.inf,
    seed: int = 0,
    memory: float = 1e9,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 500,
    on_draws: Callable[[int], None] | None = None,
) -> DrawSummary:
    """Draw HR images of one LR image, and summarize them in one pass.

    Draws are those of ``flow.sample`` with a generator of that seed, whatever the batch, up to the rounding of batched
    convolutions. With a ``checkpoint`` the state is written every so often, whole or not at all; a
    run that finds the file goes on from there, to the result it would have had (with the same batch, to the bit).

    Cost: one decoding pass per draw; memory for one batch and the summary, whatever the number of draws.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image ``(C, h, w)`` in [0, 1].
        num_samples: how many in all, at least 2.
        summary: what to accumulate, without draws yet; by default ``StreamingSummary()``.
        temperature: τ ≥ 0, or one per level.
        lr_log_scale: log σ of the flow's LR image; ``-inf`` is the Dirac limit.
        seed: of the noise.
        memory: bytes for a decoding pass; the batch is chosen by measuring one draw.
        checkpoint: file to write the state to, and to go on from.
        checkpoint_every: draws between two writings.
        on_draws: called after each batch with the number of draws it had, for a progress bar.

    Raises:
        ValueError: for a density of images alone, fewer than two draws, a checkpoint of another run, or a damaged one.
        OSError: if the checkpoint cannot be written; found out before the first draw.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> result = summarize_draws(LinearGaussianFlow(), torch.full((1, 2, 2), 0.5), num_samples=100)
        >>> result.count, result.std.shape
        (100, torch.Size([1, 8, 8]))
    """
    require(flow, Capability.CONDITION)
    if num_samples < 2 or checkpoint_every < 1:
        raise ValueError(
            f"expected num_samples >= 2 and checkpoint_every >= 1; got {num_samples} and {checkpoint_every}"
        )
    check_image(lr, name="lr", tolerance=0.25)
    if lr.dim() != 3:
        raise ValueError(f"expected one LR image (C, h, w); got shape {tuple(lr.shape)}")
    summary = summary or StreamingSummary()
    if summary.count:
        raise ValueError(f"expected a summary without draws; got one of {summary.count}: make a new one for each run")
    generator = torch.Generator().manual_seed(seed)
    run = {
        "seed": seed,
        "temperature": list(level_temperatures(temperature, len(flow.latent_levels()))),
        "lr_log_scale": float(lr_log_scale),
        "lr": lr.detach().cpu(),
    }

    @torch.no_grad()
    def draw(n: int, source: torch.Generator) -> Tensor:
        return flow.sample(lr, num_samples=n, temperature=temperature, lr_log_scale=lr_log_scale, generator=source)

    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None:
        # By its first draw: a model need not have weights to compare.
        run["model"] = draw(1, torch.Generator().manual_seed(0)).cpu()
        if path.exists():
            _resume(path, summary, generator, run)
        else:
            _write(path, summary, generator, run)
    batch = batch_for_memory(lambda: draw(1, torch.Generator().manual_seed(0)), memory=memory)
    written = summary.count
    while summary.count < num_samples:
        number = min(batch, num_samples - summary.count)
        summary.add(draw(number, generator))
        if on_draws is not None:
            on_draws(number)
        if path is not None and (summary.count - written >= checkpoint_every or summary.count >= num_samples):
            _write(path, summary, generator, run)
            written = summary.count
    return replace(summary.result(), lr=lr.detach().cpu().float())


def _write(path: Path, summary: StreamingSummary, generator: torch.Generator, run: dict[str, Any]) -> None:
    write_state(path, {"summary": summary.state_dict(), "generator": generator.get_state(), "run": run}, kind=_KIND)


def _resume(path: Path, summary: StreamingSummary, generator: torch.Generator, run: dict[str, Any]) -> None:
    state = read_state(path, kind=_KIND)
    with as_written(path, kind=_KIND):
        _go_on(path, state, summary, generator, run)


def _go_on(
    path: Path, state: dict[str, Any], summary: StreamingSummary, generator: torch.Generator, run: dict[str, Any]
) -> None:
    for name, value in run.items():
        old = state["run"].get(name)  # files of before a setting had its name lack it
        if not (same_up_to_rounding(old, value) if isinstance(value, Tensor) else old == value):
            raise ValueError(
                f"expected {path} to be of a run with the same {name}; got another: remove it to start afresh, or "
                "choose another name"
            )
    summary.load_state_dict(state["summary"])
    generator.set_state(state["generator"])
