"""The log-likelihood of an HR image given its LR image, term by term, and the number the authors' code prints."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsr._shapes import check_same_batch, sum_event
from flowsr.distributions import normal_log_prob
from flowsr.images import check_image, round_to_8bit
from flowsr.models import HCFlow
from flowsr.transforms import Encoding


@dataclass(frozen=True)
class LogLikelihoodTerms:
    """Terms of ``log p(hr | lr)`` in nats, each a tensor of the batch's shape; tuples run from coarse to fine.

    Attributes:
        lr: ``log N(y; lr, σ²)`` of the flow's LR image.
        z: ``log N(z_l; 0, 1)`` of each level's latent.
        ladj_main: log-determinant of each level's main flow.
        ladj_steps: log-determinant of each level's conditional steps.
        ladj_head: log-determinant of each level's Gaussian head.
        dims: D = C·H·W of the HR image.
        lr_log_scale: log σ used for the LR term.
    """

    lr: Tensor
    z: tuple[Tensor, ...]
    ladj_main: tuple[Tensor, ...]
    ladj_steps: tuple[Tensor, ...]
    ladj_head: tuple[Tensor, ...]
    dims: int
    lr_log_scale: float

    @property
    def total(self) -> Tensor:
        """The sum of all terms, ``log p(hr | lr)`` in nats; equal to ``flow.condition(lr).log_prob(hr)``."""
        return torch.stack([self.lr, *self.z, *self.ladj_main, *self.ladj_steps, *self.ladj_head]).sum(0)

    @property
    def bits_per_dim(self) -> Tensor:
        """``−total/(D·ln 2)`` of the density, without the constant of a dequantization."""
        return -self.total / (self.dims * math.log(2.0))

    def named(self) -> dict[str, Tensor]:
        """Every term under its name, levels numbered as in the paper: 1 is the finest. In nats."""
        terms = {"LR image": self.lr}
        levels = len(self.z)
        for label, values in (
            ("latent z_{}", self.z),
            ("main flow {}", self.ladj_main),
            ("conditional steps {}", self.ladj_steps),
            ("Gaussian head {}", self.ladj_head),
        ):
            for i, value in enumerate(values):
                terms[label.format(levels - i)] = value
        return terms

    def to_dict(self) -> dict[str, Any]:
        """Terms, total and conventions as JSON-ready values."""
        return {
            "terms_nats": {name: value.tolist() for name, value in self.named().items()},
            "total_nats": self.total.tolist(),
            "density_bits_per_dim": self.bits_per_dim.tolist(),
            "dims": self.dims,
            "lr_log_scale": self.lr_log_scale,
        }


def decompose(flow: HCFlow, hr: Tensor, lr: Tensor, *, lr_log_scale: float = -6.0) -> LogLikelihoodTerms:
    """Split ``log p(hr | lr)`` into the LR term, the latents and the log-determinants.

    ``log p = log N(y; lr, σ²) + Σ_l log N(z_l; 0, 1) + Σ_l (ladj of main flow, conditional steps, Gaussian head)``

    Cost: one encoding pass.

    Args:
        flow: the model.
        hr: HR image, ``(*batch, C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        lr_log_scale: log σ, finite.

    Raises:
        ValueError: on wrong shapes, dtype or values.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.2, equation 9.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> hr, lr = torch.rand(3, 16, 16), torch.rand(3, 4, 4)
        >>> torch.allclose(decompose(flow, hr, lr).total, flow.condition(lr).log_prob(hr))
        True
    """
    if not -40 <= lr_log_scale <= 40:
        raise ValueError(f"expected a finite lr_log_scale from -40 to 40; got {lr_log_scale}")
    encoding = _encode(flow, hr, lr)
    return _terms(encoding, encoding.lr - lr.to(flow.dtype), lr_log_scale=lr_log_scale)


def _encode(flow: HCFlow, hr: Tensor, lr: Tensor) -> Encoding:
    check_image(hr, name="hr", channels=flow.config.image_channels, tolerance=16.0)
    check_image(lr, name="lr", channels=flow.config.image_channels, tolerance=0.25)
    shape = flow.transform.inverse_shape(hr.shape)
    if lr.shape[-2:] != shape[-2:]:
        raise ValueError(f"expected an lr of size {tuple(shape[-2:])} for this hr; got {tuple(lr.shape[-2:])}")
    check_same_batch(hr.shape, lr.shape)
    return flow.transform.encode(hr.to(flow.dtype))


def _terms(encoding: Encoding, lr_residual: Tensor, *, lr_log_scale: float) -> LogLikelihoodTerms:
    return LogLikelihoodTerms(
        lr=sum_event(normal_log_prob(lr_residual, log_scale=lr_log_scale)),
        z=tuple(sum_event(normal_log_prob(z)) for z in encoding.z),
        ladj_main=encoding.ladj_main,
        ladj_steps=encoding.ladj_steps,
        ladj_head=encoding.ladj_head,
        dims=encoding.lr.shape[-3:].numel() + sum(z.shape[-3:].numel() for z in encoding.z),
        lr_log_scale=lr_log_scale,
    )


def dequantized_bits_per_dim(terms: LogLikelihoodTerms, *, bins: int = 256) -> Tensor:
    """Bits per dimension of 8-bit images, from the terms of an image with uniform noise of width 1/bins added.

    ``−(log p(x) − D·ln bins)/(D·ln 2)``: the density's bits per dimension plus ``log2(bins)``, 8 for 256 bins.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> terms = decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4))
        >>> print(f"{dequantized_bits_per_dim(terms) - terms.bits_per_dim:.3f}")
        8.000
    """
    return terms.bits_per_dim + math.log2(bins)


def official_nll(flow: HCFlow, hr: Tensor, lr: Tensor, *, bins: int | None = None) -> Tensor:
    """The number that the authors' code reports as NLL, for comparison with their logs: bits per *pixel*.

    It is ``−(log p − H·W·ln bins)/(ln 2·H·W)`` with the flow's LR image clamped and rounded to 8 bits inside the
    Gaussian. Dividing by H·W rather than by D = C·H·W, yet counting the noise constant once per pixel, makes it too
    low for RGB: bits/dim = nll/3 + (2/3)·log2(bins), up to the rounding of the LR image.

    Cost: one encoding pass. No noise is added: add it to ``hr`` first, as the authors do in training.

    Args:
        flow: the model.
        hr: HR image, ``(*batch, C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        bins: the quantization q of the released configuration; by default 64 for x4 and 256 otherwise.

    Raises:
        ValueError: on wrong shapes, dtype or values.

    References:
        The released HCFlow code (github.com/JingyunLiang/HCFlow), configurations ``quant: 64`` and ``quant: 256``.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> official_nll(flow, torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2])
    """
    encoding = _encode(flow, hr, lr)
    residual = round_to_8bit(encoding.lr) - lr.to(flow.dtype)
    terms = _terms(encoding, residual, lr_log_scale=-6.0)
    pixels = hr.shape[-2:].numel()
    quantization = bins if bins is not None else (64 if flow.upscale == 4 else 256)
    return -(terms.total - pixels * math.log(quantization)) / (math.log(2.0) * pixels)
