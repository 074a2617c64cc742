"""The demonstration behind ``flowsr demo``: fit a small model to photographs, and look at one it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowsr.distributions import uniform_dequantize
from flowsr.errors import NonFiniteError
from flowsr.evaluation import MetricCard, fidelity_metrics, likelihood_metrics
from flowsr.images import bicubic_up, crop_to, make_lr, round_to_8bit
from flowsr.likelihood import LogLikelihoodTerms
from flowsr.metrics import psnr
from flowsr.models import ConditionalModel, HCFlow
from flowsr.plots.grid import Panel, draw_panel, panel_row_height
from flowsr.plots.style import PALETTE, new_figure
from flowsr.plots.term_bars import TermBar, draw_term_bars
from flowsr.statistics.moments import RunningMoments
from flowsr.training.objectives import likelihood_loss
from flowsr.training.trainer import clip_gradients

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TRAINING = ("astronaut", "coffee", "rocket", "stereo_motorcycle")
"""Names in ``skimage.data`` of the photographs the demonstration trains on."""

UNSEEN = "chelsea"
"""Name in ``skimage.data`` of the photograph it is shown on: Chelsea the cat."""


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


OnStep = Callable[[int, float], None]
"""Called after each step with its number, from 1, and the batch's bits per dimension."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """How the demonstration's model is trained.

    Args:
        steps: optimizer steps.
        batch_size: crops per step.
        crop: side of a square HR crop, a multiple of the upscale factor.
        learning_rate: of Adam with betas (0.9, 0.99); warmed up over 20 steps and then lowered to zero as a cosine.
        seed: of the weights, the crops and the noise.

    Raises:
        ValueError: for values out of range.
    """

    steps: int = 250
    batch_size: int = 8
    crop: int = 64
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.crop) < 1 or not self.learning_rate > 0 or self.seed < 0:
            raise ValueError(f"expected positive numbers and a seed >= 0; got {self}")


def train_demo_model(
    photographs: Sequence[Tensor],
    settings: DemoSettings,
    *,
    preset: str = "sr-x4-small",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    on_step: OnStep | None = None,
) -> HCFlow:
    """Train a small model by minimizing the bits per pixel of ``p(hr | lr)``, three times those per dimension.

    ``lr`` is the bicubic ÷s of ``hr`` rounded to 8 bits, and ``hr`` gets uniform noise of 1/256. Gradients, of the
    bits per pixel, are clipped as published: to 5 per value, then to a norm of 100.

    Cost: one encoding pass and its gradient per step; about two minutes for the default settings on two cores.

    Args:
        photographs: RGB images ``(3, H, W)`` in [0, 1], each at least one crop large.
        settings: how long, how large, which seed. Same settings, same weights, bit for bit, on the CPU with the same
            number of threads.
        preset: the architecture.
        device: where to train.
        dtype: of the weights.
        on_step: called after each step.

    Returns:
        The model in evaluation mode. Torch's global random state is left as it was.

    Raises:
        ValueError: if a photograph is smaller than a crop, or the crop is not a multiple of the upscale factor.
        NonFiniteError: if the loss stops being finite.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3, without the perceptual and adversarial terms.

    Example:
        >>> tiny = DemoSettings(steps=2, batch_size=1, crop=16)
        >>> flow = train_demo_model([torch.rand(3, 20, 20)], tiny, on_step=lambda step, bits: print("step", step))
        step 1
        step 2
    """
    for image in photographs:
        if min(image.shape[-2:]) < settings.crop:
            raise ValueError(f"expected photographs of at least {settings.crop} x {settings.crop}; got {image.shape}")
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        flow = HCFlow.from_preset(preset, start="haar").to(device, dtype)
    if settings.crop % flow.upscale:
        raise ValueError(f"expected a crop that is a multiple of {flow.upscale}; got {settings.crop}")

    def batch() -> Tensor:
        return _crops(photographs, settings, generator).to(device, dtype)

    flow.initialize(batch())
    optimizer = torch.optim.Adam(flow.parameters(), settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    for step in range(1, settings.steps + 1):
        hr = batch()
        lr = make_lr(hr, flow.upscale)
        noisy = uniform_dequantize(hr.cpu(), generator=generator).to(device)
        loss, seen = likelihood_loss(flow, noisy, lr)
        bits = seen["bits_per_dim"].item()
        if not math.isfinite(bits):
            raise NonFiniteError(f"expected a finite loss; got {bits} at step {step}: try another seed")
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(list(flow.parameters()), value=5.0, norm=100.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, bits)
    flow.provenance = {
        "trained by": "flowsr demo",
        "data": "photographs from skimage.data",
        "steps": settings.steps,
        "crops": f"{settings.batch_size} of {settings.crop} x {settings.crop} per step",
        "seed": settings.seed,
    }
    return flow.eval()


def _rate(step: int, steps: int) -> float:
    """Linear warm-up over 20 steps times half a cosine down to zero."""
    return min(1.0, (step + 1) / 20) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _crops(photographs: Sequence[Tensor], settings: DemoSettings, generator: torch.Generator) -> Tensor:
    """Random crops, flipped at random: photographs first uniformly, then places in them."""

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    crops = []
    for _ in range(settings.batch_size):
        image = photographs[below(len(photographs))]
        top, left = (below(side - settings.crop + 1) for side in image.shape[-2:])
        crop = image[:, top : top + settings.crop, left : left + settings.crop]
        crops.append(crop.flip(-1) if below(2) else crop)
    return torch.stack(crops)


TEMPERATURES = (0.0, 0.4, 0.8, 1.0)
"""τ of the draws shown."""

MEAN_TEMPERATURE = 0.8
"""τ of the draws behind mean and standard deviation."""


@dataclass(frozen=True)
class DemoStudy:
    """What the demonstration found. Images are ``(C, H, W)`` on the CPU, not clamped.

    Attributes:
        hr: the photograph.
        lr: its LR image, rounded to 8 bits.
        bicubic: the baseline.
        samples: one draw by temperature.
        mean: mean of the draws at :data:`MEAN_TEMPERATURE`.
        std: their unbiased standard deviation.
        num_samples: how many they are.
        terms: of ``log p(hr + noise | lr)``.
        cards: all figures with their conventions: of the images, and of the likelihood.
    """

    hr: Tensor
    lr: Tensor
    bicubic: Tensor
    samples: dict[float, Tensor]
    mean: Tensor
    std: Tensor
    num_samples: int
    terms: LogLikelihoodTerms
    cards: tuple[MetricCard, MetricCard]

    def to_dict(self) -> dict[str, Any]:
        """The figures, not the images, as JSON-ready values."""
        return {
            "image": {"size": list(self.hr.shape[-2:]), "lr_size": list(self.lr.shape[-2:])},
            "temperatures": list(self.samples),
            "mean_and_std": {"temperature": MEAN_TEMPERATURE, "num_samples": self.num_samples},
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
    for draw in flow.stream(lr, num_samples=num_samples, temperature=MEAN_TEMPERATURE, generator=noise):
        moments.add(draw)
        draws.append(draw.cpu())
        advance()
    mean, std = moments.mean.cpu(), moments.std.cpu()
    columns = {"bicubic": bicubic}
    if 0.0 in samples:
        columns["τ=0"] = samples[0.0]
    columns[f"τ={MEAN_TEMPERATURE:g}"] = torch.stack(draws)
    columns["mean"] = mean.to(hr.dtype)
    metrics = fidelity_metrics(columns, hr, lr, upscale=flow.upscale)
    likelihood, terms = likelihood_metrics(flow, hr, lr=lr, column="truth", seed=seed)
    advance()
    title = (
        f"Images against the truth (τ={MEAN_TEMPERATURE:g}: averages over {num_samples} draws; mean: of these draws)"
    )
    cards = (
        MetricCard(title, tuple(columns), tuple(metrics)),
        MetricCard("Likelihood of the truth", ("truth",), tuple(likelihood)),
    )
    return DemoStudy(hr, lr, bicubic, samples, mean, std, num_samples, terms, cards)


def demo_figure(
    panels: Sequence[Panel], bars: Sequence[TermBar], *, dims: int, title: str, columns: int = 3, width: float = 11.0
) -> Figure:
    """Rows of images above the bars of the likelihood's terms.

    Args:
        panels: images with captions.
        bars: the terms of the log-likelihood of the true image, and last their sum.
        dims: D = C·H·W of the image.
        title: one line over all.
        columns: images per row.
        width: in inches.

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
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [panel_row_height(row, width / columns) for row in rows]
    images_height, bars_height = sum(heights) + 0.4, 1.0 + 0.22 * len(bars)
    figure = new_figure(width, images_height + bars_height)
    # Two parts, so that the long labels of the bars do not narrow the images.
    parts = figure.subfigures(2, 1, height_ratios=[images_height, bars_height], squeeze=False)
    above, below = parts.flat
    grid = above.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    above.suptitle(title, x=0.01, ha="left", fontsize=11, color=PALETTE["ink"])
    axes = below.subplots()
    draw_term_bars(axes, bars, dims=dims)
    axes.set_title("What the truth costs, given the LR image", loc="left", fontsize=10, color=PALETTE["ink"], pad=16)
    remark = (
        "terms of −log₂ p(hr | lr)/D: right of the line they cost bits, left they save bits; their sum is the total"
    )
    axes.text(0, 1.02, remark, transform=axes.transAxes, fontsize=7, color=PALETTE["grey"], va="bottom")
    return figure


