"""What a model must offer for posterior studies, and the latents that all of them draw.

Studies are written for what a model offers, not for its class: any object with the methods of :class:`ImageFlow`
can be summarized, taken apart, calibrated, and used as the prior of an inverse problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from flowsr.distributions import Temperature, level_temperatures


class ImageFlow(Protocol):
    """A flow between HR images and pairs of LR image and latents, such as :class:`flowsr.HCFlow`.

    Attributes:
        upscale: the factor s between LR and HR sides.
        dtype: of the weights.
        device: of the weights.
    """

    @property
    def upscale(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def latent_shapes(self, height: int, width: int) -> Sequence[torch.Size]:
        """Event shapes of the latents, coarsest first, for an LR image of this size."""
        ...

    def encode(self, hr: Tensor) -> Any:
        """An object with ``lr``, ``z`` (coarsest first) and ``ladj``."""
        ...

    def decode(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        """The HR image, the exact inverse of :meth:`encode`."""
        ...


def latent_shapes(flow: ImageFlow, lr: Tensor) -> tuple[torch.Size, ...]:
    """Event shapes of the latents of an LR image, coarsest first. Cost: none.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> latent_shapes(flow, torch.rand(3, 4, 6))
        (torch.Size([21, 4, 6]), torch.Size([6, 8, 12]))
    """
    return tuple(flow.latent_shapes(lr.shape[-2], lr.shape[-1]))


def draw_latents(
    flow: ImageFlow,
    lr: Tensor,
    *,
    num_samples: int,
    temperature: Temperature = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Latents ``z_l ~ N(0, τ_l²)`` of one LR image, ``(num_samples, C_l, h_l, w_l)``, coarsest first.

    Noise comes from the CPU, draw after draw and level after level, so that it depends neither on the device nor on
    how many draws are made in one call.

    Cost: O(number of latents).

    Args:
        flow: the model.
        lr: LR image ``(C, h, w)``, for its size only.
        num_samples: how many, at least 1.
        temperature: τ ≥ 0, or one per level, coarse to fine.
        generator: source of randomness, on the CPU; the global one by default.

    Raises:
        ValueError: for fewer than one draw or a negative temperature.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> [tuple(z.shape) for z in draw_latents(flow, torch.rand(3, 4, 4), num_samples=5)]
        [(5, 21, 4, 4), (5, 6, 8, 8)]
    """
    if num_samples < 1:
        raise ValueError(f"expected num_samples >= 1; got {num_samples}")
    shapes = latent_shapes(flow, lr)
    temperatures = level_temperatures(temperature, len(shapes))
    draws = [
        [tau * torch.randn(shape, generator=generator) for tau, shape in zip(temperatures, shapes, strict=True)]
        for _ in range(num_samples)
    ]
    return tuple(torch.stack(level).to(flow.device, flow.dtype) for level in zip(*draws, strict=True))


@torch.no_grad()
def draw_posterior(
    flow: ImageFlow,
    lr: Tensor,
    *,
    num_samples: int,
    temperature: Temperature = 1.0,
    lr_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws of ``p(hr | lr)``: ``y ~ N(lr, σ²)``, ``z_l ~ N(0, τ_l²)``, decoded together.

    Cost: one decoding pass; memory grows with ``num_samples``.

    Args:
        flow: the model.
        lr: LR image ``(C, h, w)`` in [0, 1].
        num_samples: how many, at least 1.
        temperature: τ ≥ 0, or one per level; τ = 1 is the model.
        lr_std: σ of the flow's LR image, in units of [0, 1]; 0 is the Dirac limit, in which HCFlow samples.
        generator: source of randomness, on the CPU; the global one by default.

    Returns:
        HR images ``(num_samples, C, s·h, s·w)``, not clamped.

    Raises:
        ValueError: for fewer than one draw, several LR images, or a negative temperature or width.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> draw_posterior(flow, torch.rand(3, 4, 4), num_samples=2).shape
        torch.Size([2, 3, 16, 16])
    """
    if lr.dim() != 3:
        raise ValueError(f"expected one LR image (C, h, w); got shape {tuple(lr.shape)}: draw for one after the other")
    if not 0 <= lr_std < float("inf"):
        raise ValueError(f"expected a finite lr_std >= 0; got {lr_std}")
    z = draw_latents(flow, lr, num_samples=num_samples, temperature=temperature, generator=generator)
    lr = lr.to(flow.device, flow.dtype)
    if lr_std == 0:
        return flow.decode(lr, z)
    noise = torch.randn((num_samples, *lr.shape), generator=generator).to(lr)
    return flow.decode(lr + lr_std * noise, z)
