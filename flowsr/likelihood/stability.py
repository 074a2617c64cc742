"""How stable the inverse of each layer is: which one loses the image, or blows it up, and how that looks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.plots import PALETTE, WIDTH, new_figure, plain_axes
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUND_TRIP_LIMIT = 1e-2
"""Relative round-trip error of one layer in float32 from which on it is called unstable."""

GROWTH_LIMIT = 100.0
"""Factor by which one layer may let the largest activation grow, in either direction, before it is called unstable."""

GIVEN_LIMIT = 1000.0
"""A layer that is given larger values than this is not blamed for what it makes of them."""


@dataclass(frozen=True)
class LayerStability:
    """One layer, in the order of encoding.

    Attributes:
        name: in the model, as ``model.get_submodule`` takes it.
        kind: class of the transform.
        round_trip_float32: largest ``|decode(encode(x)) − x|`` of this layer alone, relative to the largest ``|x|``.
        round_trip_float64: the same in float64.
        condition_number: of the matrix of a 1x1 convolution; None for other layers.
        log_scale: smallest and largest log-scale: of couplings and heads as computed for this image, of ActNorm its
            parameters, of 1x1 convolutions the logarithms of the singular values; None where there is none.
        growth: largest activation after decoding a draw over the largest before; NaN if not finite.
        growth_encoding: the same on encoding the image.
        given: largest value, of input and features, that the layer was given on encoding and on decoding.
        non_finite: values that are not finite, of those this layer made from finite ones when decoding a draw.
    """

    name: str
    kind: str
    round_trip_float32: float
    round_trip_float64: float
    condition_number: float | None
    log_scale: tuple[float, float] | None
    growth: float
    growth_encoding: float
    given: tuple[float, float]
    non_finite: int


@dataclass(frozen=True)
class InverseStability(Result):
    """How exactly a model inverts, as a whole and layer by layer.

    Attributes:
        layers: in the order of encoding.
        round_trip_float32: largest ``|decode(encode(hr)) − hr|`` of the whole model, in units of the image's range.
        round_trip_float64: the same in float64.
        non_finite: pixels ``(H, W)`` of a draw that are not finite in some channel.
        largest: largest finite ``|x|`` of that draw; an image stays near 1.
        temperature: of that draw.
    """

    layers: tuple[LayerStability, ...]
    round_trip_float32: float
    round_trip_float64: float
    non_finite: Tensor
    largest: float
    temperature: float

    @property
    def unstable(self) -> tuple[str, ...]:
        """Names of layers that lose or blow up the image, worst first; empty for a healthy model.

        First those that blow up what they are given, on decoding or encoding (beyond :data:`GROWTH_LIMIT`), then those
        whose own round trip in float32 is lost (beyond :data:`ROUND_TRIP_LIMIT`, or not finite), then those that make
        finite values infinite. A layer that was given exploded values (beyond ``GIVEN_LIMIT``) is not to blame.
        """
        growing = sorted(
            (layer for layer in self.layers if _blown_up(layer) > GROWTH_LIMIT), key=lambda layer: -_blown_up(layer)
        )
        sane = [layer for layer in self.layers if layer.given[0] <= GIVEN_LIMIT]
        lossy = [layer for layer in sane if not layer.round_trip_float32 <= ROUND_TRIP_LIMIT]
        lossy.sort(key=lambda layer: -_rank(layer.round_trip_float32))
        overflowing = [layer for layer in self.layers if layer.non_finite and layer.given[1] <= GIVEN_LIMIT]
        return tuple(dict.fromkeys(layer.name for layer in (*growing, *lossy, *overflowing)))

    def to_text(self) -> str:
        """The worst layers, and the whole model."""
        worst = sorted(self.layers, key=lambda layer: -_rank(layer.round_trip_float32))[:12]
        rows = [
            [
                layer.name,
                layer.kind,
                f"{layer.round_trip_float32:.1e}",
                f"{layer.round_trip_float64:.1e}",
                "–" if layer.condition_number is None else f"{layer.condition_number:.1f}",
                "–" if layer.log_scale is None else "{:+.2f} … {:+.2f}".format(*layer.log_scale),
                f"{layer.growth:.2f}",
                str(layer.non_finite),
            ]
            for layer in worst
        ]
        head = ["layer", "kind", "round trip f32", "f64", "cond(W)", "log-scale", "growth", "not finite"]
        suspects = ", ".join(self.unstable) or "none"
        notes = [
            f"the {len(worst)} layers of {len(self.layers)} with the largest round-trip error in float32, relative",
            f"whole model: {self.round_trip_float32:.1e} in float32, {self.round_trip_float64:.1e} in float64",
            f"a draw at τ = {self.temperature:g}: largest value {self.largest:.3g}, "
            f"{int(self.non_finite.sum())} pixels not finite",
            f"unstable layers (round trip > {ROUND_TRIP_LIMIT:g}, growth > {GROWTH_LIMIT:g}, not finite): {suspects}",
        ]
        return text_table(head, rows, title="Stability of the inverse", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """Round-trip error of each layer in both precisions."""
        at = range(len(self.layers))
        for label, colour, errors in (
            ("float32", "blue", [layer.round_trip_float32 for layer in self.layers]),
            ("float64", "green", [layer.round_trip_float64 for layer in self.layers]),
        ):
            # A layer that only moves values makes no error, and has no place on this axis.
            ax.semilogy(at, [e or math.nan for e in errors], ".-", color=PALETTE[colour], linewidth=0.8, label=label)
        ax.axhline(ROUND_TRIP_LIMIT, color=PALETTE["red"], linewidth=0.8, linestyle=":", label="called unstable beyond")
        ax.set_xlabel("layer, in the order of encoding")
        ax.set_ylabel("round-trip error, relative")
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.06), borderpad=0.0)
        ax.set_title("Each layer alone; where there is no dot the inverse is exact", loc="left", fontsize=10, pad=16)
        self._name_parts(ax)
        plain_axes(ax, keep=("left", "bottom"))

    def _name_parts(self, ax: Axes) -> None:
        """Lines between the parts of the model that the layers belong to, and their names above."""
        parts = [".".join(layer.name.split(".")[1:3]) for layer in self.layers]
        starts = [index for index, part in enumerate(parts) if index == 0 or parts[index - 1] != part]
        for start, end in zip(starts, [*starts[1:], len(parts)], strict=True):
            if start:
                ax.axvline(start - 0.5, color=PALETTE["grey"], linewidth=0.5, alpha=0.6)
            if end - start > 1:
                where = ((start + end - 1) / 2, 1.01)
                ax.text(*where, parts[start], transform=ax.get_xaxis_transform(), fontsize=7, ha="center", va="bottom")

    def _draw_figure(self) -> Figure:
        """Round-trip errors, and the growth on decoding."""
        figure = new_figure(WIDTH, 5.6)
        first, second = figure.subplots(2, 1, sharex=True)
        self._draw_main(first)
        first.set_xlabel("")
        at, growth = range(len(self.layers)), [layer.growth for layer in self.layers]
        second.semilogy(at, growth, ".-", color=PALETTE["orange"], linewidth=0.8)
        second.axhline(1.0, color=PALETTE["grey"], linewidth=0.8)
        second.axhline(GROWTH_LIMIT, color=PALETTE["red"], linewidth=0.8, linestyle=":")
        suspects = [(index, layer) for index, layer in enumerate(self.layers) if layer.name in self.unstable]
        for row, (index, layer) in enumerate(suspects):
            height = layer.growth if math.isfinite(layer.growth) else 1.0
            align, offset = ("left", 5) if index < len(at) / 2 else ("right", -5)  # else names would leave the figure
            second.annotate(
                layer.name,
                (index, height),
                xytext=(offset, 9 * row),
                textcoords="offset points",
                ha=align,
                fontsize=7,
                color=PALETTE["red"],
            )
        second.set_xlabel("layer, in the order of encoding")
        second.set_ylabel("growth of the largest\nactivation on decoding")
        plain_axes(second, keep=("left", "bottom"))
        return figure


def _rank(value: float) -> float:
    """NaN is worse than any number."""
    return value if not math.isnan(value) else math.inf


def _blown_up(layer: LayerStability) -> float:
    """The layer's growth in the worse of the two directions, of those in which it was given sane values."""
    directions = ((layer.given[0], layer.growth_encoding), (layer.given[1], layer.growth))
    return max((_rank(growth) for given, growth in directions if given <= GIVEN_LIMIT), default=0.0)
