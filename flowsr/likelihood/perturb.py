"""Images that a model of photographs has not seen, made from photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flowsr.images import check_image, round_to_8bit

PERTURBATIONS = ("smooth", "noisy", "shuffled", "constant")
"""The kinds of :func:`perturbed`."""


def perturbed(
    hr: Tensor, kind: str, *, strength: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """An 8-bit image that a model of photographs has not seen: smooth, noisy, shuffled, or without any content.

    Args:
        hr: HR image in [0, 1], ``(C, H, W)``.
        kind: "smooth" (Gaussian blur, ``strength`` its σ in pixels, by default 3), "noisy" (Gaussian noise,
            ``strength`` its σ in grey levels of 255, by default 25), "shuffled" (blocks of 8x8 pixels in random
            order, cropped to multiples of 8) or "constant" (the mean colour).
        strength: see ``kind``.
        generator: source of randomness; the global one by default.

    Raises:
        ValueError: for another kind or a negative strength, something that is not one image in [0, 1], or one that is
            too small to be shuffled.

    Example:
        >>> perturbed(torch.rand(3, 16, 16), "constant").std().item() < 0.1
        True
    """
    from skimage.filters import gaussian

    check_image(hr, name="hr")
    if hr.dim() != 3:
        raise ValueError(f"expected one image (C, H, W); got shape {tuple(hr.shape)}")
    hr = hr.detach().to(torch.promote_types(hr.dtype, torch.float32))  # half precision holds no grey levels
    if strength is not None and not strength >= 0:
        raise ValueError(f"expected a strength >= 0; got {strength}")
    if kind == "smooth":
        sigma = 3.0 if strength is None else strength
        blurred = gaussian(hr.cpu().numpy(), sigma=sigma, channel_axis=0, mode="reflect")
        return round_to_8bit(torch.from_numpy(np.ascontiguousarray(blurred)).to(hr))
    if kind == "noisy":
        noise = torch.randn(hr.shape, generator=generator).to(hr)
        return round_to_8bit(hr + (25.0 if strength is None else strength) / 255 * noise)
    if kind == "shuffled":
        side = 8
        height, width = (size // side * side for size in hr.shape[-2:])
        if height * width < 2 * side**2:
            raise ValueError(f"expected at least two blocks of {side}x{side} to shuffle; got {hr.shape[-2:]}")
        blocks = hr[..., :height, :width].unflatten(-2, (-1, side)).unflatten(-1, (-1, side)).movedim(-2, -3)
        flat = blocks.flatten(-4, -3)
        order = torch.randperm(flat.shape[-3], generator=generator)
        blocks = flat[..., order, :, :].unflatten(-3, (height // side, width // side)).movedim(-3, -2)
        return round_to_8bit(blocks.flatten(-2, -1).flatten(-3, -2))
    if kind == "constant":
        return round_to_8bit(hr.mean((-2, -1), keepdim=True).expand_as(hr))
    raise ValueError(f"expected kind to be smooth, noisy, shuffled or constant; got {kind!r}")
