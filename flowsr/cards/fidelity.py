"""The rows of a metric card that compare images with the truth and with the LR image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from flowsr.cards.card import Metric
from flowsr.metrics import compare, lr_psnr, pixel_std
from flowsr.metrics.comparison import Score


def fidelity_metrics(images: Mapping[str, Tensor], hr: Tensor, lr: Tensor, *, upscale: int) -> list[Metric]:
    """PSNR, SSIM, LPIPS and LR-PSNR of several reconstructions, with a border as wide as the upscale factor.

    Images are rounded to 8 bits first, as if saved. Of several draws the average of their figures is taken.

    Cost: about ten filters per image; LPIPS a pass of its network if its weights are on this machine.

    Args:
        images: reconstructions by name, ``(C, H, W)`` or draws ``(S, C, H, W)``, RGB or gray; the names become columns.
        hr: the truth, ``(C, H, W)`` in [0, 1].
        lr: the LR image they were made from, ``(C, h, w)`` in [0, 1].
        upscale: the factor s.

    Returns:
        Metrics; one that cannot be computed here (luma of gray images, SSIM of tiny ones, LPIPS without weights) has
        no values and says why.

    Raises:
        ValueError: if sizes do not match.

    Example:
        >>> import torch
        >>> from flowsr.images import bicubic_down, bicubic_up
        >>> hr = torch.rand(3, 32, 32)
        >>> lr = bicubic_down(hr, 4).clamp(0, 1)
        >>> [metric.name for metric in fidelity_metrics({"bicubic": bicubic_up(lr, 4)}, hr, lr, upscale=4)]
        ['PSNR', 'PSNR-Y', 'SSIM', 'SSIM-Y', 'LPIPS', 'LR-PSNR', 'Diversity']
    """
    scores = {name: compare(image, hr, border=upscale) for name, image in images.items()}
    colours = "RGB" if hr.shape[-3] == 3 else "gray"
    how = f"border {upscale}, rounded to 8 bits"
    luma = f"BT.601 luma 16–235, {how}"
    consistency = {
        name: float(lr_psnr(image.clamp(0, 1), lr, upscale=upscale).mean()) for name, image in images.items()
    }
    return [
        _row("PSNR", f"{colours}, {how}", "psnr", scores, "dB"),
        _row("PSNR-Y", luma, "psnr_y", scores, "dB"),
        _row("SSIM", f"{colours}, {how}", "ssim", scores),
        _row("SSIM-Y", luma, "ssim_y", scores),
        _row("LPIPS", "AlexNet, version 0.1, RGB, no border, rounded to 8 bits", "lpips", scores),
        Metric(
            "LR-PSNR",
            f"{colours}, bicubic ÷{upscale} of the rounded image, rounded, against the LR image, no border",
            consistency,
            unit="dB",
        ),
        _diversity(images),
    ]


def _row(name: str, convention: str, key: str, scores: Mapping[str, Mapping[str, Score]], unit: str = "") -> Metric:
    """The row of a figure: what it is for all images, or why one has none."""
    values: dict[str, float | None] = {}
    for column, row in scores.items():
        score = row[key]
        if isinstance(score, str):
            return Metric(name, convention, {}, unit=unit, reason=score)
        values[column] = score
    return Metric(name, convention, values, unit=unit)


def _diversity(images: Mapping[str, Tensor]) -> Metric:
    """Only of what holds several draws, and of those as drawn, not rounded."""
    draws = {name: image for name, image in images.items() if image.ndim == 4 and len(image) > 1}
    values: dict[str, float | None] = {name: float(pixel_std(image)) for name, image in draws.items()}
    convention = "mean over pixels of the unbiased std over draws, not rounded"
    return Metric(
        "Diversity", convention, values, unit="grey levels of 255", reason="" if values else "needs at least two draws"
    )
