"""The demonstration behind ``flowsr demo``: fit a small model to photographs, and look at one it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr._support.json import size_of
from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.evaluation import fidelity_figures, likelihood_figures
from flowsr.images import bicubic_up, crop_to, make_lr, round_to_8bit, size_text, write_image
from flowsr.likelihood import LogLikelihoodTerms
from flowsr.metrics import psnr
from flowsr.models import ConditionalModel, HCFlow
from flowsr.plots import (
    WIDTH,
    Panel,
    TermBar,
    draw_term_bars,
    grid_height,
    heat_limit,
    image_grid,
    new_figure,
    zoom_window,
)
from flowsr.results import Card
from flowsr.statistics.moments import RunningMoments
from flowsr.training import Recipe, Run, recipe, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TRAINING = ("astronaut", "coffee", "rocket", "stereo_motorcycle")
"""Names in ``skimage.data`` of the photographs the demonstration trains on."""

UNSEEN = "chelsea"
"""Name in ``skimage.data`` of the photograph it is shown on: Chelsea the cat."""

TEMPERATURES = (0.0, DRAW_TEMPERATURE, 1.0)
"""τ of the draws shown."""


def training_photographs() -> dict[str, Tensor]:
    """The photographs to train on, by name, each ``(3, H, W)`` in [0, 1].

    Cost: decoding four files.

    Example:
        >>> {name: tuple(image.shape) for name, image in training_photographs().items()}["coffee"]
        (3, 400, 600)
    """
    return {name: _photograph(name) for name in TRAINING}


def unseen_photograph(*, multiple: int, largest: int | None = None) -> Tensor:
    """The photograph to look at, cropped at the bottom and the right to sides that are multiples of a number.

    Args:
        multiple: what both sides must be divisible by: the upscale factor.
        largest: keep at most this many pixels of each side, from the cat's eyes on.

    Returns:
        RGB image ``(3, H, W)`` in [0, 1].

    Example:
        >>> unseen_photograph(multiple=4).shape, unseen_photograph(multiple=4, largest=50).shape
        (torch.Size([3, 300, 448]), torch.Size([3, 48, 48]))
    """
    image = _photograph(UNSEEN)
    if largest is not None:
        image = image[:, 80:, 130:]
    height, width = (min(side, largest or side) for side in image.shape[-2:])
    return crop_to(image, (height - height % multiple, width - width % multiple)).contiguous()


def _photograph(name: str) -> Tensor:
    from skimage import data

    pixels = getattr(data, name)()
    # A stereo pair comes as (left, right, disparity).
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255


def demo_recipe(steps: int = 250, *, batch_size: int = 8, crop: int = 64) -> Recipe:
    """The recipe ``nll`` for a few minutes of a CPU in place of days of a GPU.

    Args:
        steps: optimizer steps.
        batch_size: crops per step.
        crop: side of a square HR crop, a multiple of the upscale factor.

    Example:
        >>> demo_recipe().passes
        ('likelihood',)
    """
    return recipe(
        "nll",
        steps=steps,
        batch_size=batch_size,
        crop=crop,
        learning_rate=5e-4,
        halve_at=(),
        cosine_to=0.0,
        warmup=20,
        rotations=False,
        ema=0.0,
    )


def train_demo_model(
    photographs: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    preset: str = "sr-x4-small",
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> HCFlow:
    """Train a small model on photographs with :func:`flowsr.training.train`, in a folder that is gone afterwards.

    Cost: one encoding pass and its gradient per step; about a minute for :func:`demo_recipe` on one core.

    Args:
        photographs: RGB images ``(3, H, W)`` in [0, 1] by name; those smaller than a crop are left out with a warning.
        recipe: how long, how large.
        preset: the architecture.
        seed: of weights, crops and noise. Same seed, same weights, bit for bit, on the CPU with the same number of
            threads.
        device: where to train.
        dtype: of the weights.
        progress: show a progress bar.

    Returns:
        The model in evaluation mode. Torch's global random state is left as it was.

    Raises:
        ImageError: if no photograph is as large as a crop.
        ValueError: if the crop is not a multiple of the upscale factor.
        NonFiniteError: if the loss stops being finite.
        KeyboardInterrupt: if a signal stopped the training.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3, without the perceptual and adversarial terms.

    Example:
        >>> flow = train_demo_model({"noise": torch.rand(3, 20, 20)}, demo_recipe(2, batch_size=1, crop=16))
        >>> flow.provenance["step"], flow.training
        (2, False)
    """
    accelerator = "cpu" if torch.device(device).type == "cpu" else "gpu"
    run = Run(seed=seed, accelerator=accelerator, progress=progress, pictures=False, checkpoint_every=recipe.steps)
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        images = Path(folder) / "photographs"
        images.mkdir()
        for name, image in photographs.items():
            write_image(images / f"{name}.png", image)
        torch.manual_seed(seed)
        flow = HCFlow.from_preset(preset, start="haar").to(dtype)
        trained = train(flow, images, out=Path(folder) / "run", recipe=recipe, run=run)
    if trained.interrupted is not None:
        raise KeyboardInterrupt
    flow.provenance |= {"trained_by": "flowsr demo", "photographs": sorted(photographs)}
    return flow.to(device)


@dataclass(frozen=True)
class DemoStudy:
    """What the demonstration found. Images are ``(C, H, W)`` on the CPU, not clamped.

    Attributes:
        hr: the photograph.
        lr: its LR image, rounded to 8 bits.
        bicubic: the baseline.
        samples: one draw by temperature.
        another: a second draw at τ = 0.8.
        mean: mean of the draws at τ = 0.8.
        std: their unbiased standard deviation.
        num_samples: how many they are.
        terms: of ``log P(hr | lr)`` of the 8-bit image, with one draw of noise.
        cards: all figures with their conventions: of the images, and of the likelihood.
    """

    hr: Tensor
    lr: Tensor
    bicubic: Tensor
    samples: dict[float, Tensor]
    another: Tensor
    mean: Tensor
    std: Tensor
    num_samples: int
    terms: LogLikelihoodTerms
    cards: tuple[Card, Card]

    def to_dict(self) -> dict[str, Any]:
        """The figures, not the images, as JSON-ready values."""
        return {
            "image": {"size": size_of(self.hr.shape), "lr_size": size_of(self.lr.shape)},
            "temperatures": list(self.samples),
            "mean_and_std": {"temperature": DRAW_TEMPERATURE, "num_samples": self.num_samples},
            "likelihood": self.terms.to_dict(),
            "cards": [card.to_dict() for card in self.cards],
        }


@torch.no_grad()
def study_photograph(
    flow: ConditionalModel,
    hr: Tensor,
    *,
    lr: Tensor | None = None,
    num_samples: int = 8,
    temperatures: Sequence[float] = TEMPERATURES,
    seed: int = 0,
    on_step: Callable[[], None] | None = None,
) -> DemoStudy:
    """Shrink a photograph, super-resolve it at several temperatures, and score the truth.

    Cost: ``num_samples`` + the number of temperatures decoding passes, and three encoding passes.

    Args:
        flow: the model.
        hr: RGB image in [0, 1], ``(3, H, W)``, sides multiples of what the model needs.
        lr: its LR image; by default bicubic, rounded to 8 bits.
        num_samples: draws behind mean and standard deviation, at least 2.
        temperatures: τ of the single draws.
        seed: of all noise.
        on_step: called after each pass, for a progress bar: ``num_samples + len(temperatures) + 1`` times.

    Raises:
        ValueError: on wrong sizes or values.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> study = study_photograph(flow, torch.rand(3, 32, 32), num_samples=2, temperatures=(0.0, 1.0))
        >>> study.mean.shape, sorted(study.samples)
        (torch.Size([3, 32, 32]), [0.0, 1.0])
    """
    advance = on_step or (lambda: None)
    hr = round_to_8bit(hr.cpu())
    lr = make_lr(hr, flow.upscale) if lr is None else lr.cpu()
    bicubic = bicubic_up(lr, flow.upscale)
    samples = {}
    for tau in temperatures:
        noise = torch.Generator().manual_seed(seed)
        samples[tau] = next(flow.stream(lr, num_samples=1, temperature=tau, generator=noise)).cpu()
        advance()
    draws, moments = [], RunningMoments()
    noise = torch.Generator().manual_seed(seed)
    for draw in flow.stream(lr, num_samples=num_samples, temperature=DRAW_TEMPERATURE, generator=noise):
        moments.add(draw)
        draws.append(draw.cpu())
        advance()
    mean, std = moments.mean.cpu(), moments.std.cpu()
    columns = {"bicubic": bicubic}
    if 0.0 in samples:
        columns["τ=0"] = samples[0.0]
    columns[f"τ={DRAW_TEMPERATURE:g}"] = torch.stack(draws)
    columns["mean"] = mean.to(hr.dtype)
    fidelity = fidelity_figures(columns, hr, lr, upscale=flow.upscale)
    likelihood, bits = likelihood_figures(flow, hr, lr=lr, seed=seed)
    advance()
    title = (
        f"Images against the truth (τ={DRAW_TEMPERATURE:g}: averages over {num_samples} draws; mean: of these draws)"
    )
    cards = (Card(title, fidelity), Card("Likelihood of the truth", {"truth": likelihood}))
    return DemoStudy(hr, lr, bicubic, samples, draws[1], mean, std, num_samples, bits.terms, cards)


def demo_figure(
    panels: Sequence[Panel],
    bars: Sequence[TermBar],
    *,
    dims: int,
    title: str,
    columns: int = 3,
    width: float = WIDTH,
    zoom: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Rows of images above the bars of the likelihood's terms.

    Args:
        panels: images with captions.
        bars: the terms of the log-likelihood of the true image, and last their sum.
        dims: D = C·H·W of the image.
        title: one line over all.
        columns: images per row.
        width: in inches.
        zoom: a part that all panels show enlarged, see :func:`flowsr.plots.image_grid`.

    Raises:
        ValueError: without panels or columns.

    Example:
        >>> import torch
        >>> panels = [Panel(torch.rand(3, 4, 4), "LR"), Panel(torch.rand(3, 16, 16), "HR")]
        >>> bars = [TermBar("latents", 2.5, "blue"), TermBar("total", 2.5, "ink")]
        >>> len(demo_figure(panels, bars, dims=768, title="noise").axes)
        3
    """
    if not panels or columns < 1:
        raise ValueError(f"expected at least one panel and one column; got {len(panels)} panels, {columns} columns")
    heights = [grid_height(panels, columns=columns, width=width) + 0.4, 0.9 + 0.2 * len(bars)]
    figure = new_figure(width, sum(heights))
    # Two parts, so that the long labels of the bars do not narrow the images.
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False).flat
    image_grid(panels, columns=columns, title=title, zoom=zoom, into=above)
    draw_term_bars(below.subplots(), bars, dims=dims, title="What the truth costs, given the LR image")
    return figure


