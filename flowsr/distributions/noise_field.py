"""Standard normal noise of packed latents: all of it at once, or as a field that windows are read from.

One seed means one field. Every way of drawing takes the numbers of :func:`draw_noise` in its order, so an image drawn
in tiles has the noise of the image drawn whole, and tiles that overlap agree where they do.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from flowsr._support.free_memory import memory_text
from flowsr._support.names import printable

_RUN = 2**20
"""How many numbers a field on disk draws at once: a multiple of 16, the group that torch draws normals in."""


def draw_noise(
    shape: Sequence[int],
    *,
    parts: Sequence[int] | None = None,
    sample_shape: Sequence[int] = (),
    dtype: torch.dtype,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Standard normal noise of packed latents: the one place where draws of all models get it from.

    It is made draw after draw, and within a draw part after part, so that draw k of a seed is the same however many
    are asked for, and whether the parts are drawn together or one by one. It is made in float64 on the generator's
    device, then rounded and moved, so that it is the same in any dtype and, with a generator of the CPU, on any device.

    Cost: one normal number per entry, and a call of the generator per part of each draw.

    Args:
        shape: of one draw, ``(*batch, channels, h, w)``.
        parts: channels of each part, in packed order; by default one part.
        sample_shape: draws.
        dtype: of the result.
        device: of the result.
        generator: source of randomness; the global one of the device by default.

    Returns:
        Noise ``(*sample_shape, *batch, channels, h, w)``.

    Example:
        >>> options = {"parts": (3, 9), "dtype": torch.float32, "device": torch.device("cpu")}
        >>> few, more = (
        ...     draw_noise((12, 2, 2), sample_shape=(n,), generator=torch.Generator().manual_seed(0), **options)
        ...     for n in (1, 3)
        ... )
        >>> more.shape, torch.equal(few[0], more[0])
        (torch.Size([3, 12, 2, 2]), True)
    """
    *batch, channels, height, width = shape
    place = device if generator is None else generator.device

    def one(count: int) -> Tensor:
        size = (*batch, count, height, width)
        return torch.randn(size, dtype=torch.float64, device=place, generator=generator).to(device, dtype)

    widths = (channels,) if parts is None else parts
    draws = [torch.cat([one(count) for count in widths], -3) for _ in range(math.prod(sample_shape))]
    noise = torch.stack(draws) if draws else torch.empty(0, dtype=dtype, device=device)
    return noise.reshape(*sample_shape, *shape)


class NoiseField:
    """The noise of one draw of :func:`draw_noise`, to the bit, of which windows are read.

    In a file it takes next to no memory, however large; the file has no name, and goes when the field is closed.

    Cost: that of :func:`draw_noise`; on disk the noise is written once, and read where it is asked for.

    Args:
        shape: ``(*batch, channels, h, w)``.
        parts: channels of each part, in packed order.
        dtype: of the windows.
        device: of the windows.
        generator: source of randomness; the global one of the device by default. It is left where
            :func:`draw_noise` leaves it.
        on_disk: keep the noise in a temporary file, in the folder of :func:`tempfile.gettempdir`.

    Raises:
        OSError: if the disk is full, with nothing left there.

    Example:
        >>> options = {"parts": (3, 9), "dtype": torch.float32, "device": torch.device("cpu")}
        >>> whole = draw_noise((12, 5, 7), generator=torch.Generator().manual_seed(0), **options)
        >>> with NoiseField((12, 5, 7), generator=torch.Generator().manual_seed(0), on_disk=True, **options) as field:
        ...     torch.equal(field.window(slice(1, 4), slice(2, 7)), whole[:, 1:4, 2:7])
        True
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        parts: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | None = None,
        on_disk: bool = False,
    ) -> None:
        self.dtype, self.device = dtype, device
        self._file: BinaryIO | None = None
        if not on_disk:
            self._noise = draw_noise(shape, parts=parts, dtype=dtype, device=device, generator=generator)
            return
        *batch, _, height, width = shape
        self._shapes = [(*batch, count, height, width) for count in parts]
        kept = torch.float32 if dtype == torch.float32 else torch.float64
        self._kind = np.dtype("float32" if dtype == torch.float32 else "float64")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        place = device if generator is None else generator.device
        try:
            for part in self._shapes:
                for run in _runs(math.prod(part), place):
                    noise = torch.randn(run, dtype=torch.float64, device=place, generator=generator)
                    self._file.write(noise.to("cpu", kept).numpy().tobytes())
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # closing writes what is left over
                self.close()
            size = memory_text(self._kind.itemsize * sum(map(math.prod, self._shapes)))
            raise OSError(
                f"expected room for the noise of a large image, {size}, in the temporary folder "
                f"{printable(tempfile.gettempdir())}; it cannot be written ({error.strerror}): make room, or name "
                "another folder in the environment variable TMPDIR"
            ) from error

    def window(self, rows: slice, columns: slice) -> Tensor:
        """The noise ``(*batch, channels, rows, columns)`` at these places."""
        if self._file is None:
            return self._noise[..., rows, columns]
        windows, start = [], 0
        for *batch, height, width in self._shapes:
            planes = [self._plane(start + i, height, width, rows, columns) for i in range(math.prod(batch))]
            start += len(planes)
            if planes:
                windows.append(torch.stack(planes).unflatten(0, batch))
        return torch.cat(windows, -3).to(self.device, self.dtype)

    def _plane(self, index: int, height: int, width: int, rows: slice, columns: slice) -> Tensor:
        # Mapped anew each time, as the pages that a map has seen count as memory until it goes.
        assert self._file is not None
        offset = index * height * width * self._kind.itemsize
        mapped = np.memmap(self._file, dtype=self._kind, mode="r", offset=offset, shape=(height, width))
        return torch.from_numpy(np.array(mapped[rows, columns]))

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "NoiseField":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _runs(count: int, place: torch.device) -> Iterator[int]:
    """Sizes of draws that give together the numbers of one draw of this many."""
    if place.type != "cpu":  # where the numbers of a draw depend on how many they are
        yield count
        return
    while count >= _RUN + 16:  # fewer than 16 numbers are drawn in another way than more
        yield _RUN
        count -= _RUN
    yield count
