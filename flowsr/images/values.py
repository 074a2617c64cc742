"""What counts as an image: a floating tensor (..., C, H, W) in [0, 1], and its 8-bit grid.

One place says it and one place checks it, so that every function of flowsr that takes an image refuses the same
mistakes (uint8 tensors, 0-255 values, channels last, NaN) with the same words.
"""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowsr.errors import NonFiniteError


def check_image(
    image: Tensor,
    *,
    name: str = "image",
    channels: int | tuple[int, ...] | None = None,
    tolerance: float | None = 1e-6,
    empty_batch: bool = False,
) -> None:
    """Refuse, in readable words, anything that is not an image or a batch of images.

    Inside ``torch.func.vmap`` only the shape can be checked, and is.

    Cost: one pass over the pixels, and one synchronization if they are on an accelerator.

    Args:
        image: What to check; expected floating point, shape ``(..., C, H, W)``, not empty, finite.
        name: What the caller calls it, for the message.
        channels: The number of channels allowed, or several; None allows any.
        tolerance: How far values may leave [0, 1]; None leaves the range unchecked (raw samples of a model).
        empty_batch: Whether a batch of no images is one, as for distributions.

    Raises:
        ValueError: If it is not such an image. The message says what was expected, what came, and what to do.

    Example:
        >>> check_image(torch.rand(3, 8, 8), channels=3)
        >>> check_image(torch.full((3, 8, 8), 255.0), name="lr")
        Traceback (most recent call last):
            ...
        ValueError: lr: expected values in [0, 1]; got values from 255 to 255; divide 8-bit images by 255
    """
    if not isinstance(image, Tensor):
        raise ValueError(f"{name}: expected a torch tensor; got {type(image).__name__}")
    if image.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64) or image.is_sparse:
        raise ValueError(
            f"{name}: expected a floating point tensor in [0, 1]; got {image.dtype}; "
            f"convert 8-bit images with image.float() / 255"
        )
    shape = tuple(image.shape)
    if image.ndim < 3 or 0 in shape[-3:] or (image.numel() == 0 and not empty_batch):
        raise ValueError(f"{name}: expected a non-empty image of shape (..., C, H, W); got shape {shape}")
    allowed = (channels,) if isinstance(channels, int) else channels
    if allowed is not None and shape[-3] not in allowed:
        hint = "; channels come first: image.movedim(-1, -3)" if shape[-1] in allowed else ""
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{name}: expected {wanted} channels; got {shape[-3]} in shape {shape}{hint}")
    if image.numel() == 0:
        return
    try:
        low, high = (bound.item() for bound in image.detach().aminmax())  # NaN and inf reach the bounds
    except RuntimeError as error:
        if "vmap" in str(error):  # inside torch.func.vmap shapes are known and values are not
            return
        raise
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = int((~torch.isfinite(image)).sum())
        raise ValueError(f"{name}: expected finite pixels; got {bad} NaN or infinite of {image.numel()}")
    if tolerance is not None and (low < -tolerance or high > 1 + tolerance):
        hint = "divide 8-bit images by 255" if high > 2 else "clamp with image.clamp(0, 1)"
        raise ValueError(f"{name}: expected values in [0, 1]; got values from {low:g} to {high:g}; {hint}")


def round_to_8bit(
    image: Float[Tensor, "*batch channel height width"], *, straight_through: bool = False
) -> Float[Tensor, "*batch channel height width"]:
    r"""Put an image on the grid of 8-bit files: :math:`\mathrm{round}(255\,\mathrm{clamp}(x, 0, 1)) / 255`.

    Exact halves go to the even neighbour (IEEE, numpy, torch); MATLAB sends them away from zero, which moves a PSNR
    in its fifth decimal where they occur (x2 bicubic of 8-bit images), and nothing elsewhere.

    Cost: elementwise.

    Args:
        image: Values nominally in [0, 1], shape ``(..., C, H, W)``; what lies outside is clamped.
        straight_through: Rounding has derivative zero; True passes gradients as if nothing had happened (also
            through the clamp), which is how rescaling models train through their 8-bit LR image.

    Returns:
        The same shape and dtype, every value a multiple of 1/255.

    References:
        Xiao et al., Invertible Image Rescaling (ECCV 2020), section 3.4, for the straight-through gradient.

    Example:
        >>> 255 * round_to_8bit(torch.tensor([[[-0.1, 0.1, 0.5, 1.2]]]))
        tensor([[[  0.,  26., 128., 255.]]])
    """
    rounded = (image.detach() if straight_through else image).clamp(0, 1).mul(255).round().div(255)
    # The difference is an exact zero that carries the gradient, so values stay exactly on the grid.
    return rounded + (image - image.detach()) if straight_through else rounded


def to_levels(image: Float[Tensor, "*batch channel height width"]) -> UInt8[Tensor, "*batch channel height width"]:
    """The grey levels of an image as 8-bit files have them: clamped to [0, 1], times 255, rounded, halves to even.

    Cost: elementwise, in float64.

    Args:
        image: Values nominally in [0, 1], shape ``(..., C, H, W)``; grey levels stay as they are.

    Raises:
        NonFiniteError: If some are NaN or infinite.

    Example:
        >>> to_levels(torch.tensor([[[-0.1, 0.1, 0.5, 1.2]]]))
        tensor([[[  0,  26, 128, 255]]], dtype=torch.uint8)
    """
    if image.dtype == torch.uint8:
        return image
    if not bool(torch.isfinite(image).all()):
        raise NonFiniteError("expected finite pixels; got NaN or infinity: lower the temperature, or use float64")
    return image.detach().double().clamp(0, 1).mul(255).round().to(torch.uint8)


def reduce_bits(image: Float[Tensor, "*batch channel height width"], *, bits: int = 5) -> Tensor:
    r"""Keep the leading bits of an 8-bit image: :math:`\lfloor v / 2^{8-n} \rfloor / 2^n` for the values v = 0 … 255.

    Values are multiples of :math:`2^{-n}` from 0 to :math:`1 - 2^{-n}`, the lower ends of :math:`2^n` bins that tile
    the unit interval: dequantize with as many ``bins``. Bits per dimension of images of 5 bits are not comparable to
    those of 8 bits.

    Cost: elementwise.

    Args:
        image: values in [0, 1]; rounded to the grid of 8-bit files first.
        bits: n from 1 to 8.

    Raises:
        ValueError: for another number of bits.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 6: CelebA-HQ in 5 bits.

    Example:
        >>> from flowsr.distributions import uniform_dequantize
        >>> 32 * reduce_bits(torch.tensor([[[0.0, 7.0, 8.0, 255.0]]]) / 255)
        tensor([[[ 0.,  0.,  1., 31.]]])
        >>> noisy = uniform_dequantize(reduce_bits(torch.ones(3, 4, 4)), bins=32)
        >>> bool((noisy >= 31 / 32).all() and (noisy < 1).all())
        True
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 8:
        raise ValueError(f"expected bits from 1 to 8; got {bits!r}")
    values = image.clamp(0, 1).mul(255).round()
    return values.div(2 ** (8 - bits)).floor().div(2**bits)
