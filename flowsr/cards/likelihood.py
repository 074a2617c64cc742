"""The rows of a metric card that only a model with a likelihood has."""

from __future__ import annotations

from torch import Tensor

from flowsr.cards.card import Metric
from flowsr.encoded import dequantized_terms, encoded_lr, encoded_lr_psnr
from flowsr.likelihood import LogLikelihoodTerms, dequantized_bits_per_dim
from flowsr.likelihood.decompose import width_note
from flowsr.models import Capability, ConditionalModel


def likelihood_metrics(
    flow: ConditionalModel,
    hr: Tensor,
    *,
    lr: Tensor,
    column: str,
    seed: int = 0,
    lr_log_scale: float | None = None,
) -> tuple[list[Metric], LogLikelihoodTerms]:
    """Bits per dimension of an 8-bit image, how well the flow's own LR image agrees, and the terms behind the bits.

    A model without an LR image in its latent has no second figure.

    Cost: two encoding passes.

    Args:
        flow: the model.
        hr: 8-bit HR image ``(C, H, W)`` in [0, 1], sides multiples of the upscale factor.
        lr: LR image ``(C, h, w)``, 8-bit too.
        column: the name under which the figures stand in the card.
        seed: of the dequantization noise, which is drawn on the CPU so that devices agree.
        lr_log_scale: log σ; by default the model's own, −6 for HCFlow.

    Returns:
        The metrics, and the terms of ``log p(hr + noise | lr)`` without a batch dimension.

    Raises:
        ValueError: on wrong shapes or values.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> from flowsr.images import round_to_8bit
        >>> hr, lr = round_to_8bit(torch.rand(3, 16, 16)), round_to_8bit(torch.rand(3, 4, 4))
        >>> metrics, terms = likelihood_metrics(flow, hr, lr=lr, column="flow")
        >>> metrics[0].convention
        'D = C·H·W = 768, σ = e^-6, uniform noise 1/256, one draw'
    """
    terms = dequantized_terms(flow, hr, lr, seed=seed, lr_log_scale=lr_log_scale)
    bits = float(dequantized_bits_per_dim(terms))
    metrics = [
        Metric(
            "Bits per dimension of p(hr | lr)",
            f"D = C·H·W = {terms.dims}{width_note(terms.lr_log_scale)}, uniform noise 1/256, one draw",
            {column: bits},
            unit="bits/dim",
        )
    ]
    if Capability.LR_LATENT in flow.capabilities:
        rule = "rounded to 8 bits" if Capability.DOWNSCALE in flow.capabilities else "clamped, not rounded"
        metrics.append(
            Metric(
                "Encoded LR-PSNR",
                f"encode(hr).lr {rule}, against the LR image given, all channels, no border",
                {column: encoded_lr_psnr(encoded_lr(flow, hr), lr)},
                unit="dB",
            )
        )
    return metrics, terms
