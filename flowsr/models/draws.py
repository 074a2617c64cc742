"""Draws of a model one at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flowsr.distributions import Temperature
from flowsr.images import crop_to, pad_to_multiple
from flowsr.models import ConditionalModel
from flowsr.statistics.moments import RunningMoments

__all__ = ["RunningMoments", "draw_images"]


@torch.no_grad()
def draw_images(
    flow: ConditionalModel, lr: Tensor, *, num_samples: int, temperature: Temperature, seed: int
) -> Iterator[Tensor]:
    """Draw HR images of one LR image one after the other, as :meth:`flowsr.HCFlow.sample` draws them.

    The noise depends on the seed and the number of the draw only: neither on how many are drawn, nor on the
    temperature, so draws of the same number at two temperatures differ in amplitude alone. It comes from the CPU's
    generator, so that devices agree up to rounding.

    An LR image whose sides the model does not take, as odd ones for SRFlow, is padded by reflection at the bottom and
    the right, and the draws are cropped.

    Cost: one decoding pass per draw; memory for one.

    Args:
        flow: the model.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        num_samples: number of draws; at temperature 0 they are all the same.
        temperature: τ ≥ 0, or one per level, coarse to fine.
        seed: of the noise, at least 0.

    Yields:
        HR images ``(*batch, C, s·h, s·w)``, not clamped.

    Raises:
        ValueError: for fewer than one draw, a negative temperature, or an unusable LR image.

    Example:
        >>> import flowsr
        >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(3, 4, 4)
        >>> few, more = (list(draw_images(flow, lr, num_samples=n, temperature=0.8, seed=0)) for n in (1, 2))
        >>> torch.equal(few[0], more[0])
        True
    """
    if num_samples < 1:
        raise ValueError(f"expected num_samples >= 1; got {num_samples}")
    size = (flow.upscale * lr.shape[-2], flow.upscale * lr.shape[-1])
    multiple = flow.multiple // flow.upscale
    if multiple > 1:
        lr = pad_to_multiple(lr, multiple)[0]
    lr = lr.to(flow.device, flow.dtype)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_samples):
        yield crop_to(flow.decode(lr, flow.draw_latents(lr, temperature=temperature, generator=generator)), size)
