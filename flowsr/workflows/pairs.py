"""HR and LR images of files, as workflows take them: cropped alike, or cut from photographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr._support.names import printable
from flowsr.errors import ImageError
from flowsr.images import crop_pair, make_lr, read_image, size_text
from flowsr.models import ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.models.memory import require_memory


def read_for(flow: ImageModel, path: Path, *, dtype: torch.dtype | None = None) -> Tensor:
    """An image file as a model takes it, RGB or gray; by default in the dtype of its weights.

    Raises:
        ImageError: if the file cannot be used.
    """
    mode = "gray" if flow.config.image_channels == 1 else "RGB"
    return read_image(path, mode=mode, dtype=flow.dtype if dtype is None else dtype)


def read_pair(
    flow: ImageModel,
    path: Path,
    lr: Path | None = None,
    *,
    multiple: int | None = None,
    in_tiles: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """An HR file, cropped from the top left to multiples of what the model needs, and its LR image, both 8-bit.

    For a density of images alone the second is None.

    Cost: two files read, or one and a bicubic filter.

    Args:
        flow: the model the images are for.
        path: the HR file.
        lr: the LR file; by default bicubic of the HR image.
        multiple: of which the sides shall be multiples, itself one of ``flow.multiple``, the default.
        in_tiles: do not ask for memory for the whole image.

    Raises:
        ImageError: if a file cannot be used, is too small, or the LR image is not s times smaller.
        OutOfMemoryError: if an encoding of the whole does not fit.
        ValueError: for an LR file given for a density of images alone.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from flowsr.images import write_image
        >>> from flowsr.models import from_preset
        >>> path = Path(tempfile.mkdtemp()) / "a.png"
        >>> write_image(path, torch.rand(3, 21, 38))
        >>> [tuple(x.shape) for x in read_pair(from_preset("sr-x4-small"), path)]
        [(3, 20, 36), (3, 5, 9)]
    """
    conditional = as_conditional(flow)
    if conditional is None and lr is not None:
        kind, name = type(flow).__name__, printable(lr)
        raise ValueError(f"expected no LR image for {kind}, a density of images alone; got {name}: leave it out")
    s = 1 if conditional is None else conditional.upscale
    hr = read_for(flow, path, dtype=torch.float32)
    small = None if lr is None else read_for(flow, lr, dtype=torch.float32)
    with _blamed_on(path):
        crop_pair(hr, None, upscale=s, multiple=multiple or flow.multiple)
    with _blamed_on(lr or path):
        hr, small = crop_pair(hr, small, upscale=s, multiple=multiple or flow.multiple)
    if not in_tiles:
        what, instead = f"encoding {printable(path)}", "take a smaller image, or cut it into parts"
        require_memory(flow, (hr.shape[-2], hr.shape[-1]), task="encode", what=what, instead=instead)
    if conditional is None or small is not None:
        return hr, small
    return hr, make_lr(hr, s)


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{printable(path)}: {error}") from error


def centre_crop(image: Tensor, size: int, *, name: str) -> Tensor:
    """The middle of an image, ``size`` pixels square.

    Raises:
        ValueError: if the image is smaller.

    Example:
        >>> centre_crop(torch.rand(3, 9, 12), 8, name="cat").shape
        torch.Size([3, 8, 8])
    """
    height, width = _checked(image, size, name)
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size].contiguous()


def varied_crop(image: Tensor, size: int, *, name: str) -> Tensor:
    """The square of ``size`` pixels whose values vary most: edges and texture rather than sky.

    The variance within the square, summed over channels, is largest; of equals the first in reading order is taken.

    Cost: two box filters.

    Raises:
        ValueError: if the image is smaller.

    Example:
        >>> image = torch.zeros(3, 9, 12)
        >>> image[:, 2, 7] = 1
        >>> varied_crop(image, 8, name="dot").sum()
        tensor(3.)
    """
    _checked(image, size, name)
    values = image.double() - image.double().mean()

    def box(values: Tensor) -> Tensor:
        return F.avg_pool2d(F.avg_pool2d(values, (size, 1), stride=1), (1, size), stride=1)

    variance = (box(values.square()) - box(values).square()).sum(0)
    # Rounded, so that the sums' last bits do not choose among equals.
    place = int(variance.mul(1e9).round().argmax())
    top, left = divmod(place, variance.shape[1])
    return image[:, top : top + size, left : left + size].contiguous()


def random_crops(images: Mapping[str, Tensor], count: int, size: int, *, seed: int) -> Tensor:
    """Crops ``(count, C, size, size)``, image after image in turn, at places drawn by the seed.

    Raises:
        ValueError: if an image is smaller than the crops.

    Example:
        >>> random_crops({"cat": torch.rand(3, 20, 30)}, 5, 8, seed=0).shape
        torch.Size([5, 3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    crops = []
    names = list(images)
    for i in range(count):
        name = names[i % len(names)]
        image = images[name]
        height, width = _checked(image, size, name)
        top = int(torch.randint(height - size + 1, (), generator=generator, device=generator.device))
        left = int(torch.randint(width - size + 1, (), generator=generator, device=generator.device))
        crops.append(image[:, top : top + size, left : left + size])
    return torch.stack(crops)


def _checked(image: Tensor, size: int, name: str) -> tuple[int, int]:
    """Height and width of an image from which a crop can be taken."""
    height, width = image.shape[-2:]
    if min(height, width) < size:
        raise ValueError(
            f"expected images of at least {size_text((size, size))}; got {name} of "
            f"{size_text((height, width))}: lower --crop"
        )
    return height, width
