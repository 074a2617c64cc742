"""A bijection of another library as a transform of images: shapes, batches, context and log-determinants translated."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowsr._support.shapes import full_precision, is_per_pixel, spread
from flowsr.transforms import ImageTransform


class ForeignTransform(ImageTransform):
    """Base of the adapters of other libraries' transforms, which map data to noise and know one size.

    A subclass defines :meth:`encode_batch` and :meth:`decode_batch` for tensors with one batch dimension. All other
    libraries' work is done outside of autocast. Within :func:`flowsr.transforms.per_pixel` a log-determinant is spread
    evenly over the image, as nobody knows where in it it arises.

    Args:
        transform: the other library's transform; a module's parameters are registered.
        image_shape: ``(C, H, W)`` of the images.
        latent_shape: of the latents, with as many entries; by default that of the images.
        context_shape: shape of a context without its batch, for a transform that takes one.
        flat: whether the transform acts on vectors (C·H·W), as autoregressive ones do, or on images.

    Raises:
        ValueError: for shapes that do not fit.
    """

    def __init__(
        self,
        transform: Any,
        *,
        image_shape: Sequence[int],
        latent_shape: Sequence[int] | None = None,
        context_shape: Sequence[int] | None = None,
        flat: bool,
    ) -> None:
        super().__init__()
        self.foreign = transform
        self.image_shape = _three(image_shape, name="image_shape")
        self.latent_shape = self.image_shape if latent_shape is None else _three(latent_shape, name="latent_shape")
        if math.prod(self.image_shape) != math.prod(self.latent_shape):
            raise ValueError(
                f"expected a latent of as many entries as the image; got {self.latent_shape} and {self.image_shape}"
            )
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.flat = flat

    def encode_batch(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Data ``(n, …)`` to noise, with ``log|det ∂noise/∂data|``, ``(n,)``, in the other library's direction."""
        raise NotImplementedError

    def decode_batch(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Noise to data, with ``log|det ∂data/∂noise|``."""
        raise NotImplementedError

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.forward_shape(z.shape)
        return self._translated(self.decode_batch, z, context, self.image_shape)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return self._translated(self.encode_batch, x, context, self.latent_shape)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self._exchanged(shape, self.latent_shape, self.image_shape, name="latent")

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self._exchanged(shape, self.image_shape, self.latent_shape, name="image")

    def _translated(self, function: Any, x: Tensor, context: Any, shape: torch.Size) -> tuple[Tensor, Tensor]:
        batch = x.shape[:-3]
        inputs = x.reshape(batch.numel(), *([-1] if self.flat else x.shape[-3:]))
        with full_precision(x):
            y, ladj = function(inputs, self._batched(context, batch))
        ladj = ladj.to(torch.promote_types(ladj.dtype, torch.float32)).reshape(batch)
        if is_per_pixel():
            ladj = spread(ladj[..., None, None], *self.image_shape[1:])
        return y.reshape(*batch, *shape), ladj

    def _batched(self, context: Any, batch: torch.Size) -> Tensor | None:
        if self.context_shape is None:
            return None  # in a chain every part is given the context, and ignores it if it takes none
        name, own = type(self).__name__, tuple(self.context_shape)
        if not isinstance(context, Tensor):
            raise ValueError(f"expected {name} to be called with a context (*batch, {', '.join(map(str, own))})")
        if tuple(context.shape[context.dim() - len(own) :]) != own:
            raise ValueError(f"expected the context of {name} to end in shape {own}; got {tuple(context.shape)}")
        try:
            wide = context.expand(*batch, *own)
        except RuntimeError:
            raise ValueError(
                f"expected a context of {name} whose batch broadcasts to {tuple(batch)}; got {tuple(context.shape)}"
            ) from None
        return wide.reshape(batch.numel(), *([-1] if self.flat else own))

    def _exchanged(self, shape: torch.Size, before: torch.Size, after: torch.Size, *, name: str) -> torch.Size:
        if shape[-3:] != before:
            raise ValueError(
                f"expected a {name} of {type(self).__name__} of shape (*batch, {', '.join(map(str, before))}), the one "
                f"size it was made for; got {tuple(shape)}"
            )
        return torch.Size([*shape[:-3], *after])

    def extra_repr(self) -> str:
        shapes = f"image_shape={tuple(self.image_shape)}, latent_shape={tuple(self.latent_shape)}"
        context = "" if self.context_shape is None else f", context_shape={tuple(self.context_shape)}"
        return f"{shapes}{context}, flat={self.flat}"


class Reshaped(nn.Module):
    """A transform of images for a library whose tensors are vectors: the reshaping of data, latents and contexts.

    Args:
        transform: the transform; its parameters are shared.
        image_shape: ``(C, H, W)``, if data and noise are vectors ``(*batch, C·H·W)``; None if they are images.
        context_shape: shape of a context without its batch, if the transform takes one; contexts may be vectors.

    Raises:
        ValueError: for an image shape that does not fit the transform.

    Example:
        >>> from flowsr.transforms import Haar
        >>> z, ladj = Reshaped(Haar(), image_shape=(1, 4, 4)).encode(torch.ones(7, 16), None)
        >>> z.shape, ladj.shape
        (torch.Size([7, 16]), torch.Size([7]))
    """

    def __init__(
        self,
        transform: ImageTransform,
        *,
        image_shape: Sequence[int] | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(transform, ImageTransform):
            raise ValueError(
                f"expected a transform of flowsr; got {type(transform).__name__}: of a model give model.transform"
            )
        self.transform = transform
        self.image_shape = None if image_shape is None else _three(image_shape, name="image_shape")
        self.latent_shape = None if self.image_shape is None else transform.inverse_shape(self.image_shape)
        self.context_shape = None if context_shape is None else torch.Size(context_shape)

    def encode(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Data to noise, with ``log|det ∂noise/∂data|``. Cost: one pass."""
        z, ladj = self.transform.inv_call_and_ladj(_shaped(x, self.image_shape), self.given(context))
        return (z if self.image_shape is None else z.flatten(-3)), ladj

    def decode(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Noise to data, with ``log|det ∂data/∂noise|``. Cost: one pass."""
        x, ladj = self.transform.call_and_ladj(_shaped(z, self.latent_shape), self.given(context))
        return (x if self.image_shape is None else x.flatten(-3)), ladj

    def given(self, context: Tensor | None) -> Tensor | None:
        """The context in the shape that the transform takes."""
        if context is None or self.context_shape is None:
            return context
        if context.shape[-1:] == (self.context_shape.numel(),) and len(self.context_shape) > 1:
            return context.unflatten(-1, self.context_shape)
        return context


def _shaped(x: Tensor, shape: torch.Size | None) -> Tensor:
    return x if shape is None else x.unflatten(-1, shape)


def _three(shape: Sequence[int], *, name: str) -> torch.Size:
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ValueError(f"expected {name} to be (channels, height, width); got {tuple(shape)}")
    return torch.Size(shape)
