"""Bits per dimension of 8-bit images: bounds from dequantization noise, with their Monte-Carlo error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr.distributions import Dequantizer, UniformDequantizer
from flowsr.likelihood.decompose import LogLikelihoodTerms, check_bins, decompose, width_note
from flowsr.likelihood.inputs import check_8bit
from flowsr.models import HasTerms, Tiling
from flowsr.models.latents import check_num_samples
from flowsr.plots import PALETTE, plain_axes
from flowsr.results import Figure, Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class BitsPerDim(Result):
    """Upper bounds of ``−log₂ P(hr | lr)/D`` of 8-bit images, in bits per dimension; tensors of the batch's shape.

    Attributes:
        variational: the bound of one draw of noise, averaged over all draws: ``−E_u[log w]/(D·ln 2)``.
        variational_error: its standard error over draws; NaN for a single draw.
        importance_weighted: the bound of all k draws together, ``−log mean w/(D·ln 2)``, tighter in expectation.
        importance_weighted_error: its standard error by the jackknife; NaN for a single draw. Where one weight
            outweighs all others the true error is larger: look at ``effective_samples``.
        effective_samples: ``(Σw)²/Σw²``, from 1 (one draw decides) to k.
        counts: numbers of draws 1, 2, 4, … up to k.
        curve: the importance-weighted bound of each of these numbers, averaged over disjoint groups of draws,
            ``(len(counts), *batch)``.
        curve_error: standard error over the groups; NaN where there is one group.
        num_samples: k.
        dims: D = C·H·W.
        bins: number of bins per unit.
        lr_log_scale: log σ of the LR image; None for a model without one.
        terms: of the first draw of the noise, with maps if asked for.
        noise: its kind, in words.
    """

    variational: Tensor
    variational_error: Tensor
    importance_weighted: Tensor
    importance_weighted_error: Tensor
    effective_samples: Tensor
    counts: tuple[int, ...]
    curve: Tensor
    curve_error: Tensor
    num_samples: int
    dims: int
    bins: int
    lr_log_scale: float | None
    terms: LogLikelihoodTerms
    noise: str = "uniform"

    @property
    def figure(self) -> Figure:
        """The tighter bound of a single image, with its convention.

        Raises:
            ValueError: for a batch of several images.
        """
        if self.variational.numel() != 1:
            raise ValueError(f"expected the bounds of one image; got {self.variational.numel()}: score one by one")
        return Figure(
            key="bits_per_dim",
            name="Bits per dimension",
            convention=bits_convention(
                lr_log_scale=self.lr_log_scale, num_samples=self.num_samples, noise=f"{self.noise} noise 1/{self.bins}"
            ),
            unit="bits/dim",
            value=float(self.importance_weighted),
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields but the terms, JSON-ready; what a single draw has no error of is null, with the reason."""
        record = {name: value for name, value in super().to_dict().items() if name != "terms"}
        reasons = {}
        if self.num_samples == 1:
            errors = ("variational_error", "importance_weighted_error")
            record |= dict.fromkeys(errors)
            reasons = dict.fromkeys(errors, "one draw of the noise has no error: ask for more")
        return {**record, "reasons": reasons}

    def to_text(self) -> str:
        """Both bounds of each image."""
        rows = []
        parts = (
            self.variational,
            self.variational_error,
            self.importance_weighted,
            self.importance_weighted_error,
            self.effective_samples,
        )
        for index, values in enumerate(zip(*(part.flatten().tolist() for part in parts), strict=True)):
            bound, error, tighter, tighter_error, effective = values
            rows.append([str(index), with_error(bound, error), with_error(tighter, tighter_error), f"{effective:.1f}"])
        head = [
            "image",
            "one draw (mean)",
            f"{self.num_samples} draw{'s' * (self.num_samples > 1)}, weighted",
            "effective draws",
        ]
        notes = [
            f"bits/dim of 8-bit images, upper bounds; D = C·H·W = {self.dims}, noise within 1/{self.bins}"
            f"{width_note(self.lr_log_scale)}; ± one standard error of the draws"
        ]
        return text_table(head, rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """The bound against the number of draws, a line per image; of several images what each gains over one draw."""
        lines = self.curve.reshape(len(self.counts), -1).detach().cpu()
        several = lines.shape[1] > 1
        if several:  # else the differences between the images would flatten every line
            lines = lines - lines[0]
        errors = self.curve_error.reshape(len(self.counts), -1).detach().cpu()
        if self.counts[-1] == self.num_samples:  # one group of all draws
            errors = torch.cat([errors[:-1], self.importance_weighted_error.reshape(1, -1).detach().cpu()])
        errors = errors.nan_to_num(0.0)
        for line, error in zip(lines.T, errors.T, strict=True):
            ax.errorbar(self.counts, line, error, color=PALETTE["blue"], marker="o", markersize=3, capsize=2)
        ax.set_xscale("log", base=2)
        ax.set_xticks(self.counts, [str(count) for count in self.counts])
        ax.set_xlabel("draws of the noise, k")
        ax.set_ylabel("upper bound − that of one draw, bits/dim" if several else "upper bound, bits per dimension")
        plain_axes(ax, keep=("left", "bottom"))


@torch.no_grad()
def bits_per_dim(
    model: HasTerms,
    hr: Tensor,
    lr: Tensor | None = None,
    *,
    num_samples: int = 1,
    dequantizer: Dequantizer | None = None,
    lr_log_scale: float | None = None,
    generator: torch.Generator | None = None,
    maps: bool = False,
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> BitsPerDim:
    """Bits per dimension of 8-bit images by dequantization: the bound of one draw, and the importance-weighted one.

    With noise ``u_i ~ q(u | v)`` and weights ``w_i = p(v + u_i | lr)/q(u_i | v)``,
    ``E log w ≤ E log (1/k Σ w_i) ≤ log P(v | lr)``; the second grows with k to the third.

    Cost: k encoding passes, one after the other, so that memory does not grow with k.

    Args:
        model: a model with a likelihood.
        hr: 8-bit HR image in [0, 1], ``(*batch, C, s·h, s·w)``, multiples of 1/255.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``; None for a model that is not conditional.
        num_samples: k ≥ 1.
        dequantizer: distribution of the noise; by default uniform over 1/256. A trained
            :class:`flowsr.distributions.VariationalDequantizer` gives tighter bounds.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        generator: source of the noise; the global one by default.
        maps: give the terms of the first draw with maps of the image, see :func:`flowsr.likelihood.decompose`.
        tiling: how to cut the image, see there.
        on_tile: called after each tile of each draw.

    Raises:
        ValueError: for images that are not 8-bit, wrong shapes, fewer than one draw, or bins so wide that those of
            8-bit values overlap.

    References:
        Theis et al. (ICLR 2016), section 3.1; Ho et al., Flow++ (ICML 2019), section 3.1; Burda et al., Importance
        Weighted Autoencoders (ICLR 2016), theorem 1.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> hr = (torch.rand(3, 16, 16) * 255).round() / 255
        >>> bits = bits_per_dim(flow, hr, torch.rand(3, 4, 4), num_samples=4)
        >>> bits.counts, bits.curve.shape
        ((1, 2, 4), torch.Size([3]))
    """
    check_num_samples(num_samples)
    check_8bit(hr)
    noise = UniformDequantizer() if dequantizer is None else dequantizer
    check_bins(noise.bins)
    draws = [
        decompose(
            model,
            hr,
            lr,
            lr_log_scale=lr_log_scale,
            dequantizer=noise,
            generator=generator,
            maps=maps and index == 0,
            tiling=tiling,
            on_tile=on_tile,
        )
        for index in range(num_samples)
    ]
    return _bounds_of(draws, noise="uniform" if isinstance(noise, UniformDequantizer) else "variational")


def _bounds_of(draws: Sequence[LogLikelihoodTerms], *, noise: str) -> BitsPerDim:
    """The bounds from decompositions of the same 8-bit images, each with noise of its own."""
    num_samples = len(draws)
    log_w = torch.stack([terms.total.double() for terms in draws])
    dims = draws[0].dims
    unit = -1.0 / (dims * math.log(2.0))
    counts = tuple(2**i for i in range(num_samples.bit_length()))
    curve, curve_error = [], []
    for count in counts:
        groups = unit * log_mean_exp(log_w[: num_samples // count * count].unflatten(0, (-1, count)), dim=1)
        curve.append(groups.mean(0))
        curve_error.append(_standard_error(groups))
    return BitsPerDim(
        variational=unit * log_w.mean(0),
        variational_error=_standard_error(unit * log_w),
        importance_weighted=unit * log_mean_exp(log_w, dim=0),
        importance_weighted_error=abs(unit) * _jackknife_error(log_w),
        effective_samples=(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp(),
        counts=counts,
        curve=torch.stack(curve),
        curve_error=torch.stack(curve_error),
        num_samples=num_samples,
        dims=dims,
        bins=draws[0].bins or 256,
        lr_log_scale=draws[0].lr_log_scale,
        terms=draws[0],
        noise=noise,
    )


def bits_convention(*, lr_log_scale: float | None, num_samples: int = 1, noise: str = "uniform noise 1/256") -> str:
    """The words that say how bits per dimension were measured.

    Example:
        >>> bits_convention(lr_log_scale=-6.0)
        'upper bound for the 8-bit image, uniform noise 1/256, one draw, σ = e^-6, D = C·H·W'
    """
    draws = "one draw" if num_samples == 1 else f"{num_samples} draws, importance-weighted"
    return f"upper bound for the 8-bit image, {noise}, {draws}{width_note(lr_log_scale)}, D = C·H·W"


def log_mean_exp(values: Tensor, *, dim: int) -> Tensor:
    """``log mean exp`` along a dimension, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


def with_error(value: float, error: float) -> str:
    """A value with its standard error, where there is one.

    Example:
        >>> with_error(3.14159, 0.01), with_error(3.14159, math.nan)
        ('3.1416 ± 0.0100', '3.1416')
    """
    return f"{value:.4f}" if math.isnan(error) else f"{value:.4f} ± {error:.4f}"


def _standard_error(values: Tensor) -> Tensor:
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    return values.std(0) / math.sqrt(len(values))


def _jackknife_error(log_w: Tensor) -> Tensor:
    """Standard error of ``log mean w`` from its values with one draw left out (Efron and Stein 1981)."""
    count = len(log_w)
    if count < 2:
        return torch.full_like(log_w[0], torch.nan)
    # What comes before and what comes after each draw, so that the cost is linear and nothing cancels.
    nothing = torch.full_like(log_w[:1], -torch.inf)
    before = torch.cat([nothing, log_w[:-1].logcumsumexp(0)])
    after = torch.cat([log_w[1:].flip(0).logcumsumexp(0).flip(0), nothing])
    left_out = torch.logaddexp(before, after) - math.log(count - 1)
    return ((count - 1) * left_out.var(0, correction=0)).sqrt()
