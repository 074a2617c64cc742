"""Fidelity to a reference: PSNR, SSIM, and PSNR after shrinking (LR-PSNR)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr.images import bicubic_down, check_image, crop_to, rgb_to_y, round_to_8bit, size_text

Colour = Literal["rgb", "y"]

SSIM_WINDOW = 11
"""Side of the window of SSIM, in pixels; smaller images have none."""


def paired(a: Tensor, b: Tensor, *, channels: int | tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Check two batches of images and broadcast their batch shapes; both come back in float64."""
    check_image(a, name="a", channels=channels, tolerance=None)
    check_image(b, name="b", channels=channels, tolerance=None)
    if a.shape[-3:] != b.shape[-3:]:
        raise ValueError(
            f"expected images of the same channels, height and width; got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    try:
        batch = torch.broadcast_shapes(a.shape[:-3], b.shape[:-3])
    except RuntimeError as error:
        raise ValueError(
            f"expected batch shapes that broadcast; got {tuple(a.shape[:-3])} and {tuple(b.shape[:-3])}"
        ) from error
    shape = (*batch, *a.shape[-3:])
    return a.double().expand(shape), b.to(a.device).double().expand(shape)


def psnr(
    a: Float[Tensor, "*batch_a channel height width"],
    b: Float[Tensor, "*batch_b channel height width"],
    *,
    border: int,
    colour: Colour = "rgb",
) -> Float[Tensor, "*batch"]:
    r"""Peak signal-to-noise ratio in dB: :math:`-10 \log_{10} \mathrm{mean}\,(a - b)^2`, with peak 1.

    The mean runs over channels and pixels together. Identical images give infinity.

    Cost: elementwise, in float64; differentiable.

    Args:
        a: Images in [0, 1], shape ``(*batch, C, H, W)``; not rounded here.
        b: Images of the same C, H, W; batch shapes broadcast: draws ``(S, B, C, H, W)`` compare with ``(B, C, H, W)``.
        border: Pixels cut off on each side first. Papers take the upscale factor; 0 for LR images.
        colour: "rgb" compares the channels as they are (also gray ones); "y" the luma of :func:`rgb_to_y`.

    Returns:
        dB, float64, one per image.

    Raises:
        ValueError: If shapes do not match, pixels are not finite, or nothing is left inside the border.

    References:
        Liang et al., Hierarchical Conditional Flow (ICCV 2021), section 4.

    Example:
        >>> psnr(torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.1), border=2)
        tensor(20.0000, dtype=torch.float64)
    """
    a, b = _compared_region(a, b, border=border, colour=colour)
    return -10 * (a - b).square().mean((-3, -2, -1)).log10()


def ssim(
    a: Float[Tensor, "*batch_a channel height width"],
    b: Float[Tensor, "*batch_b channel height width"],
    *,
    border: int,
    colour: Colour = "rgb",
) -> Float[Tensor, "*batch"]:
    r"""Structural similarity, at most 1, as in the original MATLAB program.

    .. math:: \frac{(2\mu_a\mu_b + C_1)(2\sigma_{ab} + C_2)}{(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}

    with moments under an 11 x 11 Gaussian window (σ = 1.5, biased covariance), :math:`C_i = (0.01)^2, (0.03)^2`, then
    the mean over the positions where the window fits whole, and over channels.

    Cost: about twenty separable filters per channel in scikit-image, on the CPU in float64; not differentiable.

    Args:
        a: Images in [0, 1], shape ``(*batch, C, H, W)``; not rounded here.
        b: Images of the same C, H, W; batch shapes broadcast.
        border: Pixels cut off on each side first; at least 11 x 11 must remain.
        colour: "rgb" averages the SSIM of each channel; "y" takes that of the luma.

    Returns:
        Float64, on the device of ``a``, one per image.

    Raises:
        ValueError: If shapes do not match, pixels are not finite, or less than the window remains.

    References:
        Wang et al., Image quality assessment: from error visibility to structural similarity (IEEE TIP 2004), III-B.

    Example:
        >>> image = torch.rand(3, 16, 16)
        >>> ssim(image, image, border=2)
        tensor(1., dtype=torch.float64)
    """
    a, b = _compared_region(a, b, border=border, colour=colour)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"expected at least {size_text((SSIM_WINDOW, SSIM_WINDOW))} inside the border for SSIM; "
            f"got {size_text(a.shape[-2:])}"
        )
    from skimage.metrics import structural_similarity

    batch, device = a.shape[:-3], a.device
    pairs = zip(*(x.detach().cpu().reshape(-1, *x.shape[-3:]).numpy() for x in (a, b)), strict=True)
    values = [
        structural_similarity(
            x, y, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for x, y in pairs
    ]
    return torch.tensor(values, dtype=torch.float64, device=device).reshape(batch)


def lr_psnr(
    sr: Float[Tensor, "*batch_sr channel height width"],
    lr: Float[Tensor, "*batch_lr channel small_height small_width"],
    *,
    upscale: int,
    rounded: bool = True,
) -> Float[Tensor, "*batch"]:
    """How well a super-resolved image agrees with the LR image it came from: PSNR in dB after bicubic shrinking.

    The SR image is rounded to 8 bits (as it would be saved), shrunk, and compared in RGB without a border. With an LR
    image of 8 bits, disagreement by rounding alone gives about 59 dB unrounded; NTIRE asks for 45 dB.

    Cost: one bicubic shrinking.

    Args:
        sr: Images in [0, 1], shape ``(*batch, C, s·h, s·w)``.
        lr: The LR images, shape ``(*batch, C, h, w)``; batch shapes broadcast.
        upscale: The factor s.
        rounded: Round the shrunk image and ``lr`` to 8 bits, as the NTIRE challenge does. HCFlow's test script does
            not, and compares with the unrounded ``bicubic_down(hr, s)``.

    Returns:
        dB, float64, one per image; infinite if they agree exactly.

    Raises:
        ValueError: If the sizes do not stand in the ratio ``upscale``, or pixels are not finite.

    References:
        Lugmayr et al., NTIRE 2021 Learning the Super-Resolution Space Challenge (CVPRW 2021), section 3.

    Example:
        >>> hr = torch.rand(3, 32, 32)
        >>> from flowsr.images import make_lr
        >>> lr_psnr(hr, make_lr(round_to_8bit(hr), 4), upscale=4)
        tensor(inf, dtype=torch.float64)
    """
    check_image(sr, name="sr", tolerance=None)
    check_image(lr, name="lr", tolerance=None)
    shrunk, lr = bicubic_down(round_to_8bit(sr.double()), upscale), lr.double()
    if rounded:  # also lr: 8-bit values held in float32 are not quite those in float64
        shrunk, lr = round_to_8bit(shrunk), round_to_8bit(lr)
    return psnr(shrunk, lr, border=0)


def _compared_region(a: Tensor, b: Tensor, *, border: int, colour: Colour) -> tuple[Tensor, Tensor]:
    if colour not in ("rgb", "y"):
        raise ValueError(f'colour: expected "rgb" or "y"; got {colour!r}')
    a, b = paired(a, b, channels=3 if colour == "y" else None)
    height, width = a.shape[-2:]
    if not 0 <= border < (min(height, width) + 1) // 2:
        raise ValueError(
            f"border: expected 0 or more, and pixels left inside it; got {border} for {size_text((height, width))}"
        )
    size = (height - 2 * border, width - 2 * border)
    a, b = (crop_to(x[..., border:, border:], size) for x in (a, b))
    return (rgb_to_y(a), rgb_to_y(b)) if colour == "y" else (a, b)
