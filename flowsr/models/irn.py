"""IRN: invertible image rescaling with latents that do not depend on the LR image."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.models.image_model import ModelConfig, is_int
from flowsr.transforms import Compose, Haar, Hierarchy, ImageTransform, LearnedDownsampling, irn_couplings
from flowsr.transforms.levels import UnconditionalLevel

_HALVINGS = {2: 1, 4: 2, 8: 3}

_BIBTEX = """@inproceedings{xiao2020invertible,
  title     = {Invertible Image Rescaling},
  author    = {Xiao, Mingqing and Zheng, Shuxin and Liu, Chang and Wang, Yaolong and He, Di and Ke, Guolin and
               Bian, Jiang and Lin, Zhouchen and Liu, Tie-Yan},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2020},
  url       = {https://arxiv.org/abs/2005.05650}
}"""


@dataclass(frozen=True, kw_only=True)
class IRNConfig(ModelConfig):
    """What fixes the architecture of an IRN.

    Args:
        upscale: 2, 4 or 8 by Haar transforms; 3 by one learned downsampling.
        image_channels: channels of the image; 3 for RGB.
        blocks: invertible blocks after each change of resolution, finest first.
        growth: growth of the dense blocks.

    Raises:
        ValueError: for values out of range.

    References:
        Xiao et al., IRN (ECCV 2020), section 4.1; the released configurations.

    Example:
        >>> IRNConfig(upscale=2, blocks=(8,)).task
        'rescaling'
    """

    upscale: int = 4
    image_channels: int = 3
    blocks: tuple[int, ...] = (8, 8)
    growth: int = 32

    def __post_init__(self) -> None:
        self.check_choice("upscale", (2, 3, 4, 8))
        self.check_integers({"image_channels": 1, "growth": 1})
        self.make_tuple("blocks")
        changes = _HALVINGS.get(self.upscale, 1)
        if len(self.blocks) != changes or any(not is_int(n) or n < 1 for n in self.blocks):
            raise ValueError(f"expected blocks to be {changes} integers >= 1 for x{self.upscale}; got {self.blocks}")

    @property
    def task(self) -> str:
        """What the model is made for: "rescaling"."""
        return "rescaling"


_SMALL: dict[str, Any] = {"growth": 16}

IRNPreset = Literal[
    "irn-x2", "irn-x3", "irn-x4", "irn-x8", "irn-x2-small", "irn-x3-small", "irn-x4-small", "irn-x8-small"
]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, IRNConfig] = {
    "irn-x2": IRNConfig(upscale=2, blocks=(8,)),
    "irn-x3": IRNConfig(upscale=3, blocks=(12,)),
    "irn-x4": IRNConfig(upscale=4, blocks=(8, 8)),
    "irn-x8": IRNConfig(upscale=8, blocks=(8, 8, 8)),
    "irn-x2-small": IRNConfig(upscale=2, blocks=(4,), **_SMALL),
    "irn-x3-small": IRNConfig(upscale=3, blocks=(4,), **_SMALL),
    "irn-x4-small": IRNConfig(upscale=4, blocks=(4, 4), **_SMALL),
    "irn-x8-small": IRNConfig(upscale=8, blocks=(2, 2, 2), **_SMALL),
}
"""Published and small configurations by name."""


class IRN(HierarchyModel):
    """Invertible rescaling network: an image is an LR image and a latent that is to be standard normal.

    The bijection is a change of resolution followed by blocks of couplings between the LR image's channels and the
    rest, as often as the factor needs. There is no ActNorm, no 1x1 convolution and no conditional flow: in the terms
    of :class:`flowsr.HCFlow`, IRN is a hierarchy of one level with nothing conditional.

    The authors train it with pixel losses and never as a likelihood. Its log-determinant here is the true one, so
    ``condition(lr).log_prob(hr)`` is a density, of a model that was not fitted to be one.

    Args:
        config: the architecture, see :class:`IRNConfig`.

    References:
        Xiao et al., Invertible Image Rescaling (ECCV 2020), arXiv 2005.05650.

    Example:
        >>> flow = IRN.from_preset("irn-x4-small")
        >>> lr = flow.downscale(torch.rand(2, 3, 16, 24))
        >>> lr.shape, flow.enlarge(lr, temperature=0.0).shape
        (torch.Size([2, 3, 4, 6]), torch.Size([2, 3, 16, 24]))
    """

    citations: ClassVar[tuple[str, ...]] = (_BIBTEX,)

    config_class = IRNConfig
    presets: ClassVar[dict[str, IRNConfig]] = PRESETS
    config: IRNConfig

    def __init__(self, config: IRNConfig) -> None:
        super().__init__(config)
        self.transform = _build(config)


def _build(config: IRNConfig) -> Hierarchy:
    encoding_order: list[ImageTransform] = []
    channels = config.image_channels
    for blocks in config.blocks:
        factor = 3 if config.upscale == 3 else 2
        channels *= factor**2
        encoding_order.append(LearnedDownsampling(3) if factor == 3 else Haar())
        for _ in range(blocks):
            couplings = irn_couplings(channels, image_channels=config.image_channels, growth=config.growth)
            encoding_order.extend(couplings)
    return Hierarchy(
        [Compose(reversed(encoding_order))],
        [UnconditionalLevel(channels - config.image_channels)],
        image_channels=config.image_channels,
        scale=config.upscale,
    )
