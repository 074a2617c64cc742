"""Numerical stability of the inverse, layer by layer: which layer loses the image, or blows it up."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowsr.images import check_image
from flowsr.models import ImageModel
from flowsr.models.conditional import as_conditional
from flowsr.results import Result, text_table
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROUND_TRIP_LIMIT = 1e-2
"""Relative round-trip error of one layer in float32 from which on it is called unstable."""

GROWTH_LIMIT = 100.0
"""Factor by which one layer may let the largest activation grow, in either direction, before it is called unstable."""

GIVEN_LIMIT = 1000.0
"""A layer that is given larger values than this is not blamed for what it makes of them."""


@dataclass(frozen=True)
class LayerStability:
    """One layer, in the order of encoding.

    Attributes:
        name: in the model, as ``model.get_submodule`` takes it.
        kind: class of the transform.
        round_trip_float32: largest ``|decode(encode(x)) − x|`` of this layer alone, relative to the largest ``|x|``.
        round_trip_float64: the same in float64.
        condition_number: of the matrix of a 1x1 convolution; None for other layers.
        log_scale: smallest and largest log-scale: of couplings and heads as computed for this image, of ActNorm its
            parameters, of 1x1 convolutions the logarithms of the singular values; None where there is none.
        growth: largest activation after decoding a draw over the largest before; NaN if not finite.
        growth_encoding: the same on encoding the image.
        given: largest value, of input and features, that the layer was given on encoding and on decoding.
        non_finite: values that are not finite, of those this layer made from finite ones when decoding a draw.
    """

    name: str
    kind: str
    round_trip_float32: float
    round_trip_float64: float
    condition_number: float | None
    log_scale: tuple[float, float] | None
    growth: float
    growth_encoding: float
    given: tuple[float, float]
    non_finite: int


@dataclass(frozen=True)
class InverseStability(Result):
    """How exactly a model inverts, as a whole and layer by layer.

    Attributes:
        layers: in the order of encoding.
        round_trip_float32: largest ``|decode(encode(hr)) − hr|`` of the whole model, in units of the image's range.
        round_trip_float64: the same in float64.
        non_finite: pixels ``(H, W)`` of a draw that are not finite in some channel.
        largest: largest finite ``|x|`` of that draw; an image stays near 1.
        temperature: of that draw.
    """

    layers: tuple[LayerStability, ...]
    round_trip_float32: float
    round_trip_float64: float
    non_finite: Tensor
    largest: float
    temperature: float

    @property
    def unstable(self) -> tuple[str, ...]:
        """Names of layers that lose or blow up the image, worst first; empty for a healthy model.

        First those that blow up what they are given, on decoding or encoding (beyond :data:`GROWTH_LIMIT`), then those
        whose own round trip in float32 is lost (beyond :data:`ROUND_TRIP_LIMIT`, or not finite), then those that make
        finite values infinite. A layer that was given exploded values (beyond :data:`GIVEN_LIMIT`) is not to blame.
        """
        growing = sorted(
            (layer for layer in self.layers if _blown_up(layer) > GROWTH_LIMIT), key=lambda layer: -_blown_up(layer)
        )
        sane = [layer for layer in self.layers if layer.given[0] <= GIVEN_LIMIT]
        lossy = [layer for layer in sane if not layer.round_trip_float32 <= ROUND_TRIP_LIMIT]
        lossy.sort(key=lambda layer: -_rank(layer.round_trip_float32))
        overflowing = [layer for layer in self.layers if layer.non_finite and layer.given[1] <= GIVEN_LIMIT]
        return tuple(dict.fromkeys(layer.name for layer in (*growing, *lossy, *overflowing)))

    def to_text(self) -> str:
        """The worst layers, and the whole model."""
        worst = sorted(self.layers, key=lambda layer: -_rank(layer.round_trip_float32))[:12]
        rows = [
            [
                layer.name,
                layer.kind,
                f"{layer.round_trip_float32:.1e}",
                f"{layer.round_trip_float64:.1e}",
                "–" if layer.condition_number is None else f"{layer.condition_number:.1f}",
                "–" if layer.log_scale is None else "{:+.2f} … {:+.2f}".format(*layer.log_scale),
                f"{layer.growth:.2f}",
                str(layer.non_finite),
            ]
            for layer in worst
        ]
        head = ["layer", "kind", "round trip f32", "f64", "cond(W)", "log-scale", "growth", "not finite"]
        suspects = ", ".join(self.unstable) or "none"
        notes = [
            f"the {len(worst)} layers of {len(self.layers)} with the largest round-trip error in float32, relative",
            f"whole model: {self.round_trip_float32:.1e} in float32, {self.round_trip_float64:.1e} in float64",
            f"a draw at τ = {self.temperature:g}: largest value {self.largest:.3g}, "
            f"{int(self.non_finite.sum())} pixels not finite",
            f"unstable layers (round trip > {ROUND_TRIP_LIMIT:g}, growth > {GROWTH_LIMIT:g}, not finite): {suspects}",
        ]
        return text_table(head, rows, title="Stability of the inverse", notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """Round-trip error of each layer in both precisions."""
        from flowsr.plots import PALETTE, plain_axes

        at = range(len(self.layers))
        for label, colour, errors in (
            ("float32", "blue", [layer.round_trip_float32 for layer in self.layers]),
            ("float64", "green", [layer.round_trip_float64 for layer in self.layers]),
        ):
            # A layer that only moves values makes no error, and has no place on this axis.
            ax.semilogy(at, [e or math.nan for e in errors], ".-", color=PALETTE[colour], linewidth=0.8, label=label)
        ax.axhline(ROUND_TRIP_LIMIT, color=PALETTE["red"], linewidth=0.8, linestyle=":", label="called unstable beyond")
        ax.set_xlabel("layer, in the order of encoding")
        ax.set_ylabel("round-trip error, relative")
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.06), borderpad=0.0)
        ax.set_title("Each layer alone; where there is no dot the inverse is exact", loc="left", fontsize=10, pad=16)
        self._name_parts(ax)
        plain_axes(ax, keep=("left", "bottom"))

    def _name_parts(self, ax: Axes) -> None:
        """Lines between the parts of the model that the layers belong to, and their names above."""
        from flowsr.plots import PALETTE

        parts = [".".join(layer.name.split(".")[1:3]) for layer in self.layers]
        starts = [index for index, part in enumerate(parts) if index == 0 or parts[index - 1] != part]
        for start, end in zip(starts, [*starts[1:], len(parts)], strict=True):
            if start:
                ax.axvline(start - 0.5, color=PALETTE["grey"], linewidth=0.5, alpha=0.6)
            if end - start > 1:
                where = ((start + end - 1) / 2, 1.01)
                ax.text(*where, parts[start], transform=ax.get_xaxis_transform(), fontsize=7, ha="center", va="bottom")

    def _draw_figure(self) -> Figure:
        """Round-trip errors, and the growth on decoding."""
        from flowsr.plots import PALETTE, new_figure, plain_axes

        figure = new_figure(10.0, 5.6)
        first, second = figure.subplots(2, 1, sharex=True)
        self._draw_main(first)
        first.set_xlabel("")
        at, growth = range(len(self.layers)), [layer.growth for layer in self.layers]
        second.semilogy(at, growth, ".-", color=PALETTE["orange"], linewidth=0.8)
        second.axhline(1.0, color=PALETTE["grey"], linewidth=0.8)
        second.axhline(GROWTH_LIMIT, color=PALETTE["red"], linewidth=0.8, linestyle=":")
        suspects = [(index, layer) for index, layer in enumerate(self.layers) if layer.name in self.unstable]
        for row, (index, layer) in enumerate(suspects):
            height = layer.growth if math.isfinite(layer.growth) else 1.0
            side = (
                {"ha": "left", "xytext": (5, 9 * row)}
                if index < len(at) / 2
                else {"ha": "right", "xytext": (-5, 9 * row)}
            )
            second.annotate(
                layer.name, (index, height), textcoords="offset points", fontsize=7, color=PALETTE["red"], **side
            )
        second.set_xlabel("layer, in the order of encoding")
        second.set_ylabel("growth of the largest\nactivation on decoding")
        plain_axes(second, keep=("left", "bottom"))
        return figure


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
    return max(_rank(_largest(part)) for part in (call.input, call.context) if isinstance(part, Tensor))


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


def _rank(value: float) -> float:
    """NaN is worse than any number."""
    return value if not math.isnan(value) else math.inf


def _blown_up(layer: LayerStability) -> float:
    """The layer's growth in the worse of the two directions, of those in which it was given sane values."""
    directions = ((layer.given[0], layer.growth_encoding), (layer.given[1], layer.growth))
    return max((_rank(growth) for given, growth in directions if given <= GIVEN_LIMIT), default=0.0)
