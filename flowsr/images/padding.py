"""Any size through a model that needs multiples: reflect at the bottom and right and crop back, or crop beforehand.

A flow with L squeezes is a bijection only for sizes divisible by 2^L (or by the upscale factor). Padding changes what
the density is of: score the padded image, or crop the image instead, but do not compare the two.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr._support.shapes import size_text
from flowsr.errors import ImageError
from flowsr.images.values import check_image, round_to_8bit


def pad_to_multiple(
    image: Float[Tensor, "*batch channel height width"], multiple: int
) -> tuple[Float[Tensor, "*batch channel padded_height padded_width"], tuple[int, int]]:
    """Extend an image at its bottom and right by reflection until both sides are multiples of a number.

    The reflection does not repeat the edge (``abc`` continues ``ba``). It goes back and forth as often as needed, so
    an image smaller than its padding works too; a side of one pixel is repeated.

    Cost: one copy; none when nothing is missing.

    Args:
        image: Shape ``(..., C, H, W)``.
        multiple: What both sides must be divisible by, at least 1.

    Returns:
        The padded image, and the original ``(H, W)`` for :func:`crop_to`.

    Raises:
        ValueError: If ``multiple`` is below 1, or the image is not one.

    Example:
        >>> padded, size = pad_to_multiple(torch.rand(3, 13, 16), 8)
        >>> padded.shape, size, crop_to(padded, size).shape
        (torch.Size([3, 16, 16]), (13, 16), torch.Size([3, 13, 16]))
    """
    check_image(image, tolerance=None)
    if multiple < 1:
        raise ValueError(f"multiple: expected a whole number of at least 1; got {multiple}")
    height, width = image.shape[-2:]
    for axis, length in ((-2, height), (-1, width)):
        missing = -length % multiple
        if missing:
            period = max(2 * (length - 1), 1)
            index = torch.arange(length + missing, device=image.device) % period
            image = image.index_select(axis, torch.minimum(index, period - index))
    return image, (height, width)


def crop_to(
    image: Float[Tensor, "*batch channel height width"], size: tuple[int, int]
) -> Float[Tensor, "*batch channel cropped_height cropped_width"]:
    """Keep the top left ``(H, W)`` of an image: undoes :func:`pad_to_multiple`.

    Cost: none, it is a view.

    Args:
        image: Shape ``(..., C, H', W')``.
        size: ``(H, W)`` in pixels, at most the image's.

    Returns:
        A view of shape ``(..., C, H, W)``.

    Raises:
        ValueError: If the size is empty or larger than the image.

    Example:
        >>> crop_to(torch.rand(2, 3, 16, 16), (13, 16)).shape
        torch.Size([2, 3, 13, 16])
    """
    height, width = size
    if image.ndim < 3 or not (1 <= height <= image.shape[-2] and 1 <= width <= image.shape[-1]):
        raise ValueError(f"size: expected (H, W) inside an image of shape {tuple(image.shape)}; got {size}")
    return image[..., :height, :width]


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
