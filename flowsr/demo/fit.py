"""A few hundred steps of maximum likelihood on crops of photographs: enough to see a conditional flow at work.

The engine for real training is ``flowsr.training``. This loop is what can be read in one minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsr.distributions import uniform_dequantize
from flowsr.errors import NonFiniteError
from flowsr.images import bicubic_down, round_to_8bit
from flowsr.models import HCFlow
from flowsr.training.guard import clip_gradients
from flowsr.training.objectives import likelihood_loss

OnStep = Callable[[int, float], None]
"""Called after each step with its number, from 1, and the batch's bits per dimension."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How the demonstration's model is trained.

    Args:
        steps: optimizer steps.
        batch_size: crops per step.
        crop: side of a square HR crop, a multiple of the upscale factor.
        learning_rate: of Adam with betas (0.9, 0.99); warmed up over 20 steps and then lowered to zero as a cosine.
        seed: of the weights, the crops and the noise.

    Raises:
        ValueError: for values out of range.
    """

    steps: int = 250
    batch_size: int = 8
    crop: int = 64
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.crop) < 1 or not self.learning_rate > 0 or self.seed < 0:
            raise ValueError(f"expected positive numbers and a seed >= 0; got {self}")


def train_demo_model(
    photographs: Sequence[Tensor],
    settings: DemoSettings,
    *,
    preset: str = "sr-x4-small",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: OnStep | None = None,
) -> HCFlow:
    """Train a small model by minimizing the bits per pixel of ``p(hr | lr)``, three times those per dimension.

    ``lr`` is the bicubic ÷s of ``hr`` rounded to 8 bits, and ``hr`` gets uniform noise of 1/256. Gradients, of the
    bits per pixel, are clipped as published: to 5 per value, then to a norm of 100.

    Cost: one encoding pass and its gradient per step; about two minutes for the default settings on two cores.

    Args:
        photographs: RGB images ``(3, H, W)`` in [0, 1], each at least one crop large.
        settings: how long, how large, which seed. Same settings, same weights, bit for bit, on the CPU with the same
            number of threads.
        preset: the architecture.
        device: where to train.
        dtype: of the weights.
        on_step: called after each step.

    Returns:
        The model in evaluation mode. Torch's global random state is left as it was.

    Raises:
        ValueError: if a photograph is smaller than a crop, or the crop is not a multiple of the upscale factor.
        NonFiniteError: if the loss stops being finite.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3, without the perceptual and adversarial terms.

    Example:
        >>> tiny = DemoSettings(steps=2, batch_size=1, crop=16)
        >>> flow = train_demo_model([torch.rand(3, 20, 20)], tiny, on_step=lambda step, bits: print("step", step))
        step 1
        step 2
    """
    for image in photographs:
        if min(image.shape[-2:]) < settings.crop:
            raise ValueError(f"expected photographs of at least {settings.crop} x {settings.crop}; got {image.shape}")
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        flow = HCFlow.from_preset(preset, start="haar").to(device, dtype)
    if settings.crop % flow.upscale:
        raise ValueError(f"expected a crop that is a multiple of {flow.upscale}; got {settings.crop}")

    def batch() -> Tensor:
        return _crops(photographs, settings, generator).to(device, dtype)

    flow.initialize(batch())
    optimizer = torch.optim.Adam(flow.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    for step in range(1, settings.steps + 1):
        hr = batch()
        lr = round_to_8bit(bicubic_down(hr, flow.upscale))
        noisy = uniform_dequantize(hr.cpu(), generator=generator).to(device)
        loss, seen = likelihood_loss(flow, noisy, lr)
        bits = seen["bits_per_dim"].item()
        if not math.isfinite(bits):
            raise NonFiniteError(f"expected a finite loss; got {bits} at step {step}: try another seed")
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(list(flow.parameters()), value=5.0, norm=100.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, bits)
    flow.provenance = {
        "trained by": "flowsr demo",
        "data": "photographs from skimage.data",
        "steps": settings.steps,
        "crops": f"{settings.batch_size} of {settings.crop} x {settings.crop} per step",
        "seed": settings.seed,
    }
    return flow.eval()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over 20 steps times half a cosine down to zero."""
    return min(1.0, (step + 1) / 20) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _crops(photographs: Sequence[Tensor], settings: DemoSettings, generator: torch.Generator) -> Tensor:
    """Random crops, flipped at random: photographs first uniformly, then places in them."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    crops = []
    for _ in range(settings.batch_size):
        image = photographs[below(len(photographs))]
        top, left = (below(side - settings.crop + 1) for side in image.shape[-2:])
        crop = image[:, top : top + settings.crop, left : left + settings.crop]
        crops.append(crop.flip(-1) if below(2) else crop)
    return torch.stack(crops)
