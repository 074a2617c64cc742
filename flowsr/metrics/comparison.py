"""An image against the truth: all figures of fidelity at once, each with a reason where it cannot be had."""

from collections.abc import Callable, Sequence

from torch import Tensor

from flowsr.images import round_to_8bit, size_text
from flowsr.metrics.fidelity import SSIM_WINDOW, psnr, ssim
from flowsr.metrics.lpips import SMALLEST_SIDE, lpips_distance

Score = float | str
"""A figure, or the reason why there is none."""

FIGURES = ("psnr", "psnr_y", "ssim", "ssim_y", "lpips")
"""What :func:`compare` measures, in order."""


def compare(image: Tensor, hr: Tensor, *, border: int, figures: Sequence[str] = FIGURES) -> dict[str, Score]:
    """PSNR and SSIM of RGB and luma, and LPIPS, of an image rounded to 8 bits; reasons stand where there is no figure.

    Cost: a few filters; LPIPS a pass of its network if its weights are on this machine.

    Args:
        image: ``(C, H, W)``, clamped and rounded here; of several, ``(S, C, H, W)``, the average of their figures.
        hr: the truth, ``(C, H, W)`` in [0, 1].
        border: pixels cut off on each side, except for LPIPS.
        figures: which of ``FIGURES`` to measure.

    Raises:
        ValueError: if sizes do not match, or values are not finite.

    Example:
        >>> import torch
        >>> compare(torch.rand(1, 16, 16), torch.rand(1, 16, 16), border=2)["psnr_y"]
        'gray images have no luma of their own: see the RGB figure'
    """
    image = round_to_8bit(image)
    colour, inside = hr.shape[-3] == 3, min(hr.shape[-2:]) - 2 * border
    empty = "" if inside >= 1 else f"no pixels are left inside a border of {border}"
    gray = "" if colour else "gray images have no luma of their own: see the RGB figure"
    tiny = "" if inside >= SSIM_WINDOW else f"needs {SSIM_WINDOW} pixels inside the border; has {inside}"

    def distance() -> Score:
        if not colour or min(hr.shape[-2:]) < SMALLEST_SIDE:
            return f"needs RGB of at least {size_text((SMALLEST_SIDE, SMALLEST_SIDE))}"
        found = lpips_distance(image, hr)
        return found.reason if found.value is None else float(found.value.mean())

    measures: dict[str, Callable[[], Score]] = {
        "psnr": lambda: float(psnr(image, hr, border=border).mean()),
        "psnr_y": lambda: gray or float(psnr(image, hr, border=border, colour="y").mean()),
        "ssim": lambda: tiny or float(ssim(image, hr, border=border).mean()),
        "ssim_y": lambda: gray or tiny or float(ssim(image, hr, border=border, colour="y").mean()),
        "lpips": distance,
    }
    return {name: empty or measures[name]() for name in figures}
