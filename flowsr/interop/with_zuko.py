"""zuko, and transforms of torch.distributions: as parts of a flow here, and transforms from here in a flow there.

A zuko flow looks from data to noise: the transform of its ``NormalizingFlow`` encodes. Here a transform generates, and
both adapters turn the direction round.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform
from torch.distributions.transforms import ReshapeTransform

from flowsr.interop.foreign import ForeignTransform, Reshaped
from flowsr.interop.libraries import library, subclass
from flowsr.transforms import ImageTransform


class ZukoTransform(ForeignTransform):
    """A transform of zuko, lazy or not, or of torch.distributions as an :class:`flowsr.transforms.ImageTransform`.

    Encoding is the transform's call, ``z = transform(context)(x)`` for a ``LazyTransform`` and ``z = transform(x)``
    for another, and generating its inverse, as in a zuko flow. A transform of Pyro that generates goes in as its
    ``.inv``. A lazy transform is a module, whose parameters are registered and train; a plain one holds tensors that
    nobody registers. Caches of torch's transforms, which know nothing of parameters, are not used.

    Cost: zuko's own: one pass of the hyper-network to encode, for autoregressive transforms many to generate.

    Args:
        transform: a ``zuko.lazy.LazyTransform``, such as ``zuko.flows.MAF(…).transform``, or a ``Transform``.
        image_shape: ``(C, H, W)`` of the images.
        latent_shape: of the latents, where the transform changes the shape.
        context_shape: shape of a context without its batch; a lazy transform of vectors gets it flattened.
        flat: whether it acts on vectors ``(n, C·H·W)`` or on images ``(n, C, H, W)``.

    Raises:
        ValueError: for something that is no such transform, or shapes that do not fit.

    References:
        Rozet et al., Zuko: normalizing flows in PyTorch (2022).

    Example:
        >>> from torch.distributions import AffineTransform
        >>> double = ZukoTransform(AffineTransform(0.0, 2.0), image_shape=(1, 2, 2))
        >>> double.inv_call_and_ladj(torch.ones(1, 2, 2))[1].item() / 4  # log 2 per value
        0.69314...
    """

    def __init__(
        self,
        transform: Any,
        *,
        image_shape: Sequence[int],
        latent_shape: Sequence[int] | None = None,
        context_shape: Sequence[int] | None = None,
        flat: bool = True,
    ) -> None:
        whole_flow = hasattr(transform, "base") and isinstance(getattr(transform, "transform", None), nn.Module)
        if whole_flow or not isinstance(transform, Transform | nn.Module):
            raise ValueError(
                f"expected a lazy transform of zuko, or a transform of torch.distributions; got "
                f"{type(transform).__name__}: of a zuko flow give flow.transform"
            )
        if isinstance(transform, Transform) and context_shape is not None:
            raise ValueError("expected no context_shape, as only a lazy transform takes a context; got one")
        shapes: dict[str, Any] = {"latent_shape": latent_shape, "context_shape": context_shape}
        super().__init__(transform, image_shape=image_shape, flat=flat, **shapes)

    def encode_batch(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _call_and_ladj(self._given(context), x)

    def decode_batch(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return _call_and_ladj(self._given(context).inv, z)

    def _given(self, context: Tensor | None) -> Transform:
        plain = isinstance(self.foreign, Transform)
        transform: Transform = self.foreign if plain else self.foreign(context)
        return transform.with_cache(0) if getattr(transform, "_cache_size", 0) else transform


def _call_and_ladj(transform: Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and log-determinant, one per item of the batch, in a single pass where the transform has one."""
    both: Any = getattr(transform, "call_and_ladj", None)
    if both is not None:
        y, ladj = both(x)
    else:
        y: Any = transform(x)
        ladj: Any = transform.log_abs_det_jacobian(x, y)
    return y, ladj.flatten(1).sum(1) if ladj.dim() > 1 else ladj.expand(len(x))


class _AsZuko(Reshaped):
    """A transform of flowsr as a ``zuko.lazy.LazyTransform``, see :func:`to_zuko`."""

    def forward(self, c: Tensor | None = None) -> Any:
        """The transform from data to noise given a context."""
        context = self.given(c)
        encode = (self.transform if context is None else self.transform.condition(context)).inv
        if self.image_shape is None or self.latent_shape is None:
            return encode
        data = ReshapeTransform(torch.Size([self.image_shape.numel()]), self.image_shape)
        noise = ReshapeTransform(self.latent_shape, torch.Size([self.latent_shape.numel()]))
        return library("zuko.transforms").ComposedTransform(data, encode, noise)


def to_zuko(
    transform: ImageTransform,
    *,
    image_shape: Sequence[int] | None = None,
    context_shape: Sequence[int] | None = None,
) -> Any:
    """A transform of flowsr as a ``zuko.lazy.LazyTransform``, for ``zuko.lazy.Flow`` and lazy compositions.

    ``lazy(context)`` is a transform from images to latents, as zuko has it; its inverse generates. Parameters are
    shared. A transform here is one of torch.distributions too, and needs no adapter there: only zuko's direction and
    its contexts do.

    zuko's flows take a context for a vector: with a context and images, give both shapes.

    Cost: one pass of the transform per call.

    Args:
        transform: the transform, ``flow.transform`` of a model.
        image_shape: ``(C, H, W)``, if zuko's side is vectors ``(*batch, C·H·W)``; by default it is images.
        context_shape: shape of a context without its batch, if zuko's side has it as vectors.

    Returns:
        A module that is a ``zuko.lazy.LazyTransform``.

    Raises:
        MissingExtraError: if zuko is not installed.
        ValueError: for something that is no transform, or shapes that do not fit.

    References:
        Rozet et al., Zuko: normalizing flows in PyTorch (2022).

    Example:
        >>> from flowsr.interop import library
        >>> from flowsr.transforms import Haar
        >>> zuko = library("zuko")
        >>> lazy = zuko.lazy.UnconditionalDistribution(
        ...     zuko.distributions.DiagNormal, torch.zeros(48), torch.ones(48), buffer=True
        ... )
        >>> zuko.lazy.Flow(to_zuko(Haar(), image_shape=(3, 4, 4)), lazy)().sample((5,)).shape
        torch.Size([5, 48])
    """
    adapter = subclass(_AsZuko, "zuko.lazy", "LazyTransform")
    return adapter(transform, image_shape=image_shape, context_shape=context_shape)


def __getattr__(name: str) -> Any:
    if name == "AsZuko":
        return subclass(_AsZuko, "zuko.lazy", "LazyTransform")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
