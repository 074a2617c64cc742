r"""MATLAB's ``imresize``: the bicubic kernel that super-resolution benchmarks define their LR images with.

Along each axis an output pixel :math:`i` sits at :math:`u = (i + 1/2)/s - 1/2` of the input and is

.. math:: y_i = \frac{\sum_j k_s(u - j)\, x_j}{\sum_j k_s(u - j)}, \qquad k_s(t) = k(\min(s, 1)\, t),

with Keys' cubic :math:`k` (a = -1/2), widened when shrinking so that it also removes aliases, and with the image
continued symmetrically (``cba|abc``) past its border. torch's antialiased bicubic interpolation is the same sum except
that it drops what lies past the border; so the image is extended first, and the result cropped.
"""

import math
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from flowsr._support.shapes import size_text
from flowsr.images.values import check_image, round_to_8bit


def bicubic_resize(
    image: Float[Tensor, "*batch channel height width"],
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    antialias: bool = True,
) -> Float[Tensor, "*batch channel new_height new_width"]:
    """Resize as MATLAB's ``imresize(image, scale)`` or ``imresize(image, size)`` does, up or down.

    The result is neither clamped nor rounded: bicubic overshoots at edges. MATLAB's 8-bit result is
    ``round_to_8bit`` of it.

    Cost: O(H W (4 + 4/s)) per channel; an axis whose old and new length have no common divisor is computed with its
    mirror images, three times the work.

    Args:
        image: Shape ``(..., C, H, W)``, any floating dtype (half precisions are computed in float32).
        scale: The factor s > 0 for both axes; the new size is ``ceil(s * size)``. A ratio of whole numbers up to 1000.
        size: The new ``(H, W)``, instead of ``scale``.
        antialias: Widen the kernel when shrinking (MATLAB's default). False samples the plain cubic.

    Returns:
        The resized image, same dtype and device, differentiable.

    Raises:
        ValueError: If not exactly one of ``scale`` and ``size`` is given, or it is not usable.

    References:
        Keys, Cubic convolution interpolation for digital image processing (IEEE TASSP 1981), equation 15.

    Example:
        >>> bicubic_resize(torch.rand(2, 3, 10, 12), scale=1.5).shape
        torch.Size([2, 3, 15, 18])
        >>> bicubic_resize(torch.arange(8.0).reshape(1, 1, 8), size=(1, 4))
        tensor([[[0.4492, 2.4883, 4.5117, 6.5508]]])
    """
    check_image(image, tolerance=None)
    if (scale is None) == (size is None):
        raise ValueError(f"expected either scale or size; got scale={scale} and size={size}")
    lengths = tuple(image.shape[-2:])
    if scale is not None:
        ratios = [_as_ratio(scale)] * 2
    elif size is not None and len(size) == 2 and min(size) >= 1:
        ratios = [Fraction(new, old) for new, old in zip(size, lengths, strict=True)]
    else:
        raise ValueError(f"size: expected (H, W) of at least one pixel each; got {size}")
    pixels = image.reshape(-1, *image.shape[-3:])
    if image.dtype not in (torch.float32, torch.float64):
        pixels = pixels.float()
    for ratio in ratios:  # transposed, resized, transposed back, resized
        new_length = math.ceil(pixels.shape[-2] * ratio)
        pixels = _resize_width(pixels.mT, ratio, new_length=new_length, antialias=antialias)
    return pixels.reshape(*image.shape[:-3], *pixels.shape[-3:]).to(image.dtype).contiguous()


