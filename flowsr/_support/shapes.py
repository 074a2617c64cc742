"""Shapes: the checks with readable errors, and the sums that turn elementwise values into one number per image.

Sums, and the bijections behind them, are in at least float32: :func:`full_precision` keeps autocast away from them.

Every density and log-determinant of the package is summed here and nowhere else. So one switch, :func:`per_pixel`,
turns them all from one number per image into a map of the image.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce

import torch
from torch import Tensor

from flowsr.errors import quoted

_PER_PIXEL: ContextVar[bool] = ContextVar("per_pixel", default=False)


@contextmanager
def per_pixel(active: bool = True) -> Iterator[None]:
    """Within this context log-densities and log-determinants are maps of the image instead of one number per image.

    Every bijection here is local or linear per pixel, so each term has a place: a log-density or log-determinant of a
    tensor ``(*batch, C, h, w)`` comes as a map ``(*batch, h, w)``, whose sum is what it is outside of this context.
    Where resolutions meet, a coarse pixel's value is divided evenly among the fine ones that it covers.

    Cost: a few additions per pixel and layer.

    Args:
        active: False for one number per image again, within such a context.

    Example:
        >>> from flowsr.transforms import Haar
        >>> x = torch.rand(3, 8, 8)
        >>> _, whole = Haar().inv_call_and_ladj(x)
        >>> with per_pixel():
        ...     _, local = Haar().inv_call_and_ladj(x)
        >>> local.shape, torch.allclose(local.sum(), whole)
        (torch.Size([8, 8]), True)
    """
    token = _PER_PIXEL.set(active)
    try:
        yield
    finally:
        _PER_PIXEL.reset(token)


def is_per_pixel() -> bool:
    """Whether log-densities and log-determinants are maps at the moment, see :func:`per_pixel`."""
    return _PER_PIXEL.get()


def sum_event(values: Tensor) -> Tensor:
    """Sum over channels, height and width: one number per image of the batch, in at least float32."""
    dims = (-3,) if _PER_PIXEL.get() else (-3, -2, -1)
    return values.sum(dims, dtype=_at_least_float32(values.dtype))


def constant_ladj(x: Tensor, value: float | Tensor) -> Tensor:
    """A log-determinant that is the same for every image of the batch of ``x``, in at least float32."""
    dtype = _at_least_float32(x.dtype)
    # Of a number that depends on the size new_full is a graph for every size; as_tensor makes one for this size alone.
    value = value.to(x.device, dtype) if isinstance(value, Tensor) else x.new_full((), value, dtype=dtype)
    if _PER_PIXEL.get():
        height, width = x.shape[-2:]
        return (value / (height * width)).expand(*x.shape[:-3], height, width)
    return value.expand(x.shape[:-3])


def pixelwise_ladj(x: Tensor, per_pixel: Tensor) -> Tensor:
    """The log-determinant of a map that acts alike on every pixel of ``x``, from that of one pixel."""
    return constant_ladj(x, per_pixel * math.prod(x.shape[-2:]))


def add_ladj(terms: Iterable[Tensor]) -> Tensor:
    """The sum of log-determinants of transforms in a chain, which may have changed the resolution in between."""
    return reduce(_add_maps if _PER_PIXEL.get() else torch.add, terms)


def spread(values: Tensor, height: int, width: int) -> Tensor:
    """A map at a finer resolution: each value is divided evenly among the pixels of its block, so the sum stays.

    Args:
        values: ``(*batch, h, w)``.
        height: a multiple of h.
        width: a multiple of w.
    """
    down, right = height // values.shape[-2], width // values.shape[-1]
    if down == right == 1:
        return values
    return values.repeat_interleave(down, -2).repeat_interleave(right, -1) / (down * right)


def _add_maps(a: Tensor, b: Tensor) -> Tensor:
    height, width = max(a.shape[-2], b.shape[-2]), max(a.shape[-1], b.shape[-1])
    return spread(a, height, width) + spread(b, height, width)


def size_text(size: Sequence[int], *, cropped_to: Sequence[int] | None = None) -> str:
    """A size in pixels as people say it, width × height, and what it was cropped to if that is less.

    Args:
        size: height and width, the order of a tensor's shape.
        cropped_to: the same of what was kept.

    Example:
        >>> size_text((97, 75)), size_text(torch.rand(3, 96, 72).shape[-2:], cropped_to=(96, 72))
        ('75 × 97 pixels', '72 × 96 pixels')
        >>> size_text((97, 75), cropped_to=(96, 72))
        '75 × 97 pixels, cropped to 72 × 96'
    """
    height, width = size
    text = f"{width} × {height} pixels"
    if cropped_to is None or tuple(cropped_to) == (height, width):
        return text
    return f"{text}, cropped to {cropped_to[1]} × {cropped_to[0]}"


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from a size as people say it, width x height, as :func:`size_text` writes it.

    Args:
        text: such as ``640x480``, ``640 × 480`` or ``640 × 480 pixels``.

    Returns:
        Height and width, the order of a tensor's shape; from 1 to 999999 each.

    Raises:
        ValueError: for another text, or what is none.

    Example:
        >>> parse_size("640x480"), parse_size(size_text((480, 640)))
        ((480, 640), (480, 640))
    """
    found = re.fullmatch(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})(\s*pixels)?", str(text).strip(), re.ASCII)
    if found is None or 0 in (sides := (int(found[1]), int(found[2]))):
        raise ValueError(f"expected a size as WIDTHxHEIGHT, such as 640x480; got '{quoted(str(text))}'")
    return sides[1], sides[0]


