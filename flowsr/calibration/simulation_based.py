"""Simulation-based calibration and TARP: ranks of the truth among draws, which a right model makes uniform."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.held_out import HeldOut, Sampler, flow_sampler, ranks
from flowsr.calibration.uniformity import p_text, simultaneous_band, uniformity_p_value
from flowsr.plots import PALETTE, new_figure, plain_axes
from flowsr.posterior import LinearGaussianFlow
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEANINGS = {
    r"projection": "projection: inner product with a fixed random direction",
    r"^band": "band: log energy of the details of one scale",
    r"^patch": "patch: mean of the cell in this row and column of a grid",
    r"^along LR": "along LR: inner product with the enlarged LR image, or with its slope along x or y",
    r"^largest error": "largest error: of any pixel from the mean of truth and draws, in their standard deviations",
    r"^distance to the reference": "reference: the enlarged LR image with the details of another pair",
    r"^z_\d": "z_1: latents of the finest level",
    r"^lr ": "lr: the flow's LR image minus the given one, in units of σ",
    r" norm$": "norm: length of the vector of all latents of the level",
}


def legend(names: Iterable[str]) -> str:
    """One line that explains the names that the package gives; names of others explain themselves.

    Example:
        >>> legend(["band 0, finest", "band 1, coarsest", "mine"])
        'band: log energy of the details of one scale'
    """
    names = list(names)
    return "; ".join(text for pattern, text in _MEANINGS.items() if any(re.search(pattern, name) for name in names))


@dataclass(frozen=True)
class RankTest(Result):
    """Ranks of the truth and whether they are uniform, for one or more test functions.

    Attributes:
        title: of the test.
        names: of the test functions.
        ranks: of the truth among the draws, 0 to ``cells − 1``, ``(n, functions)``.
        cells: number of values a rank can have.
        p_values: of uniformity, one per function.
        alpha: probability that a right model fails, all functions together.
        quantity: what is ranked, for the figure.
    """

    title: str
    names: tuple[str, ...]
    ranks: Tensor
    cells: int
    p_values: tuple[float, ...]
    alpha: float
    quantity: str = "rank of the truth among the draws, as a fraction"

    @property
    def threshold(self) -> float:
        """The p-value at which a function is rejected: ``alpha`` divided by their number (Bonferroni)."""
        return self.alpha / len(self.p_values)

    @property
    def passed(self) -> bool:
        """Whether no function is rejected."""
        return min(self.p_values) > self.threshold

    @property
    def worst(self) -> str:
        """The test function with the smallest p-value."""
        return self.names[int(np.argmin(self.p_values))]

    def shape(self, name: str) -> str:
        """What the ranks of a function say of the draws, in words."""
        index = self.names.index(name)
        u = (self.ranks[:, index].double() + 0.5) / self.cells
        count = len(u)
        offset = (float(u.mean()) - 0.5) / max(1e-12, float(u.std()) / count**0.5)
        # Of uniform values the squared deviation has mean 1/12 and variance 1/180.
        spread = (12 * float(u.var()) - 1) / (0.8 / count) ** 0.5
        if max(abs(offset), abs(spread)) > 3:
            if abs(offset) > abs(spread):
                return "too low: the truth lies above" if offset > 0 else "too high: the truth lies below"
            return "too narrow: over-confident" if spread > 0 else "too wide: under-confident"
        return "about right" if self.p_values[index] > self.threshold else "differs, in no simple way"

    def to_text(self) -> str:
        """p-values by function, with what the ranks say."""
        rows = [
            [name, p_text(p), self.shape(name)]
            for name, p in sorted(zip(self.names, self.p_values, strict=True), key=lambda i: i[1])
        ]
        verdict = "passed" if self.passed else f"FAILED, most clearly by {self.worst}"
        rejected = f"alpha {self.alpha:.2g}"
        if len(self.names) > 1:
            rejected += f" for all together, threshold per row {self.threshold:.2g}"
        notes = [
            f"{verdict}: {len(self.ranks)} pairs, {self.cells} values of a rank, {rejected}",
            "p judges the whole distribution; the words its mean and spread, if off by more than 3 standard errors",
        ]
        if explained := legend(self.names):
            notes.append(explained)
        return text_table(["test function", "p", "the model's values are"], rows, title=self.title, notes=notes)

    def plot(self, ax: Axes | None = None) -> Figure:
        """Distribution function of the ranks minus that of uniform ones, with the simultaneous band."""
        figure = None
        if ax is None:
            figure = new_figure(6.0, 3.6)
            ax = figure.subplots()
        low, high = simultaneous_band(len(self.ranks), cells=self.cells, level=1 - self.threshold)
        points = np.arange(1, self.cells) / self.cells
        band = {"color": PALETTE["grey"], "alpha": 0.25, "linewidth": 0, "label": "allowed by chance"}
        ax.fill_between(points, low - points, high - points, **band)
        ax.axhline(0.0, color=PALETTE["ink"], linewidth=0.8)
        order = np.argsort(self.p_values)
        for place, index in reversed(list(enumerate(order))):
            counts = np.bincount(self.ranks[:, index].numpy(), minlength=self.cells).cumsum()[:-1] / len(self.ranks)
            first = place < 3
            colour = PALETTE[("red", "blue", "orange")[place]] if first else PALETTE["grey"]
            label = f"{self.names[index]}, p = {p_text(self.p_values[index])}" if first else None
            # What lies under another line is seen through its gaps.
            dashes = ("--", (0, (6, 2, 1, 2)), "-")[place] if first else "-"
            ax.plot(
                points, counts - points, color=colour, linewidth=1.4 if first else 0.6, label=label, linestyle=dashes
            )
        plain_axes(ax, keep=("left", "bottom"))
        ax.set_title(f"{self.title}: {'passed' if self.passed else 'FAILED'}", loc="left", fontsize=9)
        ax.set_xlabel(self.quantity, fontsize=8)
        ax.set_ylabel("ECDF − uniform", fontsize=8)
        ax.tick_params(labelsize=8)
        handles, labels = ax.get_legend_handles_labels()
        # The worst function first, the band last; below, as the band fills the panel.
        handles, labels = handles[:0:-1] + handles[:1], labels[:0:-1] + labels[:1]
        below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2}
        below["borderaxespad"] = 4.5  # in letters, below the name of the axis however high the panel is
        ax.legend(handles, labels, fontsize=7, frameon=False, **below)
        return figure if figure is not None else ax.figure  # type: ignore[return-value]


def simulation_based_calibration(held_out: HeldOut, *, alpha: float = 0.01, seed: int = 0) -> RankTest:
    """Whether the truth's rank among the draws is uniform for every test function.

    Cost: n·draws per function; the bands are simulated once.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`.
        alpha: probability that a right model fails, in (0, 1).
        seed: for ties and bands.

    Raises:
        ValueError: for an alpha out of range.

    References:
        Talts et al. (arXiv 1804.06788); Säilynoja et al. (2022) for the bands.

    Example:
        >>> from flowsr.calibration import flow_sampler, hold_out, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 60)
        >>> simulation_based_calibration(hold_out(flow_sampler(flow), hr, lr, num_samples=19)).passed
        True
    """
    return _rank_test(
        "Simulation-based calibration", held_out.names, held_out.truth, held_out.draws, alpha=alpha, seed=seed
    )


def tarp(held_out: HeldOut, *, alpha: float = 0.01, seed: int = 0) -> RankTest:
    """TARP: whether balls around reference images, out to the truth, hold uniform fractions of the draws.

    The fraction of draws nearer to the reference than the truth is the credibility of the truth; its distribution
    function is the expected coverage, the diagonal if the draws are right. One test for the whole image.

    Cost: n·draws.

    Args:
        held_out: from :func:`flowsr.calibration.hold_out`, which chooses references that depend on the LR image.
        alpha: probability that a right model fails, in (0, 1).
        seed: for ties and bands.

    Raises:
        ValueError: for an alpha out of range.

    References:
        Lemos, Coogan, Hezaveh and Perreault-Levasseur, Sampling-based accuracy testing of posterior estimators for
        general inference (ICML 2023), section 3.
    """
    truth, draws = held_out.reference_truth[:, None], held_out.reference_draws[..., None]
    return _rank_test("TARP", ("distance to the reference",), truth, draws, alpha=alpha, seed=seed)


def _rank_test(
    title: str, names: tuple[str, ...], truth: Tensor, draws: Tensor, *, alpha: float, seed: int
) -> RankTest:
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha in (0, 1); got {alpha}")
    found = ranks(truth, draws, generator=torch.Generator().manual_seed(seed))
    cells = draws.shape[1] + 1
    p_values = tuple(uniformity_p_value(column.numpy(), cells=cells, seed=seed) for column in found.T)
    return RankTest(title, names, found, cells, p_values, alpha)


def faulty_samplers(flow: LinearGaussianFlow, lr: Tensor, *, lr_log_scale: float) -> dict[str, Sampler]:
    """Five wrong samplers of a known model, by what is wrong.

    - "sigma too small": a quarter of the LR image's width σ;
    - "temperature 0.8": latents drawn too narrow, as is the practice for good-looking images;
    - "log-scale shifted": the finest level's log standard deviation is larger by 0.25;
    - "LR ignored": draws given the LR image of another pair: the right distribution of images, of the wrong one;
    - "mode collapse": the latents come from three fixed ones, whatever the LR image.

    Args:
        flow: the right model.
        lr: LR images ``(n, C, h, w)``, n ≥ 2, to mistake one another for.
        lr_log_scale: the right log σ.

    Example:
        >>> sorted(faulty_samplers(LinearGaussianFlow(), torch.rand(2, 1, 4, 4), lr_log_scale=-3.0))[:2]
        ['LR ignored', 'log-scale shifted']
    """
    *coarse, finest = flow.config.detail_std
    shifted = LinearGaussianFlow(
        detail_std=(*coarse, finest * math.exp(0.25)), image_channels=flow.config.image_channels
    ).to(flow.device, flow.dtype)
    right = flow_sampler(flow, lr_log_scale=lr_log_scale)

    def ignoring(small: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        others = lr[torch.randint(len(lr), (num_samples,), generator=generator, device=generator.device)]
        return flow.sample(others, lr_log_scale=lr_log_scale, generator=generator)[0]

    def collapsed(small: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        modes = right(small, 3, torch.Generator().manual_seed(0))
        return modes[torch.randint(3, (num_samples,), generator=generator, device=generator.device)]

    return {
        "sigma too small": flow_sampler(flow, lr_log_scale=lr_log_scale - math.log(4)),
        "temperature 0.8": flow_sampler(flow, temperature=0.8, lr_log_scale=lr_log_scale),
        "log-scale shifted": flow_sampler(shifted, lr_log_scale=lr_log_scale),
        "LR ignored": ignoring,
        "mode collapse": collapsed,
    }
