"""Samplers with one deliberate error each: what a calibration study must notice, and how it looks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowsr.calibration.held_out import Sampler, flow_sampler
from flowsr.posterior import LinearGaussianFlow, draw_latents


def faulty_samplers(flow: LinearGaussianFlow, lr: Tensor, *, lr_std: float) -> dict[str, Sampler]:
    """Five wrong samplers of a known model, by what is wrong.

    - "sigma too small": a quarter of the LR image's width σ;
    - "temperature 0.8": latents drawn too narrow, as is the practice for good-looking images;
    - "log-scale shifted": the finest level's log standard deviation is larger by 0.25;
    - "LR ignored": draws given the LR image of another pair: the right distribution of images, of the wrong one;
    - "mode collapse": the latents come from three fixed ones, whatever the LR image.

    Args:
        flow: the right model.
        lr: LR images ``(n, C, h, w)``, n ≥ 2, to mistake one another for.
        lr_std: the right σ.

    Example:
        >>> sorted(faulty_samplers(LinearGaussianFlow(), torch.rand(2, 1, 4, 4), lr_std=0.05))[:2]
        ['LR ignored', 'log-scale shifted']
    """
    *coarse, finest = flow.config.detail_std
    shifted = LinearGaussianFlow(
        detail_std=(*coarse, finest * math.exp(0.25)), image_channels=flow.config.image_channels
    ).to(flow.device, flow.dtype)
    right = flow_sampler(flow, lr_std=lr_std)

    def ignoring(small: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        others = lr[torch.randint(len(lr), (num_draws,), generator=generator)]
        z = draw_latents(flow, small, num_draws=num_draws, generator=generator)
        return flow.decode(others + lr_std * torch.randn(others.shape, generator=generator).to(others), z)

    def collapsed(small: Tensor, num_draws: int, generator: torch.Generator) -> Tensor:
        modes = right(small, 3, torch.Generator().manual_seed(0))
        return modes[torch.randint(3, (num_draws,), generator=generator)]

    return {
        "sigma too small": flow_sampler(flow, lr_std=lr_std / 4),
        "temperature 0.8": flow_sampler(flow, temperature=0.8, lr_std=lr_std),
        "log-scale shifted": flow_sampler(shifted, lr_std=lr_std),
        "LR ignored": ignoring,
        "mode collapse": collapsed,
    }
