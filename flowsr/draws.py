"""Draws of a model one at a time, so that memory does not grow with their number, and their running moments."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from flowsr.distributions import Temperature
from flowsr.models import ConditionalModel


@torch.no_grad()
def draw_images(
    flow: ConditionalModel, lr: Tensor, *, num_samples: int, temperature: Temperature, seed: int
) -> Iterator[Tensor]:
    """Draw HR images of one LR image one after the other, as :meth:`flowsr.HCFlow.sample` draws them.

    The noise depends on the seed and the number of the draw only: neither on how many are drawn, nor on the
    temperature, so draws of the same number at two temperatures differ in amplitude alone. It comes from the CPU's
    generator, so that devices agree up to rounding.

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
    lr = lr.to(flow.device, flow.dtype)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_samples):
        yield flow.decode(lr, flow.draw_latents(lr, temperature=temperature, generator=generator))


class RunningMoments:
    """Mean and standard deviation of images that come one at a time, by Welford's update in float64.

    Cost: O(number of pixels) per image and in memory.

    References:
        Welford, Note on a method for calculating corrected sums of squares and products (Technometrics 1962).

    Example:
        >>> moments = RunningMoments()
        >>> for value in (1.0, 2.0, 3.0):
        ...     moments.add(torch.full((1, 1, 1), value))
        >>> moments.mean.item(), moments.std.item()
        (2.0, 1.0)
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, image: Tensor) -> None:
        """Take one more image into account."""
        image = image.double()
        self.count += 1
        off = image - self._mean.to(image.device)
        self._mean = self._mean.to(image.device) + off / self.count
        self._squares = self._squares.to(image.device) + off * (image - self._mean)

    @property
    def mean(self) -> Tensor:
        """The mean; raises ValueError before the first image."""
        if self.count < 1:
            raise ValueError("expected at least one image; got none")
        return self._mean

    @property
    def std(self) -> Tensor:
        """The unbiased standard deviation; raises ValueError before the second image."""
        if self.count < 2:
            raise ValueError(f"expected at least two images for a standard deviation; got {self.count}")
        return (self._squares / (self.count - 1)).sqrt()
