"""The log-likelihood of an HR image, term by term, as numbers and as maps of the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flowsr._support.json import to_plain
from flowsr._support.shapes import per_pixel, spread
from flowsr.distributions import Dequantizer
from flowsr.models import HasTerms, ImageModel, LRLikelihood, Term, Tiling
from flowsr.models.tiling import Tile
from flowsr.plots import TERM_COLOURS, TERM_GLOSSES, WIDTH, TermBar, draw_heat_map, draw_term_bars, new_figure
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

LEAST_BINS = 255
"""With fewer bins those of neighbouring 8-bit values overlap, and the sum is no bound of their probability."""


@dataclass(frozen=True)
class LogLikelihoodTerms(Result):
    """Terms of ``log p(hr | lr)`` in nats, of the batch's shape.

    Attributes:
        terms: log-densities and log-determinants, each with its kind and its level; see :class:`flowsr.models.Term`.
        dims: D = C·H·W of the HR image.
        lr_log_scale: log σ used for the LR term; None for a model without one.
        maps: if asked for, each term's map ``(*batch, H, W)`` in nats under its name; a map sums to its term.
        bins: of the dequantization, 256 for 8-bit images; None for the terms of a density.
    """

    terms: tuple[Term, ...]
    dims: int
    lr_log_scale: float | None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    bins: int | None = None

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
        """``−total/(D·ln 2)`` of the 8-bit image, of which the terms' dequantization is a part.

        Raises:
            ValueError: for the terms of a density, which has no such number, or of noise wider than a grey level.
        """
        if self.bins is None:
            raise ValueError(
                "expected terms with a dequantization, for the bits of an 8-bit image; got those of a density: give "
                "decompose a dequantizer, or read density_bits_per_dim"
            )
        check_bins(self.bins)
        return self.total_bits / self.dims

    @property
    def density_bits_per_dim(self) -> Tensor:
        """``−log₂ p(x)/D`` of the continuous density at the image scored, without ``log₂ 256 = 8`` of the noise."""
        noise = self.of("dequantization")
        return (self.total_bits + sum(noise) / math.log(2.0)) / self.dims

    def dequantized(self, *, bins: int = 256) -> LogLikelihoodTerms:
        """The terms with those of a uniform dequantization, where its noise was added to the image before.

        Args:
            bins: the noise added was that of ``uniform_dequantize(…, bins=bins)``.

        Raises:
            ValueError: if there is a dequantization already, or maps, which would have to have one more.

        Example:
            >>> import flowsr
            >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
            >>> terms = decompose(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4)).dequantized()
            >>> print(f"{terms.bits_per_dim - terms.density_bits_per_dim:.3f}")
            8.000
        """
        if self.bins is not None or self.maps:
            raise ValueError("expected the terms of a density, without maps; got others: give decompose a dequantizer")
        noise = Term("dequantization", torch.full_like(self.total, -self.dims * math.log(bins)))
        return replace(self, terms=(*self.terms, noise), bins=bins)

    @property
    def bits_map(self) -> Tensor:
        """All maps together in bits per dimension, ``(*batch, H, W)``; its mean over pixels is ``total_bits/dims``.

        Raises:
            ValueError: if the terms were computed without maps.
        """
        if not self.maps:
            raise ValueError("expected terms with maps; got none: call decompose(..., maps=True)")
        return self.to_bits_map(torch.stack(list(self.maps.values())).sum(0))

    def to_bits_map(self, nats: Tensor) -> Tensor:
        """A map in nats per pixel in bits per dimension, so that its mean over pixels is a share of the total."""
        return -nats * nats.shape[-2:].numel() / (self.dims * math.log(2.0))

    def of(self, kind: str) -> tuple[Tensor, ...]:
        """The values of the terms of one kind, in nats, from the coarsest level to the finest."""
        return tuple(term.value for term in self.terms if term.kind == kind)

    def named(self) -> dict[str, Tensor]:
        """Every term's value under its name, levels numbered as in the paper: 1 is the finest. In nats."""
        return {term.name: term.value for term in self.terms}

    def to_dict(self) -> dict[str, Any]:
        """Terms in nats, their sum in all units, and conventions, JSON-ready. Maps are left to ``maps``."""
        terms = [{"name": t.name, "kind": t.kind, "level": t.level, "nats": t.value} for t in self.terms]
        of_8bit = self.bins is not None and self.bins >= LEAST_BINS
        reason = None if of_8bit else "of a density, not of an 8-bit image: give a dequantizer"
        return to_plain(
            {
                "terms": terms,
                "total_nats": self.total,
                "total_bits": self.total_bits,
                "bits_per_dim": self.bits_per_dim if of_8bit else None,
                "density_bits_per_dim": self.density_bits_per_dim,
                "dims": self.dims,
                "bins": self.bins,
                "lr_log_scale": self.lr_log_scale,
                "reasons": {} if of_8bit else {"bits_per_dim": reason},
            }
        )

    def bars(self) -> list[TermBar]:
        """The terms as shares ``−term/(D·ln 2)`` of the bits per dimension, and last their sum; batches are averaged.

        Raises:
            ValueError: if a term is not finite.
        """
        scale = -1.0 / (self.dims * math.log(2.0))
        bars = []
        for term in self.terms:
            value = term.value.detach()
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"expected finite terms; got {value.tolist()} for {term.name}")
            label = f"{term.name} · {TERM_GLOSSES[term.kind]}"
            bars.append(TermBar(label, scale * float(value.mean()), TERM_COLOURS[term.kind]))
        return [*bars, TermBar("total", sum(bar.bits for bar in bars), "ink")]

    def to_text(self) -> str:
        """The terms as a table in nats, bits and bits/dim; of a batch, the averages over its images."""
        rows = []
        for name, value in {**self.named(), "total": self.total}.items():
            nats = float(value.detach().mean())
            bits = -nats / math.log(2.0)
            rows.append([name, f"{nats:.1f}", f"{bits:.1f}", f"{bits / self.dims:+.4f}"])
        images = self.total.numel()
        what = "density, without the log₂ 256 = 8 of an 8-bit image" if self.bins is None else "8-bit image"
        mean = f", mean of {images}" * (images > 1)
        notes = [f"D = C·H·W = {self.dims}{width_note(self.lr_log_scale)}{mean}; of the {what}"]
        return text_table(["term", "nats", "bits (−nats/ln 2)", "bits/dim"], rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        draw_term_bars(ax, self.bars(), dims=self.dims)

    def _draw_figure(self) -> Drawing:
        """The bars; with maps, the map of the bits of the first image below them."""
        height = 1.2 + 0.3 * len(self.terms)
        if not self.maps:
            figure = new_figure(WIDTH, height)
            self._draw_main(figure.subplots())
            return figure
        image = self.bits_map[(0,) * (self.bits_map.dim() - 2)]
        below = min(4.0, WIDTH * image.shape[-2] / image.shape[-1]) + 1.0
        figure = new_figure(WIDTH, height + below)
        upper, lower = figure.subfigures(2, 1, height_ratios=(height, below), squeeze=False).flat
        self._draw_main(upper.subplots())
        draw_heat_map(lower.subplots(), image, title="where the bits are", unit="bits/dim")
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
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> LogLikelihoodTerms:
    """Split a log-likelihood into the LR term, the latents, the log-determinants and the dequantization.

    ``log p = log N(y; lr, σ²) + Σ_l log N(z_l; 0, 1) + Σ_l (ladj of main flow, conditional steps, head)``

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
        tiling: how to cut the image, see :func:`flowsr.models.plan_tiles`: the maps of each tile are summed over the
            part that it stands for, without gradients. By default the image is encoded whole.
        on_tile: called after each tile.

    Raises:
        ValueError: on wrong shapes, dtype or values, or for a tiling of another size.
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
    if tiling is not None:
        tiling = tiling.checked((hr.shape[-2], hr.shape[-1]), cast(ImageModel, model).multiple)
    options: dict[str, Any] = {"lr_log_scale": lr_log_scale, "lr_likelihood": lr_likelihood}

    def scored(image: Tensor) -> tuple[Term, ...]:
        if tiling is None or len(tiling) == 1:
            found = model.log_likelihood_terms(image, lr, **options)
            if on_tile is not None:
                on_tile()
            return found
        return _terms_in_tiles(cast(ImageModel, model), image, lr, tiling, maps=maps, on_tile=on_tile, **options)

    def find_terms() -> tuple[Term, ...]:
        if dequantizer is None:
            return scored(hr)
        noisy, log_q = dequantizer.dequantize(hr, generator=generator)
        return (*scored(noisy), Term("dequantization", -log_q))

    with per_pixel(maps):
        found = find_terms()
    dims, width = hr.shape[-3:].numel(), width_used(model, lr_log_scale)
    bins = None if dequantizer is None else dequantizer.bins
    names = [term.name for term in found]
    if len(set(names)) < len(names):
        raise ValueError(f"expected terms of different names; got {', '.join(names)}")
    if not maps:
        return LogLikelihoodTerms(found, dims, width, bins=bins)
    whole = tuple(replace(term, value=term.value.sum((-2, -1))) for term in found)
    images = {term.name: spread(term.value, *hr.shape[-2:]) for term in found}
    return LogLikelihoodTerms(whole, dims, width, images, bins=bins)


@torch.no_grad()
def _terms_in_tiles(
    model: ImageModel,
    hr: Tensor,
    lr: Tensor | None,
    tiling: Tiling,
    *,
    maps: bool,
    on_tile: Callable[[], None] | None,
    **options: Any,
) -> tuple[Term, ...]:
    """The terms from those of tiles: their maps over the part that each tile stands for, put together or summed."""
    per_lr = model.multiple // getattr(model, "upscale", 1)
    seen: list[Term] = []

    def terms_of(tile: Tile) -> Tensor:
        part = hr[..., *tile.window.times(model.multiple)]
        given = None if lr is None else lr[..., *tile.window.times(per_lr)]
        with per_pixel():
            seen[:] = model.log_likelihood_terms(part, given, **options)
        return torch.stack([spread(term.value, *part.shape[-2:]) for term in seen], -3)

    def sums_of(tile: Tile) -> Tensor:
        return terms_of(tile)[..., *tile.inside.times(model.multiple)].sum((-2, -1), dtype=torch.float64)

    if maps:
        values = tiling.assemble(terms_of, on_tile=on_tile).movedim(-3, 0)
    else:
        values = tiling.total(sums_of, on_tile=on_tile).movedim(-1, 0)
    return tuple(replace(term, value=value.to(term.value.dtype)) for term, value in zip(seen, values, strict=True))


def check_bins(bins: int) -> None:
    """Refuse a dequantization that is not one of 8-bit images."""
    if bins < LEAST_BINS:
        raise ValueError(
            f"expected a dequantizer of at least 255 bins, as the bins of 8-bit values would overlap; got {bins}"
        )


def width_used(model: Any, lr_log_scale: float | None) -> float | None:
    """log σ of the LR image that a model is scored with: the one given, else its own, None if it has none."""
    own = getattr(model, "lr_log_scale", None) if lr_log_scale is None else lr_log_scale
    return float(own.detach()) if isinstance(own, Tensor) else own


def width_note(lr_log_scale: float | None) -> str:
    """The words for log σ among the conventions of a figure."""
    return "" if lr_log_scale is None else f", σ = e^{lr_log_scale:g}"