def demo_picture(study: DemoStudy, *, weights: str) -> Figure:
    """LR image, baseline, truth, draws, mean, standard deviation, and the likelihood's terms as bars.

    The part where the draws differ most is enlarged in all images.

    Args:
        study: what to show.
        weights: where the model's weights are from, for the title.

    Example:
        >>> import torch, flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> study = study_photograph(flow, torch.rand(3, 32, 32), num_samples=2, temperatures=(0.0, 0.8))
        >>> len(demo_picture(study, weights="untrained").axes)  # eight images and the likelihood's bars
        9
    """
    upscale = study.hr.shape[-1] // study.lr.shape[-1]
    height, width = study.lr.shape[-2:]

    def decibels(image: Tensor) -> str:
        return f"PSNR {float(psnr(round_to_8bit(image), study.hr, border=upscale)):.2f} dB"

    largest = 5 * max(1, math.ceil(51 * heat_limit(study.std))) / 255  # a multiple of 5 grey levels
    panels = [
        Panel(study.lr, f"LR image: the input\nbicubic ÷{upscale}, {size_text((height, width))}"),
        Panel(study.bicubic, f"Bicubic ×{upscale}: the baseline\n{decibels(study.bicubic)}"),
        Panel(study.hr, f"Truth\n{size_text(study.hr.shape[-2:])}, not seen in training"),
    ]
    for tau, image in study.samples.items():
        panels.append(Panel(image, _draw_caption(tau) + "\n" + decibels(image)))
        if tau == DRAW_TEMPERATURE:
            panels.append(Panel(study.another, f"Another draw at τ = {tau:g}\n{decibels(study.another)}"))
    draws = f"{study.num_samples} draws at τ = {DRAW_TEMPERATURE:g}"
    panels += [
        Panel(study.mean, f"Mean of the draws\n{decibels(study.mean.to(study.hr.dtype))}; {draws}"),
        Panel(study.std, f"Standard deviation of the draws\nwhere they differ; {draws}", heat=largest),
    ]
    title = f"×{upscale} super-resolution of a photograph, {weights} (PSNR: RGB, border {upscale}, 8 bits)"
    zoom = zoom_window(study.std, side=max(1, min(study.hr.shape[-2:]) // 7))
    return demo_figure(panels, study.terms.bars(), dims=study.terms.dims, title=title, zoom=zoom)


def _draw_caption(tau: float) -> str:
    if tau == 0:
        return "τ = 0: no noise in the latents"
    return f"A draw at τ = {tau:g}" + (", the model" if tau == 1 else "")
