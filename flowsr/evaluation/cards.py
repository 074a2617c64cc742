"""Cards of one image: the fidelity of reconstructions, and what the truth costs, as figures with their conventions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flowsr.evaluation.columns import (
    bits_column,
    diversity_column,
    encoded_lr_column,
    fidelity_columns,
    lr_psnr_column,
)
from flowsr.evaluation.encoded import encoded_lr, encoded_lr_psnr
from flowsr.likelihood import BitsPerDim, bits_per_dim
from flowsr.metrics import compare, lr_psnr, pixel_std
from flowsr.models import Capability, ConditionalModel, ImageModel
from flowsr.results import Figure


def fidelity_figures(
    images: Mapping[str, Tensor], hr: Tensor, lr: Tensor, *, upscale: int
) -> dict[str, tuple[Figure, ...]]:
    """PSNR, SSIM, LPIPS and LR-PSNR of several reconstructions, with a border as wide as the upscale factor.

    Images are rounded to 8 bits first, as if saved. Of several draws the average of their figures is taken.

    Cost: about ten filters per image; LPIPS a pass of its network if its weights are on this machine.

    Args:
        images: reconstructions by name, ``(C, H, W)`` or draws ``(S, C, H, W)``, RGB or gray.
        hr: the truth, ``(C, H, W)`` in [0, 1].
        lr: the LR image they were made from, ``(C, h, w)`` in [0, 1].
        upscale: the factor s.

    Returns:
        The figures of each image, for a :class:`flowsr.results.Card`; one that cannot be computed here (luma of gray
        images, SSIM of tiny ones, LPIPS without weights, diversity of a single image) says why.

    Raises:
        ValueError: if sizes do not match.

    Example:
        >>> import torch
        >>> from flowsr.images import bicubic_down, bicubic_up
        >>> hr = torch.rand(3, 32, 32)
        >>> lr = bicubic_down(hr, 4).clamp(0, 1)
        >>> found = fidelity_figures({"bicubic": bicubic_up(lr, 4)}, hr, lr, upscale=4)
        >>> [figure.key for figure in found["bicubic"]]
        ['psnr', 'psnr_y', 'ssim', 'ssim_y', 'lpips', 'lr_psnr', 'pixel_std']
    """
    colours = "RGB" if hr.shape[-3] == 3 else "gray"

    def figures_of(image: Tensor) -> tuple[Figure, ...]:
        scores = compare(image, hr, border=upscale)
        again = float(lr_psnr(image.clamp(0, 1), lr, upscale=upscale).mean())
        spread = float(pixel_std(image)) if image.ndim == 4 and len(image) > 1 else "needs at least two draws"
        return (
            *(column.figure(scores[column.key]) for column in fidelity_columns(upscale, colours=colours)),
            lr_psnr_column(upscale, colours=colours).figure(again),
            diversity_column().figure(spread),
        )

    return {name: figures_of(image) for name, image in images.items()}


def likelihood_figures(
    flow: ConditionalModel, hr: Tensor, *, lr: Tensor, seed: int = 0, lr_log_scale: float | None = None
) -> tuple[tuple[Figure, ...], BitsPerDim]:
    """Bits per dimension of an 8-bit image, how well the flow's own LR image agrees, and what is behind the bits.

    A model without an LR image in its latent has no second figure.

    Cost: two encoding passes.

    Args:
        flow: the model.
        hr: 8-bit HR image ``(C, H, W)`` in [0, 1], sides multiples of the upscale factor.
        lr: LR image ``(C, h, w)``, 8-bit too.
        seed: of the dequantization noise, which is drawn on the CPU so that devices agree.
        lr_log_scale: log σ; by default the model's own, −6 for HCFlow.

    Returns:
        The figures, and the bounds with the terms of ``log P(hr | lr)``.

    Raises:
        ValueError: on wrong shapes or values.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> from flowsr.images import round_to_8bit
        >>> hr, lr = round_to_8bit(torch.rand(3, 16, 16)), round_to_8bit(torch.rand(3, 4, 4))
        >>> figures, bits = likelihood_figures(flow, hr, lr=lr)
        >>> figures[0].convention
        'p(hr | lr), upper bound for the 8-bit image, uniform noise 1/256, one draw, σ = e^-6, D = C·H·W'
    """
    bits = seeded_bits(flow, hr, lr, seed=seed, lr_log_scale=lr_log_scale)
    cost = bits_column(f"p(hr | lr), {bits.figure.convention}").figure(bits.figure.number)
    if Capability.LR_LATENT not in flow.capabilities:
        return (cost,), bits
    rule = "rounded to 8 bits" if Capability.DOWNSCALE in flow.capabilities else "clamped, not rounded"
    own = encoded_lr_column(f"encode(hr).lr {rule}, against the LR image given, all channels, no border")
    return (cost, own.figure(encoded_lr_psnr(encoded_lr(flow, hr), lr))), bits


def seeded_bits(
    flow: ImageModel, hr: Tensor, lr: Tensor | None, *, seed: int, lr_log_scale: float | None
) -> BitsPerDim:
    """:func:`flowsr.likelihood.bits_per_dim` with noise from a seed, drawn in float32 on the CPU for any model."""
    small = None if lr is None else lr.to(flow.device)
    generator = torch.Generator().manual_seed(seed)
    return bits_per_dim(flow, hr.float().to(flow.device), small, lr_log_scale=lr_log_scale, generator=generator)
