"""What "NLL" means in the code of others: unit, noise, constants and LR term of each figure, with file and line.

A figure is a log-density of images in [0, 1] at the point that the code evaluates, and what it makes of that number:
``value = ± (log p + D·ln(levels/255) − n·ln q) / (count · ln 2)``. Two figures are of the same evaluation if they add
the same noise and count the LR image alike; only then one follows from the other, see :mod:`flowsr.likelihood.convert`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from flowsr.distributions import uniform_dequantize
from flowsr.errors import did_you_mean

LRTerm: TypeAlias = Literal["density", "rounded", "none"]
"""What of the LR image is counted: its density, that of its values rounded to 8 bits, or nothing."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise that is added to images of grey levels k/255, in grey levels of 1/q.

    Args:
        bins: q; the noise is 1/q wide, or has 1/q as standard deviation.
        shape: "uniform" on [0, 1/q), "centred" on [−1/2q, 1/2q), or "normal".

    Example:
        >>> str(Noise(bins=64)), str(Noise(bins=32, shape="centred"))
        ('uniform noise on [0, 1/64)', 'uniform noise on [−1/64, 1/64)')
    """

    bins: int
    shape: Literal["uniform", "centred", "normal"] = "uniform"

    def __str__(self) -> str:
        if self.shape == "normal":
            return f"normal noise of std 1/{self.bins}"
        ends = f"[−1/{2 * self.bins}, 1/{2 * self.bins})" if self.shape == "centred" else f"[0, 1/{self.bins})"
        return f"uniform noise on {ends}"

    def add(self, image: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The image with noise, drawn on the generator's device and moved."""
        if self.shape != "normal":
            noisy = uniform_dequantize(image, bins=self.bins, generator=generator)
            return noisy - 0.5 / self.bins if self.shape == "centred" else noisy
        device = image.device if generator is None else generator.device
        noise = torch.randn(image.shape, dtype=image.dtype, device=device, generator=generator)
        return image + noise.to(image.device) / self.bins


@dataclass(frozen=True, kw_only=True)
class Convention:
    """What a figure called NLL, bits per dimension or log-likelihood is a figure of.

    Args:
        name: for :func:`flowsr.likelihood.convert`.
        code: whose convention it is.
        per: what the figure is divided by: D = C·H·W ("dimension"), H·W ("pixel") or nothing ("image").
        in_bits: bits rather than nats.
        positive: the log-likelihood itself rather than its negative.
        noise: added before the image is scored; None scores it as it is.
        bins: q of the constant ln q that is taken off the log-density; None without one.
        bins_per: how often that constant is counted: once per dimension or once per pixel.
        levels: images are k/levels to the model, up to a shift: 255 for [0, 1], 256 for Glow's.
        lr_term: what of the LR image is counted, where the model's density has a term for it.
        upscale: s, where the code has one only.
        references: file and line in the code that defines it.

    Example:
        >>> hcflow = CONVENTIONS["hcflow-x4"]
        >>> print(f"{hcflow.report(0.0, pixels=100):.1f} {hcflow.unit}")
        6.0 bits/pixel
    """

    name: str
    code: str
    per: Literal["dimension", "pixel", "image"] = "dimension"
    in_bits: bool = True
    positive: bool = False
    noise: Noise | None = None
    bins: int | None = None
    bins_per: Literal["dimension", "pixel"] = "dimension"
    levels: int = 255
    lr_term: LRTerm = "density"
    upscale: int | None = None
    references: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """Such as "bits/dim" or "nats"."""
        return ("bits" if self.in_bits else "nats") + {"dimension": "/dim", "pixel": "/pixel", "image": ""}[self.per]

    @property
    def words(self) -> str:
        """What is measured: noise, constant, scale and LR term."""
        words = [self.code, str(self.noise) if self.noise else "no noise"]
        if self.bins:
            words.append(f"log {self.bins} once per {self.bins_per}")
        if self.levels != 255:
            words.append(f"images k/{self.levels}")
        said = {"density": "", "rounded": "LR image rounded in its density", "none": "without the term of the LR image"}
        return ", ".join([*words, said[self.lr_term]]).rstrip(", ")

    def report(self, log_prob: Tensor | float, *, pixels: int = 1, channels: int = 3) -> Tensor | float:
        """The figure of a log-density in nats of an image in [0, 1]; per pixel or dimension, one of one pixel will do.

        Args:
            log_prob: of the image as this convention scores it, in nats.
            pixels: H·W.
            channels: C.
        """
        return (log_prob + self._offset(pixels, channels)) * self._slope(pixels, channels)

    def log_prob(self, value: Tensor | float, *, pixels: int = 1, channels: int = 3) -> Tensor | float:
        """The inverse of :meth:`report`: a log-density in nats."""
        return value / self._slope(pixels, channels) - self._offset(pixels, channels)

    def measured_as(self, other: Convention) -> Convention:
        """This convention's unit for what another one evaluates: its noise and its LR term, counted in this one's way.

        Example:
            >>> CONVENTIONS["flowsr"].measured_as(CONVENTIONS["hcflow-x4"]).bins
            64
        """
        noise = other.noise
        bins = noise.bins if self.bins and noise and noise.shape != "normal" else None
        return replace(self, noise=noise, lr_term=other.lr_term, bins=bins, levels=255)

    def _slope(self, pixels: int, channels: int) -> float:
        count = {"dimension": channels * pixels, "pixel": pixels, "image": 1}[self.per]
        return (1.0 if self.positive else -1.0) / (count * (math.log(2.0) if self.in_bits else 1.0))

    def _offset(self, pixels: int, channels: int) -> float:
        counted = pixels if self.bins_per == "pixel" else channels * pixels
        constant = counted * math.log(self.bins) if self.bins else 0.0
        return channels * pixels * math.log(self.levels / 255) - constant


