"""A model's inverse tried layer by layer, in both precisions and on a draw: what the stability is judged by."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.likelihood.stability import InverseStability, LayerStability
from flowsr.models import ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.transforms import (
    ActNorm,
    Call,
    ImageTransform,
    InvertibleConv1x1,
    InvertibleConv1x1Orthogonal,
    InvertibleConv1x1PLU,
    LogScaleMap,
    record_calls,
)


@torch.no_grad()
def inverse_stability(
    model: ImageModel, hr: Tensor, lr: Tensor | None = None, *, temperature: float = 1.0, seed: int = 0
) -> InverseStability:
    """Find the layers at which a model's inverse is inexact or explodes.

    An image is encoded in float32 and in float64, and each layer's own inverse is compared with what it was given. A
    draw is decoded in float32, and the growth of activations followed: the inverse explodes on latents that encoding
    would never give, as those of LR images unlike the training data.

    Cost: four passes, and each layer twice more; memory for all activations of one image in float64.

    Args:
        model: the model; it is copied, not changed.
        hr: HR image in [0, 1], ``(C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(C, h, w)``; None for a model of images alone.
        temperature: τ > 0 of the draw.
        seed: of the draw.

    Raises:
        ValueError: on wrong shapes, dtype or values.

    References:
        Behrmann et al., Understanding and Mitigating Exploding Inverses in Invertible Neural Networks (AISTATS 2021),
        arXiv 2006.09347.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> inverse_stability(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4)).unstable
        ()
    """
    _check_input(model, hr, lr, temperature)
    copies: dict[torch.dtype, Any] = {dtype: copy.deepcopy(model).to(dtype) for dtype in (torch.float32, torch.float64)}
    errors: dict[torch.dtype, list[float]] = {}
    whole: dict[torch.dtype, float] = {}
    scales: dict[str, tuple[float, float]] = {}
    for dtype, own in copies.items():
        image = hr.to(dtype)
        transforms = _distribution(own, image, lr, temperature).transforms
        with record_calls(own) as recorded, _record_log_scales(own, scales):
            latent = image
            for transform in reversed(transforms):
                latent = transform.inv_call_and_ladj(latent)[0]
        # A copy, as the layers are called once more below.
        calls = list(recorded)
        errors[dtype] = [_round_trip(call) for call in calls]
        whole[dtype] = _largest(_decode(transforms, latent, image) - image)
    decoded, draw = _decode_draw(copies[torch.float32], hr, lr, temperature, seed)
    layers = tuple(
        LayerStability(
            name=call.name,
            kind=type(call.transform).__name__,
            round_trip_float32=single,
            round_trip_float64=double,
            condition_number=_condition_number(call.transform),
            log_scale=_log_scale_range(call, scales),
            growth=_growth(decoded.get(call.name)),
            growth_encoding=_growth(call),
            given=(_given(call), _given(decoded.get(call.name))),
            non_finite=_made_non_finite(decoded.get(call.name)),
        )
        for call, single, double in zip(calls, errors[torch.float32], errors[torch.float64], strict=True)
    )
    finite = draw[draw.isfinite()]
    return InverseStability(
        layers=layers,
        round_trip_float32=whole[torch.float32],
        round_trip_float64=whole[torch.float64],
        non_finite=~draw.isfinite().all(-3),
        largest=float(finite.abs().max()) if finite.numel() else math.nan,
        temperature=temperature,
    )


def _distribution(model: Any, hr: Tensor, lr: Tensor | None, temperature: float) -> Any:
    """The distribution of HR images: given the LR image, or of a model of images alone."""
    if lr is None:
        return model.distribution((hr.shape[-2], hr.shape[-1]), temperature=temperature)
    return model.condition(lr.to(model.dtype), temperature=temperature)


def _check_input(model: ImageModel, hr: Tensor, lr: Tensor | None, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"expected a temperature > 0, as a draw is decoded; got {temperature}")
    check_image(hr, name="hr", tolerance=16.0)  # a draw may be looked at, too
    if hr.dim() != 3:
        raise ValueError(f"expected one image (C, H, W); got shape {tuple(hr.shape)}")
    if (conditional := as_conditional(model)) is not None:
        conditional.check_pair(hr, lr)


def _round_trip(call: Call) -> float:
    # A layer of a model may itself stand the other way round in it.
    undo = call.transform.call_and_ladj if call.encoding else call.transform.inv_call_and_ladj
    try:
        back = undo(call.output, call.context)[0]
    except torch.linalg.LinAlgError:  # a singular matrix has no inverse
        return math.inf
    return _largest(back - call.input) / max(_largest(call.input), 1e-12)


def _decode_draw(
    model: Any, hr: Tensor, lr: Tensor | None, temperature: float, seed: int
) -> tuple[dict[str, Call], Tensor]:
    """The layers' calls by name, and the image drawn."""
    distribution = _distribution(model, hr, lr, temperature)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        value = distribution.base_dist.sample()
    with record_calls(model) as calls:
        image = _decode(distribution.transforms, value, torch.full_like(hr, math.nan, dtype=model.dtype))
    return {call.name: call for call in calls}, image


