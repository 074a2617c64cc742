"""Files of images in, their likelihoods out: what ``flowsr score`` does, for use from Python too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import size_of
from flowsr._support.names import printable
from flowsr.evaluation.columns import Column, encoded_lr_column
from flowsr.evaluation.encoded import encoded_lr, encoded_lr_psnr
from flowsr.images import read_image, size_text
from flowsr.likelihood import (
    OFFICIAL_BINS,
    BitsPerDim,
    LogLikelihoodTerms,
    bits_per_dim,
    score_as,
)
from flowsr.likelihood.bounds import with_error
from flowsr.likelihood.conventions import find_convention
from flowsr.likelihood.convert import figure_as
from flowsr.models import Capability, ImageModel, Tiling, plan_tiles
from flowsr.models.conditional import as_conditional
from flowsr.models.latents import check_num_samples
from flowsr.results import Figure, Result, text_table
from flowsr.workflows.pairs import read_pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


_DOMINATED = 1.5  # effective draws, of which 1 is the least


@dataclass(frozen=True)
class ScoredImage(Result):
    """What an image file costs under a model.

    Attributes:
        source: the HR file.
        lr_source: the LR file; None for a bicubic LR image, rounded to 8 bits, or for a density of images alone.
        file_size: height and width of the HR file.
        size: height and width of what was scored, cropped from the top left to multiples of what the model needs.
        grey: whether the model sees three channels that are all the same, which costs fewer bits than colours do.
        bits: bounds on the bits per dimension of the 8-bit image, with the terms of the first draw of the noise.
        official_nll: the number HCFlow's authors' code would print for the image; without a value unless asked for, and
            for a model without an LR image in its latent, as is the next.
        encoded_lr_psnr: of the flow's own LR image against the LR image.
        official_bins: quantization of ``official_nll``, 64 for x4 and 256 otherwise.
        in_conventions: what other codes would report for the image, of those asked for.
    """

    source: Path
    lr_source: Path | None
    file_size: tuple[int, int]
    size: tuple[int, int]
    grey: bool
    bits: BitsPerDim
    official_nll: Figure
    encoded_lr_psnr: Figure
    official_bins: int | None = None
    in_conventions: tuple[Figure, ...] = ()

    @property
    def bits_per_dim(self) -> Figure:
        """The tighter of the bounds."""
        return self.bits.figure

    @property
    def terms(self) -> LogLikelihoodTerms:
        """Of the first draw of the noise."""
        return self.bits.terms

    @property
    def remarks(self) -> tuple[str, ...]:
        """What must be known before the numbers are compared with others."""
        remarks = []
        if self.grey:
            remarks.append(
                "grey image, repeated to 3 channels: bits/dim are not comparable with those of colour images"
            )
        if self.bits.num_samples > 1 and float(self.bits.effective_samples) < _DOMINATED:
            remarks.append("one draw dominates: the weighted bound is hardly tighter")
        return tuple(remarks)

    def to_dict(self) -> dict[str, Any]:
        """Figures with their conventions, the bounds and the terms behind them, and remarks; JSON-ready."""
        figures = (self.bits_per_dim, self.official_nll, self.encoded_lr_psnr, *self.in_conventions)
        return {
            "source": printable(self.source),
            "lr_source": None if self.lr_source is None else printable(self.lr_source),
            "file_size": size_of(self.file_size),
            "size": size_of(self.size),
            "grey": self.grey,
            "figures": {figure.key: figure.to_dict() for figure in figures},
            "bounds": self.bits.to_dict(),
            "terms": self.terms.to_dict(),
            "remarks": list(self.remarks),
            "reasons": {} if self.lr_source else {"lr_source": "no LR file was given"},
        }

    def to_text(self) -> str:
        """The bounds, and the terms behind the first draw."""
        bits = self.bits
        draws = "one draw of the noise" + (f", mean of {bits.num_samples}" if bits.num_samples > 1 else "")
        facts = [[draws, with_error(float(bits.variational), float(bits.variational_error))]]
        if bits.num_samples > 1:
            weighted = with_error(float(bits.importance_weighted), float(bits.importance_weighted_error))
            effective = f"{bits.num_samples} draws, importance-weighted ({float(bits.effective_samples):.1f} effective)"
            facts.append([effective, weighted])
        size = size_text(self.file_size, cropped_to=self.size)
        title = f"{printable(self.source.name)}, {size}: upper bounds on bits/dim of the 8-bit image"
        notes = list(self.remarks)
        asked = (figure for figure in (self.official_nll, self.encoded_lr_psnr) if not figure.reason)
        notes += [str(figure) for figure in (*asked, *self.in_conventions)]
        bounds = text_table(["bound", "bits/dim"], facts, title=title, notes=notes)
        return f"{bounds}\n\nterms of the first draw of the noise\n{self.terms.to_text()}"

    def _draw_main(self, ax: Axes) -> None:
        self.terms.plot(ax)

    def _draw_figure(self) -> Drawing:
        return self.terms.plot()


@torch.no_grad()
def score_file(
    flow: ImageModel,
    path: Path,
    *,
    lr: Path | None = None,
    num_samples: int = 1,
    lr_log_scale: float | None = None,
    seed: int = 0,
    maps: bool = False,
    official: bool = False,
    conventions: Sequence[str] = (),
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> ScoredImage:
    """Score one HR file: bits per dimension with their error, term by term.

    A density of images alone scores it without an LR image.

    Cost: ``num_samples`` encoding passes, and a few percent; three more for ``official``, one or two for a convention.

    Args:
        flow: the model.
        path: the HR image; sides are cropped to multiples of what the model needs.
        lr: the LR image; by default bicubic of the HR image, rounded to 8 bits.
        num_samples: draws of the dequantization noise.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        seed: of the noise, which is drawn on the CPU so that devices agree.
        maps: keep the terms' maps.
        official: add what the authors' code prints, their NLL and the PSNR of the flow's own LR image, for a model with
            an LR image in its latent, where the image fits into memory whole.
        conventions: names of :data:`flowsr.likelihood.CONVENTIONS`, to add what their codes would report, each with its
            own noise, where the image fits into memory whole.
        tiling: how to cut the image, as :func:`check_score` says; by default so that three quarters of the free memory
            suffice.
        on_tile: called after each tile of each draw.

    Raises:
        ImageError: if a file cannot be used, or the LR image is not s times smaller.
        OutOfMemoryError: if not even a tile fits into memory.
        ValueError: for an LR image given to a density of images alone, fewer than one draw, or an unknown convention.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp()) / "noise.png"
        >>> write_image(path, torch.rand(3, 18, 16))
        >>> import flowsr
        >>> score_file(flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), path).size
        (16, 16)
    """
    check_num_samples(num_samples)
    for name in conventions:
        find_convention(name)
    file_size = read_image(path, mode=None).shape[-2:]
    image, small = read_pair(flow, path, lr, in_tiles=True)
    if tiling is None:
        tiling = _tiling(flow, image, path, maps=maps)
    hr, lr_image = image.to(flow.device), None if small is None else small.to(flow.device)
    noise = torch.Generator().manual_seed(seed)
    bits = bits_per_dim(
        flow,
        hr,
        lr_image,
        num_samples=num_samples,
        lr_log_scale=lr_log_scale,
        generator=noise,
        maps=maps,
        tiling=tiling,
        on_tile=on_tile,
    )
    return ScoredImage(
        source=path,
        lr_source=lr,
        file_size=(file_size[0], file_size[1]),
        size=(image.shape[-2], image.shape[-1]),
        grey=len(image) == 3 and bool((image == image[:1]).all()),
        bits=bits,
        in_conventions=tuple(
            _in_convention(flow, hr, lr_image, name, seed=seed, whole=len(tiling) == 1) for name in conventions
        ),
        **_official(flow, image, small, seed=seed, asked=official, whole=len(tiling) == 1),
    )


def check_score(
    flow: ImageModel, path: Path, lr: Path | None = None, *, maps: bool = False, max_memory: int | None = None
) -> Tiling:
    """How an HR file is cut to be scored within memory; raises now what :func:`score_file` would, not after all before.

    Cost: reading the files; for large images what :func:`flowsr.models.plan_tiles` costs.
    """
    image = read_pair(flow, path, lr, in_tiles=True)[0]
    return _tiling(flow, image, path, maps=maps, max_memory=max_memory)


def _tiling(flow: ImageModel, image: Tensor, path: Path, *, maps: bool, max_memory: int | None = None) -> Tiling:
    size, what = (image.shape[-2], image.shape[-1]), f"encoding {printable(path)}"
    # Noise and the noisy image, with what makes them; maps of a dozen terms, and copies to draw.
    held = 4.0 * (3 * image.numel() + maps * 24 * size[0] * size[1])
    return plan_tiles(flow, size, task="encode", max_memory=max_memory, held=held, what=what)


_NOT_WHOLE = "of whole images, which does not fit into memory here"


def _in_convention(flow: ImageModel, hr: Tensor, lr: Tensor | None, name: str, *, seed: int, whole: bool) -> Figure:
    """What another code would report, of a model that it could be asked of; the noise is drawn on the CPU."""
    convention = find_convention(name)
    if convention.lr_term == "rounded" and Capability.LR_LATENT not in flow.capabilities:
        return figure_as(convention, reason=f"{type(flow).__name__} has no LR image in its latent")
    if not whole:
        return figure_as(convention, reason=_NOT_WHOLE)
    generator = torch.Generator().manual_seed(seed)
    return figure_as(convention, float(score_as(flow, hr, lr, convention=convention, generator=generator)))


def _official(
    flow: ImageModel, hr: Tensor, lr: Tensor | None, *, seed: int, asked: bool, whole: bool
) -> dict[str, Any]:
    """What the authors' code prints, of a model that it could be asked of."""
    conditional, reason = as_conditional(flow), "" if asked else "costs three passes: --official"
    if Capability.LR_LATENT not in flow.capabilities or conditional is None or lr is None:
        reason = f"{type(flow).__name__} has no LR image in its latent"
    elif asked and not whole:
        reason = _NOT_WHOLE
    # The authors' x4 models are trained, and scored, with the noise of 64 grey levels.
    bins = 256 if conditional is None else OFFICIAL_BINS.get(conditional.upscale, 256)
    nll: float | str = reason
    decibels: float | str = reason
    if not reason and conditional is not None and lr is not None:
        theirs = "hcflow-x4" if bins == 64 else "hcflow-x8"
        nll = float(_in_convention(flow, hr.to(flow.device), lr.to(flow.device), theirs, seed=seed, whole=whole))
        decibels = encoded_lr_psnr(encoded_lr(conditional, hr).cpu(), lr)
    how = f"as the authors' code counts: noise 1/{bins}, its constant once per pixel, divided by H·W"
    own = "encode(hr).lr clamped, rounded to 8 bits for a rescaling model, against the LR image, no border"
    return {
        "official_nll": Column("official_nll", "Official NLL", how, "bits per pixel").figure(nll),
        "encoded_lr_psnr": encoded_lr_column(own).figure(decibels),
        "official_bins": None if reason else bins,
    }
