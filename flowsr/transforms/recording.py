"""A record of what each transform of a model is given and what it makes of it, for analyses layer by layer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flowsr.transforms.base import ImageTransform


@dataclass(frozen=True)
class Call:
    """One call of one transform.

    Attributes:
        name: the transform's name in the model, as ``model.get_submodule`` takes it.
        transform: the transform.
        encoding: whether it encoded (image to latent) or generated.
        input: what it was given.
        output: what it made of it.
        context: its features, if any.
    """

    name: str
    transform: ImageTransform
    encoding: bool
    input: Tensor
    output: Tensor
    context: Any


@contextmanager
def record_calls(model: nn.Module) -> Iterator[list[Call]]:
    """Within this context, every call of a transform that is not made of others is recorded, in order.

    Transforms do not fire the hooks of Modules, as they are called as transforms. Cost: memory for all activations.

    Args:
        model: a model or a transform.

    Example:
        >>> import torch
        >>> from flowsr.transforms import Compose, Haar, PixelShuffle
        >>> flow = Compose([Haar(), PixelShuffle(2)])
        >>> with record_calls(flow) as calls:
        ...     _ = flow(torch.zeros(48, 2, 2))
        >>> [(call.name, tuple(call.output.shape)) for call in calls]
        [('parts.0', (12, 4, 4)), ('parts.1', (3, 8, 8))]
    """
    calls: list[Call] = []
    leaves = [(name, part) for name, part in model.named_modules() if isinstance(part, ImageTransform)]
    leaves = [(name, part) for name, part in leaves if not _has_parts(part)]

    def recorded(name: str, part: ImageTransform, *, encoding: bool) -> Any:
        method = part.inv_call_and_ladj if encoding else part.call_and_ladj

        def call(value: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
            output, ladj = method(value, context)
            calls.append(Call(name, part, encoding, value, output, context))
            return output, ladj

        return call

    # An attribute of the instance goes before the method of its class; one that was there before comes back.
    replaced = ("call_and_ladj", "inv_call_and_ladj")
    before = [{method: part.__dict__[method] for method in replaced if method in part.__dict__} for _, part in leaves]
    try:
        for name, part in leaves:
            wrappers = [recorded(name, part, encoding=method == "inv_call_and_ladj") for method in replaced]
            for method, wrapper in zip(replaced, wrappers, strict=True):
                object.__setattr__(part, method, wrapper)
        yield calls
    finally:
        for (_, part), own in zip(leaves, before, strict=True):
            for method in replaced:
                part.__dict__.pop(method, None)
            part.__dict__.update(own)


def _has_parts(transform: ImageTransform) -> bool:
    return any(isinstance(part, ImageTransform) for part in transform.modules() if part is not transform)