def check_image_shape(shape: Sequence[int], *, channels: int | None = None, multiple: int = 1, name: str) -> None:
    """Raise ValueError unless ``shape`` is ``(*batch, channels, H, W)`` with H and W positive multiples.

    Args:
        shape: the shape of the user's tensor.
        channels: channels expected; None for any number.
        multiple: what H and W must be multiples of.
        name: what the tensor is called in the message.
    """
    got = tuple(shape)
    if len(got) < 3:
        raise ValueError(f"expected {name} of shape (*batch, channels, height, width); got {got}")
    if channels is not None and got[-3] != channels:
        raise ValueError(f"expected {name} with {channels} channels, shape (*batch, {channels}, H, W); got {got}")
    height, width = got[-2:]
    if min(height, width) < 1 or height % multiple or width % multiple:
        enough = _ceil(height, multiple), _ceil(width, multiple)
        raise ValueError(
            f"expected {name} with height and width that are multiples of {multiple}; got "
            f"{size_text((height, width))}: pad it to {size_text(enough)} with flowsr.images.pad_to_multiple, "
            "or encode with pad=True"
        )


def check_same_batch(hr: Sequence[int], lr: Sequence[int]) -> None:
    """Raise ValueError unless the batch of an LR image broadcasts to that of the HR image it belongs to."""
    batch = tuple(hr[:-3])
    try:
        fits = torch.broadcast_shapes(batch, lr[:-3]) == batch
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"expected an lr whose batch broadcasts to that of hr, {batch}; got {tuple(lr[:-3])}")


def check_context(x: Tensor, context: Tensor | None, *, channels: int, name: str) -> Tensor:
    """Raise ValueError unless ``context`` is given and broadcasts against the batch of ``x`` at the same resolution."""
    if context is None:
        raise ValueError(f"expected {name} to be called with a context of {channels} channels; got none")
    check_image_shape(context.shape, channels=channels, name=f"the context of {name}")
    try:
        batch = torch.broadcast_shapes(context.shape[:-3], x.shape[:-3])
    except RuntimeError:
        batch = None
    if batch != x.shape[:-3] or context.shape[-2:] != x.shape[-2:]:
        raise ValueError(
            f"expected the context of {name} to broadcast to batch {tuple(x.shape[:-3])} at size "
            f"{tuple(x.shape[-2:])}; got shape {tuple(context.shape)}"
        )
    return context


def _ceil(size: int, multiple: int) -> int:
    return max(1, -(-size // multiple)) * multiple


def place_of(generator: torch.Generator | None) -> torch.device:
    """Where noise is drawn that is then moved to where it is needed: the generator's device, or the CPU.

    Never torch's default device, so that a program that sets it gets the same numbers.

    Example:
        >>> place_of(None)
        device(type='cpu')
    """
    return torch.device("cpu") if generator is None else generator.device


def full_precision(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of ``x``: bfloat16 is for conditioners, never for the bijection."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    # A log-density of an image has thousands of nats, which half precision rounds to multiples of 16.
    return torch.promote_types(dtype, torch.float32)
