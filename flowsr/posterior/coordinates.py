"""Affine coordinates in which a posterior looks like white noise: a mean, a scale per latent, and a few directions."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Coordinates:
    """Latents ``u = mean + D·(I + V·diag(s − 1)·Vᵀ)·v``: the image of white noise v has covariance L·Lᵀ.

    With L the factor in front of v, HMC in v is HMC in u with the mass matrix (L·Lᵀ)⁻¹, and pCN in v is pCN whose
    reference is N(mean, L·Lᵀ) instead of the prior. A precision known along few directions, or a covariance of low
    rank plus a diagonal, needs no matrix of dims x dims.

    Cost: O(dims·rank) per vector.

    Attributes:
        mean: m, ``(dims,)``.
        scale: the diagonal D > 0, ``(dims,)``.
        directions: V with orthonormal columns, ``(dims, rank)``; rank 0 by default.
        stretch: s > 0, ``(rank,)``.

    Raises:
        ValueError: for shapes that do not fit, or a scale or stretch that is not positive and finite.

    References:
        Pinski, Simpson, Stuart and Weber, Algorithms for Kullback-Leibler approximation of probability measures in
        infinite dimensions (SIAM J. Sci. Comput. 2015), section 4, for pCN with another reference than the prior.

    Example:
        >>> c = Coordinates.of_low_rank(torch.zeros(3), torch.ones(3), torch.tensor([[1.0], [1.0], [0.0]]))
        >>> [round(value, 5) for value in (c.factor() @ c.factor().T).tolist()[0]]
        [2.0, 1.0, 0.0]
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor = field(default_factory=lambda: torch.zeros(0, 0, device="cpu"))
    stretch: Tensor = field(default_factory=lambda: torch.zeros(0, device="cpu"))

    def __post_init__(self) -> None:
        dims, rank = self.mean.numel(), self.stretch.numel()
        if rank == 0:
            object.__setattr__(self, "directions", self.mean.new_zeros(dims, 0))
            object.__setattr__(self, "stretch", self.mean.new_zeros(0))
        if self.scale.shape != (dims,) or self.directions.shape != (dims, rank):
            raise ValueError(
                f"expected a scale ({dims},) and directions ({dims}, {rank}); got {tuple(self.scale.shape)} and "
                f"{tuple(self.directions.shape)}"
            )
        for name, value in (("scale", self.scale), ("stretch", self.stretch)):
            if not bool(((value > 0) & value.isfinite()).all()):
                raise ValueError(f"expected a finite {name} > 0; got {float(value.min()):g} to {float(value.max()):g}")

    @classmethod
    def standard(cls, like: Tensor) -> Coordinates:
        """Those of the prior N(0, I), in dimension, dtype and device of a vector ``(dims,)``."""
        return cls(torch.zeros_like(like), torch.ones_like(like))

    @classmethod
    def of_low_rank(cls, mean: Tensor, std: Tensor, factor: Tensor) -> Coordinates:
        """Those of N(mean, diag(std²) + W·Wᵀ), W the factor ``(dims, rank)``. Cost: a thin singular decomposition."""
        directions, values, _ = torch.linalg.svd(factor / std[:, None], full_matrices=False)
        return cls(mean, std, directions, (1 + values.square()).sqrt())

    @classmethod
    def of_precision(cls, mean: Tensor, directions: Tensor, values: Tensor) -> Coordinates:
        """Those of N(mean, (I + V·diag(λ)·Vᵀ)⁻¹), λ ≥ 0: a prior N(0, I) and what the data add to its precision."""
        return cls(mean, torch.ones_like(mean), directions, (1 + values).rsqrt())

    def to(self, like: Tensor) -> Coordinates:
        """The same on the device and in the dtype of a tensor."""
        return Coordinates(*(part.to(like) for part in (self.mean, self.scale, self.directions, self.stretch)))

    def factor(self) -> Tensor:
        """L, ``(dims, dims)``: for few dimensions."""
        return self._mix(torch.eye(self.mean.numel(), device="cpu").to(self.mean)).T * self.scale[:, None]

    def to_latents(self, v: Tensor) -> Tensor:
        """u of v, ``(*batch, dims)``."""
        return self.mean + self.scale * self._mix(v)

    def from_latents(self, u: Tensor) -> Tensor:
        """v of u, ``(*batch, dims)``."""
        v = (u - self.mean) / self.scale
        return v + ((v @ self.directions) * (1 / self.stretch - 1)) @ self.directions.T

    def _mix(self, v: Tensor) -> Tensor:
        return v + ((v @ self.directions) * (self.stretch - 1)) @ self.directions.T
