"""The rows of a metric card that only a model with a likelihood has."""

from __future__ import annotations

from torch import Tensor

from flowsr.cards.card import Metric
from flowsr.encoded import dequantized_terms, encoded_lr, encoded_lr_psnr
from flowsr.likelihood import LogLikelihoodTerms, dequantized_bits_per_dim
from flowsr.models import HCFlow


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
        >>> from flowsr.images import round_to_8bit
        >>> hr, lr = round_to_8bit(torch.rand(3, 16, 16)), round_to_8bit(torch.rand(3, 4, 4))
        >>> metrics, terms = likelihood_metrics(flow, hr, lr=lr, column="flow")
        >>> metrics[0].convention
        'D = C·H·W = 768, σ = e^-6, uniform noise 1/256, one draw'
    """
    terms = dequantized_terms(flow, hr, lr, seed=seed, lr_log_scale=lr_log_scale)
    bits = float(dequantized_bits_per_dim(terms))
    own = encoded_lr(flow, hr)
    rule = "rounded to 8 bits" if flow.config.task == "rescaling" else "clamped, not rounded"
    return [
        Metric(
            "Bits per dimension of p(hr | lr)",
            f"D = C·H·W = {terms.dims}, σ = e^{lr_log_scale:g}, uniform noise 1/256, one draw",
            {column: bits},
            unit="bits/dim",
        ),
        Metric(
            "Encoded LR-PSNR",
            f"encode(hr).lr {rule}, against the LR image given, all channels, no border",
            {column: encoded_lr_psnr(own, lr)},
            unit="dB",
        ),
    ], terms
