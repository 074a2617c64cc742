"""A folder of HR images, with LR images made from them or paired with them, and a bounded cache of decoded pixels."""

import hashlib
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr.errors import ImageError
from flowsr.images import bicubic_down, pair_by_name, read_image, round_to_8bit, size_text
from flowsr.training.sources import find_images, name_some, other_names

Folder = str | os.PathLike[str]

_BLOCK = 2**24


class Degradation(Protocol):
    """Makes an LR image ``(C, H/s, W/s)`` from an HR crop ``(C, H, W)``, both in [0, 1].

    It must be random through ``generator`` only, or a resumed run will see other images.
    """

    def __call__(self, hr: Tensor, *, upscale: int, generator: torch.Generator) -> Tensor:
        """Return the LR image in [0, 1]; it is rounded to 8 bits afterwards."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlurNoiseJPEG:
    """Gaussian blur of the HR image, bicubic downscaling, Gaussian noise, JPEG; each strength uniform in a range.

    Args:
        blur: range of the blur's standard deviation in HR pixels.
        noise: range of the noise's standard deviation, in units of [0, 1].
        jpeg: range of the JPEG quality, 1 to 100; None for no JPEG.

    Raises:
        ValueError: for ranges that are empty or out of bounds.

    Example:
        >>> degrade = BlurNoiseJPEG(blur=(0.5, 1.5), noise=(0.0, 0.02), jpeg=(60, 95))
        >>> degrade(torch.rand(3, 32, 32), upscale=4, generator=torch.Generator()).shape
        torch.Size([3, 8, 8])
    """

    blur: tuple[float, float] = (0.0, 0.0)
    noise: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        ranges = {"blur": (self.blur, 0.0, 100.0), "noise": (self.noise, 0.0, 1.0)}
        if self.jpeg is not None:
            ranges["jpeg"] = (self.jpeg, 1, 100)
        for name, ((low, high), least, most) in ranges.items():
            if not least <= low <= high <= most:
                raise ValueError(f"expected {name} to be a range within {least} to {most}; got ({low}, {high})")

    def __call__(self, hr: Tensor, *, upscale: int, generator: torch.Generator) -> Tensor:
        """Degrade one image ``(C, H, W)``."""
        lr = bicubic_down(gaussian_blur(hr, _uniform(self.blur, generator)), upscale)
        lr = lr + _uniform(self.noise, generator) * torch.randn(
            lr.shape, dtype=lr.dtype, generator=generator, device=generator.device
        )
        lr = round_to_8bit(lr)
        return lr if self.jpeg is None else jpeg(lr, quality=round(_uniform(self.jpeg, generator)))


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur ``(C, H, W)`` with a Gaussian of standard deviation ``sigma`` pixels; the image continues by its edge."""
    if sigma <= 0:
        return image
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def jpeg(image: Tensor, *, quality: int) -> Tensor:
    """Encode ``(C, H, W)``, C = 1 or 3, as JPEG in memory and decode it."""
    from PIL import Image

    pixels = image.mul(255).round().to(torch.uint8).movedim(0, -1).squeeze(-1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        data = torch.frombuffer(bytearray(decoded.tobytes()), dtype=torch.uint8)
    return data.view(*image.shape[-2:], -1).movedim(-1, 0).float().div(255.0)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))


