"""The number that the authors' code prints as NLL, under a name that says so."""

import math

import torch
from torch import Tensor

from flowsr._shapes import sum_event
from flowsr.distributions import normal_log_prob
from flowsr.images import round_to_8bit
from flowsr.models import Capability, HierarchyModel, require

OFFICIAL_BINS = {4: 64, 8: 256}
"""The quantization q of the released configurations, by upscale factor."""


def official_nll(flow: HierarchyModel, hr: Tensor, lr: Tensor, *, bins: int | None = None) -> Tensor:
    """The number that the authors' code reports as NLL, for comparison with their logs: bits per *pixel*.

    It is ``−(log p − H·W·ln bins)/(ln 2·H·W)`` with the flow's LR image clamped and rounded to 8 bits inside the
    Gaussian. Dividing by H·W rather than by D = C·H·W, yet counting the noise constant once per pixel, makes it too
    low for RGB: bits/dim = nll/3 + (2/3)·log2(bins), up to the rounding of the LR image.

    Cost: one encoding pass. No noise is added: add it to ``hr`` first, as the authors do in training.

    Args:
        flow: a model with the capability ``lr-latent``: its LR image is part of the latent.
        hr: HR image, ``(*batch, C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        bins: the quantization q of the released configuration; by default 64 for x4 and 256 otherwise.

    Raises:
        ValueError: on wrong shapes, dtype or values, or for a model without an LR image in its latent.

    References:
        The released HCFlow code (github.com/JingyunLiang/HCFlow), configurations ``quant: 64`` and ``quant: 256``.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> official_nll(flow, torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2])
    """
    require(flow, Capability.LR_LATENT)
    if bins is not None and (not isinstance(bins, int) or bins < 2):
        raise ValueError(f"expected an integer of at least 2 bins; got {bins!r}")
    flow.check_pair(hr, lr)
    encoded = flow.encode(hr)
    log_prob = sum_event(normal_log_prob(round_to_8bit(encoded.lr) - lr.to(flow.dtype), log_scale=-6.0))
    log_prob = log_prob + torch.stack([sum_event(normal_log_prob(z)) for z in encoded.z]).sum(0) + encoded.ladj
    pixels = hr.shape[-2:].numel()
    quantization = bins if bins is not None else OFFICIAL_BINS.get(flow.upscale, 256)
    return -(log_prob - pixels * math.log(quantization)) / (math.log(2.0) * pixels)
