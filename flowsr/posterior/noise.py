"""Noise models: the likelihood of an observation given what the operator makes of an HR image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from flowsr._support.shapes import place_of


class Noise:
    """The likelihood ``p(observation | clean)``, elementwise independent, with ``clean = operator(hr)``."""

    def distribution(self, clean: Tensor, *, event_dim: int) -> TorchDistribution:
        """The distribution of observations, the last ``event_dim`` dimensions being one event."""
        raise NotImplementedError

    def residual(self, clean: Tensor, observation: Tensor) -> Tensor:
        """``(observation − mean)/std`` elementwise: its mean square is 1 for the right image."""
        raise NotImplementedError

    def simulate(self, clean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """An observation of a clean image."""
        raise NotImplementedError

    def information(self, clean: Tensor) -> Tensor:
        """Fisher information of an observed value about the clean one, elementwise: if normal, ``1/std²``."""
        raise NotImplementedError

    def check(self, observation: Tensor) -> None:
        """Refuse observations that this noise cannot make."""

    def to_image(self, observation: Tensor) -> Tensor:
        """An observation in units of the operator's result, for display."""
        return observation


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """``observation ~ N(clean, std²)``.

    Args:
        std: in units of the observation, > 0.

    Raises:
        ValueError: for a standard deviation out of range.

    Example:
        >>> GaussianNoise(0.1).residual(torch.zeros(2), torch.tensor([0.1, -0.2]))
        tensor([ 1., -2.])
    """

    std: float

    def __post_init__(self) -> None:
        _check_positive(self.std, "the std of Gaussian noise")

    def distribution(self, clean: Tensor, *, event_dim: int) -> TorchDistribution:
        # Not validated: a diverging trajectory may make values that are not finite, which the kernel rejects.
        return dist.Normal(clean, self.std, validate_args=False).to_event(event_dim)

    def residual(self, clean: Tensor, observation: Tensor) -> Tensor:
        return (observation - clean) / self.std

    def simulate(self, clean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return clean + self.std * torch.randn(clean.shape, generator=generator, device=place_of(generator)).to(clean)

    def information(self, clean: Tensor) -> Tensor:
        return torch.full_like(clean, self.std**-2)


@dataclass(frozen=True)
class LaplaceNoise(Noise):
    """``observation ~ Laplace(clean, scale)``, for outliers; its standard deviation is ``√2·scale``.

    Args:
        scale: mean absolute error, in units of the observation, > 0.

    Raises:
        ValueError: for a scale out of range.

    Example:
        >>> LaplaceNoise(1.0).residual(torch.zeros(1), torch.ones(1))
        tensor([0.7071])
    """

    scale: float

    def __post_init__(self) -> None:
        _check_positive(self.scale, "the scale of Laplace noise")

    def distribution(self, clean: Tensor, *, event_dim: int) -> TorchDistribution:
        return dist.Laplace(clean, self.scale, validate_args=False).to_event(event_dim)

    def residual(self, clean: Tensor, observation: Tensor) -> Tensor:
        return (observation - clean) / (math.sqrt(2.0) * self.scale)

    def simulate(self, clean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        uniform = torch.rand(clean.shape, generator=generator, device=place_of(generator)).to(clean)
        uniform = uniform.clamp(1e-7, 1 - 1e-7) - 0.5
        return clean - self.scale * uniform.sign() * torch.log1p(-2 * uniform.abs())

    def information(self, clean: Tensor) -> Tensor:
        return torch.full_like(clean, self.scale**-2)


@dataclass(frozen=True)
class PoissonNoise(Noise):
    """``observation ~ Poisson(peak·max(clean, floor))``: counts of photons.

    Args:
        peak: expected count where the clean image is 1, > 0.
        floor: darkest value, > 0. A flow's images may be negative, where there is no Poisson distribution; below the
            floor the likelihood is flat, and has no gradient.

    Raises:
        ValueError: for numbers out of range, or observations that are not counts.

    Example:
        >>> PoissonNoise(100.0).residual(torch.ones(1), torch.tensor([110.0]))
        tensor([1.])
    """

    peak: float
    floor: float = 1e-3

    def __post_init__(self) -> None:
        _check_positive(self.peak, "the peak of Poisson noise")
        _check_positive(self.floor, "the floor of Poisson noise")

    def distribution(self, clean: Tensor, *, event_dim: int) -> TorchDistribution:
        return dist.Poisson(self.rate(clean), validate_args=False).to_event(event_dim)

    def rate(self, clean: Tensor) -> Tensor:
        """Expected counts."""
        return self.peak * clean.clamp_min(self.floor)

    def residual(self, clean: Tensor, observation: Tensor) -> Tensor:
        rate = self.rate(clean)
        return (observation - rate) / rate.sqrt()

    def simulate(self, clean: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(self.rate(clean).to(place_of(generator)), generator=generator).to(clean)

    def information(self, clean: Tensor) -> Tensor:
        return torch.where(clean > self.floor, self.peak**2 / self.rate(clean), 0.0)

    def to_image(self, observation: Tensor) -> Tensor:
        return observation / self.peak

    def check(self, observation: Tensor) -> None:
        if bool((observation < 0).any()) or bool((observation != observation.round()).any()):
            raise ValueError(
                "expected counts (whole numbers >= 0) as the observation under Poisson noise; got values from "
                f"{float(observation.min()):g} to {float(observation.max()):g}: multiply an image in [0, 1] by the "
                "peak and round"
            )


def _check_positive(value: float, name: str) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"expected {name} to be finite and > 0; got {value!r}")
