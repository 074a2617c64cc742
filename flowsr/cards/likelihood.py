"""The rows of a metric card that only a model with a likelihood has."""

from __future__ import annotations

import torch
from torch import Tensor

from flowsr.cards.card import Metric
from flowsr.distributions import uniform_dequantize
from flowsr.images import round_to_8bit
from flowsr.likelihood import LogLikelihoodTerms, decompose, dequantized_bits_per_dim
from flowsr.metrics import psnr
from flowsr.models import HCFlow


@torch.no_grad()
def likelihood_metrics(
    flow: HCFlow, hr: Tensor, *, lr: Tensor, column: str, seed: int = 0, lr_log_scale: float = -6.0
) -> tuple[list[Metric], LogLikelihoodTerms]:
    """Bits per dimension of an 8-bit image, how well the flow's own LR image agrees, and the terms behind the bits.

    Cost: two encoding passes.

    Args:
        flow: the model.
        hr: 8-bit HR image ``(C, H, W)`` in [0, 1], sides multiples of the upscale factor.
        lr: LR image ``(C, h, w)``, 8-bit too.
        column: the name under which the figures stand in the card.
        seed: of the dequantization noise, which is drawn on the CPU so that devices agree.
        lr_log_scale: log σ.

    Returns:
        The metrics, and the terms of ``log p(hr + noise | lr)`` without a batch dimension.

    Raises:
        ValueError: on wrong shapes or values.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small", start="haar")
        >>> hr, lr = round_to_8bit(torch.rand(3, 16, 16)), round_to_8bit(torch.rand(3, 4, 4))
        >>> metrics, terms = likelihood_metrics(flow, hr, lr=lr, column="flow")
        >>> metrics[0].convention
        'D = C·H·W = 768, σ = e^-6, uniform noise 1/256, one draw'
    """
    generator = torch.Generator().manual_seed(seed)
    noisy = uniform_dequantize(hr.cpu(), generator=generator).to(flow.device)
    lr = lr.to(flow.device)
    terms = decompose(flow, noisy, lr, lr_log_scale=lr_log_scale)
    own = flow.encode(hr.to(flow.device)).lr
    agreement = psnr(round_to_8bit(own), lr, border=0)
    bits = float(dequantized_bits_per_dim(terms))
    return [
        Metric(
            "Bits per dimension of p(hr | lr)",
            f"D = C·H·W = {terms.dims}, σ = e^{lr_log_scale:g}, uniform noise 1/256, one draw",
            {column: bits},
            unit="bits/dim",
        ),
        Metric(
            "Encoded LR-PSNR",
            "encode(hr).lr rounded, against the LR image given, all channels, no border",
            {column: float(agreement)},
            unit="dB",
        ),
    ], terms
