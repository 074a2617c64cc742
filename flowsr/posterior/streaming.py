"""Any number of draws of one LR image, summarized in one pass and in fixed memory, and resumable."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._state import read_state, write_state
from flowsr.distributions import Temperature, level_temperatures
from flowsr.images import check_image
from flowsr.moments import RunningMoments
from flowsr.posterior.batch_memory import batch_for_memory
from flowsr.posterior.model import ImageFlow, draw_posterior, latent_shapes
from flowsr.posterior.pixel_quantiles import PixelQuantiles
from flowsr.posterior.principal_components import PrincipalComponents
from flowsr.results import Result, text_table, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KIND = "summary of draws"


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

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the images, as JSON-ready values."""
        images = {"mean", "std", "quantiles", "quantile_error", "components", "exceedance"}
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
            [f"PSNR of the mean of {n} draws", f"{psnr:.2f} dB"]
            for n, psnr in zip(self.psnr_counts, self.psnr_of_mean, strict=True)
        ]
        return text_table(["posterior", ""], rows)

    def plot(self, ax: Axes | None = None) -> Figure:
        """Mean, standard deviation, an outer quantile range, exceedance and the leading components."""
        from flowsr.plots.grid import Panel, draw_panel, image_grid

        spread = Panel(self.std, "standard deviation", heat=_heat(self.std))
        if ax is not None:
            draw_panel(ax, spread)
            return ax.figure  # type: ignore[return-value]
        width = self.quantiles[-1] - self.quantiles[0]
        panels = [
            Panel(self.mean, f"mean of {self.count} draws"),
            spread,
            Panel(width, f"quantile {self.levels[-1]:g} − quantile {self.levels[0]:g}", heat=_heat(width)),
        ]
        for threshold, image in zip(self.thresholds, self.exceedance, strict=True):
            panels.append(Panel(image / 2.55, f"P(value > {threshold:g})", heat=1 / 2.55, unit="percent"))
        total = max(1e-12, float(self.std.square().sum()))
        for i, (image, variance) in enumerate(zip(self.components, self.variances, strict=True)):
            # As a change of a grey picture by two standard deviations along the component, made visible.
            shown = 0.5 + 0.45 * image / image.abs().max().clamp_min(1e-12)
            panels.append(Panel(shown, f"component {i + 1}\n{float(variance) / total:.1%} of the variance"))
        return image_grid(panels, columns=4)


def _heat(image: Tensor) -> float:
    return float(image.mean(0).flatten().quantile(0.99).clamp_min(1e-6))


