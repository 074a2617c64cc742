"""A level without a conditional flow: its details are its latent, standard normal whatever the coarser image is."""

from typing import Any

from torch import Tensor

from flowsr._shapes import constant_ladj
from flowsr.transforms.base import SameShapeTransform


class UnconditionalLevel(SameShapeTransform):
    """The identity in the place of a :class:`ConditionalLevel`: ``z = a``, ``ladj = 0``.

    With it a hierarchy says that the details do not depend on the LR image, as IRN does.

    Cost: none.

    Args:
        channels: channels of the details.

    References:
        Xiao et al., IRN (ECCV 2020), section 3.1: the case-agnostic latent.

    Example:
        >>> UnconditionalLevel(9)(torch.ones(9, 2, 2)).mean().item()
        1.0
    """

    def features(self, context: Tensor) -> Tensor:
        """No features: the first zero channels of the context."""
        return context[..., :0, :, :]

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return z, constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.call_and_ladj(x)

    def call_with_features(self, z: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`ConditionalLevel.call_with_features`; the features are not looked at."""
        return self.call_and_ladj(z)

    def inv_call_with_features(self, a: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`ConditionalLevel.inv_call_with_features`, with two log-determinants of zero."""
        z, ladj = self.call_and_ladj(a)
        return z, ladj, ladj
