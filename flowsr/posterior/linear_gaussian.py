"""A linear-Gaussian image model written as a flow, whose posteriors are closed formulas: the yardstick of samplers.

Level by level, coarse to fine, an image doubles its resolution by Haar synthesis. The details are Gaussian given the
coarser image, with a mean that is linear in it (a 3x3 convolution that continues its slope) and a fixed standard
deviation. So the HR image is Gaussian given the LR image, and stays so given any linear observation of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from flowsr.models import HierarchyModel, ModelConfig
from flowsr.transforms import ConditionalLevel, Haar, Hierarchy

_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
"""Haar synthesis: rows are average and the three details, columns the pixels a b / c d of a block."""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of flattened images.

    Attributes:
        mean: ``(D,)`` with D = C·H·W, in units of [0, 1].
        covariance: ``(D, D)``.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviations, ``(D,)``."""
        return self.covariance.diagonal().clamp_min(0).sqrt()


@dataclass(frozen=True, kw_only=True)
class LinearGaussianConfig(ModelConfig):
    """What defines a :class:`LinearGaussianFlow`.

    Args:
        detail_std: standard deviation of the details of each level, coarse to fine.
        image_channels: channels.

    Raises:
        ValueError: for no levels or a standard deviation that is not positive.
    """

    detail_std: tuple[float, ...]
    image_channels: int

    def __post_init__(self) -> None:
        self.check_integers({"image_channels": 1})
        if not self.detail_std or any(not (math.isfinite(std) and std > 0) for std in self.detail_std):
            raise ValueError(f"expected positive standard deviations, one per level; got {self.detail_std}")

    @property
    def upscale(self) -> int:
        """The factor between LR and HR image."""
        return 2 ** len(self.detail_std)

    @property
    def task(self) -> str:
        """What the model is made for: "super-resolution"."""
        return "super-resolution"


class LinearGaussianFlow(HierarchyModel):
    """A flow with linear transforms: ``hr = M·y + c + G·z``, Gaussian given the LR image, with known moments.

    It offers what :class:`flowsr.HCFlow` does, with a Haar transform as the main flow of each level and a
    linear-Gaussian head.

    Cost: one small convolution per level for sampling and scoring; the dense moments take O((C·H·W)²) memory.

    Args:
        detail_std: standard deviation of the details of each level, coarse to fine, in units of [0, 1]; as many
            levels as there are numbers, so that the upscale factor is ``2^len``. Diagonal details have half of it.
        image_channels: channels, independent of each other.

    Raises:
        ValueError: for no levels or a standard deviation that is not positive.

    References:
        Bishop, Pattern Recognition and Machine Learning (2006), section 2.3.3, for the formulas.

    Example:
        >>> flow = LinearGaussianFlow(detail_std=(0.1, 0.05))
        >>> exact = flow.posterior(torch.full((1, 2, 2), 0.5))
        >>> exact.mean.shape, exact.covariance.shape
        (torch.Size([64]), torch.Size([64, 64]))
    """

    config_class = LinearGaussianConfig
    presets: ClassVar[dict[str, LinearGaussianConfig]] = {}
    config: LinearGaussianConfig

    def __init__(self, *, detail_std: Sequence[float] = (0.08, 0.04), image_channels: int = 1) -> None:
        super().__init__(LinearGaussianConfig(detail_std=tuple(detail_std), image_channels=image_channels))
        stds = self.config.detail_std
        levels = [_linear_level(image_channels, coarser=i, detail_std=std) for i, std in enumerate(stds)]
        self.transform = Hierarchy([Haar() for _ in levels], levels[::-1], image_channels=image_channels)
        self.requires_grad_(False)

    def posterior(self, lr: Tensor, *, lr_log_scale: float = -math.inf) -> Gaussian:
        """Moments of ``p(hr | lr)`` by dense matrices that share no code with the transforms.

        Cost: O((C·H·W)³) time; meant for images of a few hundred pixels.

        Args:
            lr: LR image ``(C, h, w)``.
            lr_log_scale: log σ of the flow's LR image; ``-inf`` is the Dirac limit.
        """
        channels, height, width = lr.shape
        mean = lr.double().reshape(channels, -1)
        eye = torch.eye(height * width, dtype=torch.float64, device="cpu")
        covariance = math.exp(2 * lr_log_scale) * eye
        for std in self.config.detail_std:
            predict, noise = _dense_level(height, width, std)
            # The slope is taken of the image minus mid-grey, so that zero padding means grey beyond the border.
            mean = (mean - 0.5) @ predict.T + 0.5
            covariance = predict @ covariance @ predict.T + noise
            height, width = 2 * height, 2 * width
        return Gaussian(mean.reshape(-1), torch.block_diag(*[covariance] * channels))


