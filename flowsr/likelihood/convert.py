"""What is my NLL? Figures of one code in the convention of another, and each convention's definition run on a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from flowsr._support.shapes import sum_event
from flowsr.distributions import normal_log_prob
from flowsr.images import round_to_8bit
from flowsr.likelihood.conventions import CONVENTIONS, Convention, LRTerm, find_convention
from flowsr.likelihood.decompose import decompose
from flowsr.models import Capability, HasTerms, HierarchyModel, require
from flowsr.results import Card, Figure
from flowsr.statistics.intervals import Interval

OFFICIAL_BINS = {4: 64, 8: 256}
"""The quantization q of the released configurations, by upscale factor."""

LR_LOG_SCALE = -6.0
"""log σ of the LR image in the authors' code of HCFlow."""

_ROUNDING = 0.5 / 255
"""What rounding to 8 bits changes a value of the LR image by, at most, where it is in [0, 1]."""


def convert(
    value: float,
    source: str | Convention,
    target: str | Convention,
    *,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    lr_psnr: float | None = None,
    upscale: int | None = None,
) -> Figure:
    """A figure of one code as another code would report it, of the same model, images and draw of the noise.

    Each convention is an affine function of the log-density at the point that it evaluates, ``v = a·log p + b``, so
    that ``v' = a'·(v − b)/a + b'``, exactly, if both evaluate the same point. So a mean over images converts like a
    figure of one, but for figures per image of images that differ in size. What is of another point is refused: an
    expectation over one noise bounds one over another in neither direction.

    The LR image is the exception. With its PSNR the term of a normal density with σ = e^-6 is known, and can be taken
    off or put on exactly. The density of a rounded LR image and of one that is not differ by what rounding does to the
    squared residual: the ends given are those of any rounding, by the triangle inequality for root mean squares, where
    the flow's LR image is in [0, 1]; the value is that of rounding errors independent of the residual.

    Cost: nothing.

    Args:
        value: the figure.
        source: its convention, a name of :data:`flowsr.likelihood.CONVENTIONS`, or a :class:`Convention` of your own.
        target: the convention asked for.
        size: height and width of the image in pixels, for figures per image.
        channels: C of the images.
        lr_psnr: in dB, RGB, of the LR image that the flow finds in this image, as the source (if it counts an LR
            image, else the target) counts it, against the LR image given; the authors' program prints it. Needed where
            the two count the LR image differently.
        upscale: s, for the term of the LR image; by default that of the code (8 for hcflow-x8), else 4.

    Returns:
        The figure with its convention and unit; an interval with certain ends where only bounds are known.

    Raises:
        ValueError: for an unknown convention, a code without a likelihood, figures of different noise, values that are
            not finite, and where the size or ``lr_psnr`` is needed and missing.

    References:
        File and line of each convention are in ``CONVENTIONS[name].references``.

    Example:
        >>> print(convert(-7.5, "srflow", "flowsr-density"))
        flowsr-density (flowsr's density, bits per dimension, no noise): -2.50 bits/dim
        >>> convert(-7.5, "srflow", "glow")
        Traceback (most recent call last):
        ValueError: expected a target that follows from srflow; got glow: of uniform noise on [0, 1/255), not of no ...
    """
    old, new = find_convention(source), find_convention(target)
    _check(value, size=size, channels=channels, lr_psnr=lr_psnr, upscale=upscale)
    reason = _why_not(old, new, size=size, lr_psnr=lr_psnr)
    if reason:
        raise ValueError(f"expected a target that follows from {old.name}; got {new.name}: {reason}")
    pixels, scale = 1 if size is None else math.prod(size), upscale or old.upscale or new.upscale or 4
    log_prob = old.log_prob(value, pixels=pixels, channels=channels)
    changes = _lr_changes(old.lr_term, new.lr_term, lr_psnr=lr_psnr, values=channels * pixels / scale**2)
    found = [float(new.report(log_prob + change, pixels=pixels, channels=channels)) for change in changes]
    exact = len(found) == 1
    return figure_as(new, found[0] if exact else Interval(found[0], min(found), max(found), level=1.0))


