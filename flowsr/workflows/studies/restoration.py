"""Studies of inverse problems with more than an LR image given: inpainting and deblurring."""

from dataclasses import replace
from typing import Any

import torch

from flowsr.images import make_lr
from flowsr.models import ConditionalModel
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, solve
from flowsr.workflows.pairs import varied_crop
from flowsr.workflows.studies.known import Advance, Findings, Images, StudySettings, register

_OPTIMIZATION = 600  # steps of SVI and MAP


def _solver_steps(_images: int, settings: StudySettings) -> int:
    return _OPTIMIZATION if settings.method in ("svi", "map") else 4 * (settings.num_samples or 200)


@register(
    "What may be hidden in the middle of a crop of the first image, where it varies most?",
    parts=("solution",),
    steps=_solver_steps,
)
def inpainting(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """The posterior of a crop given its LR image and all but its middle."""
    size = settings.crop or 32
    mask = torch.ones(size, size, device="cpu")
    mask[size // 4 : -(size // 4), size // 4 : -(size // 4)] = 0
    return _solve(Mask(mask), flow, images, settings, advance, size)


@register(
    "What may a crop of the first image be, where it varies most, given its LR image and a blurred one?",
    parts=("solution",),
    steps=_solver_steps,
)
def deblurring(flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance) -> Findings:
    """The posterior of a crop given its LR image and a blurred one."""
    return _solve(Blur.gaussian(1.5), flow, images, settings, advance, settings.crop or 32)


def _solve(
    operator: Any, flow: ConditionalModel, images: Images, settings: StudySettings, advance: Advance, size: int
) -> Findings:
    name, image = next(iter(images.items()))
    hr = varied_crop(image, size, name=name).to(flow.device, flow.dtype)
    noise = GaussianNoise(settings.noise)
    generator = torch.Generator().manual_seed(settings.seed)
    observation = noise.simulate(operator.to(flow.device)(hr[None])[0], generator=generator)
    problem = InverseProblem(
        flow,
        make_lr(hr, flow.upscale),
        operator,
        observation,
        noise,
        temperature=settings.temperature,
        lr_log_scale=settings.lr_log_scale,
    )
    draws = settings.num_samples or 200
    solution = solve(
        problem,
        settings.method,
        num_samples=draws,
        num_warmup=draws,
        num_chains=2,
        steps=_OPTIMIZATION,
        guide="lowrank",
        start="mode" if settings.method != "pcn" else "draw",
        seed=settings.seed,
        on_step=advance,
    )
    return Findings(f"{size}x{size} pixels of {name}", {"solution": replace(solution, truth=hr.cpu())})
