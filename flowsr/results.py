"""What every analysis returns: named fields that can be drawn, written as JSON, and read as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from flowsr._support.json import to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Result:
    """The base of all results of analyses: a frozen dataclass with units in its docstring.

    A subclass defines :meth:`to_text` and what :meth:`plot` draws; :meth:`to_dict` follows from its fields.

    Example:
        >>> @dataclass(frozen=True)
        ... class Count(Result):
        ...     images: int
        >>> Count(3).to_dict()
        {'images': 3}
    """

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values: tensors become lists, infinities and NaN strings that ``float`` reads."""
        return {field.name: to_plain(getattr(self, field.name)) for field in fields(self)}

    def to_text(self) -> str:
        """The result as a table for people."""
        raise NotImplementedError

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the result: its main panel into ``ax`` if given, else all panels into a figure of their own.

        Returns:
            The figure drawn into; save it with :func:`flowsr.plots.save_figure`.
        """
        if ax is None:
            return self._draw_figure()
        self._draw_main(ax)
        return ax.get_figure(root=True)  # type: ignore[return-value]

    def _draw_main(self, ax: Axes) -> None:
        """The main panel; what a subclass defines."""
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def _draw_figure(self) -> Figure:
        """All panels; a subclass with more than the main one defines this too."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 3.5), layout="constrained")
        self._draw_main(figure.subplots())
        return figure


def text_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", notes: Sequence[str] = ()
) -> str:
    """Rows under a head, the first column to the left and the others to the right, as plain text.

    Args:
        head: names of the columns, with their units.
        rows: cells, as many as there are columns.
        title: a line above.
        notes: lines below, for conventions.

    Raises:
        ValueError: if a row has not as many cells as the head.

    Example:
        >>> print(text_table(["level", "std"], [["1", "1.02"], ["2", "0.97"]], title="Latents"))
        Latents
        level   std
        1      1.02
        2      0.97
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"expected {len(head)} cells per row; got {len(row)}: {row}")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [title] if title else []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *notes])
