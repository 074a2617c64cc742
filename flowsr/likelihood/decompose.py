"""The log-likelihood of an HR image, term by term, as numbers and as maps of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr._support.shapes import per_pixel, spread
from flowsr.distributions import Dequantizer
from flowsr.models import HasTerms, LRLikelihood, Term
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flowsr.plots import TermBar

_COLOURS = {
    "lr": "orange",
    "latent": "blue",
    "main": "green",
    "conditional": "sky",
    "head": "purple",
    "preprocessing": "red",
    "dequantization": "grey",
}

_LABELS = {
    "lr": "LR image under N(lr, σ²)",
    "latent": "latents z_{} under N(0, 1)",
    "main": "log-det of main flow {}",
    "conditional": "log-det of conditional steps {}",
    "head": "log-det of Gaussian head {}",
    "preprocessing": "log-det of preprocessing",
    "dequantization": "dequantization",
}


@dataclass(frozen=True)
class LogLikelihoodTerms(Result):
    """Terms of ``log p(hr | lr)`` in nats, of the batch's shape.

    Attributes:
        terms: log-densities and log-determinants, each with its kind and its level; see :class:`flowsr.models.Term`.
        dims: D = C·H·W of the HR image.
        lr_log_scale: log σ used for the LR term; None for a model without one.
        maps: if asked for, each term's map ``(*batch, H, W)`` in nats under its name; a map sums to its term.
    """

    terms: tuple[Term, ...]
    dims: int
    lr_log_scale: float | None
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The sum of all terms in nats; without a dequantization, ``flow.condition(lr).log_prob(hr)``."""
        return torch.stack([term.value for term in self.terms]).sum(0)

    @property
    def total_bits(self) -> Tensor:
        """``−total/ln 2``: bits, smaller is better."""
        return -self.total / math.log(2.0)

    @property
    def bits_per_dim(self) -> Tensor:
        """``−total/(D·ln 2)``; of the density, or of the 8-bit image if there is a dequantization term."""
        return self.total_bits / self.dims

    @property
    def map_bits_per_dim(self) -> Tensor:
        """All maps together as bits per dimension, ``(*batch, H, W)``; its mean over pixels is :attr:`bits_per_dim`.

        Raises:
            ValueError: if the terms were computed without maps.
        """
        if not self.maps:
            raise ValueError("expected terms with maps; got none: call decompose(..., maps=True)")
        return self.to_map_bits_per_dim(torch.stack(list(self.maps.values())).sum(0))

    def to_map_bits_per_dim(self, nats: Tensor) -> Tensor:
        """A map in nats per pixel as bits per dimension, so that its mean over pixels is a share of the total."""
        return -nats * nats.shape[-2:].numel() / (self.dims * math.log(2.0))

    def of(self, kind: str) -> tuple[Tensor, ...]:
        """The values of the terms of one kind, in nats, from the coarsest level to the finest."""
        return tuple(term.value for term in self.terms if term.kind == kind)

    def named(self) -> dict[str, Tensor]:
        """Every term's value under its name, levels numbered as in the paper: 1 is the finest. In nats."""
        return {term.name: term.value for term in self.terms}

    def to_dict(self) -> dict[str, Any]:
        """Terms in nats, their sum in all units, and conventions, JSON-ready. Maps are left to :attr:`maps`."""
        return to_plain(
            {
                "terms_nats": self.named(),
                "total_nats": self.total,
                "total_bits": self.total_bits,
                "bits_per_dim": self.bits_per_dim,
                "of": "8-bit image" if self.of("dequantization") else "density",
                "dims": self.dims,
                "lr_log_scale": self.lr_log_scale,
            }
        )

    def bars(self, *, bins: int | None = None) -> list[TermBar]:
        """The terms as shares ``−term/(D·ln 2)`` of the bits per dimension, and last their sum; batches are averaged.

        Args:
            bins: count ``log2(bins)`` for the dequantization too, where the terms are those of a density.

        Raises:
            ValueError: if a term is not finite.
        """
        from flowsr.plots import TermBar

        scale = -1.0 / (self.dims * math.log(2.0))
        bars = []
        for term in self.terms:
            value = term.value.detach()
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"expected finite terms; got {value.tolist()} for {term.name}")
            label = _LABELS[term.kind].format(term.level)
            bars.append(TermBar(label, scale * float(value.mean()), _COLOURS[term.kind]))
        if bins is not None and not self.of("dequantization"):
            name = f"{_LABELS['dequantization']}: log₂ {bins}"
            bars.append(TermBar(name, math.log2(bins), _COLOURS["dequantization"]))
        return [*bars, TermBar("total", sum(bar.bits for bar in bars), "ink")]

    def to_text(self) -> str:
        """The terms as a table in nats, bits and bits/dim; of a batch, the averages over its images."""
        rows = []
        for name, value in {**self.named(), "total": self.total}.items():
            nats = float(value.detach().mean())
            bits = -nats / math.log(2.0)
            rows.append([name, f"{nats:.1f}", f"{bits:.1f}", f"{bits / self.dims:+.4f}"])
        images = self.total.numel()
        notes = [f"D = C·H·W = {self.dims}{width_note(self.lr_log_scale)}" + (f", mean of {images}" * (images > 1))]
        return text_table(["term", "nats", "bits (−nats/ln 2)", "bits/dim"], rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        from flowsr.plots import draw_term_bars

        draw_term_bars(ax, self.bars(), dims=self.dims)

    def _draw_figure(self) -> Figure:
        """The bars; with maps, the map of the bits of the first image beside them."""
        from flowsr.plots import draw_heat_map, new_figure

        height = 1.2 + 0.3 * len(self.terms)
        if not self.maps:
            figure = new_figure(8.0, height)
            self._draw_main(figure.subplots())
            return figure
        figure = new_figure(13.0, max(height, 4.0))
        left, right = figure.subplots(1, 2, width_ratios=[1.4, 1.0])
        self._draw_main(left)
        image = self.map_bits_per_dim
        draw_heat_map(right, image[(0,) * (image.dim() - 2)], title="where the bits are", unit="bits/dim")
        return figure


def decompose(
    model: HasTerms,
    hr: Tensor,
    lr: Tensor | None = None,
    *,
    lr_log_scale: float | None = None,
    lr_likelihood: LRLikelihood = "density",
    dequantizer: Dequantizer | None = None,
    generator: torch.Generator | None = None,
    maps: bool = False,
) -> LogLikelihoodTerms:
    """Split a log-likelihood into the LR term, the latents, the log-determinants and the dequantization.

    ``log p = log N(y; lr, σ²) + Σ_l log N(z_l; 0, 1) + Σ_l (ladj of main flow, conditional steps, Gaussian head)``

    With a dequantizer noise is added to the image first, and the term ``−log q(u | hr)`` makes the sum a lower bound
    of the log-probability of the 8-bit image. With ``lr_likelihood="mass"`` the LR term is the mass of the Gaussian on
    the grey level of each value of y, so that its bits are those of an 8-bit LR image; the sum is then no
    log-density of ``hr`` any more.

    Cost: one encoding pass; maps add a few additions per pixel and layer.

    Args:
        model: a model with a likelihood.
        hr: HR image, ``(*batch, C, s·h, s·w)``.
        lr: LR image in [0, 1], ``(*batch, C, h, w)``; None for a model that is not conditional.
        lr_log_scale: log σ of the LR image, from −40 to 40; by default the model's own, −6 for HCFlow.
        lr_likelihood: "density" of y, or "mass" on the 256 grey levels.
        dequantizer: distribution of the noise within a bin; None scores ``hr`` as it is.
        generator: source of the noise; the global one by default.
        maps: give every term as a map of the image too. Each bijection is local or acts alike on all pixels, so each
            term has a place; values at a coarse resolution are divided evenly among the pixels they stand for.

    Raises:
        ValueError: on wrong shapes, dtype or values.
        TypeError: for a model without a likelihood, or something that is no dequantizer.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> hr, lr = torch.rand(3, 16, 16), torch.rand(3, 4, 4)
        >>> terms = decompose(flow, hr, lr, maps=True)
        >>> torch.allclose(terms.total, flow.condition(lr).log_prob(hr))
        True
        >>> torch.allclose(terms.maps["latent z_1"].sum(), terms.named()["latent z_1"])
        True
    """
    if not isinstance(model, HasTerms):
        raise TypeError(f"expected a model with log_likelihood_terms; got {type(model).__name__}")
    if dequantizer is not None and not isinstance(dequantizer, Dequantizer):
        raise TypeError(
            "expected a dequantizer such as flowsr.distributions.UniformDequantizer(), with bins and dequantize; got "
            f"{dequantizer!r}"
        )
    if lr_log_scale is not None and not -40 <= lr_log_scale <= 40:
        raise ValueError(f"expected a finite lr_log_scale from -40 to 40; got {lr_log_scale}")
    options: dict[str, Any] = {"lr_log_scale": lr_log_scale, "lr_likelihood": lr_likelihood}

    def find_terms() -> tuple[Term, ...]:
        if dequantizer is None:
            return model.log_likelihood_terms(hr, lr, **options)
        noisy, log_q = dequantizer.dequantize(hr, generator=generator)
        return (*model.log_likelihood_terms(noisy, lr, **options), Term("dequantization", -log_q))

    with per_pixel(maps):
        found = find_terms()
    dims, width = hr.shape[-3:].numel(), width_used(model, lr_log_scale)
    names = [term.name for term in found]
    if len(set(names)) < len(names):
        raise ValueError(f"expected terms of different names; got {', '.join(names)}")
    if not maps:
        return LogLikelihoodTerms(found, dims, width)
    whole = tuple(Term(term.kind, term.value.sum((-2, -1)), term.level) for term in found)
    images = {term.name: spread(term.value, *hr.shape[-2:]) for term in found}
    return LogLikelihoodTerms(whole, dims, width, images)


def dequantized_bits_per_dim(terms: LogLikelihoodTerms, *, bins: int = 256) -> Tensor:
    """Bits per dimension of 8-bit images, from the terms of an image to which uniform noise of 1/bins was added.

    ``−(log p(x) − D·ln bins)/(D·ln 2)``: the density's bits per dimension plus ``log2(bins)``, 8 for 256 bins.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> terms = decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4))
        >>> print(f"{dequantized_bits_per_dim(terms) - terms.bits_per_dim:.3f}")
        8.000
    """
    return terms.bits_per_dim + math.log2(bins)


def width_used(model: Any, lr_log_scale: float | None) -> float | None:
    """log σ of the LR image that a model is scored with: the one given, else its own, None if it has none."""
    own = getattr(model, "lr_log_scale", None) if lr_log_scale is None else lr_log_scale
    return float(own.detach()) if isinstance(own, Tensor) else own


def width_note(lr_log_scale: float | None) -> str:
    """The words for log σ among the conventions of a figure."""
    return "" if lr_log_scale is None else f", σ = e^{lr_log_scale:g}"
