"""What the temperature buys: likelihood, fidelity and diversity of draws against τ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flowsr.distributions import UniformDequantizer
from flowsr.likelihood.decompose import width_used
from flowsr.likelihood.inputs import check_8bit, check_pairs
from flowsr.metrics import compare, lr_psnr, pixel_std
from flowsr.models import ConditionalModel
from flowsr.models.conditional import require_conditional
from flowsr.plots import PALETTE, WIDTH, new_figure, plain_axes
from flowsr.results import Result, text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNITS = {
    "NLL": "bits/dim",
    "PSNR": "dB",
    "SSIM": "",
    "LPIPS": "",
    "LR-PSNR": "dB",
    "diversity": "grey levels of 255",
}
_COMPARED = ("psnr", "ssim", "lpips")


@dataclass(frozen=True)
class TemperatureSweep(Result):
    """Figures against the temperature, averaged over images, with bootstrap intervals over images.

    Attributes:
        temperatures: τ, ascending.
        figures: by name, one interval per temperature, None where there is no such figure: NLL in bits/dim (of the
            tempered distribution, uniform noise 1/256; none at τ = 0, which has no density), PSNR in dB (RGB, border
            s, 8-bit, mean over draws), SSIM (same), LPIPS (AlexNet), LR-PSNR in dB (bicubic ÷s of the 8-bit draw
            against the LR image), diversity (mean pixel standard deviation over draws, grey levels of 255).
        missing: why figures are missing altogether, by name.
        num_samples: draws per image and temperature; one at τ = 0.
        images: number of images.
        lr_log_scale: log σ of the LR image in the NLL; None for a model without one.
    """

    temperatures: tuple[float, ...]
    figures: Mapping[str, tuple[Interval | None, ...]]
    missing: Mapping[str, str]
    num_samples: int
    images: int
    lr_log_scale: float | None

    def to_text(self) -> str:
        """A row per temperature; intervals are 95 % bootstrap intervals over images."""
        names = list(self.figures)
        head = ["τ", *(f"{name} {_UNITS[name].split(' ')[0]}".strip() for name in names)]
        rows = []
        for i, tau in enumerate(self.temperatures):
            cells = [self.figures[name][i] for name in names]
            rows.append([f"{tau:g}", *map(_cell, cells)])
        notes = [
            f"means over {self.images} images with 95 % bootstrap intervals over images; {self.num_samples} draws each",
            "τ ≠ 1 is not the model: its draws are not posterior draws, and its NLL is that of another distribution",
            *(f"{name}: {reason}" for name, reason in self.missing.items()),
        ]
        return text_table(head, rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        """Fidelity (PSNR) against perceptual distance or diversity: the trade that τ makes."""
        across = "LPIPS" if "LPIPS" in self.figures else "diversity"
        points = [(x, y) for x, y in zip(self.figures[across], self.figures["PSNR"], strict=True) if x and y]
        ax.plot([x.value for x, _ in points], [y.value for _, y in points], color=PALETTE["blue"], linewidth=0.8)
        for tau, x, y in zip(self.temperatures, self.figures[across], self.figures["PSNR"], strict=True):
            if x is None or y is None:
                continue
            ax.errorbar(
                x.value,
                y.value,
                xerr=[[max(0.0, x.value - x.low)], [max(0.0, x.high - x.value)]],
                yerr=[[max(0.0, y.value - y.low)], [max(0.0, y.high - y.value)]],
                fmt="o",
                color=PALETTE["blue"],
                ecolor=PALETTE["sky"],
                elinewidth=0.8,
                markersize=4,
            )
            ax.annotate(f"τ={tau:g}", (x.value, y.value), xytext=(4, 4), textcoords="offset points", fontsize=7)
        ax.set_xlabel(f"{across}{', ' + _UNITS[across] if _UNITS[across] else ''}")
        ax.set_ylabel("PSNR of one draw, dB")
        ax.set_title(
            "Fidelity against " + ("perception" if across == "LPIPS" else "diversity"), loc="left", fontsize=10
        )
        plain_axes(ax, keep=("left", "bottom"))

    def _draw_figure(self) -> Figure:
        """Each figure against τ, and the trade."""
        names = list(self.figures)
        rows = math.ceil((len(names) + 1) / 2)
        figure = new_figure(WIDTH, 2.6 * rows)
        panels = figure.subplots(rows, 2, squeeze=False).flatten().tolist()
        for axes, name in zip(panels, names, strict=False):
            there = [(t, x) for t, x in zip(self.temperatures, self.figures[name], strict=True) if x is not None]
            taus, values = [t for t, _ in there], [x.value for _, x in there]
            axes.fill_between(
                taus, [x.low for _, x in there], [x.high for _, x in there], color=PALETTE["sky"], alpha=0.3
            )
            axes.plot(taus, values, "o-", color=PALETTE["blue"], markersize=3)
            axes.axvline(1.0, color=PALETTE["grey"], linewidth=0.8, linestyle=":")  # the model itself
            axes.set_xlabel("temperature τ")
            span = 0.05 * (self.temperatures[-1] - self.temperatures[0] or 1.0)
            axes.set_xlim(self.temperatures[0] - span, max(1.0, self.temperatures[-1]) + span)
            axes.set_title(f"{name}{', ' + _UNITS[name] if _UNITS[name] else ''}", loc="left", fontsize=10)
            plain_axes(axes, keep=("left", "bottom"))
        self._draw_main(panels[len(names)])
        for axes in panels[len(names) + 1 :]:
            axes.remove()
        return figure


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval:.2f}" if abs(interval.value) >= 1 else f"{interval:.3f}"


@torch.no_grad()
def temperature_sweep(
    model: ConditionalModel,
    pairs: Sequence[tuple[Tensor, Tensor]],
    *,
    temperatures: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0),
    num_samples: int = 4,
    lr_log_scale: float | None = None,
    seed: int = 0,
    on_step: Callable[[], None] | None = None,
) -> TemperatureSweep:
    """Likelihood, fidelity, perceptual distance and diversity of draws against the temperature.

    The draw of one number at two temperatures differs in amplitude alone, so differences between temperatures are not
    noise of sampling.

    Cost: per image and temperature, ``num_samples`` decoding passes and one encoding pass.

    Args:
        model: a model that can be sampled and scored given an LR image.
        pairs: 8-bit HR images ``(C, s·h, s·w)`` with their LR images ``(C, h, w)``, both in [0, 1].
        temperatures: τ ≥ 0, all different.
        num_samples: draws per temperature, at least 2, as diversity needs two; one at τ = 0.
        lr_log_scale: log σ of the LR image in the NLL; by default the model's own, −6 for HCFlow.
        seed: of draws and noise.
        on_step: called after each image and temperature.

    Raises:
        ValueError: without images or temperatures, for fewer than two draws, for a model that is not conditional, for
            images that are not 8-bit, or on wrong shapes or values.

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 4.3; Blau and Michaeli, The Perception-Distortion Tradeoff
        (CVPR 2018).

    Example:
        >>> import flowsr
        >>> from flowsr.images import round_to_8bit
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> pair = (round_to_8bit(torch.rand(3, 32, 32)), torch.rand(3, 8, 8))
        >>> sweep = temperature_sweep(flow, [pair], temperatures=(0.0, 1.0), num_samples=2)
        >>> sweep.figures["NLL"][0] is None, sweep.figures["PSNR"][1].value > 0
        (True, True)
    """
    model = require_conditional(cast(Any, model), what="a temperature sweep")
    check_pairs(pairs)
    if not isinstance(num_samples, int) or num_samples < 2:
        raise ValueError(f"expected an integer of at least 2 draws, as diversity is measured; got {num_samples!r}")
    taus = tuple(sorted(float(tau) for tau in temperatures))
    if not taus or len(set(taus)) < len(taus) or not all(math.isfinite(tau) and tau >= 0 for tau in taus):
        got = ", ".join(f"{tau:g}" for tau in taus) or "none"
        raise ValueError(f"expected different finite temperatures >= 0; got {got}")
    for hr, lr in pairs:
        model.check_pair(check_8bit(hr), lr)
    # Not every model gives its LR image a width.
    width = {} if lr_log_scale is None else {"lr_log_scale": lr_log_scale}
    found: dict[str, list[list[float]]] = {name: [[] for _ in taus] for name in _UNITS}
    missing: dict[str, str] = {}
    for index, (hr, lr) in enumerate(pairs):
        generator = torch.Generator().manual_seed(seed + index)
        noisy, log_q = UniformDequantizer().dequantize(hr, generator=generator)
        for i, tau in enumerate(taus):
            if tau > 0:
                density = model.condition(lr, temperature=tau, **width)
                nats = density.log_prob(noisy.to(model.device)).cpu() - log_q.cpu()
                found["NLL"][i].append(float(-nats) / (hr.shape[-3:].numel() * math.log(2.0)))
            count = num_samples if tau > 0 else 1
            noise = torch.Generator().manual_seed(seed + index)
            draws = torch.stack(list(model.stream(lr, num_samples=count, temperature=tau, generator=noise)))
            for name, value in _figures(draws.cpu(), hr.cpu(), lr.cpu(), model.upscale, missing).items():
                found[name][i].append(value)
            if on_step is not None:
                on_step()
    figures = {
        name: tuple(bootstrap_interval(values, seed=seed) if values else None for values in rows)
        for name, rows in found.items()
        if name not in missing
    }
    return TemperatureSweep(taus, figures, missing, num_samples, len(pairs), width_used(model, lr_log_scale))


def _figures(draws: Tensor, hr: Tensor, lr: Tensor, upscale: int, missing: dict[str, str]) -> dict[str, float]:
    """The figures of the draws of one image at one temperature; what cannot be had is entered in ``missing``."""
    hr, lr = hr.to(draws.dtype), lr.to(draws.dtype)
    border = upscale if min(hr.shape[-2:]) > 2 * upscale else 0
    scores = {key.upper(): score for key, score in compare(draws, hr, border=border, figures=_COMPARED).items()}
    scores["LR-PSNR"] = float(lr_psnr(draws, lr, upscale=upscale).mean())
    scores["diversity"] = float(pixel_std(draws)) if len(draws) > 1 else 0.0
    missing |= {name: reason for name, reason in scores.items() if isinstance(reason, str)}
    return {name: score for name, score in scores.items() if not isinstance(score, str)}
