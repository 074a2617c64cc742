"""Mean and standard deviation of tensors that come one at a time, in memory for two of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
        self._mean = torch.zeros((), device="cpu")
        self._squares = torch.zeros((), device="cpu")

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

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later; tensors and numbers only."""
        return {"count": self.count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self.count, self._mean, self._squares = int(state["count"]), state["mean"], state["squares"]