_HCFLOW = "github.com/JingyunLiang/HCFlow@10deed6 codes/"
_HCFLOW_NLL = (
    _HCFLOW + "models/modules/HCFlowNet_SR_arch.py#L49-L65 (noise, constant, rounded LR image, division by H·W)",
    _HCFLOW + "models/modules/Basic.py#L186-L202 (rounding), #L75-L93 (normal density)",
    _HCFLOW + "models/modules/thops.py#L52-L53 (pixels = H·W)",
)
_SRFLOW = "github.com/andreas128/SRFlow@5a007ad code/"
_SRFLOW_NLL = (
    _SRFLOW + "models/modules/SRFlowNet_arch.py#L83-L112 (noise, constant, division by H·W)",
    _SRFLOW + "models/modules/thops.py#L67-L68 (pixels = H·W)",
)
_TILING = (
    "github.com/openai/glow@91b2c57 model.py#L153-L158 (k/256 − ½), #L169-L186 (noise, constant, division by H·W·C)",
    "github.com/rosinality/glow-pytorch@97081ff train.py#L82-L90, #L111-L127",
    "github.com/laurent-dinh/models@e871d29 real_nvp/real_nvp_multiscale_dataset.py#L963-L964, #L1101-L1102",
    "github.com/chrischute/real-nvp@df51ad5 models/real_nvp/real_nvp.py#L59, real_nvp_loss.py#L19-L26, "
    "util/optim_util.py#L5-L17",
    "github.com/VincentStimper/normalizing-flows@c6616b1 normflows/utils/eval.py#L18-L29, examples/glow.ipynb",
)

CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(name="flowsr", code="flowsr's bits per dimension", noise=Noise(bins=256), bins=256),
        Convention(name="flowsr-density", code="flowsr's density, bits per dimension"),
        Convention(
            name="log-prob",
            code="log_prob of Pyro, torch, nflows, zuko or normflows",
            per="image",
            in_bits=False,
            positive=True,
            references=("github.com/bayesiains/nflows@5d22344 nflows/flows/base.py#L42-L49 (nats per image)",),
        ),
        Convention(
            name="hcflow-x4",
            code="the authors' HCFlow, x4",
            per="pixel",
            noise=Noise(bins=64),
            bins=64,
            bins_per="pixel",
            lr_term="rounded",
            upscale=4,
            references=(*_HCFLOW_NLL, _HCFLOW + "options/test/test_SR_DF2K_4X_HCFlow.yml#L8 (quant: 64)"),
        ),
        Convention(
            name="hcflow-x8",
            code="the authors' HCFlow, x8",
            per="pixel",
            noise=Noise(bins=256),
            bins=256,
            bins_per="pixel",
            lr_term="rounded",
            upscale=8,
            references=(*_HCFLOW_NLL, _HCFLOW + "options/test/test_SR_CelebA_8X_HCFlow.yml#L8 (quant: 256)"),
        ),
        Convention(
            name="srflow",
            code="the authors' SRFlow, in training and validation",
            per="pixel",
            references=(
                *_SRFLOW_NLL,
                _SRFLOW + "models/SRFlow_model.py#L154, #L187, #L194 (without add_gt_noise, False by default)",
            ),
        ),
        Convention(
            name="srflow-noise",
            code="the authors' SRFlow, get_encode_z_and_nll",
            per="pixel",
            noise=Noise(bins=32, shape="centred"),
            bins=32,
            bins_per="pixel",
            references=(
                *_SRFLOW_NLL,
                _SRFLOW + "models/SRFlow_model.py#L208-L213 (add_gt_noise=True)",
                _SRFLOW + "confs/SRFlow_DF2K_4X.yml#L32 (quant: 32)",
            ),
        ),
        Convention(
            name="glow",
            code="Glow and RealNVP, 8 bits",
            noise=Noise(bins=255),
            bins=256,
            levels=256,
            references=_TILING,
        ),
        Convention(
            name="glow-pytorch",
            code="chaiyujin's glow-pytorch",
            per="pixel",
            noise=Noise(bins=256, shape="normal"),
            bins=256,
            bins_per="pixel",
            references=("github.com/chaiyujin/glow-pytorch@487a6b1 glow/models.py#L223-L242",),
        ),
    )
}
"""The conventions by name. The noise is in units of images in [0, 1], in which Glow's is 1/255 wide: a whole bin."""

NO_LIKELIHOOD: Mapping[str, str] = {
    "irn": (
        "the released IRN is trained with pixel losses and reports no likelihood: its ½·Σz² per image "
        "(l_forw_ce) leaves out the log-determinant, the LR image and the constants. Score its weights anew, with "
        "flowsr.load and flowsr.likelihood.bits_per_dim"
    ),
    "hcflow-rescaling": (
        "the released rescaling HCFlow reports no likelihood: it adds no noise and sums no log-determinant. Score its "
        "weights anew, with flowsr.load and flowsr.likelihood.bits_per_dim"
    ),
}
"""Codes that are asked about and have no such figure, and why.

github.com/pkuxmq/Invertible-Image-Rescaling@0ebe8f9 codes/models/IRN_model.py#L89-L95;
github.com/JingyunLiang/HCFlow@10deed6 codes/models/modules/HCFlowNet_Rescaling_arch.py#L39-L46.
"""


def find_convention(convention: str | Convention) -> Convention:
    """A convention by its name, or itself.

    Raises:
        ValueError: for an unknown name, or one of a code without a likelihood, with the reason.

    Example:
        >>> find_convention("irn")
        Traceback (most recent call last):
        ValueError: expected the convention of a likelihood; got irn: the released IRN is trained with pixel losses ...
    """
    if isinstance(convention, Convention):
        return convention
    if convention in NO_LIKELIHOOD:
        raise ValueError(f"expected the convention of a likelihood; got {convention}: {NO_LIKELIHOOD[convention]}")
    if convention not in CONVENTIONS:
        close = did_you_mean(convention, CONVENTIONS) or ": check the name"
        raise ValueError(f"expected a convention among {', '.join(CONVENTIONS)}; got {convention!r}{close}")
    return CONVENTIONS[convention]
