"""One image measured: likelihood, fidelity of each temperature's draws, diversity, time. Draws are never kept."""

import time
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from flowsr.evaluation.cards import seeded_bits
from flowsr.evaluation.columns import BICUBIC, EvaluationPlan, ResolvedPlan, key_of
from flowsr.evaluation.encoded import encoded_lr, encoded_lr_psnr
from flowsr.images import bicubic_up, crop_pair, make_lr
from flowsr.metrics import compare, lr_psnr
from flowsr.metrics.comparison import FIGURES, Score
from flowsr.models import Capability, ConditionalModel, ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.results import Figure
from flowsr.statistics.moments import RunningMoments


def score_pair(
    flow: ImageModel, hr: Tensor, lr: Tensor | None = None, *, plan: EvaluationPlan, figures: Sequence[str] = FIGURES
) -> dict[str, Figure]:
    """Measure one image; the keys are those of ``plan.resolve(flow).columns``.

    Cost: one or two encoding passes, and one decoding pass per draw. Memory for one draw, however many there are.

    Args:
        flow: the model, in evaluation mode.
        hr: HR image ``(C, H, W)`` in [0, 1]; cropped from the top left, and rounded to 8 bits.
        lr: its LR image, H/s and W/s rounded up or down; None makes it from the cropped HR image. A density of images
            alone has none.
        plan: what is measured.
        figures: of fidelity, see :func:`flowsr.metrics.compare`; the others are left out.

    Raises:
        ImageError: if the image is smaller than what it is cropped to, or the LR image is not 1/s of it.
        ValueError: if the plan does not fit the model, or the model's images are not finite.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> scores = score_pair(flow, torch.rand(3, 40, 52), plan=EvaluationPlan(num_samples=1))
        >>> float(scores["encoded_lr_psnr"]) > 20, float(scores["ssim_y_tau0"]) > 0
        (True, True)
    """
    conditional = as_conditional(flow)
    if conditional is None and lr is not None:
        raise ValueError(f"expected no LR image for {type(flow).__name__}, a density of images alone; got one")
    resolved = plan.resolve(flow, given_lr=lr is not None)
    s = 1 if conditional is None else conditional.upscale
    hr, lr = crop_pair(hr, lr, upscale=s, multiple=resolved.multiple)
    if conditional is not None and lr is None:
        lr = make_lr(hr, s)
    return measure_pair(flow, hr, lr, plan=resolved, figures=figures)


@torch.no_grad()
def measure_pair(
    flow: ImageModel, hr: Tensor, lr: Tensor | None, *, plan: ResolvedPlan, figures: Sequence[str] = FIGURES
) -> dict[str, Figure]:
    """Measure an image that is cropped already, as :func:`score_pair` does.

    Cost: see :func:`score_pair`.

    Args:
        flow: the model, in evaluation mode.
        hr: 8-bit HR image ``(C, H, W)``, sides multiples of ``plan.multiple``.
        lr: 8-bit LR image ``(C, H/s, W/s)``; None for a density of images alone.
        plan: what is measured of this model.
        figures: of fidelity; the others are left out.

    Raises:
        ValueError: if the model's images are not finite.
    """
    conditional = as_conditional(flow)
    if conditional is None or lr is None:
        return plan.figures(_score_density(flow, hr, plan))
    hr, lr = hr.to(flow.dtype), lr.to(flow.dtype)
    s, rescaling = conditional.upscale, Capability.DOWNSCALE in flow.capabilities
    scores: dict[str, Score] = {}
    if not rescaling:
        bits = seeded_bits(flow, hr, lr, seed=plan.seed, lr_log_scale=plan.lr_log_scale)
        scores["bits_per_dim"] = float(bits.figure)
    start = time.perf_counter()
    source = lr
    if Capability.LR_LATENT in flow.capabilities:
        own = encoded_lr(conditional, hr).cpu()
        scores["seconds_encode"] = time.perf_counter() - start
        scores["encoded_lr_psnr"] = encoded_lr_psnr(own, lr)
        source = own if rescaling else lr
    else:
        conditional.encode(hr.to(flow.device), lr.to(flow.device)).ladj.cpu()  # waits for the device
        scores["seconds_encode"] = time.perf_counter() - start
    scores |= _named(compare(bicubic_up(lr, s).clamp(0, 1), hr, border=s, figures=figures), BICUBIC)
    seconds: list[float] = []
    for tau in plan.temperatures:
        scores |= _named(_score_draws(conditional, source, hr, tau, plan, figures, seconds), key_of(tau))
    return plan.figures({**scores, "seconds_draw": fmean(seconds)})


def _score_density(flow: ImageModel, hr: Tensor, plan: ResolvedPlan) -> dict[str, Score]:
    """What there is to measure of a density of images alone."""
    start = time.perf_counter()
    bits = float(seeded_bits(flow, hr, None, seed=plan.seed, lr_log_scale=None).figure)  # waits for the device
    return {"bits_per_dim": bits, "seconds_encode": time.perf_counter() - start}


def _score_draws(
    flow: ConditionalModel,
    lr: Tensor,
    hr: Tensor,
    tau: float,
    plan: ResolvedPlan,
    figures: Sequence[str],
    seconds: list[float],
) -> dict[str, Score]:
    """Averages over the draws of a temperature, and their diversity from running sums; appends to ``seconds``."""
    many = plan.draws_at(tau)
    moments, rows = RunningMoments(), []
    best_draw, best_pixels = float("inf"), None
    noise = torch.Generator().manual_seed(plan.seed)
    draws = flow.stream(lr, num_samples=many, temperature=tau, generator=noise)
    for _ in range(many):
        start = time.perf_counter()
        draw = next(draws).cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
        if not bool(torch.isfinite(draw).all()):
            raise ValueError(f"expected finite images at τ = {tau:g}; got NaN or infinity: lower it, or use float64")
        fidelity = compare(draw, hr, border=flow.upscale, figures=figures)
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
    return {f"{key}_{method}": value for key, value in scores.items()}
