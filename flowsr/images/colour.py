"""Luma: the one channel that "PSNR-Y" is measured on, and gray images.

Super-resolution papers report PSNR on the Y of MATLAB's ``rgb2ycbcr``: ITU-R BT.601 in studio range, where black is 16
and white 235 of 255. It is not the full-range gray of image editors; mixing the two costs about 1.3 dB. Both are here,
each under its own name.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr.images.values import check_image


def _weigh_channels(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    check_image(image, channels=3, tolerance=None)
    weight = torch.tensor(weights, dtype=image.dtype, device=image.device)
    return (image * weight[:, None, None]).sum(-3, keepdim=True)


def rgb_to_y(
    image: Float[Tensor, "*batch 3 height width"],
) -> Float[Tensor, "*batch 1 height width"]:
    r"""The studio-range luma of MATLAB's ``rgb2ycbcr``: :math:`Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255`.

    Cost: elementwise.

    Args:
        image: RGB in [0, 1], shape ``(..., 3, H, W)``.

    Returns:
        Y, not rounded, from 16/255 (black) to 235/255 (white), shape ``(..., 1, H, W)``.

    Raises:
        ValueError: If the image has not three channels, or is not finite floating point.

    References:
        ITU-R BT.601-7, section 2.5.1 to 2.5.3 (8-bit coding).

    Example:
        >>> 255 * rgb_to_y(torch.ones(3, 1, 1))
        tensor([[[235.]]])
    """
    return (_weigh_channels(image, (65.481, 128.553, 24.966)) + 16) / 255


def rgb_to_gray(
    image: Float[Tensor, "*batch 3 height width"],
) -> Float[Tensor, "*batch 1 height width"]:
    r"""The full-range luma :math:`0.299 R + 0.587 G + 0.114 B`: what ``read_image(mode="gray")`` gives.

    Cost: elementwise.

    Args:
        image: RGB in [0, 1], shape ``(..., 3, H, W)``.

    Returns:
        Gray in [0, 1], not rounded, shape ``(..., 1, H, W)``.

    Raises:
        ValueError: If the image has not three channels, or is not finite floating point.

    References:
        ITU-R BT.601-7, section 2.5.1; the same weights as Pillow's mode "L".

    Example:
        >>> rgb_to_gray(torch.tensor([1.0, 0.0, 0.0])[:, None, None])
        tensor([[[0.2990]]])
    """
    return _weigh_channels(image, (0.299, 0.587, 0.114))
