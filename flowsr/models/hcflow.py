"""HCFlow: one bijection between an HR image and its LR image with a Gaussian latent per level."""

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.models.blocks import flow_step
from flowsr.models.hcflow_config import PRESETS, HCFlowConfig
from flowsr.models.hierarchy_model import HierarchyModel
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
    LogisticMixtureMap,
    PixelShuffle,
    SinhArcsinhMap,
    SplineMap,
    rescaling_coupling,
)
from flowsr.transforms.conv1x1 import random_rotation

Start = Literal["rotation", "haar"]

_BIBTEX = """@inproceedings{liang2021hierarchical,
  title     = {Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image Rescaling},
  author    = {Liang, Jingyun and Lugmayr, Andreas and Zhang, Kai and Danelljan, Martin and Van Gool, Luc and
               Timofte, Radu},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  year      = {2021},
  url       = {https://arxiv.org/abs/2108.05301}
}"""


def build_hierarchy(config: HCFlowConfig) -> Hierarchy:
    """Assemble the transform of an HCFlow from its configuration.

    Level by level, fine to coarse, the channels after each change of resolution are 4·C, 8·C, 16·C, …; half of them
    go on to the next level, except at the last, which keeps the C channels of the LR image.
    """
    rescaling = config.task == "rescaling"
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
                head=_head(config),
                prior=_prior(config, details, feature_channels) if config.prior == "learned" else None,
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
    if config.coupling == "logistic-mixture":
        return LogisticMixtureMap(components=config.mixture_components)
    return AffineMap(log_scale="atan")


def _head(config: HCFlowConfig) -> ElementwiseMap:
    if config.head == "sinh-arcsinh":
        return SinhArcsinhMap(log_scale=_head_log_scale(config))
    if config.head == "logistic-mixture":
        return LogisticMixtureMap(components=config.mixture_components)
    return AffineMap(form="standardize", log_scale=_head_log_scale(config))


def _head_log_scale(config: HCFlowConfig) -> str:
    return "atan" if config.task == "rescaling" else "exp"


def _prior(config: HCFlowConfig, channels: int, feature_channels: int) -> ConditionalAffine:
    conditioner = FCN(feature_channels, 2 * channels, hidden_channels=config.conditional_hidden_channels)
    return ConditionalAffine(
        channels,
        conditioner,
        map=AffineMap(form="standardize", log_scale=_head_log_scale(config)),
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
