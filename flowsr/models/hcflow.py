"""HCFlow: one bijection between an HR image and its LR image with a Gaussian latent per level."""

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.models.blocks import MIXINGS, Mixing, flow_step
from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.models.image_model import ModelConfig, is_int
from flowsr.models.latents import pooled
from flowsr.nn import FCN, RRDBEncoder
from flowsr.transforms import (
    AffineMap,
    Compose,
    ConditionalAffine,
    ConditionalLevel,
    ElementwiseMap,
    FlowStep,
    Haar,
    Hierarchy,
    ImageTransform,
    InvertibleConv1x1,
    PixelShuffle,
    SinhArcsinhMap,
    SplineMap,
    rescaling_coupling,
)
from flowsr.transforms.conv1x1 import random_rotation

Task = Literal["super-resolution", "rescaling"]
Start = Literal["rotation", "haar"]

_BIBTEX = """@inproceedings{liang2021hierarchical,
  title     = {Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image Rescaling},
  author    = {Liang, Jingyun and Lugmayr, Andreas and Zhang, Kai and Danelljan, Martin and Van Gool, Luc and
               Timofte, Radu},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021},
  url       = {https://arxiv.org/abs/2108.05301}
}"""


@dataclass(frozen=True, kw_only=True)
class HCFlowConfig(ModelConfig):
    """What fixes the architecture of an HCFlow; the upscale factor is ``2 ** levels``.

    Args:
        task: "super-resolution" (pixel shuffle, 1x1 convolutions) or "rescaling" (Haar, 3-channel couplings).
        image_channels: channels of the image; 3 for RGB.
        levels: L ≥ 1.
        steps: K, flow steps per level, conditional ones included.
        conditional_steps: K_c, how many of them belong to the conditional flow.
        hidden_channels: width of the main flow's conditioners (super-resolution).
        conditional_hidden_channels: width of the conditional flow's conditioners.
        dense_growth: growth of the dense blocks in the main flow's couplings (rescaling).
        features: width nf of the feature encoders.
        growth: growth gc of the encoders' dense blocks.
        rrdbs: number of RRDBs in the first and second trunk of each encoder.
        coupling: variant: "spline" puts rational-quadratic splines in the place of the affine maps of all couplings.
        spline_bins: bins of each spline.
        spline_bound: where its linear tails begin.
        mixing: variant: "plu" or "orthogonal" 1x1 convolutions instead of "dense" ones.
        head: variant: "sinh-arcsinh" lets the head of each level predict a skewness and a weight of the tails for each
            value of a latent, beside mean and width.
        prior: variant: "learned" gives the latent of each level a Gaussian whose mean and width an FCN predicts from
            the level's features, in place of N(0, I); it comes on top of the head, which is one convolution.
        hierarchical: variant: False takes the features of coarser levels away from each level's encoder, which then
            sees only what the main flow keeps at that level (the ablation of the paper).
        learned_lr_width: variant: True learns the width σ of the LR image, from the published e^-6 on.

    Raises:
        ValueError: for values out of range.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4; the released configurations.

    Example:
        >>> HCFlowConfig(levels=3).upscale
        8
    """

    variants = (
        "coupling",
        "spline_bins",
        "spline_bound",
        "mixing",
        "head",
        "prior",
        "hierarchical",
        "learned_lr_width",
    )

    task: Task = "super-resolution"
    image_channels: int = 3
    levels: int = 2
    steps: int = 26
    conditional_steps: int = 13
    hidden_channels: int = 64
    conditional_hidden_channels: int = 64
    dense_growth: int = 32
    features: int = 64
    growth: int = 32
    rrdbs: tuple[int, int] = (7, 7)
    coupling: Literal["affine", "spline"] = "affine"
    spline_bins: int = 8
    spline_bound: float = 5.0
    mixing: Mixing = "dense"
    head: Literal["gaussian", "sinh-arcsinh"] = "gaussian"
    prior: Literal["standard", "learned"] = "standard"
    hierarchical: bool = True
    learned_lr_width: bool = False

    def __post_init__(self) -> None:
        self.check_choice("task", ("super-resolution", "rescaling"))
        self.make_tuple("rrdbs")
        if len(self.rrdbs) != 2 or any(not is_int(n) or n < 0 for n in self.rrdbs):
            raise ValueError(f"expected rrdbs to be two integers >= 0; got {self.rrdbs}")
        self.check_choice("coupling", ("affine", "spline"))
        self.check_choice("mixing", tuple(MIXINGS))
        self.check_choice("head", ("gaussian", "sinh-arcsinh"))
        self.check_choice("prior", ("standard", "learned"))
        self.check_choice("hierarchical", (True, False))
        self.check_choice("learned_lr_width", (True, False))
        if not isinstance(self.spline_bound, int | float) or not 0 < self.spline_bound < math.inf:
            raise ValueError(f"expected a positive spline_bound; got {self.spline_bound!r}")
        if is_int(self.spline_bins) and self.spline_bins > 999:
            raise ValueError(f"expected at most 999 spline_bins; got {self.spline_bins}")
        least = {f.name: 1 for f in fields(self) if is_int(f.default)}
        self.check_integers({**least, "conditional_steps": 0, "spline_bins": 2})
        if self.conditional_steps > self.steps:
            raise ValueError(f"expected conditional_steps <= steps = {self.steps}; got {self.conditional_steps}")

    @property
    def upscale(self) -> int:
        """The upscale factor s = 2^L."""
        return int(2**self.levels)


