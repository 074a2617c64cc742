"""What all figures share: colours that colour-blind readers tell apart, and files that appear whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flowsr._support.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "red": "#D55E00",
    "sky": "#56B4E9",
    "grey": "#7F7F7F",
    "ink": "#222222",
}
"""Okabe and Ito's colours, safe for colour-blind readers, with two neutral ones."""

WIDTH = 7.0
"""Inches of a figure unless another width is asked for: as wide as a page of text, and legible on a phone."""

TERM_GLOSSES = {
    "lr": "N(lr, σ²)",
    "latent": "N(0, 1)",
    "main": "log-det",
    "conditional": "log-det",
    "head": "log-det",
    "preprocessing": "log-det",
    "dequantization": "noise",
}
"""What each kind of term of a log-likelihood is, for pictures, behind its name."""

TERM_COLOURS = {
    "lr": "orange",
    "latent": "blue",
    "main": "green",
    "conditional": "sky",
    "head": "purple",
    "preprocessing": "red",
    "dequantization": "grey",
}
"""The colour in :data:`PALETTE` of each kind of term of a log-likelihood, in every picture of them."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches that belongs to no window and to no global list.

    ``pyplot`` would choose a backend and keep every figure alive; a bare ``Figure`` does neither.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str], *, overwrite: bool = False, dpi: float = 150) -> None:
    """Write a figure to a file whose suffix says the format; it appears whole or not at all.

    Raises:
        FileExistsError: if the file exists and must not be overwritten.
        ValueError: if matplotlib knows no such format.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "empty.png"
        >>> save_figure(new_figure(1, 1), path)
        >>> path.exists()
        True
    """
    with atomic_path(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=dpi, facecolor="white")


def plain_text(text: str) -> str:
    r"""A text with names in it as matplotlib shows it unchanged: a dollar begins no formula.

    Example:
        >>> print(plain_text("$x_{$.png"))
        \$x_{\$.png
    """
    return text.replace("$", r"\$")


def plain_axes(axes: Axes, *, keep: tuple[str, ...] = ("bottom",)) -> None:
    """Take away the frame, but for the sides to keep."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)
        spine.set_color(PALETTE["grey"])
    axes.tick_params(colors=PALETTE["ink"], length=3)
