"""Files of images in, their likelihoods out: what ``flowsr score`` does, for use from Python too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowsr.distributions import UniformDequantizer
from flowsr.encoded import encoded_lr, encoded_lr_psnr
from flowsr.errors import ImageError
from flowsr.evaluation.score import crop_pair
from flowsr.images import bicubic_down, read_image, round_to_8bit
from flowsr.likelihood import (
    OFFICIAL_BINS,
    BitsPerDim,
    LogLikelihoodTerms,
    bits_per_dim,
    decompose,
    official_nll,
)
from flowsr.likelihood.bounds import with_error
from flowsr.models import HCFlow
from flowsr.results import Result, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ScoredImage(Result):
    """What an image file costs under a model.

    Attributes:
        source: the HR file.
        lr_source: the LR file; None for a bicubic LR image, rounded to 8 bits.
        size: height and width of what was scored, cropped from the top left to multiples of the upscale factor.
        bits: bounds on the bits per dimension of the 8-bit image.
        terms: of one draw of the dequantization noise, with maps if asked for.
        official_nll: the number the authors' code would print for the image, bits per pixel, with noise of
            1/``official_bins``.
        official_bins: its quantization, 64 for x4 and 256 otherwise.
        encoded_lr_psnr: PSNR of the flow's own LR image against the LR image, dB, no border.
    """

    source: Path
    lr_source: Path | None
    size: tuple[int, int]
    bits: BitsPerDim
    terms: LogLikelihoodTerms
    official_nll: float
    official_bins: int
    encoded_lr_psnr: float

    def to_text(self) -> str:
        """The bounds, and the terms behind one draw."""
        bits = self.bits
        facts = [["one draw of the noise, mean", with_error(float(bits.variational), float(bits.variational_error))]]
        if bits.num_samples > 1:
            weighted = with_error(float(bits.importance_weighted), float(bits.importance_weighted_error))
            effective = f"{bits.num_samples} draws, importance-weighted ({float(bits.effective_samples):.1f} effective)"
            facts.append([effective, weighted])
        title = f"{self.source.name}, {self.size[0]} x {self.size[1]}: upper bounds on bits/dim of the 8-bit image"
        notes = [
            f"official NLL: {self.official_nll:.3f} bits per pixel, as the authors' code counts, "
            f"noise 1/{self.official_bins}",
            f"the flow's own LR image against the one given: {self.encoded_lr_psnr:.2f} dB",
        ]
        return f"{text_table(['bound', 'bits/dim'], facts, title=title, notes=notes)}\n\n{self.terms.to_text()}"

    def _draw_main(self, ax: Axes) -> None:
        self.terms.plot(ax)

    def _draw_figure(self) -> Figure:
        return self.terms.plot()


@torch.no_grad()
def score_file(
    flow: HCFlow,
    path: Path,
    *,
    lr: Path | None = None,
    num_samples: int = 1,
    lr_log_scale: float | None = None,
    seed: int = 0,
    maps: bool = False,
) -> ScoredImage:
    """Score one HR file: bits per dimension with their error, term by term.

    Cost: ``num_samples`` + 3 encoding passes.

    Args:
        flow: the model.
        path: the HR image; sides are cropped to multiples of the upscale factor.
        lr: the LR image; by default bicubic of the HR image, rounded to 8 bits.
        num_samples: draws of the dequantization noise.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        seed: of the noise, which is drawn on the CPU so that devices agree.
        maps: keep the terms' maps.

    Raises:
        ImageError: if a file cannot be used, or the LR image is not s times smaller.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp()) / "noise.png"
        >>> write_image(path, torch.rand(3, 18, 16))
        >>> score_file(HCFlow.from_preset("sr-x4-small", start="haar"), path).size
        (16, 16)
    """
    image, small = read_pair(flow, path, lr)
    device, noise = flow.device, UniformDequantizer()
    hr, lr_image = image.to(device), small.to(device)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    terms = decompose(
        flow, hr, lr_image, lr_log_scale=lr_log_scale, dequantizer=noise, generator=generator(), maps=maps
    )
    bits = bits_per_dim(flow, hr, lr_image, num_samples=num_samples, lr_log_scale=lr_log_scale, generator=generator())
    # The authors' x4 models are trained, and scored, with the noise of 64 grey levels.
    official = UniformDequantizer(OFFICIAL_BINS.get(flow.upscale, 256))
    noisy, _ = official.dequantize(hr, generator=generator())
    return ScoredImage(
        source=path,
        lr_source=lr,
        size=(image.shape[-2], image.shape[-1]),
        bits=bits,
        terms=terms,
        official_nll=float(official_nll(flow, noisy, lr_image, bins=official.bins)),
        official_bins=official.bins,
        encoded_lr_psnr=encoded_lr_psnr(encoded_lr(flow, image).cpu(), small),
    )


def read_pair(flow: HCFlow, path: Path, lr: Path | None = None) -> tuple[Tensor, Tensor]:
    """An HR file, cropped from the top left to multiples of the upscale factor, and its LR image, both 8-bit.

    Args:
        flow: the model the images are for.
        path: the HR file.
        lr: the LR file; by default bicubic of the HR image.

    Raises:
        ImageError: if a file cannot be used, or the LR image is not s times smaller.
    """
    mode = "gray" if flow.config.image_channels == 1 else "RGB"
    hr, small = read_image(path, mode=mode), None if lr is None else read_image(lr, mode=mode)
    try:
        hr, small = crop_pair(hr, small, upscale=flow.upscale, multiple=flow.upscale)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    return hr, round_to_8bit(bicubic_down(hr, flow.upscale)) if small is None else small
