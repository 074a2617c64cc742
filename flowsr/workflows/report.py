"""One page on one image, with its figures embedded: what ``flowsr report`` does, for use from Python too."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.names import printable, visible
from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.distributions import UniformDequantizer
from flowsr.images import crop_to, encode_png, size_text
from flowsr.likelihood import inverse_stability, latent_diagnostics
from flowsr.models import ImageModel
from flowsr.models.conditional import require_conditional
from flowsr.plots import Panel, heat_limit, image_grid, map_panel
from flowsr.workflows.demo import study_photograph
from flowsr.workflows.pairs import read_pair
from flowsr.workflows.score import ScoredImage, score_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STABILITY_CROP = 128
_RUNAWAY = 10.0
_COLUMN = 240  # width of the page's smallest column, in pixels
STEPS = 4
"""How often ``on_step`` is called."""


@dataclass(frozen=True)
class Picture:
    """An image of the page: its address, which holds the data, its caption, and whether its pixels are enlarged."""

    source: str
    caption: str
    enlarged: bool = False


@torch.no_grad()
def build_report(
    flow: ImageModel,
    path: Path,
    *,
    model: str = "",
    lr: Path | None = None,
    num_samples: int = 8,
    seed: int = 0,
    on_step: Callable[[str], None] | None = None,
) -> str:
    """One HTML page on one image: metric cards, the likelihood's terms and maps, draws, latents, stability.

    Figures are embedded, so the page can be sent as one file and opened without a network.

    Cost: about ``num_samples`` + 6 decoding passes and 10 encoding passes.

    Args:
        flow: a model with the capability ``condition``.
        path: the HR image file; sides are cropped to multiples of what the model needs.
        model: what the page calls the model; by default the kind it is of.
        lr: the LR image file; by default bicubic of the HR image, rounded to 8 bits.
        num_samples: draws behind mean and deviation, at least 2, and noises behind the bound.
        seed: of all randomness.
        on_step: called with what is done next.

    Returns:
        The page's text.

    Raises:
        ImageError: if a file cannot be used.
        ValueError: for fewer than two draws, or a density of images alone.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> path = Path(tempfile.mkdtemp()) / "noise.png"
        >>> write_image(path, torch.rand(3, 32, 32))
        >>> import flowsr
        >>> build_report(flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), path, num_samples=2)[:15]
        '<!doctype html>'
    """
    from jinja2 import Environment

    if num_samples < 2:
        raise ValueError(f"expected num_samples >= 2, for mean and deviation; got {num_samples}")
    say = on_step or (lambda _: None)
    flow = require_conditional(flow, what="a report")
    hr, small = read_pair(flow, path, lr)
    assert small is not None  # of a conditional model
    say("likelihood")
    scored = score_file(flow, path, lr=lr, num_samples=num_samples, seed=seed, maps=True, official=True)
    say("draws")
    study = study_photograph(flow, hr, lr=small, num_samples=num_samples, seed=seed)
    say("latents")
    generator = torch.Generator().manual_seed(seed)
    device = flow.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw = flow.condition(small.to(device)).sample()
    of_image = latent_diagnostics(
        flow, [(hr.to(device), small.to(device))], dequantizer=UniformDequantizer(), generator=generator
    )
    largest = float(draw.abs().max())
    if largest < _RUNAWAY:
        of_draw = latent_diagnostics(flow, [(draw, small.to(device))]).to_text()
    else:
        of_draw = (
            f"The draw ran away: its largest value is {largest:.3g}, of images in [0, 1]. The LR image is unlike those "
            "the model was trained on; see the growth of activations below."
        )
    say("stability")
    side = _STABILITY_CROP // flow.multiple * flow.multiple
    cropped = crop_to(hr, (min(side, hr.shape[-2]), min(side, hr.shape[-1])))
    cropped_lr = crop_to(small, (cropped.shape[-2] // flow.upscale, cropped.shape[-1] // flow.upscale))
    stability = inverse_stability(flow, cropped.to(device), cropped_lr.to(device), seed=seed)

    pictures = [
        _picture(study.lr, f"LR image, {size_text(study.lr.shape[-2:])}, at the size of the HR image"),
        _picture(study.hr, f"HR image, {size_text(study.hr.shape[-2:])}"),
        _picture(study.bicubic, "bicubic"),
        *(_picture(image, f"a draw at τ = {tau:g}") for tau, image in study.samples.items()),
        _picture(study.another, f"another draw at τ = {DRAW_TEMPERATURE:g}"),
        _picture(study.mean, f"mean of {num_samples} draws at τ = {DRAW_TEMPERATURE:g}"),
        Picture(
            _figure(_map(Panel(study.std, "", heat=heat_limit(study.std), photograph=study.hr))),
            "standard deviation of these draws, mean over channels, over the HR image in grey",
        ),
    ]
    context: dict[str, Any] = {
        "name": printable(path.name),
        "model": model or type(flow).__name__,
        "size": size_text(scored.file_size, cropped_to=scored.size),
        "lr_source": printable(lr.name) if lr is not None else f"bicubic ÷{flow.upscale}, rounded to 8 bits",
        "provenance": {visible(key): visible(str(value)) for key, value in flow.provenance.items()},
        "version": version("flowsr"),
        "seed": seed,
        "upscale": flow.upscale,
        "scored": scored,
        "cards": study.cards,
        "pictures": pictures,
        "terms": _figure(_bars(scored)),
        "maps": [pictures[1], *_maps(scored, study.hr)],
        "latents": (
            ("the image", _figure(of_image.plot()), of_image.to_text()),
            ("a draw of the model, for comparison", None, of_draw),
        ),
        "stability": (_figure(stability.plot()), stability.to_text(), size_text(cropped.shape[-2:])),
    }
    template = (resources.files("flowsr.workflows") / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(context)


def _maps(scored: ScoredImage, hr: Tensor) -> list[Picture]:
    """The map of all terms together, and of each that varies over the image, in bits per dimension, over the image."""
    terms = scored.terms

    def picture(bits: Tensor, caption: str) -> Picture:
        return Picture(_figure(_map(map_panel(bits, title="", unit="bits/dim", photograph=hr))), caption)

    pictures = [picture(terms.bits_map, "all terms together")]
    for name, image in terms.maps.items():
        if float(image.std()) > 1e-6 * float(image.abs().max()):
            pictures.append(picture(terms.to_bits_map(image), name))
    return pictures


def _bars(scored: ScoredImage) -> Figure:
    """The terms without their map: the page has a map of each."""
    return replace(scored.terms, maps={}).plot()


def _map(panel: Panel) -> Figure:
    return image_grid([panel], columns=1, width=3.2)


def _picture(image: Tensor, caption: str) -> Picture:
    # A browser that shrinks an image must average its pixels, and one that enlarges it must not.
    return Picture(_address(encode_png(image.clamp(0, 1))), caption, enlarged=image.shape[-1] < _COLUMN)


def _figure(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, facecolor="white")
    return _address(buffer.getvalue())


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