def conversions(
    value: float,
    source: str | Convention,
    *,
    targets: Sequence[str] = tuple(CONVENTIONS),
    size: tuple[int, int] | None = None,
    channels: int = 3,
    lr_psnr: float | None = None,
    upscale: int | None = None,
) -> Card:
    """A figure as each code would report it, with the reason where it does not follow, and in flowsr's units.

    The column "same evaluation" has what the source evaluated in bits per dimension, with its own noise counted once
    per dimension and as a density; the column "other code" has the other conventions.

    Cost: nothing.

    Args:
        value: the figure.
        source: its convention.
        targets: names of the conventions asked for.
        size: height and width, see :func:`convert`, as for the others.
        channels: C of the images.
        lr_psnr: of the flow's own LR image, in dB.
        upscale: s, by default that of the code, else 4.

    Raises:
        ValueError: for an unknown convention, a code without a likelihood, or values that are not finite.

    Example:
        >>> card = conversions(-5.10, "hcflow-x4", targets=("flowsr", "hcflow-x4"))
        >>> [figure.cell for figure in card.columns["same evaluation"]]
        ['2.30', '-3.70', '–', '–']
        >>> [figure.cell for figure in card.columns["other code"]]
        ['–', '-5.10']
    """
    old = find_convention(source)
    _check(value, size=size, channels=channels, lr_psnr=lr_psnr, upscale=upscale)

    def told(target: Convention) -> Figure:
        reason = _why_not(old, target, size=size, lr_psnr=lr_psnr)
        if reason:
            return figure_as(target, reason=reason)
        return convert(value, old, target, size=size, channels=channels, lr_psnr=lr_psnr, upscale=upscale)

    columns = {
        "same evaluation": [told(unit) for unit in _units(old, counts_lr=lr_psnr is not None)],
        "other code": [told(find_convention(target)) for target in targets],
    }
    return Card(f"{value:g} {old.unit} of {old.name} ({old.words})", columns)


def _units(old: Convention, *, counts_lr: bool) -> list[Convention]:
    """flowsr's units for what another convention evaluates; where an LR image counts, with the other ways to count."""
    bits, density = (CONVENTIONS[name].measured_as(old) for name in ("flowsr", "flowsr-density"))
    if old.lr_term == "density" and not counts_lr:
        return [bits, density]
    names: dict[LRTerm, str] = {"density": "flowsr-lr-as-it-is", "none": "flowsr-without-lr"}
    return [bits, density, *(replace(bits, name=n, lr_term=t) for t, n in names.items() if t != old.lr_term)]


def figure_as(of: Convention, value: float | Interval | None = None, *, reason: str = "") -> Figure:
    """A figure in a convention, or why there is none."""
    key = f"as_{of.name.replace('-', '_')}"
    return Figure(key=key, name=of.name, convention=of.words, unit=of.unit, value=value, reason=reason)


def _why_not(old: Convention, new: Convention, *, size: tuple[int, int] | None, lr_psnr: float | None) -> str:
    """Why a figure does not follow from another one, and what would provide it; empty where it does."""
    if old.noise != new.noise:
        had, asked = (str(noise) if noise else "no noise" for noise in (old.noise, new.noise))
        return f"of {asked}, not of {had}: run flowsr score --convention {new.name}"
    if old.lr_term != new.lr_term and lr_psnr is None:
        return "counts the LR image otherwise: give the PSNR of the flow's own LR image, lr_psnr"
    if size is None and "image" in (old.per, new.per) and old != new:
        return "per image: give the size"
    return ""


def _lr_changes(old: LRTerm, new: LRTerm, *, lr_psnr: float | None, values: float) -> tuple[float, ...]:
    """What another term of the LR image adds to a log-density in nats: exactly, or likely, at least and at most."""
    if old == new or lr_psnr is None:
        return (0.0,)
    mse = 10 ** (-lr_psnr / 10)
    if "none" in (old, new):
        return ((1 if old == "none" else -1) * _lr_term(mse, values),)
    variance = _ROUNDING**2 / 3  # of an error that is uniform on half a grey level to both sides
    likely = mse + variance if new == "rounded" else max(mse - variance, 0.0)
    rms = math.sqrt(mse)
    squares = (likely, (rms + _ROUNDING) ** 2, max(rms - _ROUNDING, 0.0) ** 2)
    return tuple(_lr_term(square, values) - _lr_term(mse, values) for square in squares)


def _lr_term(mse: float, values: float) -> float:
    """``log N(y; y*, σ²)`` of values with a mean squared residual."""
    return values * (-LR_LOG_SCALE - 0.5 * math.log(2 * math.pi) - mse * math.exp(-2 * LR_LOG_SCALE) / 2)


