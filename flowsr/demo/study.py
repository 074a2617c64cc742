"""Everything the demonstration computes on one photograph, without a file or a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsr.cards import MetricCard, fidelity_metrics, likelihood_metrics
from flowsr.draws import RunningMoments, draw_images
from flowsr.images import bicubic_down, bicubic_up, round_to_8bit
from flowsr.likelihood import LogLikelihoodTerms
from flowsr.models import ConditionalModel

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
    lr = round_to_8bit(bicubic_down(hr, flow.upscale)) if lr is None else lr.cpu()
    bicubic = bicubic_up(lr, flow.upscale)
    samples = {}
    for tau in temperatures:
        samples[tau] = next(draw_images(flow, lr, num_samples=1, temperature=tau, seed=seed)).cpu()
        advance()
    draws, moments = [], RunningMoments()
    for draw in draw_images(flow, lr, num_samples=num_samples, temperature=MEAN_TEMPERATURE, seed=seed):
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
