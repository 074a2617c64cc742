"""LR consistency: do draws shrink back to the LR image, and does that last when they are super-resolved again?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsr.distributions import Temperature
from flowsr.images import make_lr, round_to_8bit
from flowsr.metrics import lr_psnr, psnr
from flowsr.models import Capability, ConditionalModel, require
from flowsr.plots import PALETTE, plain_axes
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NTIRE_TARGET = 45.0
"""LR-PSNR in dB from which on a draw counts as consistent in the NTIRE challenge."""


@dataclass(frozen=True)
class LRConsistency(Result):
    """LR-PSNR of draws, and the drift of the LR image over cycles of super-resolving and shrinking.

    Attributes:
        draws: LR-PSNR in dB of each draw: bicubic ÷s of the 8-bit draw, rounded, against the LR image; RGB, no border.
        drift: PSNR in dB of the LR image after 1, 2, … cycles against the one it began with; the first is that of the
            first draw.
        temperature: τ of all draws, or one per level.
    """

    draws: tuple[float, ...]
    drift: tuple[float, ...]
    temperature: float | tuple[float, ...]

    def to_text(self) -> str:
        """The LR-PSNR of the draws, and the drift cycle by cycle."""
        mean, worst = sum(self.draws) / len(self.draws), min(self.draws)
        rows = [[str(cycle), f"{value:.2f}"] for cycle, value in enumerate(self.drift, start=1)]
        notes = [
            f"LR-PSNR of {len(self.draws)} draws: mean {mean:.2f} dB, worst {worst:.2f} dB; the challenge's target is "
            f"{NTIRE_TARGET:g} dB",
            f"τ = {self.temperature}; 8-bit images, bicubic shrinking, all channels, no border",
        ]
        return text_table(["cycle", "LR image against the first, dB"], rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """The drift over cycles, and the draws' LR-PSNR at the first."""
        ax.plot([1] * len(self.draws), self.draws, ".", color=PALETTE["sky"], label="other draws")
        ax.plot(
            range(1, len(self.drift) + 1), self.drift, "o-", color=PALETTE["blue"], label="one draw, again and again"
        )
        ax.axhline(NTIRE_TARGET, color=PALETTE["grey"], linewidth=0.8, linestyle=":", label="target of the challenge")
        ax.set_xlabel("cycles of super-resolving and shrinking")
        ax.set_ylabel("LR image against the first, dB")
        ax.legend(frameon=False, fontsize=8)
        plain_axes(ax, keep=("left", "bottom"))


@torch.no_grad()
def lr_consistency(
    flow: ConditionalModel,
    lr: Tensor,
    *,
    num_samples: int = 8,
    cycles: int = 5,
    temperature: Temperature = 1.0,
    generator: torch.Generator | None = None,
) -> LRConsistency:
    """Measure whether draws keep the LR image they were drawn for, and for how many cycles.

    A posterior draw must shrink back to its LR image. What is lost each time accumulates over cycles
    ``lr ← shrink(draw(lr))``, each with an 8-bit image in between, as if the files were passed on.

    Cost: ``num_samples + cycles − 1`` decoding passes.

    Args:
        flow: a model with the capability ``condition``.
        lr: 8-bit LR image ``(C, h, w)`` in [0, 1].
        num_samples: draws of the first cycle, at least 1.
        cycles: at least 1.
        temperature: τ ≥ 0, or one per level, coarse to fine.
        generator: source of randomness; the global one by default.

    Raises:
        ValueError: for a density of images alone, fewer than one draw or cycle, or an unusable LR image.

    References:
        Lugmayr et al., NTIRE 2021 Learning the Super-Resolution Space Challenge (CVPRW 2021), section 3.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> found = lr_consistency(LinearGaussianFlow(), torch.full((1, 4, 4), 0.5), num_samples=2, cycles=3)
        >>> len(found.draws), len(found.drift)
        (2, 3)
    """
    require(flow, Capability.CONDITION)
    if lr.dim() != 3:
        raise ValueError(f"expected one LR image (C, h, w); got shape {tuple(lr.shape)}")
    if num_samples < 1 or cycles < 1:
        raise ValueError(f"expected at least one draw and one cycle; got {num_samples} and {cycles}")

    def draw(small: Tensor) -> Tensor:
        image = flow.sample(small, temperature=temperature, generator=generator)[0]
        if not bool(image.isfinite().all()):
            raise ValueError("expected finite draws; got NaN or infinity: lower the temperature, or use float64")
        return round_to_8bit(image)

    first = lr.to(flow.device, flow.dtype)
    images = [draw(first) for _ in range(num_samples)]
    draws = tuple(float(lr_psnr(image, first, upscale=flow.upscale)) for image in images)
    small, drift = first, []
    for cycle in range(cycles):
        image = images[0] if cycle == 0 else draw(small)
        small = make_lr(image, flow.upscale)
        drift.append(float(psnr(small, round_to_8bit(first), border=0)))
    several = not isinstance(temperature, int | float)
    taus = tuple(float(tau) for tau in temperature) if several else float(temperature)  # type: ignore[union-attr,arg-type]
    return LRConsistency(draws, tuple(drift), taus)
