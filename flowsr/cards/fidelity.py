"""The rows of a metric card that compare images with the truth and with the LR image."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from flowsr.cards.card import Metric
from flowsr.images import round_to_8bit
from flowsr.metrics import lpips_distance, lr_psnr, pixel_std, psnr, ssim

_SMALLEST_SSIM = 11
_SMALLEST_LPIPS = 32


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
    rounded = {name: round_to_8bit(image) for name, image in images.items()}
    inside = min(hr.shape[-2:]) - 2 * upscale
    colour = hr.shape[-3] == 3
    how = f"border {upscale}, rounded to 8 bits"
    luma = f"BT.601 luma 16–235, {how}"
    needs_colour = "" if colour else "gray images have no luma of their own: see the RGB row"
    needs_size = "" if inside >= _SMALLEST_SSIM else f"needs {_SMALLEST_SSIM} pixels inside the border; has {inside}"

    def row(
        name: str, convention: str, measure: Callable[[Tensor], Tensor], unit: str = "", reason: str = ""
    ) -> Metric:
        values = {} if reason else {column: float(measure(image).mean()) for column, image in rounded.items()}
        return Metric(name, convention, values, unit=unit, reason=reason)

    colours = "RGB" if colour else "gray"
    return [
        row("PSNR", f"{colours}, {how}", lambda x: psnr(x, hr, border=upscale), "dB"),
        row("PSNR-Y", luma, lambda x: psnr(x, hr, border=upscale, colour="y"), "dB", needs_colour),
        row("SSIM", f"{colours}, {how}", lambda x: ssim(x, hr, border=upscale), "", needs_size),
        row("SSIM-Y", luma, lambda x: ssim(x, hr, border=upscale, colour="y"), "", needs_colour or needs_size),
        _lpips(rounded, hr),
        row(
            "LR-PSNR",
            f"{colours}, bicubic ÷{upscale} of the rounded image, rounded, against the LR image, no border",
            lambda x: lr_psnr(x, lr, upscale=upscale),
            "dB",
        ),
        _diversity(images),
    ]


def _lpips(images: Mapping[str, Tensor], hr: Tensor) -> Metric:
    convention = "AlexNet, version 0.1, RGB, no border, rounded to 8 bits"
    if hr.shape[-3] != 3 or min(hr.shape[-2:]) < _SMALLEST_LPIPS:
        return Metric("LPIPS", convention, {}, reason=f"needs RGB of at least {_SMALLEST_LPIPS} x {_SMALLEST_LPIPS}")
    values: dict[str, float | None] = {}
    for name, image in images.items():
        distance = lpips_distance(image, hr)
        if distance.value is None:
            return Metric("LPIPS", convention, {}, reason=distance.reason)
        values[name] = float(distance.value.mean())
    return Metric("LPIPS", convention, values)


def _diversity(images: Mapping[str, Tensor]) -> Metric:
    """Only of what holds several draws, and of those as drawn, not rounded."""
    draws = {name: image for name, image in images.items() if image.ndim == 4 and len(image) > 1}
    values: dict[str, float | None] = {name: float(pixel_std(image)) for name, image in draws.items()}
    convention = "mean over pixels of the unbiased std over draws, not rounded"
    return Metric(
        "Diversity", convention, values, unit="grey levels of 255", reason="" if values else "needs at least two draws"
    )
