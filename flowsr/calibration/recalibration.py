"""Temperature recalibration: the τ of each level that held-out pairs prefer, and what it gains on others."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from flowsr.calibration.held_out import LEAST_PAIRS, TestFunctions, default_functions, flow_sampler, hold_out
from flowsr.calibration.scores import mean_crps
from flowsr.models import Capability, ConditionalModel, require
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.results import Result, text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PRECISION = 0.02
"""To which τ is sought."""


@dataclass(frozen=True)
class Recalibration(Result):
    """Temperatures that minimize CRPS on one half of the pairs, judged on the other half.

    Attributes:
        temperature: τ per level, coarse to fine.
        levels: their numbers, 1 the finest.
        tried: all trials on the first half: the level that was varied (1 the finest), its τ, and the CRPS in standard
            deviations of the true values, with the other levels as they were then.
        before: CRPS at τ = 1 on the second half.
        after: CRPS at ``temperature`` there.
        gain: ``before − after`` over its pairs; positive is better.
        bounds: between which τ was sought.
    """

    temperature: tuple[float, ...]
    levels: tuple[int, ...]
    tried: tuple[tuple[int, float, float], ...]
    before: float
    after: float
    gain: Interval
    bounds: tuple[float, float]

    def to_text(self) -> str:
        """Temperatures and gain."""
        pairs = list(zip(self.levels, self.temperature, strict=True))
        rows = [[f"τ of level {level}", f"{tau:.3f}"] for level, tau in pairs]
        rows += [["CRPS at τ = 1", f"{self.before:.4f}"], ["CRPS recalibrated", f"{self.after:.4f}"]]
        rows.append(["gain", f"{self.gain:.4f}"])
        notes = ["CRPS in standard deviations of the true values, on pairs that were not used to choose τ"]
        low, high = self.bounds
        for level, tau in pairs:
            if min(tau - low, high - tau) < 2 * _PRECISION:
                notes.append(
                    f"τ of level {level} lies at the bounds {low:g} to {high:g}: the pairs say little of it, or "
                    "prefer one beyond"
                )
        return text_table(["recalibration", ""], rows, notes=notes)

    def plot(self, ax: Axes | None = None) -> Figure:
        """CRPS of the temperatures tried, each level on its own scale; into ``ax`` the coarsest level alone."""
        if ax is not None:
            self._draw_level(ax, 0)
            return ax.figure  # type: ignore[return-value]
        levels = len(self.temperature)
        figure = new_figure(1.0 + 3.6 * levels, 3.4)
        for i, axes in enumerate(figure.subplots(1, levels, squeeze=False)[0]):
            self._draw_level(axes, i)
        title = f"Gain in CRPS on other pairs: {self.gain:.4f}; each level on its own scale".replace("-", "−")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=PALETTE["ink"])
        return figure

    def _draw_level(self, ax: Axes, index: int) -> None:
        levels, level = len(self.levels), self.levels[index]
        name = f"level {level}"
        if levels > 1 and index in (0, levels - 1):
            name += ", coarsest" if index == 0 else ", finest"
        found = sorted({(tau, value) for tried, tau, value in self.tried if tried == level})
        x, y = zip(*found, strict=True)
        colour = PALETTE[("blue", "orange", "green", "purple")[index % 4]]
        ax.plot(x, y, ".-", color=colour, linewidth=1.0, label="tried")
        chosen = self.temperature[index]
        ax.axvline(chosen, color=PALETTE["ink"], linewidth=0.8, linestyle=":", label=f"chosen, {chosen:.2f}")
        plain_axes(ax, keep=("left", "bottom"))
        ax.set_title(name, loc="left", fontsize=9)
        ax.set_xlabel("temperature τ of the level", fontsize=8)
        ax.set_ylabel("CRPS, standard deviations", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7, frameon=False)


def recalibrate_temperature(
    flow: ConditionalModel,
    hr: Tensor,
    lr: Tensor,
    *,
    lr_log_scale: float = -math.inf,
    bounds: tuple[float, float] = (0.3, 1.7),
    num_samples: int = 39,
    functions: TestFunctions = default_functions,
    images: Sequence[Hashable] | None = None,
    sweeps: int = 2,
    seed: int = 0,
    on_trial: Callable[[], None] | None = None,
) -> Recalibration:
    """Choose τ level by level to minimize the mean CRPS on every other image, and measure the gain on the rest.

    All trials share their noise, so that differences are those of τ. Brent's method within bounds, one level after the
    other, coarse to fine; twice, as levels interact.

    Cost: about ``10·levels·sweeps`` trials of ``num_samples`` decoded images per pair of one half.

    Args:
        flow: a model with the capability ``condition``.
        hr: true images ``(n, C, H, W)``, n ≥ 20.
        lr: their LR images ``(n, C, h, w)``.
        lr_log_scale: log σ of the flow's LR image; ``-inf`` is the Dirac limit.
        bounds: of τ.
        num_samples: per pair.
        functions: test functions.
        images: of which image each pair is a crop; by default all are of different images. Where every other image
            would leave a half with fewer than 10 pairs, every other crop is taken.
        sweeps: over the levels.
        seed: of all noise.
        on_trial: called after each trial.

    Raises:
        ValueError: for a density of images alone, bounds out of order, no sweeps, or too few pairs.

    References:
        Gneiting and Raftery (JASA 2007) for the score; Brent (1973) in ``scipy.optimize.minimize_scalar``.

    Example:
        >>> import torch
        >>> from flowsr.calibration import model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 60)
        >>> 0.7 < recalibrate_temperature(flow, hr, lr, num_samples=19, sweeps=1).temperature[0] < 1.3
        True
    """
    from scipy.optimize import minimize_scalar

    require(flow, Capability.CONDITION)
    low, high = bounds
    if not 0 < low < 1 < high:
        raise ValueError(f"expected bounds with 0 < low < 1 < high; got {bounds}")
    if sweeps < 1:
        raise ValueError(f"expected sweeps >= 1; got {sweeps}")
    if len(hr) < 20:
        raise ValueError(f"expected at least 20 pairs, half to choose and half to judge; got {len(hr)}")
    names = flow.latent_levels()
    levels = len(names)

    def scores(temperature: tuple[float, ...], part: np.ndarray) -> np.ndarray:
        sampler = flow_sampler(flow, temperature=temperature, lr_log_scale=lr_log_scale)
        return mean_crps(
            hold_out(sampler, hr[part], lr[part], num_samples=num_samples, functions=functions, seed=seed)
        ).numpy()

    names_of = list(range(len(hr))) if images is None else list(images)
    judged = _every_other(names_of)
    tried: list[tuple[int, float, float]] = []

    def trial(temperature: tuple[float, ...], level: int) -> float:
        value = float(scores(temperature, ~judged).mean())
        tried.append((names[level], temperature[level], value))
        if on_trial is not None:
            on_trial()
        return value

    best = (1.0,) * levels
    least = trial(best, 0)
    for _ in range(sweeps):
        for level in range(levels):

            def along(tau: float, level: int = level, start: tuple[float, ...] = best) -> float:
                return trial((*start[:level], float(tau), *start[level + 1 :]), level)

            found: Any = minimize_scalar(along, bounds=bounds, method="bounded", options={"xatol": _PRECISION})
            # Never worse than what it started from on the pairs that choose.
            if float(found.fun) < least:
                best, least = (*best[:level], float(found.x), *best[level + 1 :]), float(found.fun)
    before, after = scores((1.0,) * levels, judged), scores(best, judged)
    of = [name for name, kept in zip(names_of, judged, strict=True) if kept]
    gain = bootstrap_interval(before - after, clusters=of, seed=seed)
    return Recalibration(best, names, tuple(tried), float(before.mean()), float(after.mean()), gain, bounds)


def _every_other(names: Sequence[Hashable]) -> np.ndarray:
    """Which crops are of every other image, as a mask; every other crop, if halves of images would be too small."""
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}
    by_image = np.array([places[name] % 2 == 1 for name in names])
    enough = min(by_image.sum(), (~by_image).sum()) >= LEAST_PAIRS
    return by_image if enough else np.arange(len(names)) % 2 == 1
