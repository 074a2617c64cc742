"""nflows: its transforms as parts of a flow here, and transforms from here as parts of a flow there.

The two libraries look at a flow from opposite ends: nflows' ``forward`` takes data to noise, and its ``Flow`` adds the
log-determinant of that; here a transform generates. Both adapters turn the direction round, so that generating means
generating on both sides.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from flowsr.interop.foreign import ForeignTransform, Reshaped
from flowsr.interop.libraries import subclass
from flowsr.transforms import ImageTransform


class NflowsTransform(ForeignTransform):
    """A transform of nflows as an :class:`flowsr.transforms.ImageTransform`: encoding is its ``forward``.

    ``z, ladj = transform(x, context)`` encodes, ``x, ladj = transform.inverse(z, context)`` generates. Parameters and
    buffers are registered and train. What changes with the first batch or in training mode there does so here:
    initialize an nflows ActNorm by a forward pass of your own, and train no nflows BatchNorm with ``.train()``.

    Cost: nflows' own; autoregressive transforms generate one value after the other.

    Args:
        transform: an ``nflows.transforms.Transform``.
        image_shape: ``(C, H, W)`` of the images.
        latent_shape: of the latents, where the transform changes the shape (SqueezeTransform).
        context_shape: shape of a context without its batch; flattened for a transform of vectors.
        flat: whether it acts on vectors ``(n, C·H·W)`` or on images ``(n, C, H, W)``.

    Raises:
        ValueError: for something that is no such transform, one that caches its weights, or shapes that do not fit.

    References:
        Durkan, Bekasov, Murray and Papamakarios, nflows: normalizing flows in PyTorch (2020).

    Example:
        >>> from flowsr.interop import library
        >>> nflows = library("nflows.transforms")
        >>> squeeze = NflowsTransform(nflows.SqueezeTransform(), image_shape=(3, 4, 4), latent_shape=(12, 2, 2))
        >>> squeeze(torch.rand(5, 12, 2, 2)).shape
        torch.Size([5, 3, 4, 4])
    """

    def __init__(
        self,
        transform: nn.Module,
        *,
        image_shape: Sequence[int],
        latent_shape: Sequence[int] | None = None,
        context_shape: Sequence[int] | None = None,
        flat: bool = False,
    ) -> None:
        if not isinstance(transform, nn.Module) or not callable(getattr(transform, "inverse", None)):
            raise ValueError(
                f"expected a transform of nflows, with forward and inverse; got {type(transform).__name__}: of an "
                "nflows Flow give flow._transform"
            )
        if caching := [type(part).__name__ for part in transform.modules() if getattr(part, "using_cache", False)]:
            raise ValueError(
                f"expected transforms without a cache, which outlives the weights it was made of; got {caching[0]}: "
                "call its use_cache(False)"
            )
        shapes: dict[str, Any] = {"latent_shape": latent_shape, "context_shape": context_shape}
        super().__init__(transform, image_shape=image_shape, flat=flat, **shapes)

    def encode_batch(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.foreign(x, context)

    def decode_batch(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.foreign.inverse(z, context)


class _AsNflows(Reshaped):
    """A transform of flowsr as an ``nflows.transforms.Transform``, see :func:`to_nflows`."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise."""
        return self.encode(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data."""
        return self.decode(inputs, context)


def to_nflows(
    transform: ImageTransform,
    *,
    image_shape: Sequence[int] | None = None,
    context_shape: Sequence[int] | None = None,
) -> Any:
    """A transform of flowsr as an ``nflows.transforms.Transform``, for nflows' ``Flow`` and its compositions.

    ``forward`` takes images to latents, as nflows has it, ``inverse`` generates; parameters are shared.

    Cost: one pass of the transform per call.

    Args:
        transform: the transform, ``flow.transform`` of a model.
        image_shape: ``(C, H, W)``, if nflows' side is vectors ``(n, C·H·W)``; by default it is images.
        context_shape: shape of a context without its batch, if nflows' side has it as vectors.

    Returns:
        A module that is an ``nflows.transforms.Transform``.

    Raises:
        MissingExtraError: if nflows is not installed.
        ValueError: for something that is no transform, or shapes that do not fit.

    References:
        Durkan, Bekasov, Murray and Papamakarios, nflows: normalizing flows in PyTorch (2020).

    Example:
        >>> from flowsr.interop import library
        >>> from flowsr.transforms import Haar
        >>> normal = library("nflows.distributions.normal").StandardNormal([12, 2, 2])
        >>> flow = library("nflows.flows").Flow(to_nflows(Haar()), normal)
        >>> flow.sample(5).shape
        torch.Size([5, 3, 4, 4])
    """
    adapter = subclass(_AsNflows, "nflows.transforms", "Transform")
    return adapter(transform, image_shape=image_shape, context_shape=context_shape)


def __getattr__(name: str) -> Any:
    if name == "AsNflows":
        return subclass(_AsNflows, "nflows.transforms", "Transform")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