def gaussian_posterior(prior: Gaussian, matrix: Tensor, observation: Tensor, *, noise_std: float) -> Gaussian:
    """The posterior of x ~ N(m, P) given ``b = A·x + n``, ``n ~ N(0, s²)``.

    ``K = P·Aᵀ·(A·P·Aᵀ + s²)⁻¹``, mean ``m + K·(b − A·m)``, covariance ``P − K·A·P``.

    Cost: O(D²·K) for K observations.

    Args:
        prior: moments of x.
        matrix: A, ``(K, D)``, see :func:`operator_matrix`.
        observation: b, any shape with K elements.
        noise_std: s > 0.

    References:
        Bishop, Pattern Recognition and Machine Learning (2006), equations 2.113 to 2.117.

    Example:
        >>> prior = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
        >>> gaussian_posterior(prior, torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), noise_std=1.0).mean
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    a = matrix.double()
    cross = prior.covariance @ a.T
    innovation = a @ cross + noise_std**2 * torch.eye(len(a), dtype=torch.float64, device="cpu")
    gain = torch.linalg.solve(innovation, cross.T).T
    mean = prior.mean + gain @ (observation.double().flatten() - a @ prior.mean)
    covariance = prior.covariance - gain @ cross.T
    return Gaussian(mean, 0.5 * (covariance + covariance.T))


def operator_matrix(operator: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """The matrix ``(K, D)`` of a linear operator on images of this shape.

    Cost: one application to a batch of D images.

    Args:
        operator: linear function of images ``(n, C, H, W)``.
        shape: ``(C, H, W)``.

    Example:
        >>> operator_matrix(lambda x: x[..., :1], (1, 1, 2))
        tensor([[1., 0.]], dtype=torch.float64)
    """
    dims = torch.Size(shape).numel()
    return operator(torch.eye(dims, dtype=torch.float64, device="cpu").reshape(dims, *shape)).flatten(1).T


class _Centred(nn.Module):
    """The level's own image minus mid-grey, in place of a network's features."""

    def __init__(self, channels: int, *, in_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, channels

    def forward(self, context: Tensor) -> Tensor:
        return context[..., : self.out_channels, :, :] - 0.5


def _linear_level(channels: int, *, coarser: int, detail_std: float) -> ConditionalLevel:
    encoder = _Centred(channels, in_channels=channels * (1 + coarser))
    level = ConditionalLevel(3 * channels, encoder=cast(Any, encoder), steps=[])
    head = cast(Any, level.head.conditioner)
    with torch.no_grad():
        for channel in range(channels):
            # A constant slope continues into the details: left − right is an eighth of left − right neighbour.
            for band, neighbours in enumerate((((1, 0), (1, 2)), ((0, 1), (2, 1)), ())):
                shift = 2 * (band * channels + channel)
                for sign, (row, column) in zip((1, -1), neighbours, strict=False):
                    head.weight[shift, channel, row, column] = sign / 8
                head.bias[shift + 1] = math.log(detail_std * (0.5 if band == 2 else 1.0))
    return level


def _dense_level(height: int, width: int, detail_std: float) -> tuple[Tensor, Tensor]:
    """Mean matrix ``(4·h·w, h·w)`` and noise covariance of one doubling of an image of one channel."""
    predict = torch.zeros(4 * height * width, height * width, dtype=torch.float64, device="cpu")
    noise = torch.zeros(4 * height * width, 4 * height * width, dtype=torch.float64, device="cpu")
    stds = (detail_std, detail_std, detail_std / 2)
    for i in range(height):
        for j in range(width):
            pixels = [(2 * i + a) * 2 * width + 2 * j + b for a in (0, 1) for b in (0, 1)]
            slopes: list[dict[tuple[int, int], float]] = [
                {(i, j): 1.0},
                {(i, j - 1): 0.125, (i, j + 1): -0.125},
                {(i - 1, j): 0.125, (i + 1, j): -0.125},
                {},
            ]
            for signs, weights in zip(_SIGNS, slopes, strict=True):
                for (row, column), weight in weights.items():
                    if 0 <= row < height and 0 <= column < width:
                        for pixel, sign in zip(pixels, signs, strict=True):
                            predict[pixel, row * width + column] += sign * weight
            for signs, std in zip(_SIGNS[1:], stds, strict=True):
                for one, sign in zip(pixels, signs, strict=True):
                    for other, second in zip(pixels, signs, strict=True):
                        noise[one, other] += sign * second * std**2
    return predict, noise
