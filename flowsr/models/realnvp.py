"""RealNVP: the multiscale flow of couplings on checkerboards and channels, as a density of images or of points."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.models.image_model import ModelConfig
from flowsr.models.latents import LRLikelihood, Term
from flowsr.models.unconditional import UnconditionalModel
from flowsr.nn import BatchNorm, ChannelAffine, ResidualNet
from flowsr.transforms import (
    ActNorm,
    AffineMap,
    Checkerboard,
    CheckerboardConditioner,
    CheckerboardShuffle,
    Compose,
    Coupling,
    FlowBatchNorm,
    ImageTransform,
    Logit,
    Multiscale,
    Partial,
    PixelShuffle,
)
from flowsr.transforms.elementwise import Tanh

Keep = Literal["first", "last"]

_NORMS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], ImageTransform]]] = {
    "batch": (BatchNorm, FlowBatchNorm),
    "actnorm": (ChannelAffine, ActNorm),
}
"""The normalization inside conditioners, and the one of what couplings have changed, by name."""


@dataclass(frozen=True, kw_only=True)
class RealNVPConfig(ModelConfig):
    """What fixes the architecture of a RealNVP.

    Args:
        image_channels: channels of the image; 3 for RGB, 2 for points of the plane as 1x1 images.
        scales: number of scales; sides of images are multiples of ``2^scales`` (points: one scale, any size).
        checkerboard_couplings: couplings on checkerboards at each scale, one more at the last; 0 for points, whose
            only scale then has the couplings on channels.
        channel_couplings: couplings on channels at each scale but the last.
        features: width of the conditioners at the finest scale; it doubles from scale to scale.
        blocks: residual blocks of each conditioner.
        kernel_size: width of the conditioners' kernels; 1 for points.
        norm: "batch" (as published) or "actnorm" (no statistics to keep, see :func:`flowsr.nn.batch_statistics`).
        logit: α of the logit that takes pixel values to the real line; 0 for none.

    Raises:
        ValueError: for values out of range.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 4.1; the released code.

    Example:
        >>> RealNVPConfig(scales=2, features=64, blocks=8).norm
        'batch'
    """

    image_channels: int = 3
    scales: int = 4
    checkerboard_couplings: int = 3
    channel_couplings: int = 3
    features: int = 32
    blocks: int = 2
    kernel_size: int = 3
    norm: Literal["batch", "actnorm"] = "batch"
    logit: float = 0.05

    def __post_init__(self) -> None:
        self.check_integers(
            {
                **dict.fromkeys(("image_channels", "scales", "features", "kernel_size"), 1),
                **dict.fromkeys(("checkerboard_couplings", "channel_couplings", "blocks"), 0),
            }
        )
        self.check_choice("norm", tuple(_NORMS))
        if not isinstance(self.logit, int | float) or not 0 <= self.logit < 0.5:
            raise ValueError(f"expected logit from 0 to 0.5; got {self.logit!r}")
        if not self.kernel_size % 2:
            raise ValueError(f"expected an odd kernel_size; got {self.kernel_size}")
        if self.checkerboard_couplings == 0 and (self.scales > 1 or self.image_channels < 2):
            raise ValueError(
                "expected one scale and at least two channels without checkerboard couplings, as for points; got "
                f"{self.scales} scales and {self.image_channels} channels"
            )


RealNVPPreset = Literal["realnvp", "realnvp-cifar10", "realnvp-small", "realnvp-points"]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, RealNVPConfig] = {
    "realnvp": RealNVPConfig(),
    "realnvp-cifar10": RealNVPConfig(scales=2, features=64, blocks=8),
    "realnvp-small": RealNVPConfig(scales=2, features=16, blocks=1, norm="actnorm"),
    "realnvp-points": RealNVPConfig(
        image_channels=2,
        scales=1,
        checkerboard_couplings=0,
        channel_couplings=8,
        features=64,
        blocks=1,
        kernel_size=1,
        norm="actnorm",
        logit=0.0,
    ),
}
"""The released default (64x64), the paper's for CIFAR-10, a small one, and one for points of the plane."""


