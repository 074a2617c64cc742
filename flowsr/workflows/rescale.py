"""Files made small and brought back: what ``flowsr downscale`` and ``flowsr upscale`` do, for use from Python too.

A rescaling model's LR image is a picture to look at that hides what is needed to restore the HR image. It is an 8-bit
PNG file; the size of the HR image, which is not a multiple of the factor in general, is written into the file as text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsr._support.atomic import atomic_path
from flowsr._support.json import size_of
from flowsr._support.names import output_stem, printable
from flowsr._support.temperatures import RESTORE_TEMPERATURE
from flowsr.errors import ImageError, NonFiniteError, quoted
from flowsr.evaluation.columns import encoded_lr_column, fidelity_columns
from flowsr.evaluation.encoded import encoded_lr, encoded_lr_psnr
from flowsr.images import (
    crop_to,
    encode_png,
    make_lr,
    pad_to_multiple,
    read_png_text,
    round_to_8bit,
    size_text,
    write_image,
)
from flowsr.metrics import compare
from flowsr.models import Capability, ConditionalModel, ImageModel, Tiling, plan_tiles
from flowsr.results import Card, Figure
from flowsr.workflows.pairs import read_for

SIZE_KEY = "flowsr:hr-size"
"""Under which text of the PNG file the HR image's size stands: ``HEIGHTxWIDTH``, which no reader may turn around."""

_LOSS = ("psnr", "psnr_y", "ssim", "ssim_y")
_REASONS = {
    "encoded_lr_psnr": "measured where an LR image is made",
    "card": "measured where an HR image is restored and the original is given: --original",
}


