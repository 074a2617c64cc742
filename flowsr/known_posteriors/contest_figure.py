"""The picture of a contest: how far the draws of each sampler are from the truth, and what a gradient buys."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flowsr.known_posteriors.truth import RHAT_OF_REFERENCE
from flowsr.plots import PALETTE, new_figure, plain_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    ("mean_error", "error of the mean,\nin std of the posterior", 1.0),
    ("std_bias", "spread too small (left)\nor too large (right), %", 100.0),
    ("rate", "effective draws\nper 1000 gradients", 1.0),
)

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


def draw_contest(contest: Any) -> Figure:
    """A row of three panels for each problem: dots are runs, grey is where exact draws lie, orange is beyond it.

    Args:
        contest: a :class:`flowsr.known_posteriors.Contest`.
    """
    lines = sum(len(standing.scores) + 3.2 for standing in contest.standings)
    figure = new_figure(8.0, 0.24 * lines + 0.6)
    heights = [len(standing.scores) + 1.5 for standing in contest.standings]
    grid = figure.subplots(len(contest.standings), 3, squeeze=False, height_ratios=heights)
    for row, standing in zip(grid, contest.standings, strict=True):
        for number, (axes, (name, label, unit)) in enumerate(zip(row, _COLUMNS, strict=True)):
            _panel(axes, standing, name, unit)
            axes.set_xlabel(label, fontsize=7)
            names = [score.sampler for score in standing.scores] if number == 0 else []
            axes.set_yticks(range(len(standing.scores)), names or [""] * len(standing.scores), fontsize=8)
        found = standing.how if standing.rhat < RHAT_OF_REFERENCE else f"{standing.how}, R-hat {standing.rhat:.3f}"
        row[0].set_title(f"{standing.problem}: truth by {found}", loc="left", fontsize=9)
    figure.suptitle(
        f"{contest.gradients} gradients for each dot, a run; grey: where {contest.num_samples} exact draws lie; "
        "orange: the mean of the runs is further off than chance",
        fontsize=8,
        x=0.01,
        ha="left",
    )
    return figure


def _panel(axes: Axes, standing: Any, name: str, unit: float) -> None:
    mean, spread = standing.floors.get(name, (math.nan, math.nan))
    if not math.isnan(mean):
        axes.axvline(unit * mean, color=PALETTE["grey"], linewidth=1)
    if not math.isnan(spread):
        axes.axvspan(
            unit * (mean - 2 * spread), unit * (mean + 2 * spread), color=PALETTE["grey"], alpha=0.3, linewidth=0
        )
    for place, score in enumerate(standing.scores):
        values = _values(score, name)
        colour = PALETTE["orange" if standing.beyond(score, name) else "blue"]
        axes.plot([unit * value for value in values], [place] * len(values), "o", color=colour, markersize=4, alpha=0.8)
    axes.set_ylim(len(standing.scores) - 0.4, -0.6)
    axes.tick_params(labelsize=7)
    if name == "mean_error":
        axes.set_xscale("log")
        axes.set_xlim(left=mean / 2)
        # Matplotlib writes powers of ten, one over the other, where an axis spans about one.
        axes.set_xticks([tick for tick in _TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
    elif name == "rate":
        axes.set_xlim(left=0)
    plain_axes(axes, keep=("left", "bottom"))
    axes.grid(axis="y", color=PALETTE["grey"], alpha=0.2)


def _values(score: Any, name: str) -> list[float]:
    if name != "rate":
        return [value for value in score.figures.get(name, ()) if math.isfinite(value)]
    pairs = zip(score.figures.get("ess", ()), score.figures.get("spent", ()), strict=True)
    return [1000 * ess / spent for ess, spent in pairs if spent and not math.isnan(ess)]
