"""Large images in tiles: which part of an image each is computed from, which part of the result it keeps.

What a convolutional flow gives at a pixel depends on what is near it. So an image is cut into cores that cover it, and
each core is computed within a window that is wider by a halo, where the cut is not felt any more. At the border of the
image a window ends where the image does, so that it sees the same zero padding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from flowsr.images import size_text, to_levels


class Window(NamedTuple):
    """Rows and columns of a grid."""

    rows: slice
    columns: slice

    def times(self, factor: int) -> "Window":
        """The same place in a grid that is finer by a factor.

        Example:
            >>> Window(slice(1, 3), slice(0, 2)).times(4).rows
            slice(4, 12, None)
        """
        return Window(*(slice(part.start * factor, part.stop * factor) for part in self))


class Tile(NamedTuple):
    """A part of an image, in cells: the window it is computed from, and what of the window's result goes where."""

    window: Window
    inside: Window
    place: Window


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image is cut into tiles; :func:`flowsr.models.plan_tiles` finds a good one.

    Cells are the pixels of a flow's coarsest latent, squares of as many HR pixels as the sides of its images are
    multiples of, so that squeezes and checkerboards fall into a tile as into the whole.

    Args:
        size: height and width of the HR image.
        cell: HR pixels on each side of a cell: the model's ``multiple``.
        core: height and width of the part that a tile gives, in cells; all windows are of one size.
        halo: how much wider its window is on each side, in cells.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> tiling = Tiling(size=(100, 60), cell=4, core=(10, 15), halo=3)
        >>> len(tiling), tiling.window
        (3, (64, 60))
        >>> [(tile.window.rows.start, tile.place.rows.start) for tile in tiling]
        [(0, 0), (7, 10), (9, 20)]
    """

    size: tuple[int, int]
    cell: int
    core: tuple[int, int]
    halo: int = 0

    def __post_init__(self) -> None:
        if min(*self.size, self.cell, *self.core) < 1 or self.halo < 0:
            raise ValueError(f"expected sides of at least one, and a halo of at least none; got {self}")

    @classmethod
    def whole(cls, size: tuple[int, int], cell: int) -> "Tiling":
        """One tile for all."""
        rows, columns = (-(-side // cell) for side in size)
        return cls(size=size, cell=cell, core=(rows, columns))

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells that cover the image."""
        return -(-self.size[0] // self.cell), -(-self.size[1] // self.cell)

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what is computed at once, in HR pixels."""
        rows, columns = self._window
        return self.cell * rows, self.cell * columns

    @property
    def _window(self) -> tuple[int, int]:
        rows, columns = (min(length, core + 2 * self.halo) for length, core in zip(self.cells, self.core, strict=True))
        return rows, columns

    def __len__(self) -> int:
        rows, columns = (-(-length // core) for length, core in zip(self.cells, self.core, strict=True))
        return rows * columns

    def __iter__(self) -> Iterator[Tile]:
        rows, columns = (self._along(axis) for axis in (0, 1))
        for down in rows:
            for right in columns:
                yield Tile(*(Window(*parts) for parts in zip(down, right, strict=True)))

    def _along(self, axis: int) -> list[tuple[slice, slice, slice]]:
        """Window, inside and place of each tile along an axis."""
        length, core, window = self.cells[axis], self.core[axis], self._window[axis]
        found = []
        for start in range(0, length, core):
            stop = min(start + core, length)
            # Moved inwards at the border rather than cut off, as kernels are prepared for each size.
            first = min(max(start - self.halo, 0), length - window)
            found.append((slice(first, first + window), slice(start - first, stop - first), slice(start, stop)))
        return found

    def checked(self, size: tuple[int, int], cell: int) -> "Tiling":
        """Itself; raises ValueError unless it is of this size and in cells of so many pixels a side."""
        if (self.size, self.cell) != (size, cell):
            raise ValueError(
                f"expected a tiling of {size_text(size)} in cells of {cell}; got one of {size_text(self.size)} in "
                f"cells of {self.cell}: make it with plan_tiles(model, {size}, …)"
            )
        return self

    def assemble(
        self,
        compute: Callable[[Tile], Tensor],
        *,
        levels: bool = False,
        on_tile: Callable[[], None] | None = None,
    ) -> Tensor:
        """Compute tile after tile, and put together what they keep.

        Cost: that of all windows; memory for the result and one of them. A single tile is not copied.

        Args:
            compute: from a tile to the result for its window, ``(*batch, C, h, w)``, of any resolution.
            levels: keep grey levels, see :func:`flowsr.images.to_levels`, interleaved in memory as files have them.
            on_tile: called after each tile.

        Returns:
            The result ``(*batch, C, H, W)``, without what covers more than the image.

        Raises:
            NonFiniteError: for grey levels of what is not finite.

        Example:
            >>> image = torch.rand(3, 20, 12)
            >>> tiling = Tiling(size=(20, 12), cell=4, core=(2, 2), halo=1)
            >>> torch.equal(tiling.assemble(lambda tile: image[:, *tile.window.times(4)]), image)
            True
        """
        result: Tensor | None = None
        for tile in self:
            part = compute(tile)
            times = part.shape[-1] // self._window[1]
            part = part[..., *tile.inside.times(times)]
            part = to_levels(part) if levels else part
            result = self._paste(part, result, tile.place.times(times), times, levels=levels)
            if on_tile is not None:
                on_tile()
        assert result is not None
        return result

    def total(self, compute: Callable[[Tile], Tensor], *, on_tile: Callable[[], None] | None = None) -> Tensor:
        """The sum of what is computed of each tile."""
        result: Tensor | None = None
        for tile in self:
            part = compute(tile)
            result = part if result is None else result + part
            if on_tile is not None:
                on_tile()
        assert result is not None
        return result

    def _paste(self, part: Tensor, result: Tensor | None, place: Window, times: int, *, levels: bool) -> Tensor:
        height, width = (-(-side * times // self.cell) for side in self.size)
        part = part[..., : height - place.rows.start, : width - place.columns.start]
        if len(self) == 1:
            return part
        if result is None:
            *batch, channels = part.shape[:-2]
            if levels:
                result = part.new_empty(*batch, height, width, channels).movedim(-1, -3)
            else:
                result = part.new_empty(*batch, channels, height, width)
        result[..., *place] = part  # a slice ends where the image does
        return result
