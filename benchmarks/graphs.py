"""Repeated passes with less of Python in between: CUDA graphs and ``torch.compile``, for rows of the benchmark.

A graph replays kernels with their inputs and results in place, so it serves draw after draw of one LR image; nothing
in it may wait for the device. Numbers made tensors would, and are brought there once, before; what depends on the
weights alone is made ready by a pass before that.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_WARM_UP = 3


class Remembering(TorchFunctionMode):
    """Within its first context it notes the tensors made of numbers; in later ones it gives them back, in order.

    Example:
        >>> again = Remembering()
        >>> for scale in (1.0, 2.0):
        ...     with again:
        ...         found = torch.as_tensor(scale)
        >>> found  # that of the first time
        tensor(1.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: list[torch.Tensor] = []
        self._next: int | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number = func is torch.as_tensor and not isinstance(args[0], torch.Tensor)
        if not number:
            return func(*args, **(kwargs or {}))
        if self._next is None:
            self._known.append(func(*args, **(kwargs or {})))
            return self._known[-1]
        self._next += 1
        return self._known[self._next - 1]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._next = 0


def captured(work: Callable[[], Any]) -> Callable[[], Any]:
    """A function that replays the kernels of a computation on tensors that stay where they are.

    Cost: the computation five times, and its memory for as long as the function lives.

    Raises:
        RuntimeError: without a GPU, or if the computation waits for it.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("CUDA graphs need a GPU; this machine has none")
    work()  # makes weights ready, where a model does that once
    remembering, side = Remembering(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            with remembering:
                work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with remembering, torch.cuda.graph(graph):
        work()
    return graph.replay


def compiled(work: Callable[[], Any]) -> Callable[[], Any]:
    """A computation through ``torch.compile``, compiled before it is returned; its shapes do not change."""
    found = torch.compile(work, dynamic=False)
    found()
    return found
