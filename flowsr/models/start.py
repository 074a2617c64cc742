"""Where training starts: random rotations as published, or a Haar pyramid that already knows what an LR image is."""

from typing import Literal

import torch
from torch import Tensor

from flowsr.transforms import FlowStep, Haar, Hierarchy, InvertibleConv1x1
from flowsr.transforms.conv1x1 import random_rotation

Start = Literal["rotation", "haar"]


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
