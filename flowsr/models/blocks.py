"""The blocks that HCFlow, SRFlow and Glow share: the flow step with its options, and the Gaussian head of a split."""

from collections.abc import Callable
from typing import Literal

from flowsr.nn import FCN, ZeroConv2d
from flowsr.transforms import (
    AffineMap,
    Compose,
    ConditionalAffine,
    Coupling,
    ElementwiseMap,
    FlowStep,
    ImageTransform,
    InvertibleConv1x1,
    InvertibleConv1x1Orthogonal,
    InvertibleConv1x1PLU,
)

Mixing = Literal["dense", "plu", "orthogonal"]

MIXINGS: dict[str, Callable[[int], ImageTransform]] = {
    "dense": InvertibleConv1x1,
    "plu": InvertibleConv1x1PLU,
    "orthogonal": InvertibleConv1x1Orthogonal,
}
"""What mixes the channels in a flow step, by name."""


def flow_step(
    channels: int,
    *,
    hidden_channels: int,
    map: Callable[[], ElementwiseMap] = AffineMap,
    context_channels: int = 0,
    mixing: Mixing = "dense",
    injector: bool = False,
    conv_std: float | None = None,
    mark_border: bool = False,
) -> FlowStep:
    """A flow step whose coupling keeps the first half of the channels and has an FCN for its conditioner.

    ========  =============  ============  ========  =================
    model     map            context       injector  start of the FCN
    ========  =============  ============  ========  =================
    HCFlow    atan           per level     no        Xavier·0.1
    SRFlow    sigmoid, 1e-4  per level     yes       N(0, 0.05²)
    Glow      sigmoid, 0     none          no        N(0, 0.05²)
    ========  =============  ============  ========  =================

    Args:
        channels: channels of the image.
        hidden_channels: width of the conditioner.
        map: makes the elementwise bijection of the coupling, and of the injector.
        context_channels: channels of the features; 0 for none.
        mixing: what mixes the channels, see ``MIXINGS``.
        injector: before the coupling (encoding), an affine map of all channels from the features alone.
        conv_std: standard deviation of the FCN's initial weights; None for Xavier-normal times 0.1.
        mark_border: the FCN of the coupling sees where the border of the image is (an option of Glow).

    Example:
        >>> flow_step(12, hidden_channels=8).inverse_shape((12, 4, 4))
        (12, 4, 4)
    """
    kept = channels // 2
    elementwise = map()
    conditioner = FCN(
        kept,
        elementwise.params_per_channel * (channels - kept),
        hidden_channels=hidden_channels,
        context_channels=context_channels,
        std=conv_std,
        mark_border=mark_border,
    )
    coupling: ImageTransform = Coupling(
        channels, conditioner, map=elementwise, kept_channels=kept, context_channels=context_channels
    )
    if injector:
        elementwise = map()
        conditioner = FCN(
            context_channels,
            elementwise.params_per_channel * channels,
            hidden_channels=hidden_channels,
            std=conv_std,
        )
        inject = ConditionalAffine(channels, conditioner, map=elementwise, context_channels=context_channels)
        coupling = Compose([coupling, inject])
    return FlowStep(channels, coupling=coupling, mixing=MIXINGS[mixing](channels))


def split_head(channels: int, kept: int, *, mark_border: bool = False) -> Coupling:
    """The Gaussian head of a split: the details are standardized with mean and log-scale from what is kept.

    It is a coupling that keeps the first ``kept`` channels, with one convolution that starts at zero.
    """
    return Coupling(
        channels,
        ZeroConv2d(kept, 2 * (channels - kept), mark_border=mark_border),
        map=AffineMap(form="standardize", log_scale="exp"),
        kept_channels=kept,
    )
