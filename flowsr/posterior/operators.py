"""Forward operators of inverse problems: what is observed of an HR image, before noise.

An operator is any function of images ``(n, C, H, W)`` that returns n observations. Those here are modules, so that
their tensors move with ``.to``; a physics of deepinv is one too, by :func:`as_operator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowsr.images import bicubic_down

Operator = Callable[[Tensor], Tensor]


class Identity(nn.Module):
    """The image itself: denoising.

    Example:
        >>> Identity()(torch.ones(1, 1, 2, 2)).sum().item()
        4.0
    """

    def forward(self, hr: Tensor) -> Tensor:
        """The image."""
        return hr


class Mask(nn.Module):
    """The pixels where a mask is true, as a vector: inpainting. What is not observed is left out, not set to zero.

    Args:
        mask: ``(H, W)`` or ``(C, H, W)``; true, or 1, where the image is observed.

    Raises:
        ValueError: for a mask that is not of zeros and ones, or observes nothing.

    Example:
        >>> mask = Mask(torch.tensor([[1, 0], [0, 1]]))
        >>> mask(torch.arange(4.0).reshape(1, 1, 2, 2))
        tensor([[0., 3.]])
        >>> mask.picture(torch.tensor([5.0, 6.0]), (1, 2, 2))
        tensor([[[5., 0.],
                 [0., 6.]]])
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        if not isinstance(mask, Tensor):
            raise ValueError(f"expected the mask to be a tensor; got {type(mask).__name__}")
        if mask.dim() not in (2, 3) or not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError(f"expected a mask (H, W) or (C, H, W) of zeros and ones; got shape {tuple(mask.shape)}")
        if not bool((mask == 1).any()):
            raise ValueError("expected a mask that observes something, with ones at observed pixels; got zeros only")
        self.register_buffer("mask", mask.bool())

    def forward(self, hr: Tensor) -> Tensor:
        """Observed values, ``(*batch, K)``."""
        if hr.shape[-self.mask.dim() :] != self.mask.shape:
            raise ValueError(
                f"expected images that end in the shape of the mask, {tuple(self.mask.shape)}; got {tuple(hr.shape)}"
            )
        return hr[..., self.mask.expand(hr.shape[-3:])]

    def picture(self, observation: Tensor, shape: tuple[int, int, int], *, fill: float = 0.0) -> Tensor:
        """Observed values put back in their places, with a value elsewhere, for display."""
        image = observation.new_full((*observation.shape[:-1], *shape), fill)
        image[..., self.mask.expand(shape)] = observation
        return image


class Blur(nn.Module):
    """Convolution with a kernel, at the same size; the border is reflected.

    Args:
        kernel: ``(k, k')`` with odd sides; normalized to sum 1.

    Raises:
        ValueError: for even sides, values that are not finite, or a sum that is not positive.

    Example:
        >>> Blur(torch.ones(3, 3))(torch.ones(1, 1, 4, 4)).mean().item()
        1.0
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        if kernel.dim() != 2 or any(side % 2 == 0 for side in kernel.shape):
            raise ValueError(f"expected a kernel (k, k') with odd sides; got shape {tuple(kernel.shape)}")
        if not bool(torch.isfinite(kernel).all()) or float(kernel.sum()) <= 0:
            raise ValueError("expected a kernel of finite values with a positive sum; got another")
        self.register_buffer("kernel", kernel / kernel.sum())

    @classmethod
    def gaussian(cls, std: float) -> Blur:
        """A Gaussian blur of this standard deviation in pixels, cut at three of them."""
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"expected a finite std > 0 in pixels; got {std}")
        reach = max(1, math.ceil(3 * std))
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device="cpu") / std) ** 2)
        return cls(line[:, None] * line)

    def forward(self, hr: Tensor) -> Tensor:
        """The blurred image, of the same shape."""
        up, left = (side // 2 for side in self.kernel.shape)
        if up >= hr.shape[-2] or left >= hr.shape[-1]:
            raise ValueError(
                f"expected an image larger than half the kernel {tuple(self.kernel.shape)}; got {tuple(hr.shape)}"
            )
        flat = hr.reshape(-1, 1, *hr.shape[-2:])
        padded = F.pad(flat, (left, left, up, up), mode="reflect")
        return F.conv2d(padded, self.kernel.to(hr.dtype)[None, None]).reshape(hr.shape)


class Downscale(nn.Module):
    """Bicubic downscaling with anti-aliasing, :func:`flowsr.images.bicubic_down`: another LR image.

    Args:
        factor: at least 2.

    Example:
        >>> Downscale(2)(torch.ones(1, 3, 8, 8)).shape
        torch.Size([1, 3, 4, 4])
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        if not isinstance(factor, int) or factor < 2:
            raise ValueError(f"expected a whole factor >= 2; got {factor!r}")
        self.factor = factor

    def forward(self, hr: Tensor) -> Tensor:
        """The smaller image."""
        return bicubic_down(hr, self.factor)

    def extra_repr(self) -> str:
        """What repr shows."""
        return f"{self.factor}"


def joined(parts: Any) -> Any:
    """Several outputs of an operator as one: a list of tensors ``(n, …)``, as deepinv's TensorList, as ``(n, K)``.

    What is no list stays as it is.

    Cost: a copy of the outputs.

    Example:
        >>> joined([torch.zeros(5, 1, 2, 2), torch.ones(5, 3)]).shape
        torch.Size([5, 7])
    """
    several = not isinstance(parts, Tensor) and hasattr(parts, "__getitem__")
    items = list(parts) if several else []
    if not items or not all(isinstance(item, Tensor) for item in items):
        return parts
    return torch.cat([item.flatten(1) for item in items], 1)


def _measured(physics: Any, hr: Tensor) -> Any:
    return joined(physics.A(hr))


def as_operator(operator: Any) -> Operator:
    """The function of images behind a callable or a physics of deepinv, whose noise-free map is its method ``A``.

    deepinv itself is not needed: any object with a method ``A`` will do. Its noise is not used; give that as a
    :class:`flowsr.posterior.Noise`, or the whole to :func:`flowsr.interop.from_deepinv`. What a physics of several
    outputs makes of an image, a list of tensors, becomes one vector, see ``joined``.

    Raises:
        ValueError: for something that cannot be called.

    Example:
        >>> class Physics:
        ...     def A(self, x):
        ...         return 2 * x
        >>> as_operator(Physics())(torch.ones(1)).item()
        2.0
    """
    if callable(getattr(operator, "A", None)):
        return partial(_measured, operator)
    if callable(operator):
        return cast(Operator, operator)
    raise ValueError(
        f"expected a function of images (n, C, H, W) or an object with a method A, as deepinv's; got {operator!r}"
    )
