"""Are the latents what the model says they are? Standard normal, independent, and with the right volume."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from flowsr._support.shapes import sum_event
from flowsr.distributions import Dequantizer, normal_log_prob
from flowsr.likelihood.decompose import decompose
from flowsr.likelihood.inputs import Pair, check_pairs
from flowsr.likelihood.latent_statistics import QUANTILES, LatentStatistics, latent_statistics
from flowsr.models import HasTerms
from flowsr.plots import PALETTE, WIDTH, new_figure, plain_axes
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGEST_CROP = 1024
_COLOURS = ("orange", "blue", "green", "purple", "red", "sky")


@runtime_checkable
class HasNoise(HasTerms, Protocol):
    """A model with a likelihood that can also tell the noise an image would be made from."""

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float | None = None) -> dict[str, Tensor]:
        """Tensors ``(*batch, C, h, w)`` that are standard normal under the model, by name."""
        ...


@dataclass(frozen=True)
class LatentDiagnostics(Result):
    """Whether images are, for a model, what its own draws would be.

    Attributes:
        latents: statistics of the LR residual ``(y − lr)/σ`` and of each level's latent.
        log_det_error: difference between the model's log-density of a small crop and the one that follows from its
            latents by automatic differentiation, in nats per dimension, in float64; 0 up to rounding. None if the
            crop would be too large.
        significance: probability of a false alarm over all tests together.
        images: number of images.
    """

    latents: tuple[LatentStatistics, ...]
    log_det_error: float | None
    significance: float
    images: int

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not as it would be for the model's own draws: tests by latent, with Holm's correction."""
        tests = {f"{s.name}: {test}": p for s in self.latents for test, p in s.p_values.items()}
        failed = []
        for rank, (name, p) in enumerate(sorted(tests.items(), key=lambda item: item[1])):
            if not p <= self.significance / (len(tests) - rank):
                break
            failed.append(name)
        if self.log_det_error is not None and not self.log_det_error < 1e-6:
            failed.append("log-determinant")
        return tuple(failed)

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "failures": list(self.failures)}

    def to_text(self) -> str:
        """Statistics of each latent, and what failed."""
        rows = [
            [
                s.name,
                str(s.count),
                f"{s.mean:+.3f}",
                f"{s.std:.3f}",
                f"{s.skewness:+.2f}",
                f"{s.kurtosis:+.2f}",
                f"{s.ks:.3f}",
                " ".join(f"{r:+.2f}" for r in s.autocorrelation),
            ]
            for s in self.latents
        ]
        head = ["latent", "n", "mean", "std", "skew", "kurtosis", "KS", "autocorr. → ↓ ↘"]
        error = "not measured" if self.log_det_error is None else f"{self.log_det_error:.1e} nats/dim"
        notes = [
            "under the model: mean 0, std 1, skew 0, excess kurtosis 0, KS 0, autocorrelation 0",
            f"log-density against automatic differentiation: {error}",
            f"differs from the model's own draws ({self.significance:g} over all tests, Holm):"
            f"{'' if self.failures else ' nothing'}",
            *self._failures_by_latent(),
        ]
        return text_table(head, rows, title=f"Latents of {self.images} image{'s' * (self.images > 1)}", notes=notes)

    def _failures_by_latent(self) -> list[str]:
        """A line for each latent that failed a test, with its tests, and one for what is of no latent."""
        lines: dict[str, list[str]] = {}
        for failure in self.failures:
            latent, _, test = failure.rpartition(": ")
            lines.setdefault(latent, []).append(test)
        return [f"  {latent}: {', '.join(tests)}" if latent else f"  {tests[0]}" for latent, tests in lines.items()]

    def _draw_main(self, ax: Axes) -> None:
        """Quantiles against those of N(0, 1)."""
        from scipy import stats

        expected = stats.norm.ppf(np.arange(1, QUANTILES + 1) / (QUANTILES + 1))
        ax.plot(expected, expected, color=PALETTE["grey"], linewidth=0.8, label="N(0, 1)")
        for s, colour in zip(self.latents, _COLOURS, strict=False):
            ax.plot(expected, s.quantiles, color=PALETTE[colour], linewidth=1.5, label=s.name)
        ax.set_xlabel("quantile of N(0, 1)")
        ax.set_ylabel("quantile of the latent")
        ax.set_title("Quantiles", loc="left", fontsize=10)
        ax.legend(frameon=False, fontsize=8)
        plain_axes(ax, keep=("left", "bottom"))

    def _draw_figure(self) -> Figure:
        """The quantiles, the energies of the images (of several their PIT), and the autocorrelation."""
        figure = new_figure(WIDTH, 6.4)
        grid = figure.add_gridspec(2, 2, height_ratios=(1.2, 1))
        # The energies have long texts, so they take a row of their own.
        first, second, third = (figure.add_subplot(place) for place in (grid[0, 0], grid[1, :], grid[0, 1]))
        self._draw_main(first)
        (self._draw_energy if self.images == 1 else self._draw_pit)(second)
        for row, (s, colour) in enumerate(zip(self.latents, _COLOURS, strict=False)):
            # Side by side, or they would hide each other.
            at = np.arange(1, 4) + 0.16 * (row - (len(self.latents) - 1) / 2)
            third.errorbar(at, s.autocorrelation, 2 / math.sqrt(s.count), fmt="o", color=PALETTE[colour], markersize=4)
        second.set_yticks([-row for row in range(len(self.latents))], [s.name for s in self.latents], fontsize=8)
        second.set_ylim(-len(self.latents) + 0.5, 0.5)
        third.axhline(0.0, color=PALETTE["grey"], linewidth=0.8)
        third.set_xticks((1, 2, 3), ("right", "below", "diagonal"))
        third.set_xlim(0.5, 3.5)
        third.set_ylabel("correlation with the neighbour")
        third.set_title("Autocorrelation, ± 2 standard errors", loc="left", fontsize=9)
        plain_axes(second)
        plain_axes(third, keep=("left", "bottom"))
        return figure

    def _draw_energy(self, ax: Axes) -> None:
        """``|z|²/D`` of one image on its range of 95 % under the model: a PIT alone would nearly always be 0 or 1."""
        from scipy import stats

        for row, (s, colour) in enumerate(zip(self.latents, _COLOURS, strict=False)):
            low, high = (float(bound) / s.count for bound in stats.chi2.interval(0.95, s.count))
            (energy,) = s.energies
            ax.plot((low, high), (-row, -row), color=PALETTE["grey"], linewidth=8, solid_capstyle="butt", alpha=0.6)
            ax.plot(energy, -row, "o", color=PALETTE[colour], markersize=6)
            text = f"{energy:.3f}; under the model {low:.3f} to {high:.3f}"
            ax.text(
                0.5,
                -row + 0.22,
                text,
                fontsize=8,
                ha="center",
                color=PALETTE["ink"],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                transform=ax.get_yaxis_transform(),
            )
        ax.axvline(1.0, color=PALETTE["grey"], linewidth=0.8, zorder=0)
        ax.margins(x=0.15)
        ax.set_xlabel("|z|²/D; grey: 95 % of the model's own draws")
        ax.set_title("Energy of the image: 1 under the model", loc="left", fontsize=10)

    def _draw_pit(self, ax: Axes) -> None:
        """Where ``|z|²`` of each image stands among those of the model's own draws."""
        for row, (s, colour) in enumerate(zip(self.latents, _COLOURS, strict=False)):
            ax.plot(s.pit, np.full(len(s.pit), -row), "|", color=PALETTE[colour], markersize=16, markeredgewidth=1.5)
            energy = f"mean |z|²/D = {np.mean(s.energies):.3f}"
            ax.text(0.5, -row + 0.28, energy, fontsize=8, ha="center", color=PALETTE["ink"])
        ax.set_xlim(-0.03, 1.03)
        ax.set_xlabel("P(|Z|² ≤ |z|²), a mark per image")
        ax.set_title("Energy of each image: uniform under the model", loc="left", fontsize=10)