def bicubic_down(
    image: Float[Tensor, "*batch channel height width"], factor: int
) -> Float[Tensor, "*batch channel small_height small_width"]:
    """Shrink by a whole factor: the LR image of a super-resolution benchmark, before its rounding to 8 bits.

    Cost: O(H W) per channel.

    Args:
        image: Shape ``(..., C, H, W)``, both sides multiples of ``factor``.
        factor: How many times smaller, at least 1.

    Returns:
        Shape ``(..., C, H/factor, W/factor)``.

    Raises:
        ValueError: If the sides are not divisible: cropping or padding is the caller's decision, it changes figures.

    Example:
        >>> bicubic_down(torch.rand(3, 32, 48), 4).shape
        torch.Size([3, 8, 12])
    """
    _check_factor(factor)
    check_image(image, tolerance=None)
    height, width = image.shape[-2:]
    if height % factor or width % factor:
        inside = (height - height % factor, width - width % factor)
        raise ValueError(
            f"image: expected height and width divisible by {factor}; got {size_text((height, width))}; "
            f"use crop_to(image, {inside}) or pad_to_multiple(image, {factor})"
        )
    return bicubic_resize(image, size=(height // factor, width // factor))


def make_lr(
    hr: Float[Tensor, "*batch channel height width"], upscale: int
) -> Float[Tensor, "*batch channel small_height small_width"]:
    """The LR image of an HR image as benchmarks make it: :func:`bicubic_down`, rounded to the grid of 8-bit files.

    Cost: as :func:`bicubic_down`.

    Args:
        hr: Shape ``(..., C, H, W)`` in [0, 1].
        upscale: The factor s between the two.

    Returns:
        LR image ``(..., C, H/s, W/s)`` in [0, 1], its values multiples of 1/255.

    Raises:
        ValueError: as :func:`bicubic_down`.

    Example:
        >>> lr = make_lr(torch.rand(3, 16, 16), 4)
        >>> lr.shape, torch.equal((255 * lr).round() / 255, lr)
        (torch.Size([3, 4, 4]), True)
    """
    return round_to_8bit(bicubic_down(hr, upscale))


def bicubic_up(
    image: Float[Tensor, "*batch channel height width"], factor: int
) -> Float[Tensor, "*batch channel large_height large_width"]:
    """Enlarge by a whole factor: the baseline every super-resolution method is compared with.

    Cost: O(factor² H W) per channel.

    Args:
        image: Shape ``(..., C, H, W)``.
        factor: How many times larger, at least 1.

    Returns:
        Shape ``(..., C, factor H, factor W)``.

    Raises:
        ValueError: If the factor is not a whole number of at least 1.

    Example:
        >>> bicubic_up(torch.rand(3, 8, 12), 4).shape
        torch.Size([3, 32, 48])
    """
    _check_factor(factor)
    check_image(image, tolerance=None)
    return bicubic_resize(image, size=(image.shape[-2] * factor, image.shape[-1] * factor))


def _resize_width(pixels: Tensor, ratio: Fraction, *, new_length: int, antialias: bool) -> Tensor:
    """Resize the last axis of (N, C, H, W) by an exact ratio.

    Always the last: torch's CPU kernel is wrong for a height of an image one pixel wide (seen in 2.15).
    """
    length = pixels.shape[-1]
    if ratio == 1 and new_length == length:
        return pixels
    if ratio < 1 and not antialias:
        # Grow by an odd multiple m of the ratio instead, where the kernel is not widened: of each m samples the
        # middle one lies exactly where the shrunk pixel does.
        every = math.ceil(1 / ratio) | 1
        dense = _resize_width(pixels, ratio * every, new_length=new_length * every, antialias=True)
        return dense[..., every // 2 :: every]
    # A block of `old` pixels becomes `new` pixels. Extending in front by whole blocks keeps the sampling grid in place;
    # behind, the extension fills the last block, so that torch computes with exactly this ratio.
    new, old = ratio.numerator, ratio.denominator
    reach = math.ceil(2 * max(1, 1 / ratio)) + 1
    before = math.ceil(reach / old)
    blocks = before + math.ceil((math.ceil(new_length / ratio) + reach) / old)
    index = (torch.arange(blocks * old, device=pixels.device) - before * old) % (2 * length)
    extended = pixels.index_select(-1, torch.minimum(index, 2 * length - 1 - index)).contiguous()
    resized = interpolate(extended, size=(extended.shape[-2], blocks * new), mode="bicubic", antialias=True)
    return resized.narrow(-1, before * new, new_length)


def _as_ratio(scale: float) -> Fraction:
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale: expected a positive number; got {scale}")
    ratio = Fraction(scale).limit_denominator(1000)
    if abs(float(ratio) - scale) > 1e-12 * scale:
        raise ValueError(f"scale: expected a ratio of whole numbers up to 1000; got {scale}; pass size=(H, W)")
    return ratio


def _check_factor(factor: int) -> None:
    if not isinstance(factor, int) or factor < 1:
        raise ValueError(f"factor: expected a whole number of at least 1; got {factor}")
