"""An affine map of all channels whose parameters come from the context alone."""

from torch import Tensor, nn

from flowsr._shapes import check_context
from flowsr.transforms.base import SameShapeTransform
from flowsr.transforms.elementwise import ElementwiseMap


class ConditionalAffine(SameShapeTransform):
    """Affine bijection with ``h = conditioner(context)``: a Gaussian of x given the context, or SRFlow's injector.

    With ``AffineMap(form="standardize", log_scale="exp")`` and a standard normal latent, x is Gaussian with the mean
    and the log standard deviation that the conditioner predicts.

    Cost: one run of the conditioner.

    Args:
        channels: channels of the image.
        conditioner: module from the features to ``map.params_per_channel`` times ``channels``.
        map: the affine map, or another elementwise one.
        context_channels: channels of the features.

    Raises:
        ValueError: on wrong channels, or a context that is missing or does not fit.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3; Lugmayr et al., SRFlow (ECCV 2020), section 3.3.

    Example:
        >>> from flowsr.nn import ZeroConv2d
        >>> from flowsr.transforms import AffineMap
        >>> head = ConditionalAffine(4, ZeroConv2d(8, 8), map=AffineMap(form="standardize"), context_channels=8)
        >>> head.call_and_ladj(torch.ones(4, 2, 2), torch.ones(8, 2, 2))[1].item()
        0.0
    """

    def __init__(self, channels: int, conditioner: nn.Module, *, map: ElementwiseMap, context_channels: int) -> None:
        super().__init__(channels)
        self.context_channels = context_channels
        self.conditioner = conditioner
        self.map = map

    def call_and_ladj(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map.decode(z, self._condition(z, context))

    def inv_call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map.encode(x, self._condition(x, context))

    def _condition(self, x: Tensor, context: Tensor | None) -> Tensor:
        self.inverse_shape(x.shape)
        return self.conditioner(check_context(x, context, channels=self.context_channels, name="ConditionalAffine"))

    def extra_repr(self) -> str:
        return f"{self.channels}, context_channels={self.context_channels}"