def _decode(transforms: Sequence[ImageTransform], latent: Tensor, otherwise: Tensor) -> Tensor:
    """The image of a latent; NaN like ``otherwise`` where a layer has no inverse."""
    try:
        for transform in transforms:
            latent = transform.call_and_ladj(latent)[0]
    except torch.linalg.LinAlgError:
        return torch.full_like(otherwise, math.nan)
    return latent


def _growth(call: Call | None) -> float:
    return math.nan if call is None else _largest(call.output) / max(_largest(call.input), 1e-12)


def _given(call: Call | None) -> float:
    """Infinite for a layer that was not reached, as one before it has no inverse."""
    if call is None:
        return math.inf
    parts = [part for part in (call.input, call.context) if isinstance(part, Tensor)]
    return max(_largest(part.abs().nan_to_num(nan=math.inf, posinf=math.inf)) for part in parts)


def _made_non_finite(call: Call | None) -> int:
    if call is None:
        return 0
    given = [part for part in (call.input, call.context) if isinstance(part, Tensor)]
    if not all(bool(part.isfinite().all()) for part in given):
        return 0
    return int((~call.output.isfinite()).sum())


class _record_log_scales:
    """Smallest and largest output of every log-scale map within this context, by the map's name in the model."""

    def __init__(self, model: nn.Module, found: dict[str, tuple[float, float]]) -> None:
        self.maps = [(name, part) for name, part in model.named_modules() if isinstance(part, LogScaleMap)]
        self.found = found

    def __enter__(self) -> None:
        def hook(name: str) -> Any:
            def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                self.found[name] = (float(output.min()), float(output.max()))

            return record

        self.handles = [part.register_forward_hook(hook(name)) for name, part in self.maps]

    def __exit__(self, *_exception: object) -> None:
        for handle in self.handles:
            handle.remove()


def _condition_number(transform: ImageTransform) -> float | None:
    if isinstance(transform, InvertibleConv1x1 | InvertibleConv1x1PLU | InvertibleConv1x1Orthogonal):
        matrix = transform.matrix()
        return float(torch.linalg.cond(matrix)) if bool(matrix.isfinite().all()) else math.inf
    return None


def _log_scale_range(call: Call, scales: dict[str, tuple[float, float]]) -> tuple[float, float] | None:
    transform = call.transform
    if isinstance(transform, ActNorm):
        return float(transform.affine.logs.min()), float(transform.affine.logs.max())
    if isinstance(transform, InvertibleConv1x1 | InvertibleConv1x1PLU | InvertibleConv1x1Orthogonal):
        if not bool(transform.matrix().isfinite().all()):
            return None
        values = torch.linalg.svdvals(transform.matrix()).log()
        return float(values.min()), float(values.max())
    own = [bounds for name, bounds in scales.items() if name.startswith(f"{call.name}.")]
    return (min(low for low, _ in own), max(high for _, high in own)) if own else None


def _largest(values: Tensor) -> float:
    return float(values.abs().max())