_SMALL: dict[str, Any] = {
    "steps": 8,
    "hidden_channels": 32,
    "conditional_hidden_channels": 32,
    "dense_growth": 16,
    "features": 32,
    "growth": 16,
    "rrdbs": (1, 1),
}

HCFlowPreset = Literal["sr-x4", "sr-x8", "rescaling-x4", "sr-x4-small", "sr-x8-small", "rescaling-x4-small"]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, HCFlowConfig] = {
    "sr-x4": HCFlowConfig(levels=2, rrdbs=(7, 7)),
    "sr-x8": HCFlowConfig(levels=3, rrdbs=(5, 5)),
    "rescaling-x4": HCFlowConfig(task="rescaling", steps=14, conditional_steps=6, growth=16, rrdbs=(2, 1)),
    "sr-x4-small": HCFlowConfig(levels=2, conditional_steps=4, **_SMALL),
    "sr-x8-small": HCFlowConfig(levels=3, conditional_steps=4, **_SMALL),
    "rescaling-x4-small": HCFlowConfig(task="rescaling", levels=2, conditional_steps=3, **_SMALL),
}
"""Published and small configurations by name."""


def build_hierarchy(config: HCFlowConfig) -> Hierarchy:
    """Assemble the transform of an HCFlow from its configuration.

    Level by level, fine to coarse, the channels after each change of resolution are 4·C, 8·C, 16·C, …; half of them
    go on to the next level, except at the last, which keeps the C channels of the LR image.
    """
    rescaling = config.task == "rescaling"
    head_log_scale = "atan" if rescaling else "exp"
    feature_channels = config.features if rescaling else 2 * config.features
    mains: list[ImageTransform] = []
    conditionals: list[ConditionalLevel] = []
    channels = config.image_channels
    for level in range(config.levels):
        channels *= 4
        last = level == config.levels - 1
        kept = config.image_channels if last else channels // 2
        main_steps = [_main_step(config, channels, step) for step in range(config.steps - config.conditional_steps)]
        mains.append(Compose([*reversed(main_steps), Haar() if rescaling else PixelShuffle(2)]))
        coarser = config.levels - 1 - level
        encoder = RRDBEncoder(
            kept + (coarser * feature_channels if config.hierarchical else 0),
            channels=config.features,
            growth=config.growth,
            blocks=config.rrdbs,
            stack_trunks=not rescaling,
        )
        details = channels - kept
        steps = [_conditional_step(config, details, feature_channels) for _ in range(config.conditional_steps)]
        conditionals.append(
            ConditionalLevel(
                details,
                encoder=encoder,
                steps=reversed(steps),
                head_log_scale=head_log_scale,
                head=SinhArcsinhMap(log_scale=head_log_scale) if config.head == "sinh-arcsinh" else None,
                prior=_prior(config, details, feature_channels, head_log_scale) if config.prior == "learned" else None,
            )
        )
        channels = kept
    return Hierarchy(mains, conditionals, image_channels=config.image_channels, hierarchical=config.hierarchical)


def _main_step(config: HCFlowConfig, channels: int, step: int) -> FlowStep:
    if config.task == "rescaling":
        coupling = rescaling_coupling(
            channels, step=step, image_channels=config.image_channels, growth=config.dense_growth, map=_map(config)
        )
        return FlowStep(channels, coupling=coupling)
    return flow_step(channels, hidden_channels=config.hidden_channels, map=partial(_map, config), mixing=config.mixing)


def _conditional_step(config: HCFlowConfig, channels: int, feature_channels: int) -> FlowStep:
    return flow_step(
        channels,
        hidden_channels=config.conditional_hidden_channels,
        map=partial(_map, config),
        context_channels=feature_channels,
        mixing=config.mixing,
    )


def _map(config: HCFlowConfig) -> ElementwiseMap:
    if config.coupling == "spline":
        return SplineMap(bins=config.spline_bins, bound=config.spline_bound)
    return AffineMap(log_scale="atan")


def _prior(config: HCFlowConfig, channels: int, feature_channels: int, log_scale: str) -> ConditionalAffine:
    conditioner = FCN(feature_channels, 2 * channels, hidden_channels=config.conditional_hidden_channels)
    return ConditionalAffine(
        channels,
        conditioner,
        map=AffineMap(form="standardize", log_scale=log_scale),
        context_channels=feature_channels,
    )


