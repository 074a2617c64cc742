"""The contract of every transform of images, and the only file that knows torch's and Pyro's traps.

To write a transform, subclass :class:`ImageTransform` and define four methods: :meth:`~ImageTransform.call_and_ladj`
(latent to image) and :meth:`~ImageTransform.inv_call_and_ladj` (image to latent), each a single pass that returns the
value together with its log-determinant, and :meth:`~ImageTransform.forward_shape` and
:meth:`~ImageTransform.inverse_shape`. Everything else that Pyro expects of a transform is derived here.

Pyro's cache of the last value is never used: it is keyed on the identity of tensors, not on parameters, and returns
stale values after an optimizer step. Methods that return value and log-determinant together make it unnecessary.
"""

from typing import Any, ClassVar

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn

from flowsr._support.shapes import check_image_shape


class ImageTransform(TransformModule):
    """A bijection between a latent ``z`` and an image ``x``, both of shape ``(*batch, C, H, W)``.

    Direction: ``transform(z) = x`` generates and ``transform.inv(x) = z`` encodes, as in Pyro, so that
    ``TransformedDistribution(base, [transform])`` is a distribution of images. Both sides have event dimension 3.

    A subclass defines

    - ``call_and_ladj(z, context=None) -> (x, ladj)`` with ``ladj = log|det ∂x/∂z|`` of the batch's shape,
    - ``inv_call_and_ladj(x, context=None) -> (z, ladj)`` with ``ladj = log|det ∂z/∂x|``,
    - ``forward_shape(shape)`` and ``inverse_shape(shape)``, which also refuse shapes that do not fit,

    and, if it comes from a paper, whom to cite: ``citations``, BibTeX, which :func:`flowsr.cite` collects. It works for
    any batch shape (the convolutions of :mod:`flowsr.nn` take care of that). Scoring and sampling
    must not change it. :func:`flowsr.testing.check_transform` tests all of this.

    Raises:
        TypeError: when a subclass that leaves out one of the four methods is instantiated.

    References:
        Papamakarios et al., Normalizing Flows for Probabilistic Modeling and Inference (JMLR 2021), section 2.1.

    Example:
        >>> from flowsr.transforms import PixelShuffle
        >>> x, ladj = PixelShuffle(2).call_and_ladj(torch.zeros(5, 12, 4, 4))
        >>> x.shape, ladj.shape
        (torch.Size([5, 3, 8, 8]), torch.Size([5]))
    """

    domain = constraints.independent(constraints.real, 3)
    codomain = constraints.independent(constraints.real, 3)
    bijective = True
    citations: ClassVar[tuple[str, ...]] = ()

    _required: ClassVar = ("call_and_ladj", "inv_call_and_ladj", "forward_shape", "inverse_shape")

    def __new__(cls, *_args: Any, **_kwargs: Any):
        # Not abc.ABC: its metaclass would conflict with that of Pyro's PyroModule.
        missing = [name for name in cls._required if getattr(cls, name) is getattr(ImageTransform, name)]
        if missing:
            raise TypeError(
                f"expected {cls.__name__} to define {', '.join(cls._required)}; missing {', '.join(missing)}"
            )
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__(cache_size=0)

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Generate: map latent ``z`` to image ``x`` and return ``(x, log|det ∂x/∂z|)``."""
        raise NotImplementedError

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        """Encode: map image ``x`` to latent ``z`` and return ``(z, log|det ∂z/∂x|)``."""
        raise NotImplementedError

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the image for a latent of this shape; raises ValueError if it does not fit."""
        raise NotImplementedError

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the latent for an image of this shape; raises ValueError if it does not fit."""
        raise NotImplementedError

    def condition(self, context: Any) -> "Conditioned":
        """Fix the context: a transform that calls this one with it, sharing its parameters."""
        return Conditioned(self, context)

    @property
    def inv(self) -> "ImageTransform":
        """The inverse as a transform of its own; a Module, so that its parameters are registered."""
        return Inverse(self)

    def with_cache(self, cache_size: int = 1) -> "ImageTransform":
        """Return this transform: there is nothing to cache, and a copy would have parameters of its own."""
        return self

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Pyro's name for the log-determinant of ``x -> y = self(x)``; here ``x`` is the latent. Cost: one pass."""
        return self.call_and_ladj(self.as_weights(x))[1]

    def as_weights(self, x: Tensor) -> Tensor:
        """``x`` in the dtype and on the device of the weights, as distributions that were made before these moved give.

        Cost: nothing where they agree.
        """
        weight = next(self.parameters(), None)
        return x if weight is None or not weight.is_floating_point() else x.to(weight.device, weight.dtype)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(self.as_weights(x))[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inv_call_and_ladj(self.as_weights(y))[0]

    def __repr__(self) -> str:
        # Transform comes before Module among the bases and would print only the class name.
        return nn.Module.__repr__(self)


class SameShapeTransform(ImageTransform):
    """An :class:`ImageTransform` between tensors of one shape with a given number of channels.

    Args:
        channels: channels of latent and image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        check_image_shape(shape, channels=self.channels, name=f"the input of {type(self).__name__}")
        return shape


class Inverse(ImageTransform):
    """The inverse of a transform, with the two directions exchanged; its own inverse is the original.

    Args:
        transform: the transform to invert; its parameters are shared.

    Example:
        >>> from flowsr.transforms import PixelShuffle
        >>> PixelShuffle(2).inv(torch.zeros(3, 4, 4)).shape
        torch.Size([12, 2, 2])
    """

    def __init__(self, transform: ImageTransform) -> None:
        super().__init__()
        self.transform = transform

    @property
    def codomain(self) -> Any:
        """What the transform takes."""
        return self.transform.domain

    @property
    def domain(self) -> Any:
        """What the transform gives."""
        return self.transform.codomain

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.transform.inv_call_and_ladj(z, context)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.transform.call_and_ladj(x, context)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.forward_shape(shape)

    @property
    def inv(self) -> ImageTransform:
        return self.transform


class Conditioned(ImageTransform):
    """A transform with its context fixed, as :meth:`ImageTransform.condition` returns it.

    Args:
        transform: the transform; its parameters are shared.
        context: what is passed to each of its calls.

    Raises:
        ValueError: when called with another context.
    """

    def __init__(self, transform: ImageTransform, context: Any) -> None:
        super().__init__()
        self.transform = transform
        if isinstance(context, Tensor):
            # A buffer moves with the module; not persistent, as it is no part of a checkpoint.
            self.register_buffer("context", context, persistent=False)
        else:
            self.context = context

    @property
    def codomain(self) -> Any:
        """What the transform gives."""
        return self.transform.codomain

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self._refuse(context)
        return self.transform.call_and_ladj(z, self.context)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self._refuse(context)
        return self.transform.inv_call_and_ladj(x, self.context)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.forward_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.transform.inverse_shape(shape)

    def _refuse(self, context: Any) -> None:
        if context is not None:
            raise ValueError("expected no context, as this transform is conditioned already; got another one")
