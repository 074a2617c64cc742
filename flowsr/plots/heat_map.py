"""A map of an image's pixels as colours, with its scale, beside the photograph it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from flowsr.plots.grid import Panel, draw_panel, image_grid
from flowsr.plots.style import WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def map_grid(
    values: Tensor,
    photograph: Tensor,
    *,
    title: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    width: float = WIDTH,
    into: Figure | SubFigure | None = None,
) -> Figure:
    """A figure of a photograph, a map of its pixels, and the map over the photograph in grey.

    Colours run from the 1st to the 99th percentile, so that one pixel does not make all others alike.

    Cost: drawing.

    Args:
        values: the map ``(H, W)``.
        photograph: what it is of, ``(C, H, W)`` in [0, 1].
        title: what the map shows.
        unit: of its values.
        limits: smallest and largest value of the colours instead of the percentiles.
        width: of the figure in inches.
        into: draw into this figure or part of one, as :func:`image_grid` does.

    Returns:
        The figure drawn into.

    Raises:
        ValueError: unless the map has two dimensions and the photograph its size.

    Example:
        >>> import torch
        >>> figure = map_grid(torch.rand(8, 8), torch.rand(3, 8, 8), title="bits", unit="bits/dim")
        >>> [axes.get_title(loc="left") for axes in figure.axes]
        ['photograph', 'bits', 'bits, over the photograph']
    """
    panels = [
        Panel(photograph, "photograph"),
        map_panel(values, title=title, unit=unit, limits=limits),
        map_panel(values, title=f"{title}, over the photograph", unit=unit, limits=limits, photograph=photograph),
    ]
    return image_grid(panels, columns=3, width=width, into=into)


def draw_heat_map(
    axes: Axes,
    values: Tensor,
    *,
    title: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    photograph: Tensor | None = None,
) -> None:
    """Draw a map ``(H, W)`` with a colour bar in its unit.

    Colours run from the 1st to the 99th percentile, so that one pixel does not make all others alike.

    Args:
        axes: where.
        values: the map.
        title: what it shows.
        unit: of the values.
        limits: smallest and largest value of the colours instead of the percentiles.
        photograph: what the map is of, ``(C, H, W)``, to be drawn in grey beneath it.

    Raises:
        ValueError: unless the map has two dimensions and the photograph its size.

    Example:
        >>> import torch
        >>> from flowsr.plots import new_figure
        >>> axes = new_figure(4, 4).subplots()
        >>> draw_heat_map(axes, torch.rand(8, 8), title="bits", unit="bits/dim")
        >>> axes.get_title(loc="left")
        'bits'
    """
    draw_panel(axes, map_panel(values, title=title, unit=unit, limits=limits, photograph=photograph))


def map_panel(
    values: Tensor,
    *,
    title: str,
    unit: str,
    limits: tuple[float, float] | None = None,
    photograph: Tensor | None = None,
) -> Panel:
    """A map ``(H, W)`` as a panel of :func:`image_grid`; the arguments are those of :func:`draw_heat_map`.

    Raises:
        ValueError: unless the map has two dimensions and the photograph its size.

    Example:
        >>> import torch
        >>> low, high = map_panel(torch.linspace(0, 1, 101)[None], title="ramp", unit="").heat
        >>> round(low, 2), round(high, 2)
        (0.01, 0.99)
    """
    if values.dim() != 2:
        raise ValueError(f"expected a map of shape (H, W); got shape {tuple(values.shape)}")
    if photograph is not None and photograph.shape[-2:] != values.shape:
        got = tuple(photograph.shape[-2:])
        raise ValueError(f"expected a photograph of the map's size, {tuple(values.shape)}; got {got}")
    shown = values.detach().cpu().double()
    finite = shown[shown.isfinite()]
    if limits is None:
        low, high = (float(finite.quantile(q)) if finite.numel() else 0.0 for q in (0.01, 0.99))
        limits = (low, high) if high > low else (low, low + 1e-6)
    return Panel(shown.nan_to_num(posinf=limits[1], neginf=limits[0])[None], title, limits, unit, 1.0, photograph)
