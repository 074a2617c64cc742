"""Glow: the multiscale flow that HCFlow's and SRFlow's steps come from, as a density of images alone."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from flowsr.models.blocks import MIXINGS, Mixing, flow_step, split_head
from flowsr.models.image_model import ModelConfig
from flowsr.models.unconditional import UnconditionalModel
from flowsr.transforms import (
    AdditiveMap,
    AffineMap,
    Compose,
    ImageTransform,
    InvertibleConv1x1,
    LearnedNormal,
    Multiscale,
    PixelShuffle,
)
from flowsr.transforms.elementwise import Sigmoid


@dataclass(frozen=True, kw_only=True)
class GlowConfig(ModelConfig):
    """What fixes the architecture of a Glow.

    Args:
        image_channels: channels of the image; 3 for RGB.
        levels: L ≥ 1; sides of images are multiples of ``2^L``.
        steps: K, flow steps per level.
        hidden_channels: width of the conditioners.
        coupling: "affine" or "additive".
        mixing: the 1x1 convolutions: "dense", "plu" or "orthogonal".
        mark_border: variant: one more input channel of every 3x3 convolution is 1 outside of the image and 0 inside.
        learned_top: variant: the coarsest latent has a learned mean and width per channel, in place of N(0, I).

    Raises:
        ValueError: for values out of range.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), table 4 and section 5.

    Example:
        >>> GlowConfig(levels=2).steps
        32
    """

    variants = ("mark_border", "learned_top")

    image_channels: int = 3
    levels: int = 3
    steps: int = 32
    hidden_channels: int = 512
    coupling: Literal["affine", "additive"] = "affine"
    mixing: Mixing = "dense"
    mark_border: bool = False
    learned_top: bool = False

    def __post_init__(self) -> None:
        self.check_integers(dict.fromkeys(("image_channels", "levels", "steps", "hidden_channels"), 1))
        self.check_choice("coupling", ("affine", "additive"))
        self.check_choice("mixing", tuple(MIXINGS))
        self.check_choice("mark_border", (True, False))
        self.check_choice("learned_top", (True, False))


GlowPreset = Literal["glow", "glow-64", "glow-256", "glow-small"]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, GlowConfig] = {
    "glow": GlowConfig(levels=3, steps=32),
    "glow-64": GlowConfig(levels=4, steps=48),
    "glow-256": GlowConfig(levels=6, steps=32, coupling="additive"),
    "glow-small": GlowConfig(levels=3, steps=8, hidden_channels=64),
}
"""Published (CIFAR-10, ImageNet 64x64, CelebA-HQ 256x256) and small configurations by name."""


class Glow(UnconditionalModel):
    """Generative flow with invertible 1x1 convolutions: a density of images, ``p(x) = N(z; 0, 1) · |det ∂z/∂x|``.

    Images are float tensors in [0, 1], which the first ActNorm takes from there: there is no shift by one half as in
    the paper. What the released code does besides, to mark the border of the image and to learn the prior of the
    coarsest latent, are options that are off by default. The preset ``glow-256`` is for images of 5 bits, see
    :func:`flowsr.images.reduce_bits`.

    Args:
        config: the architecture, see :class:`GlowConfig`.

    References:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions (NeurIPS 2018), arXiv 1807.03039.

    Example:
        >>> flow = Glow.from_preset("glow-small", levels=2, steps=2)
        >>> flow.sample((8, 12), num_samples=5).shape, flow.log_prob(torch.rand(2, 3, 8, 12)).shape
        (torch.Size([5, 3, 8, 12]), torch.Size([2]))
    """

    citations: ClassVar[tuple[str, ...]] = InvertibleConv1x1.citations

    config_class = GlowConfig
    presets: ClassVar[dict[str, GlowConfig]] = PRESETS
    config: GlowConfig

    def __init__(self, config: GlowConfig) -> None:
        super().__init__(config)
        self.transform = _build(config)


def _build(config: GlowConfig) -> Multiscale:
    affine = partial(AffineMap, log_scale=Sigmoid(eps=0.0))
    mains: list[ImageTransform] = []
    heads: list[ImageTransform] = []
    kept: list[int] = []
    channels = config.image_channels
    for level in range(config.levels):
        channels *= 4
        steps = [
            flow_step(
                channels,
                hidden_channels=config.hidden_channels,
                map=AdditiveMap if config.coupling == "additive" else affine,
                mixing=config.mixing,
                conv_std=0.05,
                mark_border=config.mark_border,
            )
            for _ in range(config.steps)
        ]
        mains.append(Compose([*reversed(steps), PixelShuffle(2)]))
        if level < config.levels - 1:
            heads.append(split_head(channels, channels // 2, mark_border=config.mark_border))
            channels //= 2
            kept.append(channels)
    top = LearnedNormal(channels, mark_border=config.mark_border) if config.learned_top else None
    return Multiscale(mains, kept=kept, heads=heads, image_channels=config.image_channels, top=top)
