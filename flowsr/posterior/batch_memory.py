"""How many draws fit into memory at once: the peak of one decoding pass, measured on the draw itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


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
