"""A map of an image's pixels as colours, with its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.plots.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_heat_map(
    axes: Axes,
    values: Tensor,
    *,
    title: str,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw a map ``(H, W)`` with a colour bar in its unit.

    Colours run from the 1st to the 99th percentile, so that one pixel does not make all others alike.

    Args:
        axes: where.
        values: the map.
        title: what it shows.
        unit: of the values.
        limits: smallest and largest value of the colours instead of the percentiles.

    Raises:
        ValueError: unless the map has two dimensions.

    Example:
        >>> import torch
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(4, 4).subplots()
        >>> draw_heat_map(axes, torch.rand(8, 8), title="bits", unit="bits/dim")
        >>> axes.get_title(loc="left")
        'bits'
    """
    if values.dim() != 2:
        raise ValueError(f"expected a map of shape (H, W); got shape {tuple(values.shape)}")
    shown = values.detach().cpu().double()
    finite = shown[shown.isfinite()]
    if limits is None:
        low, high = (float(finite.quantile(q)) if finite.numel() else 0.0 for q in (0.01, 0.99))
    else:
        low, high = limits
    picture = axes.imshow(shown.numpy(), cmap="cividis", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=9, color=PALETTE["ink"])
    axes.set_axis_off()
    bar = axes.figure.colorbar(picture, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)