class RealNVP(UnconditionalModel):
    """Real-valued non-volume-preserving flow: a density of images, ``p(x) = N(z; 0, 1) · |det ∂z/∂x|``.

    At each scale come couplings between the two colours of a checkerboard, then couplings between halves of the
    channels at half the resolution, and half of the pixels leave as a latent. Images are float tensors in [0, 1],
    taken to the real line by a logit.

    With ``norm="batch"`` a training step computes its loss inside :func:`flowsr.nn.batch_statistics`; everything else
    uses running statistics, so that the density of an image does not depend on its batch.

    Args:
        config: the architecture, see :class:`RealNVPConfig`.

    References:
        Dinh et al., Density Estimation Using Real NVP (ICLR 2017), arXiv 1605.08803.

    Example:
        >>> flow = RealNVP.from_preset("realnvp-small")
        >>> flow.sample((8, 12), num_samples=5).shape, flow.log_prob(torch.rand(2, 3, 8, 12)).shape
        (torch.Size([5, 3, 8, 12]), torch.Size([2]))
        >>> RealNVP.from_preset("realnvp-points").log_prob(torch.randn(7, 2, 1, 1)).shape
        torch.Size([7])
    """

    citations: ClassVar[tuple[str, ...]] = Coupling.citations

    config_class = RealNVPConfig
    presets: ClassVar[dict[str, RealNVPConfig]] = PRESETS
    config: RealNVPConfig

    def __init__(self, config: RealNVPConfig) -> None:
        super().__init__(config)
        self.transform = _build(config)

    @property
    def multiple(self) -> int:
        """What height and width of an image must be multiples of."""
        # The last scale has a checkerboard too, which needs pairs of pixels.
        return self.transform.scale * (2 if self.config.checkerboard_couplings else 1)

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr)`` as for Glow, with the logit's log-determinant as a term of its own."""
        terms = super().log_likelihood_terms(hr, lr, lr_log_scale=lr_log_scale, lr_likelihood=lr_likelihood)
        if not self.config.logit:
            return terms
        _, logit = Logit(self.config.logit).inv_call_and_ladj(hr.to(self.dtype))
        finest = [Term(t.kind, t.value - logit, t.level) if (t.kind, t.level) == ("main", 1) else t for t in terms]
        return (*finest, Term("preprocessing", logit))

    def _check_first(self, hr: Tensor) -> None:
        super()._check_first(hr) if self.config.logit else self._check_image(hr)

    def _check_image(self, hr: Tensor) -> None:
        alpha = self.config.logit
        # Points may lie anywhere; pixel values only where the logit is defined.
        tolerance = math.nextafter(alpha / (1 - 2 * alpha), 0.0) if alpha else None
        check_image(hr, name="hr", channels=self.config.image_channels, tolerance=tolerance)


def _build(config: RealNVPConfig) -> Multiscale:
    mains: list[ImageTransform] = []
    channels = config.image_channels
    for scale in range(config.scales):
        last = scale == config.scales - 1
        features = config.features * 2**scale
        encoding_order: list[ImageTransform] = []
        if scale == 0 and config.logit:
            encoding_order.append(Logit(config.logit))
        if config.checkerboard_couplings:
            encoding_order.append(Checkerboard())
            for i in range(config.checkerboard_couplings + last):
                encoding_order += _checkerboard_coupling(config, channels, features, keep="last" if i % 2 else "first")
            encoding_order.append(Checkerboard().inv)
        if not last:
            encoding_order.append(PixelShuffle(2))
        if not last or not config.checkerboard_couplings:
            # Squeezed, there are four times the channels, and twice the features.
            wide, double = (4 * channels, 2 * features) if not last else (channels, features)
            for i in range(config.channel_couplings):
                encoding_order += _channel_coupling(config, wide, double, keep="last" if i % 2 else "first")
        if not last:
            encoding_order += [PixelShuffle(2).inv, CheckerboardShuffle()]
        mains.append(Compose(reversed(encoding_order)))
        channels *= 2
    kept = [config.image_channels * 2**scale for scale in range(1, config.scales)]
    return Multiscale(mains, kept=kept, heads=[Compose([]) for _ in kept], image_channels=config.image_channels)


def _checkerboard_coupling(config: RealNVPConfig, channels: int, features: int, *, keep: Keep) -> list[ImageTransform]:
    norm, _ = _NORMS[config.norm]
    net = ResidualNet(
        channels,
        2 * channels,
        width=features,
        blocks=config.blocks,
        norm=norm,
        gain=2.0,
        masked=True,
        kernel_size=config.kernel_size,
    )
    # The scale's amplitude starts at zero on checkerboards and at one on channels, as in the released code.
    return _coupling(config, 2 * channels, channels, CheckerboardConditioner(net, keep=keep), keep=keep, start=0.0)


def _channel_coupling(config: RealNVPConfig, channels: int, features: int, *, keep: Keep) -> list[ImageTransform]:
    norm, _ = _NORMS[config.norm]
    kept = channels // 2 if keep == "first" else channels - channels // 2
    net = ResidualNet(
        kept,
        2 * (channels - kept),
        width=features,
        blocks=config.blocks,
        norm=norm,
        kernel_size=config.kernel_size,
    )
    return _coupling(config, channels, kept, net, keep=keep, start=1.0)


def _coupling(
    config: RealNVPConfig, channels: int, kept: int, conditioner: nn.Module, *, keep: Keep, start: float
) -> list[ImageTransform]:
    """A coupling and the normalization of what it changes, in encoding order."""
    _, flow_norm = _NORMS[config.norm]
    affine = AffineMap(log_scale=Tanh(start=start), interleaved=False)
    coupling = Coupling(channels, conditioner, map=affine, kept_channels=kept, keep=keep)
    normalization = Partial(channels, flow_norm(channels - kept), kept_channels=kept, keep=keep)
    return [coupling, normalization]
