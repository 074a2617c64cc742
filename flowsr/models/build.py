"""From a configuration to the hierarchy of transforms: which step goes where."""

from flowsr.models.blocks import flow_step
from flowsr.models.config import HCFlowConfig
from flowsr.nn import RRDBEncoder
from flowsr.transforms import (
    Compose,
    ConditionalLevel,
    FlowStep,
    Haar,
    Hierarchy,
    ImageTransform,
    PixelShuffle,
    rescaling_coupling,
)


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
        encoder = RRDBEncoder(
            kept + (config.levels - 1 - level) * feature_channels,
            channels=config.features,
            growth=config.growth,
            blocks=config.rrdbs,
            stack_trunks=not rescaling,
        )
        details = channels - kept
        steps = [_conditional_step(config, details, feature_channels) for _ in range(config.conditional_steps)]
        conditionals.append(
            ConditionalLevel(
                details, encoder=encoder, steps=reversed(steps), head_log_scale="atan" if rescaling else "exp"
            )
        )
        channels = kept
    return Hierarchy(mains, conditionals, image_channels=config.image_channels)


def _main_step(config: HCFlowConfig, channels: int, step: int) -> FlowStep:
    if config.task == "rescaling":
        coupling = rescaling_coupling(
            channels, step=step, image_channels=config.image_channels, growth=config.dense_growth
        )
        return FlowStep(channels, coupling=coupling)
    return flow_step(channels, hidden_channels=config.hidden_channels)


def _conditional_step(config: HCFlowConfig, channels: int, feature_channels: int) -> FlowStep:
    return flow_step(channels, hidden_channels=config.conditional_hidden_channels, context_channels=feature_channels)
