"""What an image is under a model: its latents, from coarse to fine, and the log-determinant."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsr.distributions import Temperature, level_temperatures
from flowsr.images import check_image


@dataclass(frozen=True)
class Latents:
    """What an image is under a model of images given their LR image.

    Attributes:
        lr: the LR image, ``(*batch, C, H/s, W/s)``: the flow's own, which is close to the bicubic one after training
            (HCFlow, IRN), or the one that was given (SRFlow).
        z: latents, coarsest level first.
        ladj: ``log|det ∂(lr, z)/∂hr|`` in nats, of the batch's shape; for SRFlow ``log|det ∂z/∂hr|``.
        size: height and width of the image before padding.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageLatents:
    """What an image is under a model of images alone.

    Attributes:
        z: latents, coarsest level first.
        ladj: ``log|det ∂z/∂hr|`` in nats, of the batch's shape.
        size: height and width of the image before padding.
    """

    z: tuple[Tensor, ...]
    ladj: Tensor
    size: tuple[int, int]


def draw_normal(
    shapes: Sequence[torch.Size],
    *,
    batch: Sequence[int],
    temperature: Temperature,
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None,
) -> tuple[Tensor, ...]:
    """Draw ``z_l ~ N(0, τ_l²)`` of the given event shapes, coarsest first; raises ValueError for a bad temperature.

    The noise is made in float32 on the generator's device and then moved, so that one seed gives the same draws, up
    to rounding, in any dtype and, with a generator of the CPU, on any device.
    """
    temperatures = level_temperatures(temperature, len(shapes))
    place = device if generator is None else generator.device
    return tuple(
        tau * torch.randn((*batch, *shape), dtype=torch.float32, device=place, generator=generator).to(device, dtype)
        for tau, shape in zip(temperatures, shapes, strict=True)
    )


def check_latents(z: Sequence[Tensor], shapes: Sequence[torch.Size], *, batch: Sequence[int]) -> None:
    """Raise ValueError unless latents have these event shapes and one batch, which ends in ``batch``."""
    for latent in z:
        check_image(latent, name="z", tolerance=None)
    got = [tuple(latent.shape) for latent in z]
    batches = {shape[:-3] for shape in got}
    own = tuple(batch)
    fits = len(batches) == 1 and next(iter(batches))[len(next(iter(batches))) - len(own) :] == own
    if [shape[-3:] for shape in got] != [tuple(shape) for shape in shapes] or not fits:
        raise ValueError(
            f"expected z to be latents of event shapes {[tuple(s) for s in shapes]}, coarsest first, with a batch "
            f"that ends in that of lr, {own}; got shapes {got}"
        )
