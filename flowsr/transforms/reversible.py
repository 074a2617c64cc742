"""Chains of bijections that do not keep their activations: recomputed from checkpoints, or from their own results.

A bijection need not remember its input to be differentiated: the input follows from the output. Walking back through a
chain, each step's input is recomputed from its output, then the step is run again with gradients; only one step's
activations exist at a time. Memory is then O(1) in the number of steps, for about twice the work of the backward pass.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from flowsr._support.shapes import add_ladj, constant_ladj, is_per_pixel
from flowsr.transforms.base import ImageTransform

Memory = Literal["full", "checkpoint", "reversible"]

MEMORY_MODES: tuple[Memory, ...] = get_args(Memory)


def run_chain(
    parts: Sequence[ImageTransform], x: Tensor, context: Any, *, encode: bool, memory: Memory
) -> tuple[Tensor, Tensor]:
    """Apply ``parts`` in the order given, all encoding or all generating, and add up the log-determinants.

    Cost: the parts'; backward, one more run of each for "checkpoint", two more for "reversible".

    Args:
        parts: in order of application.
        x: the input.
        context: features for every part: a tensor or None.
        encode: use ``inv_call_and_ladj`` rather than ``call_and_ladj``.
        memory: "full", "checkpoint" (keep each part's input) or "reversible" (keep the result of the chain only).

    References:
        Gomez et al., The Reversible Residual Network (NeurIPS 2017), section 3; Chen et al., arXiv 1604.06174.
    """
    # Its backward pass runs outside of per_pixel; maps are not what large models are trained on.
    if memory == "reversible" and torch.is_grad_enabled() and not is_per_pixel():
        parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        return _Reversible.apply(tuple(parts), encode, x, context, *parameters)  # type: ignore[no-any-return]
    total = constant_ladj(x, 0.0)
    for part in parts:
        if memory == "checkpoint" and torch.is_grad_enabled():
            # Nothing here is random, so there is no generator state to keep.
            x, ladj = checkpoint(_apply, part, x, context, encode, use_reentrant=False, preserve_rng_state=False)
        else:
            x, ladj = _apply(part, x, context, encode)
        total = add_ladj((total, ladj))
    return x, total


def _apply(part: ImageTransform, x: Tensor, context: Any, encode: bool) -> tuple[Tensor, Tensor]:
    return part.inv_call_and_ladj(x, context) if encode else part.call_and_ladj(x, context)


class _Reversible(torch.autograd.Function):
    """The chain as one function of its input, its context and all its parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        parts: tuple[ImageTransform, ...],
        encode: bool,
        x: Tensor,
        context: Tensor | None,
        *_parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.parts, ctx.encode = parts, encode
        device = x.device.type
        # The backward pass must recompute what the forward pass computed, so with the same autocast.
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        total = constant_ladj(x, 0.0)
        y = x
        for part in parts:
            y, ladj = _apply(part, y, context, encode)
            total = add_ladj((total, ladj))
        ctx.save_for_backward(y, context)
        # An output that is an input, or a view of one, would confuse autograd.
        return (y if y is not x else y.clone()), total.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_ladj: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, context = ctx.saved_tensors
        by_parameter: dict[Tensor, Tensor | None] = {}
        grad_context: Tensor | None = None
        wants_context = context is not None and ctx.needs_input_grad[3]
        for part in reversed(ctx.parts):
            with torch.autocast(**ctx.autocast):
                with torch.no_grad():
                    x, _ = _apply(part, y, context, not ctx.encode)
                x = x.detach().requires_grad_()
                features = context.detach().requires_grad_(wants_context) if context is not None else None
                with torch.enable_grad():
                    outputs = _apply(part, x, features, ctx.encode)
            parameters = [p for p in part.parameters() if p.requires_grad]
            inputs = [x, *([features] if wants_context else []), *parameters]
            # A part without parameters has a constant log-determinant.
            pairs = [(o, g) for o, g in zip(outputs, (grad, grad_ladj), strict=True) if o.requires_grad]
            results, gradients = [o for o, _ in pairs], [g for _, g in pairs]
            # Outside of autocast, which would run the products of gradients of full precision in a lower one.
            found = list(torch.autograd.grad(results, inputs, gradients, allow_unused=True))
            grad = found.pop(0)
            if wants_context:
                grad_context = _add(grad_context, found.pop(0))
            for parameter, value in zip(parameters, found, strict=True):
                by_parameter[parameter] = _add(by_parameter.get(parameter), value)
            y = x.detach()
        in_order = [by_parameter.get(p) for part in ctx.parts for p in part.parameters() if p.requires_grad]
        return None, None, grad, grad_context, *in_order


def _add(total: Tensor | None, value: Tensor | None) -> Tensor | None:
    if total is None or value is None:
        return value if total is None else total
    return total + value