class PixelCache:
    """Decoded pixels in a few large blocks of memory, up to a number of bytes.

    A tensor in shared memory is an open file, of which a process may have as few as 1024. Worker processes that are
    forked share the blocks anyway, as nobody writes to them again; elsewhere torch shares a block at a time.

    Args:
        most_bytes: in all.

    Example:
        >>> cache = PixelCache(100)
        >>> place = cache.keep(torch.ones(1, 2, 3, dtype=torch.uint8), None)
        >>> cache.pair(place)[0].shape, cache.keep(torch.ones(1, 20, 20, dtype=torch.uint8), None)
        (torch.Size([1, 2, 3]), None)
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._blocks: list[Tensor] = []
        self._used = 0
        self._index: list[tuple[int, int, torch.Size]] = []

    @property
    def has_room(self) -> bool:
        """Whether another image may fit."""
        return self._left > 0

    def keep(self, hr: Tensor, lr: Tensor | None) -> tuple[int, int | None] | None:
        """Copy a pair of images of 8 bits; where they are, or None if they do not fit, after which none is kept."""
        self._left -= hr.numel() + (0 if lr is None else lr.numel())
        if self._left < 0:
            return None
        return self._copy(hr), None if lr is None else self._copy(lr)

    def pair(self, places: tuple[int, int | None]) -> tuple[Tensor, Tensor | None]:
        """The images kept at a place."""
        hr, lr = places
        return self._view(hr), None if lr is None else self._view(lr)

    def _copy(self, image: Tensor) -> int:
        if not self._blocks or self._used + image.numel() > self._blocks[-1].numel():
            # As large as all before it together: few blocks, and what is not written to takes no memory.
            so_far = sum(block.numel() for block in self._blocks)
            self._blocks.append(torch.empty(max(_BLOCK, so_far, image.numel()), dtype=torch.uint8, device="cpu"))
            self._used = 0
        self._index.append((len(self._blocks) - 1, self._used, image.shape))
        self._used += image.numel()
        self._view(len(self._index) - 1).copy_(image)
        return len(self._index) - 1

    def _view(self, place: int) -> Tensor:
        block, start, shape = self._index[place]
        return self._blocks[block][start : start + shape.numel()].view(shape)


class ImageFolder:
    """Decoded images of one or several folders: ``folder[i]`` is ``(hr, lr or None)`` as 8-bit tensors ``(C, H, W)``.

    Images are decoded up to ``cache_bytes`` when the folder is opened and kept in a ``PixelCache``; the others are
    decoded at each use. A file is one image, whatever links lead to it; those in folders of runs are none. An image
    that cannot be used (damaged, smaller than a crop, sizes that do not match) is named in a warning and left out, or
    stops with ``strict``.

    Args:
        folders: one folder or several; sub-folders are searched where a folder itself has no images.
        lr_folders: folders of paired LR images, as many as ``folders``, see :func:`flowsr.images.pair_by_name`.
        upscale: factor between paired images.
        channels: 3 reads RGB, 1 gray.
        minimum: least height and width in pixels.
        cache_bytes: how much memory decoded images may take.
        strict: raise for an image that cannot be used.
        out: folder of the run that the images are for, which holds pictures of its own.

    Raises:
        ImageError: if there are no usable images, or with ``strict`` for the first one that is not.
        ValueError: if the names of paired folders do not match, or a folder is one of a run.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp())
        >>> write_image(path / "a.png", torch.rand(3, 40, 48))
        >>> ImageFolder(path, minimum=32)[0][0].shape
        torch.Size([3, 40, 48])
    """

    def __init__(
        self,
        folders: Folder | Sequence[Folder],
        *,
        lr_folders: Folder | Sequence[Folder] | None = None,
        upscale: int = 4,
        channels: int = 3,
        minimum: int = 1,
        cache_bytes: int = 2**30,
        strict: bool = False,
        out: Path | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"expected 1 or 3 channels; got {channels}")
        self.upscale, self.channels, self.minimum, self.strict = upscale, channels, minimum, strict
        hr_folders = _as_list(folders)
        self.skipped: dict[str, str] = {}
        self.pairs: list[tuple[Path, Path | None]] = []
        self._pixels = PixelCache(cache_bytes)
        self._cached: list[tuple[int, int | None] | None] = []
        self._fill(self._once_each(self._find(hr_folders, lr_folders, out)))

    def _find(
        self, hr_folders: list[Folder], lr_folders: Folder | Sequence[Folder] | None, out: Path | None
    ) -> list[tuple[Path, Path | None]]:
        pairs: list[tuple[Path, Path | None]] = []
        left_out: dict[Path, str] = {}
        lr_list = [None for _ in hr_folders] if lr_folders is None else _as_list(lr_folders)
        if len(lr_list) != len(hr_folders):
            raise ValueError(f"expected as many LR folders as HR folders, {len(hr_folders)}; got {len(lr_list)}")
        for hr_folder, lr_folder in zip(hr_folders, lr_list, strict=True):
            found = find_images(hr_folder, out=out, left_out=left_out)
            if lr_folder is None:
                pairs += [(path, None) for path in found]
            else:
                pairs += pair_by_name(found, find_images(lr_folder, out=out), kind="LR").items()
        self.leave_out(left_out, what="folders")
        return pairs

    def _once_each(self, pairs: list[tuple[Path, Path | None]]) -> list[tuple[Path, Path | None]]:
        again = other_names([hr for hr, _ in pairs])
        names = {pairs[place][0]: f"another name of {other}" for place, other in again.items()}
        self.leave_out(names, what="images that are there under another name")
        return [pair for place, pair in enumerate(pairs) if place not in again]

    def _fill(self, pairs: list[tuple[Path, Path | None]]) -> None:
        for pair in pairs:
            places = None
            if self._pixels.has_room:
                try:
                    places = self._pixels.keep(*self._decode(pair))
                except ImageError as error:
                    self.skip(pair[0], error)
                    continue
            self.pairs.append(pair)
            self._cached.append(places)
        if not self.pairs:
            names = "; ".join(f"{name}: {reason}" for name, reason in list(self.skipped.items())[:3])
            raise ImageError(f"expected at least one usable image; all {len(pairs)} were left out ({names})")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        cached = self._cached[index]
        return self._decode(self.pairs[index]) if cached is None else self._pixels.pair(cached)

    @property
    def cached(self) -> int:
        """How many images are held in memory."""
        return sum(places is not None for places in self._cached)

    def skip(self, path: Path, error: ImageError) -> None:
        """Note an image that cannot be used: raise with ``strict``, else warn once."""
        if self.strict:
            raise ImageError(f"{path} cannot be used for training, and strict was asked for: {error}") from error
        if str(path) not in self.skipped:
            self.skipped[str(path)] = str(error)
            warnings.warn(f"left out image {len(self.skipped)}: {error}", stacklevel=2)

    def leave_out(self, found: Mapping[Path, str], *, what: str) -> None:
        """Note what is not to be used, with the reasons, and say so in one warning."""
        if found:
            self.skipped |= {str(path): reason for path, reason in found.items()}
            some = name_some([f"{path} ({reason})" for path, reason in found.items()])
            warnings.warn(f"left out {len(found)} {what}: {some}", stacklevel=2)

    def split(self, hold_out: int, *, seed: int = 0) -> tuple[list[int], list[int]]:
        """Indices to train on and ``hold_out`` indices, spread at random, kept for validation."""
        if not 0 <= hold_out < len(self):
            raise ValueError(
                f"expected hold_out between 0 and {len(self) - 1}, as there are {len(self)} usable images and one must "
                f"be left to train on; got {hold_out}"
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed), device="cpu").tolist()
        return sorted(order[hold_out:]), sorted(order[:hold_out])

    def fingerprint(self) -> str:
        """A digest of names, sizes and the first 64 KiB of every file: whether two runs saw the same data."""
        digest = hashlib.sha256()
        for path in (path for pair in self.pairs for path in pair if path is not None):
            digest.update(os.fsencode(path.name) + b"\0")
            try:
                digest.update(f"{path.stat().st_size}\0".encode())
                with open(path, "rb") as file:
                    digest.update(file.read(65536))
            except OSError:  # gone since it was listed; the batch it is missed in will say so
                digest.update(b"missing")
        return digest.hexdigest()

    def _decode(self, pair: tuple[Path, Path | None]) -> tuple[Tensor, Tensor | None]:
        hr_path, lr_path = pair
        hr = self._read(hr_path)
        lr = None if lr_path is None else self._read(lr_path)
        height, width = hr.shape[-2:]
        if min(height, width) < self.minimum:
            raise ImageError(
                f"{hr_path}: expected at least {self.minimum} pixels on each side; got {size_text((height, width))}"
            )
        if lr is not None and (height, width) != tuple(self.upscale * side for side in lr.shape[-2:]):
            raise ImageError(
                f"{lr_path}: expected 1/{self.upscale} of the size of {hr_path.name}, {size_text((height, width))}; "
                f"got {size_text(lr.shape[-2:])}"
            )
        return hr, lr

    def _read(self, path: Path) -> Tensor:
        image = read_image(path, mode="RGB" if self.channels == 3 else "gray")
        return image.mul(255.0).round().to(torch.uint8)


def _as_list(folders: Folder | Sequence[Folder]) -> list[Folder]:
    return [folders] if isinstance(folders, str | os.PathLike) else list(folders)
