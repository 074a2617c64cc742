"""One image measured: likelihood, fidelity of each temperature's draws, diversity, time. Draws are never kept."""

import time
from statistics import fmean

import torch
from torch import Tensor

from flowsr.distributions import uniform_dequantize
from flowsr.draws import RunningMoments, draw_images
from flowsr.errors import ImageError
from flowsr.evaluation.columns import BICUBIC, EvaluationPlan, column_of
from flowsr.images import bicubic_down, bicubic_up, crop_to, round_to_8bit
from flowsr.likelihood import decompose, dequantized_bits_per_dim
from flowsr.metrics import lpips_distance, lr_psnr, psnr, ssim
from flowsr.models import HCFlow

Score = float | str
"""A figure, or the reason why there is none."""

_SMALLEST_SSIM = 11
_SMALLEST_LPIPS = 32


@torch.no_grad()
def score_pair(flow: HCFlow, hr: Tensor, lr: Tensor | None = None, *, plan: EvaluationPlan) -> dict[str, Score]:
    """Measure one image; the keys are those of :func:`flowsr.evaluation.list_columns`.

    Cost: one or two encoding passes, and one decoding pass per draw. Memory for one draw, however many there are.

    Args:
        flow: the model, in evaluation mode.
        hr: HR image ``(C, H, W)`` in [0, 1]; cropped from the top left, and rounded to 8 bits.
        lr: its LR image, H/s and W/s rounded up or down; None makes it from the cropped HR image.
        plan: what is measured.

    Raises:
        ImageError: if the image is smaller than ``plan.multiple``, or the LR image is not 1/s of it.
        ValueError: if the model's images are not finite.

    Example:
        >>> flow = HCFlow.from_preset("sr-x4-small", start="haar")
        >>> scores = score_pair(flow, torch.rand(3, 40, 52), plan=EvaluationPlan(num_samples=1))
        >>> scores["encoded_lr_psnr"] > 20, scores["ssim_y τ=0"] > 0
        (True, True)
    """
    plan.check(flow)
    s, task = flow.upscale, flow.config.task
    hr, lr = crop_pair(hr, lr, upscale=s, multiple=plan.multiple)
    if lr is None:
        lr = round_to_8bit(bicubic_down(hr, s))
    hr, lr = hr.to(flow.dtype), lr.to(flow.dtype)
    scores: dict[str, Score] = {}
    if task != "rescaling":
        noisy = uniform_dequantize(hr.float(), generator=torch.Generator().manual_seed(plan.seed))
        terms = decompose(flow, noisy.to(flow.device), lr.to(flow.device), lr_log_scale=plan.lr_log_scale)
        scores["bits_per_dim"] = float(dequantized_bits_per_dim(terms))
    start = time.perf_counter()
    own = flow.encode(hr.to(flow.device)).lr.cpu()
    scores["seconds encode"] = time.perf_counter() - start
    own = round_to_8bit(own) if task == "rescaling" else own.clamp(0, 1)
    scores["encoded_lr_psnr"] = float(psnr(own, lr, border=0))
    scores |= _named(compare(bicubic_up(lr, s).clamp(0, 1), hr, border=s), BICUBIC)
    source = own if task == "rescaling" else lr
    seconds: list[float] = []
    for tau in plan.temperatures_of(task):
        scores |= _named(_score_draws(flow, source, hr, tau, plan, seconds), column_of(tau))
    return {**scores, "seconds draw": fmean(seconds)}


