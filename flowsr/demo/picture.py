"""The demonstration's study as one figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.demo.study import MEAN_TEMPERATURE, DemoStudy
from flowsr.images import round_to_8bit
from flowsr.metrics import psnr
from flowsr.plots import Panel, demo_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def demo_picture(study: DemoStudy, *, weights: str) -> Figure:
    """LR image, baseline, truth, draws, mean, standard deviation, and the likelihood's terms as bars.

    Args:
        study: what to show.
        weights: where the model's weights are from, for the title.

    Example:
        >>> import torch, flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> from flowsr.demo.study import study_photograph
        >>> study = study_photograph(flow, torch.rand(3, 32, 32), num_samples=2, temperatures=(0.0,))
        >>> len(demo_picture(study, weights="untrained").axes)  # six images and the likelihood's bars
        7
    """
    upscale = study.hr.shape[-1] // study.lr.shape[-1]
    height, width = study.lr.shape[-2:]

    def decibels(image: Tensor) -> str:
        return f"PSNR {float(psnr(round_to_8bit(image), study.hr, border=upscale)):.2f} dB"

    largest = (
        5 * max(1, math.ceil(51 * float(study.std.mean(0).flatten().quantile(0.99)))) / 255
    )  # a multiple of 5 grey levels
    draws = f"of {study.num_samples} draws at τ = {MEAN_TEMPERATURE:g}"
    panels = [
        Panel(study.lr, f"LR image: the input\nbicubic ÷{upscale}, {width} × {height} pixels"),
        Panel(study.bicubic, f"Bicubic ×{upscale}: the baseline\n{decibels(study.bicubic)}"),
        Panel(study.hr, f"Truth\n{width * upscale} × {height * upscale} pixels, not seen in training"),
        *(Panel(image, _draw_caption(tau) + "\n" + decibels(image)) for tau, image in study.samples.items()),
        Panel(study.mean, f"Mean {draws}\n{decibels(study.mean.to(study.hr.dtype))}"),
        Panel(study.std, f"Standard deviation {draws}\nwhere the draws differ", heat=largest),
    ]
    title = f"flowsr demo: ×{upscale} super-resolution of a photograph, {weights} (PSNR: RGB, border {upscale}, 8 bits)"
    return demo_figure(panels, study.terms.bars(bins=256), dims=study.terms.dims, title=title)


def _draw_caption(tau: float) -> str:
    return (
        "τ = 0: no noise in the latents"
        if tau == 0
        else f"One draw at τ = {tau:g}" + (", the model" if tau == 1 else "")
    )