def demo_picture(study: DemoStudy, *, weights: str) -> Figure:
    """LR image, baseline, truth, draws, mean, standard deviation, and the likelihood's terms as bars.

    Args:
        study: what to show.
        weights: where the model's weights are from, for the title.

    Example:
        >>> import torch, flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> from flowsr.workflows.demo import study_photograph
        >>> study = study_photograph(flow, torch.rand(3, 32, 32), num_samples=2, temperatures=(0.0,))
        >>> len(demo_picture(study, weights="untrained").axes)  # six images and the likelihood's bars
        7
    """
    upscale = study.hr.shape[-1] // study.lr.shape[-1]
    height, width = study.lr.shape[-2:]

    def decibels(image: Tensor) -> str:
        return f"PSNR {float(psnr(round_to_8bit(image), study.hr, border=upscale)):.2f} dB"

    largest = (
        5 * max(1, math.ceil(51 * float(study.std.mean(0).flatten().quantile(0.99)))) / 255
    )  # a multiple of 5 grey levels
    draws = f"of {study.num_samples} draws at τ = {MEAN_TEMPERATURE:g}"
    panels = [
        Panel(study.lr, f"LR image: the input\nbicubic ÷{upscale}, {width} × {height} pixels"),
        Panel(study.bicubic, f"Bicubic ×{upscale}: the baseline\n{decibels(study.bicubic)}"),
        Panel(study.hr, f"Truth\n{width * upscale} × {height * upscale} pixels, not seen in training"),
        *(Panel(image, _draw_caption(tau) + "\n" + decibels(image)) for tau, image in study.samples.items()),
        Panel(study.mean, f"Mean {draws}\n{decibels(study.mean.to(study.hr.dtype))}"),
        Panel(study.std, f"Standard deviation {draws}\nwhere the draws differ", heat=largest),
    ]
    title = f"flowsr demo: ×{upscale} super-resolution of a photograph, {weights} (PSNR: RGB, border {upscale}, 8 bits)"
    return demo_figure(panels, study.terms.bars(bins=256), dims=study.terms.dims, title=title)


def _draw_caption(tau: float) -> str:
    return (
        "τ = 0: no noise in the latents"
        if tau == 0
        else f"One draw at τ = {tau:g}" + (", the model" if tau == 1 else "")
    )