def crop_pair(hr: Tensor, lr: Tensor | None, *, upscale: int, multiple: int) -> tuple[Tensor, Tensor | None]:
    """The top left of an HR image, with sides that are multiples, rounded to 8 bits, and of its LR image.

    Raises:
        ImageError: if nothing is left, or the LR image is not 1/s of the HR image, rounded up or down.

    Example:
        >>> [tuple(x.shape) for x in crop_pair(torch.rand(3, 33, 50), torch.rand(3, 9, 12), upscale=4, multiple=16)]
        [(3, 32, 48), (3, 8, 12)]
    """
    height, width = hr.shape[-2:]
    size = (height // multiple * multiple, width // multiple * multiple)
    if 0 in size:
        raise ImageError(f"expected at least {multiple} pixels on each side; got {height} x {width}")
    if lr is not None:
        whole = [(side // upscale, -(-side // upscale)) for side in (height, width)]
        if any(side not in allowed for side, allowed in zip(lr.shape[-2:], whole, strict=True)):
            raise ImageError(
                f"expected an LR image of 1/{upscale} of {height} x {width}; got {lr.shape[-2]} x {lr.shape[-1]}"
            )
        lr = round_to_8bit(crop_to(lr, (size[0] // upscale, size[1] // upscale)))
    return round_to_8bit(crop_to(hr, size)), lr


def compare(image: Tensor, hr: Tensor, *, border: int) -> dict[str, Score]:
    """PSNR and SSIM of RGB and luma, and LPIPS, of an image rounded to 8 bits; reasons stand where there is no figure.

    Args:
        image: ``(C, H, W)``, clamped and rounded here.
        hr: the truth.
        border: pixels cut off on each side, except for LPIPS.

    Example:
        >>> compare(torch.rand(1, 16, 16), torch.rand(1, 16, 16), border=2)["psnr_y"]
        'gray images have no luma of their own: see the RGB column'
    """
    image = round_to_8bit(image)
    colour, inside = hr.shape[-3] == 3, min(hr.shape[-2:]) - 2 * border
    if inside < 1:
        reason = f"no pixels are left inside a border of {border}"
        return dict.fromkeys(("psnr", "psnr_y", "ssim", "ssim_y", "lpips"), reason)
    gray = "" if colour else "gray images have no luma of their own: see the RGB column"
    tiny = "" if inside >= _SMALLEST_SSIM else f"needs {_SMALLEST_SSIM} pixels inside the border; has {inside}"
    scores: dict[str, Score] = {
        "psnr": float(psnr(image, hr, border=border)),
        "psnr_y": gray or float(psnr(image, hr, border=border, colour="y")),
        "ssim": tiny or float(ssim(image, hr, border=border)),
        "ssim_y": gray or tiny or float(ssim(image, hr, border=border, colour="y")),
    }
    if not colour or min(hr.shape[-2:]) < _SMALLEST_LPIPS:
        return {**scores, "lpips": f"needs RGB of at least {_SMALLEST_LPIPS} x {_SMALLEST_LPIPS}"}
    distance = lpips_distance(image, hr)
    return {**scores, "lpips": distance.reason if distance.value is None else float(distance.value)}


def _score_draws(
    flow: HCFlow, lr: Tensor, hr: Tensor, tau: float, plan: EvaluationPlan, seconds: list[float]
) -> dict[str, Score]:
    """Averages over the draws of a temperature, and their diversity from running sums; appends to ``seconds``."""
    many = plan.draws_at(tau)
    moments, rows = RunningMoments(), []
    best_draw, best_pixels = float("inf"), None
    draws = draw_images(flow, lr, num_samples=many, temperature=tau, seed=plan.seed)
    for _ in range(many):
        start = time.perf_counter()
        draw = next(draws).cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
        if not bool(torch.isfinite(draw).all()):
            raise ValueError(f"expected finite images at τ = {tau:g}; got NaN or infinity: lower it, or use float64")
        fidelity = compare(draw, hr, border=flow.upscale)
        rows.append({**fidelity, "lr_psnr": float(lr_psnr(draw.clamp(0, 1), lr, upscale=flow.upscale))})
        if many > 1:
            moments.add(draw)
            distance = (draw.double() - hr.double()).square().mean(-3)
            best_draw = min(best_draw, float(distance.mean()))
            best_pixels = distance if best_pixels is None else torch.minimum(best_pixels, distance)
    scores = {key: _average([row[key] for row in rows]) for key in rows[0]}
    if best_pixels is None:
        return scores
    gain = 100 * (best_draw - float(best_pixels.mean())) / best_draw if best_draw > 0 else 0.0
    return {**scores, "pixel_std": float(255 * moments.std.mean()), "ntire": gain}


def _average(values: list[Score]) -> Score:
    numbers = [value for value in values if not isinstance(value, str)]
    return fmean(numbers) if len(numbers) == len(values) else values[0]


def _named(scores: dict[str, Score], method: str) -> dict[str, Score]:
    return {f"{key} {method}": value for key, value in scores.items()}
