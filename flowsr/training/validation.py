"""How good a model is on whole images: bits/dim, LR fidelity and PSNR, per image, with their conventions fixed."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from statistics import mean, median

import torch
from torch import Tensor

from flowsr.distributions import uniform_dequantize
from flowsr.images import bicubic_down, crop_to, round_to_8bit
from flowsr.likelihood import decompose, dequantized_bits_per_dim
from flowsr.metrics import psnr
from flowsr.models import HCFlow
from flowsr.training.randomness import derive_seed


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image.

    Attributes:
        name: of the image.
        bits_per_dim: of the uniformly dequantized image (one draw of noise of width 1/256), LR term with σ = e^-6
            included; D = C·H·W. For a rescaling model this is not what it was trained for.
        encoded_lr_psnr: clamp(encode(hr).lr) against the bicubic LR rounded to 8 bits, dB, no border.
        psnr_mean: super-resolution: decode(lr, z = 0); rescaling: of the flow's own LR rounded to 8 bits. RGB, border
            s, 8-bit, dB.
        psnr_draw: the same with one draw at the temperature asked for.
        psnr_y_mean: as ``psnr_mean`` on the studio-range luma.
        psnr_y_draw: as ``psnr_draw`` on the studio-range luma.
    """

    name: str
    bits_per_dim: float
    encoded_lr_psnr: float
    psnr_mean: float
    psnr_draw: float
    psnr_y_mean: float
    psnr_y_draw: float


NUMBERS = tuple(field.name for field in fields(ImageScores) if field.name != "name")
"""Names of the scores."""


@torch.no_grad()
def score_image(
    flow: HCFlow, hr: Tensor, *, name: str = "", temperature: float = 0.9, seed: int = 0, multiple: int = 16
) -> ImageScores:
    """Score one image, cropped from its top left corner to multiples of ``multiple``.

    Cost: one encoding and two decoding passes.

    Args:
        flow: the model.
        hr: 8-bit image in [0, 1], ``(C, H, W)``.
        name: what to call it.
        temperature: τ of the draw.
        seed: of noise and draw; the same seed gives the same numbers.
        multiple: what both sides are cropped to, itself a multiple of the upscale factor.

    Example:
        >>> score_image(HCFlow.from_preset("sr-x4-small", start="haar"), torch.rand(3, 40, 52)).encoded_lr_psnr > 20
        True
    """
    hr = crop_to(hr, (hr.shape[-2] // multiple * multiple, hr.shape[-1] // multiple * multiple)).to(flow.device)
    generator = torch.Generator(flow.device).manual_seed(derive_seed(seed, 0))
    lr = round_to_8bit(bicubic_down(hr, flow.upscale))
    noisy = uniform_dequantize(hr, generator=generator)
    bits = float(dequantized_bits_per_dim(decompose(flow, noisy, lr)))
    encoded = flow.encode(hr).lr
    source = lr if flow.config.task == "super-resolution" else round_to_8bit(encoded)
    shapes = flow.transform.latent_shapes(*source.shape[-2:])
    z = [temperature * torch.randn(shape, generator=generator, device=flow.device).to(flow.dtype) for shape in shapes]
    target = hr.to(flow.dtype)
    found = {}
    for label, sr in (("mean", flow.decode(source)), ("draw", flow.decode(source, z))):
        sr, colour = round_to_8bit(sr), "y" if hr.shape[-3] == 3 else "rgb"
        found[f"psnr_{label}"] = float(psnr(sr, target, border=flow.upscale))
        found[f"psnr_y_{label}"] = float(psnr(sr, target, border=flow.upscale, colour=colour))
    fidelity = float(psnr(encoded.clamp(0, 1), lr.to(flow.dtype), border=0))
    return ImageScores(name=name, bits_per_dim=bits, encoded_lr_psnr=fidelity, **found)


def score_images(
    flow: HCFlow, images: Iterable[tuple[str, Tensor]], *, temperature: float = 0.9, seed: int = 0, multiple: int = 16
) -> list[ImageScores]:
    """Score named images one by one, in evaluation mode."""
    training = flow.training
    flow.eval()
    try:
        return [
            score_image(flow, hr, name=name, temperature=temperature, seed=derive_seed(seed, index), multiple=multiple)
            for index, (name, hr) in enumerate(images)
        ]
    finally:
        flow.train(training)


def summarize(scores: list[ImageScores]) -> dict[str, float]:
    """Means and medians over images; medians carry the suffix ``_median``, the worst bits/dim ``_worst``.

    Example:
        >>> scores = [ImageScores("a", 3.0, 40, 25, 23, 26, 24), ImageScores("b", 9.0, 40, 25, 23, 26, 24)]
        >>> summarize(scores)["bits_per_dim"], summarize(scores)["bits_per_dim_worst"]
        (6.0, 9.0)
    """
    rows = [asdict(score) for score in scores]
    summary = {name: mean(row[name] for row in rows) for name in NUMBERS}
    summary |= {f"{name}_median": median(row[name] for row in rows) for name in NUMBERS}
    return summary | {"bits_per_dim_worst": max(row["bits_per_dim"] for row in rows)}
