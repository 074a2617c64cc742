"""All of calibration in one call: ranks, TARP, coverage, single pixels, scores."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from flowsr.calibration.coverage import Coverage, interval_coverage
from flowsr.calibration.exchangeability import LEAST_ALPHA
from flowsr.calibration.held_out import Sampler, TestFunctions, default_functions, hold_out
from flowsr.calibration.pixel_test import PixelTest, pixel_test
from flowsr.calibration.scores import Scores, score_draws
from flowsr.calibration.simulation_based import RankTest, simulation_based_calibration, tarp
from flowsr.plots import WIDTH, new_figure
from flowsr.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TESTS = 4


@dataclass(frozen=True)
class CalibrationReport(Result):
    """The calibration of a model on held-out pairs.

    Attributes:
        sbc: ranks of test functions.
        tarp: ranks of distances to reference images.
        coverage: of central intervals.
        pixels: location and spread at single pixels.
        scores: CRPS and energy score.
    """

    sbc: RankTest
    tarp: RankTest
    coverage: Coverage
    pixels: PixelTest
    scores: Scores

    @property
    def passed(self) -> bool:
        """Whether all four tests pass."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the tests that fail."""
        tests = {"SBC": self.sbc, "TARP": self.tarp, "coverage": self.coverage, "pixels": self.pixels}
        return tuple(name for name, test in tests.items() if not test.passed)

    def to_text(self) -> str:
        """All tables."""
        parts = (self.sbc, self.tarp, self.coverage, self.pixels, self.scores)
        return "\n\n".join(part.to_text() for part in parts)

    def plot(self, ax: Axes | None = None) -> Figure:
        """Ranks, TARP, coverage, scores and a map of single pixels; into ``ax`` the ranks alone."""
        if ax is not None:
            return self.sbc.plot(ax)
        figure = new_figure(WIDTH + 1, 10.5)
        upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(2, 1)))
        for part, cell in zip(
            (self.sbc, self.tarp, self.coverage, self.scores), upper.subplots(2, 2).flat, strict=True
        ):
            part.plot(cell)
        self.pixels.draw(lower)
        return figure


def calibrate(
    sampler: Sampler,
    hr: Tensor,
    lr: Tensor,
    *,
    num_samples: int = 99,
    functions: TestFunctions = default_functions,
    images: Sequence[Hashable] | None = None,
    alpha: float = 0.01,
    seed: int = 0,
    on_pair: Callable[[], None] | None = None,
) -> CalibrationReport:
    """Test whether draws given LR images are what they claim, on held-out pairs.

    A model that is right fails with probability at most ``alpha``, which the four tests share.

    Cost: ``num_samples`` decoded images per pair, and those of :func:`flowsr.calibration.pixel_test`.

    Args:
        sampler: the model, see :func:`flowsr.calibration.flow_sampler`.
        hr: true images ``(n, C, H, W)``; a few hundred to see errors of some ten percent of a width.
        lr: their LR images ``(n, C, h, w)``.
        num_samples: per pair, at least 19 for the default levels of coverage.
        functions: test functions.
        images: of which image each pair is a crop, for the intervals of the scores, see :func:`score_draws`.
        alpha: probability of a false alarm, in [0.0004, 1).
        seed: of all noise.
        on_pair: called after each pair, for a progress bar.

    Raises:
        ValueError: for an alpha out of range; otherwise see :func:`flowsr.calibration.hold_out`.

    Example:
        >>> import torch
        >>> from flowsr.calibration import flow_sampler, model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 100)
        >>> calibrate(flow_sampler(flow), hr, lr, num_samples=39).passed
        True
        >>> calibrate(flow_sampler(flow, temperature=0.5), hr, lr, num_samples=39).passed
        False
    """
    least, share = _TESTS * LEAST_ALPHA, alpha / _TESTS
    if not least <= alpha < 1:
        raise ValueError(f"expected alpha in [{least}, 1), of which each of {_TESTS} tests has its share; got {alpha}")
    held_out = hold_out(sampler, hr, lr, num_samples=num_samples, functions=functions, seed=seed, on_pair=on_pair)
    return CalibrationReport(
        sbc=simulation_based_calibration(held_out, alpha=share, seed=seed),
        tarp=tarp(held_out, alpha=share, seed=seed),
        coverage=interval_coverage(held_out, alpha=share, seed=seed),
        pixels=pixel_test(held_out, alpha=share, seed=seed),
        scores=score_draws(held_out, images=images, seed=seed),
    )