class StreamingSummary:
    """Accumulates :class:`DrawSummary` from batches of images in fixed memory.

    Memory per value of an image: 4 bytes for each bin and each of the ``8·components`` (at least 48) rows of the
    sketch, and some 30 more: 0.73 KiB with the defaults, 57 MB for a 160x160 RGB image; three times that
    while the quantiles are read.

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
        self._exceeded = torch.zeros(())
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
        )

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later; tensors, numbers and names only."""
        return {
            "moments": self._moments.state_dict(),
            "quantiles": self._quantiles.state_dict(),
            "components": self._components.state_dict(),
            "exceeded": self._exceeded,
            "psnr": self._psnr,
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
        truth = state["truth"]
        if (truth is None) != (self.truth is None) or (truth is not None and not _same(truth, self.truth)):
            raise ValueError(
                "expected the truth of the state, against which its PSNR is; got another: resume with the settings of "
                "the first run"
            )
        self._moments.load_state_dict(state["moments"])
        self._quantiles.load_state_dict(state["quantiles"])
        self._components.load_state_dict(state["components"])
        self._exceeded, self._psnr = state["exceeded"], dict(state["psnr"])


def summarize_draws(
    flow: ImageFlow,
    lr: Tensor,
    *,
    num_draws: int,
    summary: StreamingSummary | None = None,
    temperature: Temperature = 1.0,
    lr_std: float = 0.0,
    seed: int = 0,
    memory: float = 1e9,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 500,
    on_draws: Callable[[int], None] | None = None,
) -> DrawSummary:
    """Draw HR images of one LR image, and summarize them in one pass.

    Noise comes draw after draw from one generator, so the same seed gives the same draws whatever the batch, up to the
    rounding of batched convolutions. With a ``checkpoint`` the state is written every so often, whole or not at all; a
    run that finds the file goes on from there, to the result it would have had (with the same batch, to the bit).

    Cost: one decoding pass per draw; memory for one batch and the summary, whatever the number of draws.

    Args:
        flow: the model.
        lr: LR image ``(C, h, w)`` in [0, 1].
        num_draws: how many in all, at least 2.
        summary: what to accumulate, without draws yet; by default ``StreamingSummary()``.
        temperature: τ ≥ 0, or one per level.
        lr_std: σ of the flow's LR image; 0 is the Dirac limit.
        seed: of the noise.
        memory: bytes for a decoding pass; the batch is chosen by measuring one draw.
        checkpoint: file to write the state to, and to go on from.
        checkpoint_every: draws between two writings.
        on_draws: called after each batch with the number of draws it had, for a progress bar.

    Raises:
        ValueError: for fewer than two draws, a checkpoint of another run, or a damaged one.
        OSError: if the checkpoint cannot be written; found out before the first draw.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> result = summarize_draws(LinearGaussianFlow(), torch.full((1, 2, 2), 0.5), num_draws=100)
        >>> result.count, result.std.shape
        (100, torch.Size([1, 8, 8]))
    """
    if num_draws < 2 or checkpoint_every < 1:
        raise ValueError(f"expected num_draws >= 2 and checkpoint_every >= 1; got {num_draws} and {checkpoint_every}")
    check_image(lr, name="lr", tolerance=0.25)
    if lr.dim() != 3:
        raise ValueError(f"expected one LR image (C, h, w); got shape {tuple(lr.shape)}")
    summary = summary or StreamingSummary()
    if summary.count:
        raise ValueError(f"expected a summary without draws; got one of {summary.count}: make a new one for each run")
    generator = torch.Generator().manual_seed(seed)
    run = {
        "seed": seed,
        "temperature": list(level_temperatures(temperature, len(latent_shapes(flow, lr)))),
        "lr_std": float(lr_std),
        "lr": lr.detach().cpu(),
    }

    def draw(n: int, source: torch.Generator) -> Tensor:
        return draw_posterior(flow, lr, num_draws=n, temperature=temperature, lr_std=lr_std, generator=source)

    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None:
        # By its first draw: a model need not have weights to compare.
        run["model"] = draw(1, torch.Generator().manual_seed(0)).cpu()
        if path.exists():
            _resume(path, summary, generator, run)
        else:
            _write(path, summary, generator, run)
    batch = batch_for_memory(lambda: draw(1, torch.Generator().manual_seed(0)), memory=memory)
    written = summary.count
    while summary.count < num_draws:
        number = min(batch, num_draws - summary.count)
        summary.add(draw(number, generator))
        if on_draws is not None:
            on_draws(number)
        if path is not None and (summary.count - written >= checkpoint_every or summary.count >= num_draws):
            _write(path, summary, generator, run)
            written = summary.count
    return summary.result()


def _write(path: Path, summary: StreamingSummary, generator: torch.Generator, run: dict[str, Any]) -> None:
    write_state(path, {"summary": summary.state_dict(), "generator": generator.get_state(), "run": run}, kind=_KIND)


def _resume(path: Path, summary: StreamingSummary, generator: torch.Generator, run: dict[str, Any]) -> None:
    state = read_state(path, kind=_KIND)
    for name, value in run.items():
        old = state["run"][name]
        if not (_same(old, value) if isinstance(value, Tensor) else old == value):
            raise ValueError(
                f"expected {path} to be of a run with the same {name}; got another: remove it to start afresh, or "
                "choose another name"
            )
    summary.load_state_dict(state["summary"])
    generator.set_state(state["generator"])


def _same(one: Tensor, other: Tensor | None) -> bool:
    # Another machine or batch rounds otherwise.
    return other is not None and one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=1e-5)
