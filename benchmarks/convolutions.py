"""The convolutions that a computation is made of, alone: what its time is held against.

Convolutions are most of the arithmetic of these networks and run in a vendor's library; what is on top of them
(normalizations, elementwise maps, copies, determinants, Python) is this package's to keep small. They are noted where
Python calls them, so that a 1x1 convolution counts as one however it is computed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Convolution(NamedTuple):
    """One convolution: shapes of input and kernel, whether it has a bias, its padding and the dtype it runs in."""

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    has_bias: bool
    padding: int
    dtype: torch.dtype


class RecordConvolutions(TorchFunctionMode):
    """Within this context the convolutions that run are noted, with the dtype that autocast gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Convolution] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.conv2d:
            self._note(args[0], args[1], args[2] if len(args) > 2 else None, kwargs.get("padding", 0))
        elif func is F.linear and args[0].dim() == 4:
            x, weight = args[:2]  # a 1x1 convolution, of pixels with their channels last
            self._note(x.permute(0, 3, 1, 2), weight[:, :, None, None], args[2] if len(args) > 2 else None, 0)
        return func(*args, **kwargs)

    def _note(self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> None:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        self.calls.append(Convolution(tuple(x.shape), tuple(weight.shape), bias is not None, padding, dtype))


def convolutions_of(work: Callable[[], Any]) -> list[Convolution]:
    """The convolutions that a function runs, in their order; it is run once.

    Example:
        >>> from flowsr.nn import FCN
        >>> net = FCN(3, 6, hidden_channels=8)
        >>> [call.kernel for call in convolutions_of(lambda: net(torch.zeros(1, 3, 4, 4)))]
        [(8, 3, 3, 3), (8, 8, 1, 1), (6, 8, 3, 3)]
    """
    with RecordConvolutions() as record:
        work()
    return record.calls


def bare(calls: list[Convolution], *, device: str = "cpu", backward: bool = False) -> Callable[[], None]:
    """A function that runs convolutions alone and back to back, channels-last, on random inputs and weights.

    Args:
        calls: which; equal shapes share one input.
        device: where.
        backward: with the gradients of input, weight and bias.

    Example:
        >>> calls = [Convolution((1, 3, 4, 4), (8, 3, 3, 3), True, 1, torch.float32)]
        >>> bare(calls, backward=True)()
    """
    inputs: dict[tuple[Any, ...], Tensor] = {}
    prepared: list[tuple[Tensor, Tensor, Tensor | None, int]] = []
    for call in calls:
        x = inputs.setdefault((call.shape, call.dtype), _random(call.shape, call.dtype, device, backward))
        weight = _random(call.kernel, call.dtype, device, backward)
        bias = _random(call.kernel[:1], call.dtype, device, backward) if call.has_bias else None
        prepared.append((x, weight, bias, call.padding))

    @torch.set_grad_enabled(backward)
    def run() -> None:
        for x, weight, bias, padding in prepared:
            y = F.conv2d(x, weight, bias, padding=padding)
            if backward:
                torch.autograd.grad(y, [v for v in (x, weight, bias) if v is not None], y.detach())

    return run


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str, requires_grad: bool) -> Tensor:
    value = torch.randn(shape, device=device).mul(0.1).to(dtype)
    if value.dim() == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    return value.requires_grad_(requires_grad)
