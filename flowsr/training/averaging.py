"""Averaged weights: what is validated and kept of a run, smoother than the weights of its last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowsr.nn import BatchStatistics


class WeightAverage:
    """Exponential moving average ``a ← d·a + (1 − d)·w`` of parameters and running statistics.

    Running statistics are those of :class:`flowsr.nn.BatchStatistics`; all other buffers, which are constants and
    flags, are copied as they are.

    The decay rises with the number of updates t, ``d_t = min(decay, (1 + t)/(10 + t))``, so that the average forgets
    the random start.

    Cost: one pass over the weights per update.

    Args:
        module: whose weights to average.
        decay: d in [0, 1); 0 keeps the last weights.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> average = WeightAverage(layer, decay=0.999)
        >>> average.update()
        >>> average.updates
        1
    """

    # Not torch's AveragedModel: it holds a second model, averages either all buffers or none (here running statistics
    # are averaged, flags are copied), and its states under other names would not resume the checkpoints there are.
    def __init__(self, module: nn.Module, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"expected a decay in [0, 1); got {decay}")
        self.module, self.decay = module, decay
        self._moving = {name for name, _ in module.named_parameters(remove_duplicate=False)} | _statistics(module)
        self.average: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Forget what was averaged, and begin with the module's present weights."""
        self.updates = 0
        self.average = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        state = self.module.state_dict()
        names = [name for name in state if name in self._moving]
        torch._foreach_lerp_([self.average[n] for n in names], [state[n] for n in names], 1.0 - decay)
        for name, value in state.items():
            if name not in self._moving:
                self.average[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the module has the averaged weights."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        try:
            yield
        finally:
            self.module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Average and number of updates."""
        return {"average": self.average, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        average: dict[str, Tensor] = state["average"]
        for name, value in self.average.items():
            value.copy_(average[name])
        self.updates = int(state["updates"])


def _statistics(module: nn.Module) -> set[str]:
    parts = [(name, part) for name, part in module.named_modules() if isinstance(part, BatchStatistics)]
    return {f"{name}.{field}".lstrip(".") for name, _ in parts for field in ("mean", "var")}
