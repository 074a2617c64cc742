"""What solving an inverse problem returns: draws in latent space, their images, and whether to believe them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr.plots import PALETTE, WIDTH, Panel, grid_height, heat_limit, image_grid, new_figure, plain_axes
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.diagnostics import RHAT_LIMIT, Diagnostics
from flowsr.posterior.inverse_problem import InverseProblem
from flowsr.results import Result, text_table
from flowsr.statistics.moments import RunningMoments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Solution(Result):
    """Draws of the posterior of an inverse problem.

    Attributes:
        problem: what was solved.
        method: by which solver, with the guide in brackets for SVI.
        latents: whitened vectors ``(chains, draws, dims)`` on the CPU; one chain for SVI and MAP.
        diagnostics: convergence, and remarks in words.
        seconds: wall time by stage: "warmup", "sampling" and "checking"; "optimizing" for SVI and MAP.
        seed: of all randomness.
        other_modes: modes that no draw is near, whitened vectors ``(n, dims)``: places to start from.
        coordinates: in which a Gaussian guide is white noise, for chains that start from it; None for other solvers.
        truth: the true image ``(C, H, W)``, if known, for the figure: ``dataclasses.replace(solution, truth=hr)``.
    """

    problem: InverseProblem = field(repr=False)
    method: str
    latents: Tensor = field(repr=False)
    diagnostics: Diagnostics
    seconds: dict[str, float]
    seed: int
    other_modes: Tensor | None = field(default=None, repr=False)
    coordinates: Coordinates | None = field(default=None, repr=False)
    truth: Tensor | None = field(default=None, repr=False)

    @property
    def mixed(self) -> bool:
        """Whether all R-hat are below the limit; True for methods without chains."""
        return all(value < RHAT_LIMIT for value in self.diagnostics.rhat.values())

    def require_mixed(self) -> Solution:
        """This solution, or an error if its chains do not agree: for use in scripts.

        Raises:
            ValueError: with the remarks on the chains.
        """
        if not self.mixed:
            raise ValueError("expected chains that have mixed; got: " + " ".join(self.diagnostics.remarks))
        return self

    @torch.no_grad()
    def image_batches(self, *, batch_size: int = 16) -> Iterator[Tensor]:
        """Images of all draws, chain after chain, in batches ``(n, C, H, W)``, not clamped.

        Cost: one decoding pass per batch.
        """
        for latents in self.latents.flatten(0, 1).split(batch_size):
            yield self.problem.decode(latents.to(self.problem.lr))

    def images(self, *, batch_size: int = 16) -> Tensor:
        """Images of all draws, ``(chains·draws, C, H, W)`` on the CPU. Cost: memory for all of them."""
        return torch.cat([batch.cpu() for batch in self.image_batches(batch_size=batch_size)])

    def moments(self) -> RunningMoments:
        """Mean and standard deviation of the images, in memory for two. Cost: decoding all draws."""
        moments = RunningMoments()
        for batch in self.image_batches():
            for image in batch:
                moments.add(image)
        return moments

    def to_dict(self) -> dict[str, Any]:
        """Everything but the draws and the problem, as JSON-ready values."""
        return {
            "method": self.method,
            "chains": self.latents.shape[0],
            "draws": self.latents.shape[1],
            "dims": self.latents.shape[2],
            "seed": self.seed,
            "seconds": to_plain(self.seconds),
            "other_modes": 0 if self.other_modes is None else len(self.other_modes),
            "diagnostics": to_plain(self.diagnostics),
        }

    def to_text(self) -> str:
        """Diagnostics as a table, with the remarks below."""
        found = self.diagnostics
        chains, draws, dims = self.latents.shape
        rows = [["draws", f"{chains} x {draws}, {dims} dimensions"]]
        rows.append(["time, s", ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())])
        if found.rhat:
            rows.append(["largest R-hat", f"{found.worst_rhat:.3f}"])
            rows.append(["least effective draws", f"{found.least_ess:.0f}"])
        if found.acceptance:
            rows.append(["acceptance", ", ".join(f"{value:.2f}" for value in found.acceptance)])
            rows.append(["divergences", str(found.divergences)])
        if len(found.objective):
            rows.append(["ELBO, nats" if "svi" in self.method else "log joint, nats", f"{found.objective[-1]:.1f}"])
        if "svi" in self.method:
            rows.append(["k-hat of the weights", f"{found.pareto_k:.2f}"])
        if self.method == "map":
            rows.append(["norm of the gradient", f"{found.gradient_norm:.2g}"])
        low, high = found.expected_residual
        rows.append(["residual / noise", f"{found.residual_rms:.3f} (expected {low:.2f} to {high:.2f})"])
        return text_table(["solution", self.method], rows, notes=found.remarks)

    def plot(self, ax: Axes | None = None) -> Figure:
        """The truth (if known), what was observed (if a picture), moments, two draws, and the trace of each chain.

        For SVI and MAP the objective takes the place of the traces.
        """
        if ax is not None:
            self._draw_trace(ax)
            return ax.figure  # type: ignore[return-value]
        several = self.latents.shape[0] * self.latents.shape[1] > 1
        panels = [] if self.truth is None else [Panel(self.truth.cpu(), "truth")]
        observed = self.problem.observed_picture()
        if observed is not None:
            panels.append(Panel(observed.cpu(), "observed"))
        if several:
            moments = self.moments()
            std = moments.std.cpu()
            panels.append(Panel(moments.mean.cpu(), f"mean of the draws\n{self.method}"))
            panels.append(Panel(std, "standard deviation of the draws", heat=heat_limit(std)))
        last = self.problem.decode(self.latents[-1, -1:].to(self.problem.lr)).detach().cpu()[0]
        panels.append(Panel(last, "one draw" if several else f"the image, {self.method}"))
        if several:
            first = self.problem.decode(self.latents[0, -1:].to(self.problem.lr)).detach().cpu()[0]
            panels.append(Panel(first, "another"))
        heights = (grid_height(panels, columns=3), 2.2)
        figure = new_figure(WIDTH, sum(heights))
        rows: Any = figure.subfigures(2, 1, height_ratios=heights)
        image_grid(panels, columns=3, into=rows[0])
        self._draw_trace(rows[1].subplots())
        return figure

    @torch.no_grad()
    def _draw_trace(self, axes: Axes) -> None:
        plain_axes(axes, keep=("left", "bottom"))
        if len(self.diagnostics.objective):
            axes.plot(self.diagnostics.objective.numpy(), color=PALETTE["blue"], linewidth=0.8)
            axes.set_xlabel("step", fontsize=8)
            axes.set_ylabel("ELBO, nats" if "svi" in self.method else "log joint density, nats", fontsize=8)
            top = float(self.diagnostics.objective.max())
            low = float(self.diagnostics.objective.quantile(0.1))
            axes.set_ylim(low - 0.1 * (top - low + 1e-9), top + 0.1 * (top - low + 1e-9))
        else:
            names = [colour for colour in PALETTE if colour not in ("ink", "grey")]
            for number, chain in enumerate(self.latents):
                values = [
                    self.problem.residual_rms(self.problem.decode(part.to(self.problem.lr))) for part in chain.split(16)
                ]
                label = f"chain {number + 1}"
                colour = PALETTE[names[number % len(names)]]
                axes.plot(torch.cat(values).cpu().numpy(), linewidth=0.7, color=colour, label=label)
            low, high = self.diagnostics.expected_residual
            if math.isfinite(low):
                axes.axhspan(low, high, color=PALETTE["grey"], alpha=0.18, linewidth=0, label="expected")
            axes.locator_params(axis="x", integer=True)
            axes.set_xlabel("draw after the warm-up", fontsize=8)
            axes.set_ylabel("residual / noise", fontsize=8)
            axes.legend(fontsize=7, frameon=False, ncols=5)
        axes.tick_params(labelsize=8)