def _check(
    value: float, *, size: tuple[int, int] | None, channels: int, lr_psnr: float | None, upscale: int | None
) -> None:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite figure to convert; got {value}")
    if min(*(size or (1, 1)), channels, 1 if upscale is None else upscale) < 1:
        raise ValueError(f"expected positive size, channels and upscale; got {size}, {channels} and {upscale}")
    if lr_psnr is not None and not 0 < lr_psnr < math.inf:
        raise ValueError(f"expected a finite, positive lr_psnr in dB; got {lr_psnr}")


def score_as(
    model: HasTerms,
    hr: Tensor,
    lr: Tensor | None = None,
    *,
    convention: str | Convention,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Run a convention's definition: the figure that its code would report for a model and an image.

    Where :func:`convert` refuses because another noise was added, this is what provides the figure.

    Cost: one encoding pass; two where the LR image is rounded.

    Args:
        model: a model with a likelihood; any may be scored in any convention, a model without an LR image in its
            latent in those that round it not.
        hr: HR image in [0, 1], ``(*batch, C, H, W)``; for figures of images of grey levels, multiples of 1/255.
        lr: LR image in [0, 1]; None for a model that is not conditional.
        convention: a name of :data:`flowsr.likelihood.CONVENTIONS`, or a :class:`Convention` of your own.
        generator: source of the noise; the global one by default.

    Returns:
        Figures in the convention's unit, of the batch's shape.

    Raises:
        ValueError: for an unknown convention, wrong shapes, dtype or values, or a rounded LR image of a model without.
        TypeError: for a model without a likelihood.

    Example:
        >>> import flowsr
        >>> flow, hr = flowsr.HCFlow.from_preset("sr-x4-small", start="haar").double(), torch.rand(3, 16, 16).double()
        >>> lr = flowsr.images.make_lr(hr, 4)
        >>> values = [float(score_as(flow, hr, lr, convention=name).detach()) for name in ("srflow", "flowsr-density")]
        >>> abs(convert(values[0], "srflow", "flowsr-density").number - values[1]) < 1e-9
        True
    """
    found = find_convention(convention)
    image = hr if found.noise is None else found.noise.add(hr, generator=generator)
    terms = decompose(model, image, lr)
    log_prob = terms.total
    if found.lr_term != "density":
        log_prob = log_prob - sum(terms.of("lr"))
    if found.lr_term == "rounded":
        log_prob = log_prob + _rounded_term(cast(HierarchyModel, model), image, lr)
    return cast(Tensor, found.report(log_prob, pixels=hr.shape[-2:].numel(), channels=hr.shape[-3]))


def _rounded_term(flow: HierarchyModel, hr: Tensor, lr: Tensor | None) -> Tensor:
    require(flow, Capability.LR_LATENT)
    lr = flow.check_pair(hr, lr)
    return sum_event(normal_log_prob(round_to_8bit(flow.encode(hr).lr) - lr, log_scale=LR_LOG_SCALE))


def official_nll(flow: HierarchyModel, hr: Tensor, lr: Tensor, *, bins: int | None = None) -> Tensor:
    """The number that the authors' code reports as NLL, for comparison with their logs: bits per *pixel*.

    It is ``−(log p − H·W·ln bins)/(ln 2·H·W)`` with the flow's LR image clamped and rounded to 8 bits inside the
    Gaussian. Dividing by H·W rather than by D = C·H·W, yet counting the noise constant once per pixel, makes it too
    low for RGB: bits/dim = nll/3 + (2/3)·log2(bins), up to the rounding of the LR image.

    Cost: two encoding passes. No noise is added: add it to ``hr`` first, or call :func:`score_as`, which adds theirs.

    Args:
        flow: a model with the capability ``lr-latent``: its LR image is part of the latent.
        hr: HR image, ``(*batch, C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``.
        bins: the quantization q of the released configuration; by default 64 for x4 and 256 otherwise.

    Raises:
        ValueError: on wrong shapes, dtype or values, or for a model without an LR image in its latent.

    References:
        The released HCFlow code (github.com/JingyunLiang/HCFlow), configurations ``quant: 64`` and ``quant: 256``.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> official_nll(flow, torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)).shape
        torch.Size([2])
    """
    require(flow, Capability.LR_LATENT)
    if bins is not None and (not isinstance(bins, int) or bins < 2):
        raise ValueError(f"expected an integer of at least 2 bins; got {bins!r}")
    counted = bins if bins is not None else OFFICIAL_BINS.get(flow.upscale, 256)
    return score_as(flow, hr, lr, convention=replace(CONVENTIONS["hcflow-x4"], noise=None, bins=counted))
