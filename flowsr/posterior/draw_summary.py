"""What many draws of one LR image have in common, as numbers and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from flowsr.results import Result, text_table, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DrawSummary(Result):
    """What many draws of one LR image have in common. Images are ``(C, H, W)`` on the CPU, not clamped.

    Attributes:
        count: number of draws.
        mean: of the draws, in units of [0, 1].
        std: unbiased standard deviation.
        levels: of the quantiles.
        quantiles: ``(levels, C, H, W)``.
        quantile_error: bound of the error of the quantiles, by pixel.
        outside: fraction of values beyond the range in which that bound holds.
        components: leading principal components, unit images ``(k, C, H, W)``.
        variances: of the draws along them, in falling order, ``(k,)``.
        variance_error: by which they are too small at most.
        thresholds: of the exceedance.
        exceedance: fraction of draws above each threshold, ``(thresholds, C, H, W)``.
        psnr_counts: numbers of draws n at which the mean was compared with the truth; empty without a truth.
        psnr_of_mean: PSNR of the mean of the first n draws, dB, unclamped, all channels.
        truth: the true image, if known.
        lr: the LR image ``(C, h, w)`` that the draws were given, if known.
        name: of the image, for table and figure: ``dataclasses.replace(summary, name="cat")``.
    """

    count: int
    mean: Tensor = field(repr=False)
    std: Tensor = field(repr=False)
    levels: tuple[float, ...]
    quantiles: Tensor = field(repr=False)
    quantile_error: Tensor = field(repr=False)
    outside: float
    components: Tensor = field(repr=False)
    variances: Tensor
    variance_error: float
    thresholds: tuple[float, ...]
    exceedance: Tensor = field(repr=False)
    psnr_counts: tuple[int, ...]
    psnr_of_mean: tuple[float, ...]
    truth: Tensor | None = field(default=None, repr=False)
    lr: Tensor | None = field(default=None, repr=False)
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the images, as JSON-ready values."""
        images = {"mean", "std", "quantiles", "quantile_error", "components", "exceedance", "truth", "lr"}
        numbers = {name: to_plain(value) for name, value in vars(self).items() if name not in images}
        return {
            **numbers,
            "mean_std": float(self.std.mean()),
            "largest_quantile_error": float(self.quantile_error.max()),
        }

    def to_text(self) -> str:
        """The numbers as a table."""
        total = float(self.std.square().sum())
        share = [f"{float(v) / total:.1%}" for v in self.variances] if total else []
        rows = [
            ["draws", str(self.count)],
            ["standard deviation, mean over pixels", f"{255 * float(self.std.mean()):.2f} grey levels"],
            ["variance along the leading components", " ".join(share) or "none"],
            ["quantiles good to", f"{255 * float(self.quantile_error.max()):.2f} grey levels"],
        ]
        rows += [
            [f"PSNR of the mean of {n} draw{'s' if n > 1 else ''}", f"{psnr:.2f} dB"]
            for n, psnr in zip(self.psnr_counts, self.psnr_of_mean, strict=True)
        ]
        return text_table([f"posterior of {self.name}" if self.name else "posterior", ""], rows)

    def plot(self, ax: Axes | None = None) -> Figure:
        """Truth and LR image if known, mean, standard deviation, quantile range, exceedance, leading components."""
        from flowsr.plots.grid import Panel, draw_panel, image_grid

        averaged = "\nmean over the channels" if len(self.std) > 1 else ""
        spread = Panel(self.std, f"standard deviation{averaged}", heat=_heat(self.std))
        if ax is not None:
            draw_panel(ax, spread)
            return ax.figure  # type: ignore[return-value]
        width = self.quantiles[-1] - self.quantiles[0]
        panels = [] if self.truth is None else [Panel(self.truth, "truth")]
        if self.lr is not None:
            panels.append(Panel(self.lr, "LR image: the input"))
        panels += [Panel(self.mean, f"mean of {self.count} draws"), spread]
        outer = f"quantile {self.levels[-1]:g} − quantile {self.levels[0]:g}{averaged}"
        panels.append(Panel(width, outer, heat=_heat(width)))
        for threshold, image in zip(self.thresholds, self.exceedance, strict=True):
            panels.append(Panel(image / 2.55, f"P(value > {threshold:g}){averaged}", heat=1 / 2.55, unit="percent"))
        total = max(1e-12, float(self.std.square().sum()))
        for i, (image, variance) in enumerate(zip(self.components, self.variances, strict=True)):
            # As a change of a grey picture by two standard deviations along the component, made visible.
            shown = 0.5 + 0.45 * image / image.abs().max().clamp_min(1e-12)
            panels.append(Panel(shown, f"component {i + 1}\n{float(variance) / total:.1%} of the variance"))
        title = f"Posterior of {self.name}" if self.name else ""
        return image_grid(panels, columns=5 if len(panels) > 8 else 4, title=title)


def _heat(image: Tensor) -> float:
    return float(image.mean(0).flatten().quantile(0.99).clamp_min(1e-6))