@dataclass(frozen=True)
class Rescaled:
    """One file made from another.

    Attributes:
        source: the file read.
        file: the file written.
        size: height and width of what was written.
        padded: whether the model saw a padded image.
        encoded_lr_psnr: downscaling: the LR image against the bicubic one.
        card: upscaling: the loss against the original, if it was given.
    """

    source: Path
    file: Path
    size: tuple[int, int]
    padded: bool = False
    encoded_lr_psnr: Figure | None = None
    card: Card | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values; what does not apply is null, with the reason."""
        parts = {"encoded_lr_psnr": self.encoded_lr_psnr, "card": self.card}
        given = {name: None if part is None else part.to_dict() for name, part in parts.items()}
        reasons = {name: _REASONS[name] for name, part in given.items() if part is None}
        record = {"source": printable(self.source), "file": printable(self.file), "size": size_of(self.size)}
        return {**record, "padded": self.padded, **given, "reasons": reasons}


def lr_name(path: Path) -> str:
    """The name of the LR file made from an HR file.

    Example:
        >>> lr_name(Path("baby.jpg")), hr_name(Path("baby_LR.png"))
        ('baby_LR.png', 'baby_HR.png')
    """
    return f"{output_stem(path)}_LR.png"


def hr_name(path: Path) -> str:
    """The name of the HR file made from an LR file."""
    return f"{output_stem(path).removesuffix('_LR')}_HR.png"


def check_rescaling(flow: ImageModel) -> None:
    """Raise ValueError for a model that was not made to write LR images."""
    if Capability.CONDITION not in flow.capabilities:
        raise ValueError(
            f"expected a rescaling model, such as rescaling-x4-small; got {type(flow).__name__}, a density of images "
            "alone, which knows no LR images: take another model"
        )
    if Capability.DOWNSCALE not in flow.capabilities:
        raise ValueError(
            "expected a rescaling model, such as rescaling-x4-small; got a super-resolution model, whose LR images are "
            "bicubic ones: shrink with any bicubic tool instead"
        )


@torch.no_grad()
def downscale_file(
    flow: ConditionalModel,
    path: Path,
    target: Path,
    *,
    overwrite: bool = False,
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> Rescaled:
    """Write the 8-bit LR image of a rescaling model; sides that are not multiples of the factor are padded first.

    Padding is by reflection at the bottom and right, so the LR image has the sides ``⌈H/s⌉, ⌈W/s⌉``. The HR image's
    size is kept in the PNG file, for :func:`upscale_file` to crop to.

    Cost: one encoding pass.

    Args:
        flow: the model.
        path: HR image of any size.
        target: PNG file to write.
        overwrite: replace an existing file.
        tiling: how to cut the image, as :func:`check_downscale` says; by default so that three quarters of the free
            memory suffice.
        on_tile: called after each tile.

    Raises:
        ValueError: for a model without the capability ``downscale``, or if the LR image is not finite.
        ImageError: for an image that cannot be used.
        OutOfMemoryError: if not even a tile fits into memory.
        FileExistsError: if the file exists and ``overwrite`` is False.
    """
    check_rescaling(flow)
    if target.suffix.lower() != ".png":
        raise ValueError(
            f"expected a PNG file to write, as other formats lose what it hides; got {printable(target.name)}"
        )
    padded, size = pad_to_multiple(read_for(flow, path), flow.upscale)
    if tiling is None:
        tiling = _downscale_tiling(flow, padded, path)
    lr = encoded_lr(flow, padded, tiling=tiling, on_tile=on_tile).cpu()
    if not bool(torch.isfinite(lr).all()):
        raise ValueError(f"{printable(path)}: expected a finite LR image; got NaN or infinity: use float64")
    bicubic = make_lr(padded, flow.upscale)
    with atomic_path(target, overwrite=overwrite) as temporary:
        temporary.write_bytes(encode_png(lr, text={SIZE_KEY: f"{size[0]}x{size[1]}"}))
    shape = (lr.shape[-2], lr.shape[-1])
    how = f"the 8-bit LR image, against bicubic ÷{flow.upscale} rounded to 8 bits, all channels, no border"
    near = encoded_lr_column(how).figure(encoded_lr_psnr(lr, bicubic))
    return Rescaled(path, target, shape, size != tuple(padded.shape[-2:]), near)


def check_downscale(flow: ConditionalModel, path: Path, *, max_memory: int | None = None) -> Tiling:
    """How the HR image of a file is cut to fit into memory; raises now what :func:`downscale_file` would.

    Cost: reading the file; for large images what :func:`flowsr.models.plan_tiles` costs.
    """
    check_rescaling(flow)
    return _downscale_tiling(flow, pad_to_multiple(read_for(flow, path), flow.upscale)[0], path, max_memory)


def _downscale_tiling(flow: ConditionalModel, padded: Tensor, path: Path, max_memory: int | None = None) -> Tiling:
    size, what = (padded.shape[-2], padded.shape[-1]), f"encoding {printable(path)}"
    # Beside the image itself, what a bicubic filter makes of it.
    held = 3 * padded.numel() * padded.element_size()
    return plan_tiles(flow, size, task="encode", max_memory=max_memory, held=held, what=what)


def check_upscale(
    flow: ConditionalModel, path: Path, *, compared: bool = False, max_memory: int | None = None
) -> Tiling:
    """How the HR image of an LR file is cut to fit into memory; raises now if the file cannot be used.

    Cost: reading the file; for large images what :func:`flowsr.models.plan_tiles` costs.

    Args:
        flow: the model.
        path: the LR image.
        compared: whether the loss against an original is measured, which takes more memory.
        max_memory: bytes for the process in all; by default three quarters of what is free may be taken.
    """
    lr, s = read_for(flow, path), flow.upscale
    size = (s * lr.shape[-2], s * lr.shape[-1])
    # Grey levels; for figures the two images, and what filters make of them.
    each = 1 + 8 * compared * flow.dtype.itemsize
    held = each * lr.numel() * s**2
    return plan_tiles(flow, size, task="draw", max_memory=max_memory, held=held, what=f"drawing for {printable(path)}")


def upscale_file(
    flow: ConditionalModel,
    path: Path,
    target: Path,
    *,
    temperature: float = RESTORE_TEMPERATURE,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    original: Path | None = None,
    overwrite: bool = False,
    tiling: Tiling | None = None,
    on_tile: Callable[[], None] | None = None,
) -> Rescaled:
    """Write the HR image of an LR image: one that a rescaling model made, or any for a super-resolution model.

    Its size is s times the LR image's, cropped at the bottom and right to ``size``, or else to the size that
    :func:`downscale_file` left in the PNG file, or else to that of the original.

    Cost: one decoding pass.

    Args:
        flow: the model.
        path: LR image of any size.
        target: file to write, 8 bits.
        temperature: τ ≥ 0 of the latents.
        seed: of the latents.
        size: height and width of the HR image.
        original: the true HR image, to measure the loss.
        overwrite: replace an existing file.
        tiling: how to cut the image, as :func:`check_upscale` says; by default so that three quarters of the free
            memory suffice.
        on_tile: called after each tile.

    Raises:
        ValueError: if a size does not fit, or the HR image is not finite.
        ImageError: for an image that cannot be used, or an original of another size.
        OutOfMemoryError: if not even a tile fits into memory.
        FileExistsError: if the file exists and ``overwrite`` is False.
    """
    lr, s = read_for(flow, path), flow.upscale
    truth = None if original is None else read_for(flow, original)
    name, of = printable(path), "" if original is None else printable(original)
    whole = (s * lr.shape[-2], s * lr.shape[-1])
    told = size or stored_size(path)
    size = told or (whole if truth is None else (truth.shape[-2], truth.shape[-1]))
    if any(not full - s < side <= full for side, full in zip(size, whole, strict=True)):
        blamed = name if told or truth is None else of
        raise ValueError(
            f"{blamed}: expected an HR image of {size_text(whole)} less at most {s - 1} on each side, with this x{s} "
            f"model; got {size_text(size)}: check model and size"
        )
    if truth is not None and tuple(truth.shape[-2:]) != size:
        raise ImageError(f"{of}: expected the original of {name}, {size_text(size)}; got {size_text(truth.shape[-2:])}")
    if tiling is None:
        tiling = check_upscale(flow, path, compared=truth is not None)
    options: dict[str, Any] = {"temperature": temperature, "tiling": tiling, "levels": True, "on_tile": on_tile}
    try:
        hr = next(flow.stream(lr, num_samples=1, generator=torch.Generator().manual_seed(seed), **options))
    except NonFiniteError:
        raise ValueError(
            f"{name}: expected a finite HR image; got NaN or infinity: lower the temperature, or float64"
        ) from None
    hr = crop_to(hr.cpu(), size)
    write_image(target, hr, overwrite=overwrite)
    title = f"{printable(target.name)} against {of}"
    card = None if truth is None else loss_card(hr.to(truth.dtype) / 255, truth, upscale=s, title=title)
    return Rescaled(path, target, size, card=card)


def loss_card(hr: Tensor, original: Tensor, *, upscale: int, title: str = "Loss") -> Card:
    """PSNR and SSIM, RGB and luma, of a restored image against the original, as a card.

    Example:
        >>> image = torch.rand(3, 32, 32)
        >>> print(loss_card(image, round_to_8bit(image), upscale=4).to_text().splitlines()[1])
        PSNR (RGB, border 4, rounded to 8 bits), dB: loss ∞
    """
    scores = compare(hr, round_to_8bit(original), border=upscale, figures=_LOSS)
    colours = "RGB" if hr.shape[-3] == 3 else "gray"
    columns = [column for column in fidelity_columns(upscale, colours=colours) if column.key in _LOSS]
    return Card(title, {"loss": tuple(column.figure(scores[column.key]) for column in columns)})


def stored_size(path: Path) -> tuple[int, int] | None:
    """The HR image's size that :func:`downscale_file` left in a PNG file, or None."""
    text = read_png_text(path, SIZE_KEY)
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text or "", re.ASCII)
    if text is not None and (found is None or 0 in map(int, found.groups())):
        raise ImageError(f"{path}: expected HEIGHTxWIDTH under {SIZE_KEY} in the file; got '{quoted(text)}'")
    return None if found is None else (int(found[1]), int(found[2]))
