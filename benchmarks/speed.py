"""How close a model is to the convolutions that it is made of: the time of a decode against theirs alone.

``python -m benchmarks.speed --model sr-x4`` prints it. Convolutions are most of the arithmetic of these networks and
run in a vendor's library; what is on top of them (normalizations, elementwise maps, copies, determinants, Python) is
this package's to keep small.

Conventions: one thread, no gradients, random weights, channels-last, medians of decodes and bare convolutions run in
turns, so that both see the same machine. Time is that of the thread, in which other processes have no part, though
their use of memory has.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from flowsr.models.conditional import require_conditional
from flowsr.models.image_model import ImageModel
from flowsr.models.registry import from_preset


class _RecordConvolutions(TorchDispatchMode):
    """Within this context the shapes of all convolutions are noted, as they run: after autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Size, torch.Size, bool, int, torch.dtype]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, bias, _, (padding, *_), *_ = args
            self.calls.append((x.shape, weight.shape, bias is not None, padding, x.dtype))
        return func(*args, **(kwargs or {}))


def bare_convolutions(decode: Callable[[], Any]) -> tuple[Callable[[], None], int]:
    """The convolutions that a function runs, alone and back to back: a function that runs them, and how many.

    Inputs and weights are random, of the same shapes and dtypes, channels-last; equal shapes share one input.

    Args:
        decode: any function; it is run once.

    Example:
        >>> from flowsr.nn import FCN
        >>> net = FCN(3, 6, hidden_channels=8)
        >>> bare_convolutions(lambda: net(torch.zeros(1, 3, 4, 4)))[1]
        3
    """
    with _RecordConvolutions() as record:
        decode()
    inputs: dict[tuple[torch.Size, torch.dtype], Tensor] = {}
    prepared: list[tuple[Tensor, Tensor, Tensor | None, int]] = []
    for shape, kernel, has_bias, padding, dtype in record.calls:
        x = inputs.setdefault((shape, dtype), _random(shape, dtype))
        bias = torch.zeros(kernel[0], dtype=dtype) if has_bias else None
        prepared.append((x, _random(kernel, dtype), bias, padding))

    def run() -> None:
        for x, weight, bias, padding in prepared:
            F.conv2d(x, weight, bias, padding=padding)

    return run, len(prepared)


def decode_against_convolutions(
    flow: ImageModel, *, size: int = 20, batch: int = 2, repeats: int = 7, bf16: bool = False
) -> tuple[float, float]:
    """Seconds of a decode and of its convolutions alone: medians of runs in turns.

    Cost: ``repeats + 1`` times both.

    Args:
        flow: a model of HR images given their LR images; put into channels-last order.
        size: height and width of the LR image.
        batch: number of LR images.
        repeats: how often; one more to warm up.
        bf16: under bfloat16 autocast.

    Raises:
        ValueError: for a density of images alone, or fewer than one repeat.

    Example:
        >>> flow = from_preset("sr-x4-small", steps=1, conditional_steps=1)
        >>> decode, alone = decode_against_convolutions(flow, size=4, batch=1, repeats=1)
        >>> decode > 0 and alone > 0
        True
    """
    if repeats < 1:
        raise ValueError(f"expected repeats >= 1; got {repeats}")
    model = require_conditional(flow.to(memory_format=torch.channels_last), what="timing a decode")  # type: ignore[call-overload]
    lr = torch.rand(batch, model.config.image_channels, size, size).contiguous(memory_format=torch.channels_last)
    z = model.draw_latents(lr, temperature=0.8)

    @torch.no_grad()
    def decode() -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            model.decode(lr, z)

    run, _ = bare_convolutions(decode)
    run = torch.no_grad()(run)
    times: dict[Callable[[], None], list[float]] = {decode: [], run: []}
    for repeat in range(repeats + 1):
        for function, found in times.items():
            begin = time.thread_time()
            function()
            if repeat:
                found.append(time.thread_time() - begin)
    return statistics.median(times[decode]), statistics.median(times[run])


def _random(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).mul(0.1).to(dtype).contiguous(memory_format=torch.channels_last)


def main(arguments: list[str] | None = None) -> None:
    """Print the time of a decode and of its convolutions, in float32 and bfloat16."""
    parser = argparse.ArgumentParser(description="The time of a decode against that of its convolutions alone.")
    parser.add_argument("--model", default="sr-x4", help="preset of a model of HR images given their LR images")
    parser.add_argument("--size", type=int, default=20, help="height and width of the LR images")
    parser.add_argument("--batch", type=int, default=2, help="number of LR images")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median is taken")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    flow = from_preset(options.model)
    print(f"{options.model}, {options.batch} LR images of {options.size}x{options.size}, one thread")
    print(f"{'':10}{'decode':>10}{'convolutions':>14}{'ratio':>8}")
    for name, bf16 in (("float32", False), ("bfloat16", True)):
        decode, alone = decode_against_convolutions(
            flow, size=options.size, batch=options.batch, repeats=options.repeats, bf16=bf16
        )
        print(f"{name:10}{decode:9.3f}s{alone:13.3f}s{decode / alone:8.2f}")


if __name__ == "__main__":
    main()
