"""HR images and their LR images as files hold them, cropped alike, so that the one is s times the other."""

from pathlib import Path

from torch import Tensor

from flowsr.errors import ImageError
from flowsr.images import bicubic_down, crop_to, read_image, round_to_8bit, size_text
from flowsr.models import ImageModel
from flowsr.models.conditional import as_conditional


def read_pair(
    flow: ImageModel, path: Path, lr: Path | None = None, *, multiple: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """An HR file, cropped from the top left to multiples of what the model needs, and its LR image, both 8-bit.

    For a density of images alone the second is None.

    Cost: two files read, or one and a bicubic filter.

    Args:
        flow: the model the images are for.
        path: the HR file.
        lr: the LR file; by default bicubic of the HR image.
        multiple: of which the sides shall be multiples, itself one of ``flow.multiple``, the default.

    Raises:
        ImageError: if a file cannot be used, is too small, or the LR image is not s times smaller.
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
        raise ValueError(
            f"expected no LR image for {type(flow).__name__}, a density of images alone; got {lr}: leave it out"
        )
    s = 1 if conditional is None else conditional.upscale
    mode = "gray" if flow.config.image_channels == 1 else "RGB"
    hr, small = read_image(path, mode=mode), None if lr is None else read_image(lr, mode=mode)
    try:
        hr, small = crop_pair(hr, small, upscale=s, multiple=multiple or flow.multiple)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if conditional is None or small is not None:
        return hr, small
    return hr, round_to_8bit(bicubic_down(hr, s))


def crop_pair(hr: Tensor, lr: Tensor | None, *, upscale: int, multiple: int) -> tuple[Tensor, Tensor | None]:
    """The top left of an HR image, with sides that are multiples, rounded to 8 bits, and of its LR image.

    Args:
        hr: HR image ``(C, H, W)`` in [0, 1].
        lr: its LR image, or None.
        upscale: the factor s between their sides.
        multiple: of what the sides of the HR image are to be multiples; itself one of s.

    Raises:
        ImageError: if nothing is left, or the LR image is not 1/s of the HR image, rounded up or down.

    Example:
        >>> import torch
        >>> [tuple(x.shape) for x in crop_pair(torch.rand(3, 33, 50), torch.rand(3, 9, 12), upscale=4, multiple=16)]
        [(3, 32, 48), (3, 8, 12)]
    """
    height, width = hr.shape[-2:]
    size = (height // multiple * multiple, width // multiple * multiple)
    if 0 in size:
        raise ImageError(f"expected at least {multiple} pixels on each side; got {size_text((height, width))}")
    if lr is not None:
        whole = [(side // upscale, -(-side // upscale)) for side in (height, width)]
        if any(side not in allowed for side, allowed in zip(lr.shape[-2:], whole, strict=True)):
            raise ImageError(
                f"expected an LR image of 1/{upscale} of {size_text((height, width))}; got {size_text(lr.shape[-2:])}"
            )
        lr = round_to_8bit(crop_to(lr, (size[0] // upscale, size[1] // upscale)))
    return round_to_8bit(crop_to(hr, size)), lr
