"""What many draws of one LR image have in common, accumulated in one pass, in fixed memory, in a state to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr.images import check_image
from flowsr.plots import Panel, draw_panel, heat_limit, image_grid
from flowsr.results import Result, text_table
from flowsr.statistics.moments import RunningMoments
from flowsr.statistics.principal_components import PrincipalComponents
from flowsr.statistics.quantiles import PixelQuantiles

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
        variance_error: by which they are off at most; 0 while all draws fitted into the sketch.
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
        share = [self._share(float(variance) / total) for variance in self.variances] if total else []
        rows = [
            ["draws", str(self.count)],
            ["standard deviation, mean over pixels", f"{255 * float(self.std.mean()):.2f} grey levels"],
            ["variance along the leading components", " ".join(share) or "none"],
            ["quantiles of these draws, stored to within", f"{255 * float(self.quantile_error.max()):.2f} grey levels"],
        ]
        rows += [
            [f"PSNR of the mean of {n} draw{'s' if n > 1 else ''}", f"{psnr:.2f} dB"]
            for n, psnr in zip(self.psnr_counts, self.psnr_of_mean, strict=True)
        ]
        return text_table([f"posterior of {self.name}" if self.name else "posterior", ""], rows)

    def _share(self, share: float) -> str:
        """A share of the variance, as a range where the sketch leaves more than a twentieth of it open."""
        error = self.variance_error / max(1e-12, float(self.std.square().sum()))
        if error <= 0.05 * share:
            return f"{share:.1%}"
        return f"{100 * max(0.0, share - error):.1f} to {100 * min(1.0, share + error):.1f}%"

    def plot(self, ax: Axes | None = None) -> Figure:
        """Truth and LR image if known, mean, standard deviation, quantile range, exceedance, leading components."""
        averaged = "\nmean over the channels" if len(self.std) > 1 else ""
        spread = Panel(self.std, f"standard deviation{averaged}", heat=heat_limit(self.std))
        if ax is not None:
            draw_panel(ax, spread)
            return ax.figure  # type: ignore[return-value]
        width = self.quantiles[-1] - self.quantiles[0]
        panels = [] if self.truth is None else [Panel(self.truth, "truth")]
        if self.lr is not None:
            panels.append(Panel(self.lr, "LR image: the input"))
        panels += [Panel(self.mean, f"mean of {self.count} draws"), spread]
        outer = f"quantile {self.levels[-1]:g} − quantile {self.levels[0]:g}{averaged}"
        panels.append(Panel(width, outer, heat=heat_limit(width)))
        for threshold, image in zip(self.thresholds, self.exceedance, strict=True):
            panels.append(Panel(image / 2.55, f"P(value > {threshold:g}){averaged}", heat=1 / 2.55, unit="percent"))
        total = max(1e-12, float(self.std.square().sum()))
        for i, (image, variance) in enumerate(zip(self.components, self.variances, strict=True)):
            # As a change of a grey picture by two standard deviations along the component, made visible.
            shown = 0.5 + 0.45 * image / image.abs().max().clamp_min(1e-12)
            panels.append(Panel(shown, f"component {i + 1}\n{self._share(float(variance) / total)} of the variance"))
        title = f"Posterior of {self.name}" if self.name else ""
        return image_grid(panels, columns=5 if len(panels) > 8 else 4, title=title)


class StreamingSummary:
    """Accumulates :class:`DrawSummary` from batches of images in fixed memory.

    Memory per value of an image: 4 bytes for each bin, and some 30 more; three times that while the quantiles are read.
    The sketch of the components takes up to 64 MiB, or 4 bytes for each of its ``8·components`` (at least 48) rows
    where images are so large that this is more.

    Args:
        levels: of the quantiles, in rising order, in (0, 1).
        components: number of principal components.
        thresholds: for the probability that a pixel is above them.
        bins: of the quantiles' histograms.
        truth: the true image, for the PSNR of the mean of the first 1, 2, 4, … draws.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> summary = StreamingSummary(components=1)
        >>> summary.add(torch.rand(40, 1, 4, 4))
        >>> summary.result().mean.shape
        torch.Size([1, 4, 4])
    """

    def __init__(
        self,
        *,
        levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
        components: int = 4,
        thresholds: Sequence[float] = (0.5,),
        bins: int = 128,
        truth: Tensor | None = None,
    ) -> None:
        if not levels or any(not 0 < level < 1 for level in levels) or list(levels) != sorted(levels):
            raise ValueError(f"expected quantile levels in (0, 1) in rising order; got {tuple(levels)}")
        if any(math.isnan(threshold) for threshold in thresholds):
            raise ValueError(f"expected thresholds that are numbers; got {tuple(thresholds)}")
        if truth is not None:
            check_image(truth, name="truth", tolerance=None)
        self.levels, self.thresholds = tuple(levels), tuple(thresholds)
        self.truth = truth.double().cpu() if truth is not None else None
        self._moments = RunningMoments()
        self._quantiles = PixelQuantiles(bins=bins)
        self._components = PrincipalComponents(components)
        self._exceeded = torch.zeros((), device="cpu")
        self._psnr: dict[int, float] = {}

    @property
    def count(self) -> int:
        """Draws so far."""
        return self._moments.count

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Take a batch ``(n, C, H, W)`` into account.

        Raises:
            ValueError: for images that are not finite, or of another shape than those before.
        """
        if images.dim() != 4 or not bool(torch.isfinite(images).all()):
            raise ValueError(f"expected finite images (n, C, H, W); got shape {tuple(images.shape)} or NaN in them")
        if self.count and images.shape[1:] != self._moments.mean.shape:
            raise ValueError(
                f"expected images of the shape of those before, {tuple(self._moments.mean.shape)}; got "
                f"{tuple(images.shape[1:])}"
            )
        if self.truth is not None and images.shape[1:] != self.truth.shape:
            raise ValueError(
                f"expected a truth of the images' shape, {tuple(images.shape[1:])}; got {tuple(self.truth.shape)}"
            )
        images = images.detach().cpu()
        for image in images:
            self._moments.add(image)
            n = self.count
            if self.truth is not None and n & (n - 1) == 0:
                self._psnr[n] = self._psnr_now()
        self._quantiles.add(images)
        self._components.add(images)
        above = torch.stack([(images > threshold).sum(0) for threshold in self.thresholds]) if self.thresholds else 0
        self._exceeded = self._exceeded + above

    def _psnr_now(self) -> float:
        assert self.truth is not None
        error = (self._moments.mean - self.truth).square().mean()
        return float(-10 * error.clamp_min(1e-30).log10())

    def result(self) -> DrawSummary:
        """The summary of the draws so far.

        Raises:
            ValueError: before the second draw.
        """
        vectors, variances = self._components.components()
        mean, std = self._moments.mean, self._moments.std
        psnr = dict(self._psnr)
        if self.truth is not None:
            psnr[self.count] = self._psnr_now()
        shape = (len(self.thresholds), *mean.shape)
        return DrawSummary(
            count=self.count,
            mean=mean.float(),
            std=std.float(),
            levels=self.levels,
            quantiles=self._quantiles.quantile(self.levels),
            quantile_error=self._quantiles.error,
            outside=self._quantiles.outside,
            components=vectors,
            variances=variances,
            variance_error=self._components.error,
            thresholds=self.thresholds,
            exceedance=(self._exceeded / self.count).expand(shape).float(),
            psnr_counts=tuple(psnr),
            psnr_of_mean=tuple(psnr.values()),
            truth=self.truth.float() if self.truth is not None else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later; tensors, numbers and names only."""
        return {
            "moments": self._moments.state_dict(),
            "quantiles": self._quantiles.state_dict(),
            "components": self._components.state_dict(),
            "exceeded": self._exceeded,
            "psnr": dict(self._psnr),
            "thresholds": self.thresholds,
            "truth": self.truth,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            ValueError: if it was made with other settings.
        """
        if tuple(state["thresholds"]) != self.thresholds:
            raise ValueError(
                f"expected thresholds {self.thresholds}; got a state with {state['thresholds']}: resume with the "
                "settings of the first run"
            )
        if not same_up_to_rounding(state["truth"], self.truth):
            raise ValueError(
                "expected the truth of the state, against which its PSNR is; got another: resume with the settings of "
                "the first run"
            )
        self._moments.load_state_dict(state["moments"])
        self._quantiles.load_state_dict(state["quantiles"])
        self._components.load_state_dict(state["components"])
        self._exceeded, self._psnr = state["exceeded"], dict(state["psnr"])


def same_up_to_rounding(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors of [0, 1] agree as far as other machines and other batches do, which round otherwise.

    Example:
        >>> same_up_to_rounding(torch.ones(2), torch.ones(2).double()), same_up_to_rounding(None, torch.ones(2))
        (True, False)
    """
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=0, atol=1e-5)
