"""A prior on the LR image, for when it is unknown or known with an error: a smooth Gaussian field."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsr.images import check_image


class GaussianLR:
    """A Gaussian field over LR images, ``lr = mean + std·R·u`` with white noise u.

    The correlation of two pixels at distance d is ``exp(−d_y²/2ℓ²)·exp(−d_x²/2ℓ²)``; it factors over rows and columns,
    so that its root R costs no more than two small matrices. Channels are independent.

    Cost: O(h³ + w³) once; O(h·w·(h + w)) per image.

    Args:
        mean: ``(C, h, w)`` in [0, 1].
        std: standard deviation of each pixel, in (0, 1].
        correlation: ℓ in LR pixels, at least 0; 0 for independent pixels, at most half of the longer side.

    Raises:
        ValueError: for a mean that is no image or a number out of range.

    Example:
        >>> prior = GaussianLR(torch.full((1, 4, 4), 0.5), std=0.1, correlation=1.5)
        >>> prior(torch.zeros(7, 1, 4, 4)).shape
        torch.Size([7, 1, 4, 4])
    """

    def __init__(self, mean: Tensor, *, std: float, correlation: float = 0.0) -> None:
        check_image(mean, name="the mean of the prior on lr", tolerance=0.25)
        if mean.dim() != 3:
            raise ValueError(f"expected the mean of one LR image (C, h, w); got shape {tuple(mean.shape)}")
        if not 0 < std <= 1:
            raise ValueError(
                f"expected the prior's std in (0, 1], in units of the image's range; got {std}: for a known LR image "
                "give the image itself, for grey levels divide by 255"
            )
        largest = max(mean.shape[-2:]) / 2
        if not 0 <= correlation <= largest:
            raise ValueError(
                f"expected a correlation length from 0 to {largest:g} LR pixels, half of the longer side; got "
                f"{correlation}: a longer one makes the prior all but constant"
            )
        self.mean, self.std, self.correlation = mean, float(std), float(correlation)
        self._roots = [_root(length, self.correlation).to(mean) for length in mean.shape[-2:]]

    def __call__(self, white: Tensor) -> Tensor:
        """The LR image of white noise ``(*batch, C, h, w)``."""
        rows, columns = self._roots
        return self.mean + self.std * (rows @ white @ columns.mT)

    def whiten(self, lr: Tensor) -> Tensor:
        """The white noise of an LR image, the inverse of calling."""
        rows, columns = self._roots
        half = torch.linalg.solve_triangular(rows, (lr - self.mean) / self.std, upper=False)
        return torch.linalg.solve_triangular(columns, half.mT.contiguous(), upper=False).mT

    def to(self, device: torch.device, dtype: torch.dtype) -> GaussianLR:
        """The same prior on another device, in another dtype."""
        return GaussianLR(self.mean.to(device, dtype), std=self.std, correlation=self.correlation)

    def __repr__(self) -> str:
        return f"GaussianLR(shape={tuple(self.mean.shape)}, std={self.std:g}, correlation={self.correlation:g})"


def _root(length: int, correlation: float) -> Tensor:
    eye = torch.eye(length, dtype=torch.float64)
    if correlation == 0:
        return eye
    position = torch.arange(length, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((position[:, None] - position) / correlation) ** 2)
    # A squared exponential is singular to rounding; a part in ten thousand of white noise makes it regular.
    return torch.linalg.cholesky((kernel + 1e-4 * eye) / (1 + 1e-4))
