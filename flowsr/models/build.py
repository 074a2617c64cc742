"""From a configuration to the hierarchy of transforms: which step goes where."""

from functools import partial

from flowsr.models.blocks import flow_step
from flowsr.models.config import HCFlowConfig
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
    PixelShuffle,
    SplineMap,
    rescaling_coupling,
)


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