@torch.no_grad()
def latent_diagnostics(
    model: HasNoise,
    pairs: Sequence[Pair],
    *,
    lr_log_scale: float | None = None,
    dequantizer: Dequantizer | None = None,
    generator: torch.Generator | None = None,
    significance: float = 1e-3,
) -> LatentDiagnostics:
    """Test whether the latents of images are standard normal and independent, and the log-determinant is right.

    Under the model the LR residual ``(y − lr)/σ`` and every latent are N(0, 1). Each is tested for its mean (z-test),
    its standard deviation (chi-square), its skewness and kurtosis (D'Agostino, Anscombe), its distribution
    (Kolmogorov-Smirnov, on up to 5000 values), correlation of neighbours, and the energy ``|z|²`` of whole images
    (chi-square, then Kolmogorov-Smirnov against the uniform distribution). That says nothing about log-determinants,
    so the log-density of a small crop is compared with the one that follows by automatic differentiation.

    Draws of the model itself (``model.condition(lr).sample()``) pass. Photographs never do: with many pixels every
    departure is significant, so look at its size.

    Cost: one encoding pass per image, and one backward pass per dimension of the crop.

    Args:
        model: the model.
        pairs: HR images with their LR images, each ``(C, H, W)``; None for the LR image where the model has none.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        dequantizer: adds noise first, as in training; for 8-bit photographs, which otherwise seem half a noise bin
            too dark. None for draws.
        generator: source of that noise; the global one by default.
        significance: probability of a false alarm over all tests together.

    Raises:
        ValueError: without images, or on wrong shapes or values.

    References:
        D'Agostino and Pearson (Biometrika 1973); Holm (Scandinavian Journal of Statistics 1979).

    Example:
        >>> import flowsr
        >>> flow = flowsr.testing.randomize(flowsr.HCFlow.from_preset("sr-x4-small"), strength=0.05)
        >>> lr = torch.rand(3, 8, 8)
        >>> found = latent_diagnostics(flow, [(flow.condition(lr).sample(), lr)])
        >>> [s.name for s in found.latents]
        ['LR residual', 'z_2', 'z_1']
    """
    check_pairs(pairs)
    if not 0 < significance < 1:
        raise ValueError(f"expected a significance in (0, 1); got {significance}")
    if dequantizer is not None:
        pairs = [(dequantizer.dequantize(hr, generator=generator)[0], lr) for hr, lr in pairs]
    noises = [model.noise(hr, lr, lr_log_scale=lr_log_scale) for hr, lr in pairs]
    latents = tuple(latent_statistics(name, [noise[name] for noise in noises]) for name in noises[0])
    hr, lr = pairs[0]
    return LatentDiagnostics(latents, _log_det_error(model, hr, lr, lr_log_scale), significance, len(pairs))