@torch.no_grad()
def haar_start(hierarchy: Hierarchy) -> None:
    """Start the main flow of every level as a Haar transform, so that the flow's LR image is a box average at once.

    The first 1x1 convolution of a level becomes the Haar transform with the averages first (÷4, details ÷2). Later
    main steps rotate all channels but the image's own; conditional steps rotate all. The main steps' ActNorms stay
    the identity (they count as initialized), those of the conditional steps still take their start from data.
    The random-rotation start spends its first thousand steps finding out that an LR image is an average of pixels.

    Args:
        hierarchy: the transform of a freshly built HCFlow.
    """
    own = hierarchy.image_channels
    for main in hierarchy.mains:
        # Modules come parents first, and a composition lists its parts from the latent side.
        steps = [module for module in main.modules() if isinstance(module, FlowStep)][::-1]
        for index, step in enumerate(steps):
            step.actnorm.affine.initialized.fill_(True)
            if isinstance(step.mixing, InvertibleConv1x1):
                channels = step.mixing.channels
                step.mixing.weight.copy_(haar_matrix(channels) if index == 0 else _rotate_details(channels, own))


def haar_matrix(channels: int) -> Tensor:
    """The Haar transform as a 1x1 convolution after a pixel unshuffle: averages first, divided by 4, details by 2."""
    unit = torch.eye(channels).reshape(channels, channels, 1, 1)
    pixels = torch.nn.functional.pixel_shuffle(unit, 2)
    matrix = Haar().inv_call_and_ladj(pixels)[0].reshape(channels, channels).mT.clone()
    matrix[channels // 4 :] *= 2.0
    return matrix


def _rotate_details(channels: int, own: int) -> Tensor:
    weight = torch.eye(channels)
    weight[own:, own:] = random_rotation(channels - own)
    return weight


class HCFlow(HierarchyModel):
    """Hierarchical conditional flow for super-resolution or rescaling.

    The model of an HR image x given its LR image y* is ::

        p(x | y*) = N(y; y*, σ²) · Π_l N(z_l; 0, 1) · |det ∂(y, z)/∂x|,   σ = e^-6 approximating δ(y − y*).

    Images are float tensors in [0, 1] of shape ``(*batch, C, H, W)`` with H and W multiples of the upscale factor.

    Args:
        config: the architecture, see :class:`HCFlowConfig`.
        start: initial weights, "rotation" (as published) or "haar" (the LR image is a box average from the first
            step); couplings start at the identity in both.

    Attributes:
        config: the architecture.
        transform: the packed :class:`flowsr.transforms.Hierarchy`, latent to image.
        provenance: free-form facts about the weights that travel with the file, see :func:`flowsr.save`.

    References:
        Liang et al., Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image
        Rescaling (ICCV 2021), arXiv 2108.05301.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small")
        >>> lr = torch.rand(2, 3, 6, 8)
        >>> flow.sample(lr, num_samples=5, temperature=0.8).shape
        torch.Size([5, 2, 3, 24, 32])
        >>> flow.condition(lr).log_prob(torch.rand(2, 3, 24, 32)).shape
        torch.Size([2])
    """

    citations: ClassVar[tuple[str, ...]] = (_BIBTEX,)

    config_class = HCFlowConfig
    presets: ClassVar[dict[str, HCFlowConfig]] = PRESETS
    starts: ClassVar[tuple[str, ...]] = ("rotation", "haar")
    config: HCFlowConfig

    def __init__(self, config: HCFlowConfig, *, start: Start = "rotation") -> None:
        super().__init__(config)
        if start not in ("rotation", "haar"):
            raise ValueError(f"expected start to be rotation or haar; got {start!r}")
        if start == "haar" and config.mixing != "dense":
            raise ValueError(
                "expected mixing dense with start haar, which sets the weights of dense 1x1 convolutions; got mixing "
                f"{config.mixing!r}: use start='rotation'"
            )
        self.transform = build_hierarchy(config)
        self.log_width = nn.Parameter(torch.tensor(-6.0)) if config.learned_lr_width else None
        if start == "haar":
            haar_start(self.transform)

    @property
    def lr_log_scale(self) -> float | Tensor:
        """log σ, the width of the LR image in :meth:`condition` where none is given: −6, or the learned one."""
        return -6.0 if self.log_width is None else self.log_width

    @classmethod
    @torch.inference_mode(False)
    def from_preset(cls, name: str, *, start: Start = "rotation", **changes: Any) -> "HCFlow":
        """A model with random weights from a named configuration.

        Args:
            name: sr-x4, sr-x8, rescaling-x4, or one of them with ``-small``.
            start: initial weights, see the class.
            **changes: fields of :class:`HCFlowConfig` to change, for example ``image_channels=1``.

        Raises:
            ValueError: for an unknown preset, or a change to something that is not a field.

        Example:
            >>> HCFlow.from_preset("sr-x8-small", image_channels=1).sample(torch.rand(1, 2, 3)).shape
            torch.Size([1, 1, 16, 24])
        """
        return cls(cls.preset(name, **changes), start=start)

    def lr_features(self, lr: Tensor) -> Tensor:
        """What the coarsest conditional flow sees in an LR image: mean and deviation of its features, ``(*batch, F)``.

        Cost: the coarsest encoder.

        Raises:
            ValueError: on wrong shape, dtype or values.
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        return pooled(self.transform.conditionals[-1].features(lr.to(self.dtype)))
