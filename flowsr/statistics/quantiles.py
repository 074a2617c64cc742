"""Quantiles of each pixel over a stream of images, in fixed memory and with a known error: a histogram per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class PixelQuantiles:
    """Quantiles per pixel from histograms whose ranges are fixed by the first images.

    The first ``pilot`` images are kept; quantiles of so few are exact. Then each pixel gets ``bins`` equal bins over
    its mean ± 6 standard deviations (at least as wide as what the pilot saw), and later images are only counted. In a
    bin values count as uniform, so a quantile is wrong by less than a bin, :attr:`error`, about 12/bins standard
    deviations: a tenth for 128 bins. Values beyond the range count in the last bins; :attr:`outside` is their fraction.

    Cost: ``4·bins`` bytes per pixel, and ``pilot`` images until the histograms take over; one pass per image.

    Args:
        bins: per pixel, at least 8.
        pilot: images to set ranges by, at least 8.

    Raises:
        ValueError: for too few bins or images.

    Example:
        >>> quantiles = PixelQuantiles()
        >>> for value in torch.linspace(0, 1, 1001)[torch.randperm(1001)]:
        ...     quantiles.add(value.expand(1, 1, 1, 1))
        >>> bool(abs(quantiles.quantile([0.9]) - 0.9).max() < quantiles.error.max())
        True
    """

    def __init__(self, *, bins: int = 128, pilot: int = 32) -> None:
        if bins < 8 or pilot < 8:
            raise ValueError(f"expected at least 8 bins and 8 pilot images; got {bins} and {pilot}")
        self.bins, self.pilot = bins, pilot
        self.count = 0
        self._kept: list[Tensor] = []
        self._low = self._width = torch.zeros((), device="cpu")
        self._counts: Tensor | None = None
        self._outside = 0

    def add(self, images: Tensor) -> None:
        """Take a batch ``(n, C, H, W)`` into account."""
        images = images.float().cpu()
        for image in images:
            self.count += 1
            if self._counts is None:
                # A copy: a view would keep the whole batch.
                self._kept.append(image.clone())
                if len(self._kept) == self.pilot:
                    self._start()
            else:
                self._add(image)

    def _start(self) -> None:
        stack = torch.stack(self._kept)
        mean, std = stack.mean(0), stack.std(0)
        reach = torch.maximum(6 * std, (stack - mean).abs().amax(0) * 1.5).clamp_min(1e-6)
        self._low, self._width = mean - reach, 2 * reach / self.bins
        self._counts = torch.zeros((*mean.shape, self.bins), dtype=torch.int32, device="cpu")
        self._kept = []
        for image in stack:
            self._add(image)

    def _add(self, image: Tensor) -> None:
        assert self._counts is not None
        place = ((image - self._low) / self._width).floor()
        self._outside += int(((place < 0) | (place >= self.bins)).sum())
        index = place.clamp(0, self.bins - 1).long().unsqueeze(-1)
        self._counts.scatter_add_(-1, index, torch.ones_like(index, dtype=torch.int32))

    def quantile(self, levels: Sequence[float]) -> Tensor:
        """Quantiles ``(levels, C, H, W)``; exact until the pilot is full.

        Raises:
            ValueError: before the first image, or for levels outside of (0, 1).
        """
        if self.count < 1:
            raise ValueError("expected at least one image; got none")
        if any(not 0 < level < 1 for level in levels):
            raise ValueError(f"expected levels in (0, 1); got {tuple(levels)}")
        if self._counts is None:
            return torch.quantile(torch.stack(self._kept), torch.tensor(levels, device="cpu"), dim=0)
        below = self._counts.cumsum(-1, dtype=torch.int64).float()
        found = []
        for level in levels:
            target = torch.full((*below.shape[:-1], 1), level * self.count, device="cpu")
            index = torch.searchsorted(below, target).clamp_max(self.bins - 1)
            inside = self._counts.gather(-1, index).clamp_min(1)
            before = below.gather(-1, index) - inside
            part = ((target - before) / inside).clamp(0, 1)
            found.append(self._low + self._width * (index + part).squeeze(-1))
        return torch.stack(found)

    @property
    def error(self) -> Tensor:
        """Bound of the error of a quantile within the range, ``(C, H, W)``; 0 while they are exact."""
        if self._counts is None:
            return torch.zeros(self._kept[0].shape if self._kept else (), device="cpu")
        return self._width

    @property
    def outside(self) -> float:
        """Fraction of values beyond their pixel's range."""
        return self._outside / (self.count * self._counts[..., 0].numel()) if self._counts is not None else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later; tensors and numbers only."""
        return {
            "count": self.count,
            "kept": torch.stack(self._kept) if self._kept else None,
            "low": self._low,
            "width": self._width,
            "counts": _copied(self._counts),  # what is added later is counted in place
            "outside": self._outside,
            "bins": self.bins,
            "pilot": self.pilot,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            ValueError: for a state with other numbers of bins or pilot images.
        """
        if (state["bins"], state["pilot"]) != (self.bins, self.pilot):
            raise ValueError(
                f"expected a state with {self.bins} bins and {self.pilot} pilot images; got {state['bins']} and "
                f"{state['pilot']}: resume with the settings of the first run"
            )
        self.count, self._outside = int(state["count"]), int(state["outside"])
        self._kept = list(state["kept"]) if state["kept"] is not None else []
        self._low, self._width, self._counts = state["low"], state["width"], _copied(state["counts"])


def _copied(counts: Tensor | None) -> Tensor | None:
    return None if counts is None else counts.clone()