def _log_det_error(model: Any, hr: Tensor, lr: Tensor | None, lr_log_scale: float | None) -> float | None:
    """``|log p(x) − log N(f(x)) − log|det ∂f/∂x||/D`` of the smallest crop with neighbours, f the map to the noise."""
    if lr is None:
        scale, small_lr = 1, None
        side = next((s for s in (8, 16) if s % model.multiple == 0), model.multiple)
    else:
        # Two LR pixels, as SRFlow's coarsest level halves the LR image.
        side, scale = 2, hr.shape[-1] // lr.shape[-1]
        small_lr = lr[..., :side, :side].double()
    # The identity holds anywhere: values of a draw that ran away are brought back to where a model accepts them.
    small = hr[..., : side * scale, : side * scale].double().clamp(-8, 9)
    if small.numel() > _LARGEST_CROP:
        return None
    with torch.inference_mode(False):  # whose tensors have no gradients
        exact: Any = copy.deepcopy(model).double() if isinstance(model, nn.Module) else model
        small, small_lr = small.clone(), None if small_lr is None else small_lr.clone()
        return _difference(exact, small, small_lr, lr_log_scale)


def _difference(exact: Any, small: Tensor, small_lr: Tensor | None, lr_log_scale: float | None) -> float:

    def to_noise(flat: Tensor) -> Tensor:
        parts = exact.noise(flat.reshape(small.shape), small_lr, lr_log_scale=lr_log_scale)
        return torch.cat([part.flatten() for part in parts.values()])

    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(to_noise, small.flatten())
    noise = to_noise(small.flatten())
    expected = sum_event(normal_log_prob(noise[:, None, None])) + torch.linalg.slogdet(jacobian)[1]
    got = decompose(exact, small, small_lr, lr_log_scale=lr_log_scale).total
    return float((got - expected).detach().abs()) / small.numel()
