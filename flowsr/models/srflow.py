"""SRFlow: a flow of HR images that is conditioned on the LR image at every step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flowsr._support.shapes import size_text
from flowsr.distributions import FlowDistribution, PackedNormal, Temperature, packed_standard_normal
from flowsr.images import bicubic_down, check_image
from flowsr.models.blocks import flow_step, split_head
from flowsr.models.conditional import ConditionalModel
from flowsr.models.image_model import ModelConfig, distribution_of, is_int
from flowsr.models.latents import Latents, LRLikelihood, Term, multiscale_noise, multiscale_terms, pooled
from flowsr.nn import RegressionHead, RRDBPyramid
from flowsr.transforms import (
    ActNorm,
    AffineMap,
    Compose,
    EncodedContext,
    ImageTransform,
    InvertibleConv1x1,
    Multiscale,
    MultiscaleEncoding,
    PixelShuffle,
)
from flowsr.transforms.elementwise import Sigmoid

_BIBTEX = """@inproceedings{lugmayr2020srflow,
  title     = {{SRFlow}: Learning the Super-Resolution Space with Normalizing Flow},
  author    = {Lugmayr, Andreas and Danelljan, Martin and Van Gool, Luc and Timofte, Radu},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2020},
  url       = {https://arxiv.org/abs/2006.14200}
}"""


@dataclass(frozen=True, kw_only=True)
class SRFlowConfig(ModelConfig):
    """What fixes the architecture of an SRFlow; it has one level more than the upscale factor has halvings.

    Args:
        upscale: 2, 4 or 8.
        image_channels: channels of the image; 3 for RGB.
        steps: K, conditional flow steps per level.
        transition_steps: unconditional steps without coupling that open each level.
        hidden_channels: width of the conditioners.
        features: width nf of the encoder of the LR image.
        growth: growth gc of its dense blocks.
        rrdbs: number of its RRDBs.
        stacked: which RRDBs' outputs are given to the flow, counted from 0, in rising order.

    Raises:
        ValueError: for values out of range.

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 4.1; the released configurations.

    Example:
        >>> SRFlowConfig(upscale=8, rrdbs=8, stacked=(1, 3, 5, 7)).levels
        4
    """

    upscale: int = 4
    image_channels: int = 3
    steps: int = 16
    transition_steps: int = 2
    hidden_channels: int = 64
    features: int = 64
    growth: int = 32
    rrdbs: int = 23
    stacked: tuple[int, ...] = (1, 8, 15, 22)

    def __post_init__(self) -> None:
        self.check_choice("upscale", (2, 4, 8))
        self.make_tuple("stacked")
        least = dict.fromkeys(("image_channels", "steps", "hidden_channels", "features", "growth", "rrdbs"), 1)
        self.check_integers({**least, "transition_steps": 0})
        if any(not is_int(index) or not 0 <= index < self.rrdbs for index in self.stacked):
            raise ValueError(f"expected stacked to be integers from 0 to {self.rrdbs - 1}; got {self.stacked}")
        if list(self.stacked) != sorted(set(self.stacked)):
            raise ValueError(f"expected stacked in rising order, each once; got {self.stacked}")

    @property
    def levels(self) -> int:
        """The number of levels, log2 of the upscale factor and one more."""
        return self.upscale.bit_length()

    @property
    def task(self) -> str:
        """What the model is made for: "super-resolution"."""
        return "super-resolution"


_SMALL: dict[str, Any] = {
    "steps": 4,
    "transition_steps": 1,
    "hidden_channels": 32,
    "features": 24,
    "growth": 12,
    "rrdbs": 3,
    "stacked": (0, 2),
}

SRFlowPreset = Literal["srflow-x4", "srflow-x8", "srflow-x8-df2k", "srflow-x4-small", "srflow-x8-small"]
"""Names of :data:`PRESETS`, as a type checker reads them."""

PRESETS: dict[str, SRFlowConfig] = {
    "srflow-x4": SRFlowConfig(upscale=4),
    "srflow-x8": SRFlowConfig(upscale=8, rrdbs=8, stacked=(1, 3, 5, 7)),
    "srflow-x8-df2k": SRFlowConfig(upscale=8, stacked=(1, 3, 5, 7)),
    "srflow-x4-small": SRFlowConfig(upscale=4, **_SMALL),
    "srflow-x8-small": SRFlowConfig(upscale=8, **_SMALL),
}
"""Published (x4 DF2K, x8 CelebA, x8 DF2K) and small configurations by name."""


class SRFlow(ConditionalModel):
    """Super-resolution flow: ``p(x | lr)`` of an HR image as a multiscale flow with the LR image as its context.

    ::

        p(x | lr) = Π_l N(z_l; 0, 1) · |det ∂z/∂x|,   z = f(x; features of lr)

    It is Glow's multiscale flow of HCFlow's blocks, with three differences: an injector before each coupling, the
    bounded scale ``σ(h + 2) + 1e-4``, and heads of the splits that do not see the LR image. The LR image is no part
    of the bijection: a draw need not downscale to it exactly, and the model cannot shrink an image.

    Images are float tensors in [0, 1]; LR images have even sides, as the coarsest level has half their resolution.
    The encoder's dense blocks start as in ESRGAN, from Kaiming's distribution times 0.1.

    Args:
        config: the architecture, see :class:`SRFlowConfig`.

    Attributes:
        regression: what turns the encoder's finest features into an image, see :meth:`regress`; no part of the flow.

    References:
        Lugmayr et al., SRFlow: Learning the Super-Resolution Space with Normalizing Flow (ECCV 2020), arXiv 2006.14200.

    Example:
        >>> flow = SRFlow.from_preset("srflow-x4-small")
        >>> post = flow.condition(torch.rand(2, 3, 4, 6))
        >>> post.sample((5,)).shape, post.log_prob(torch.rand(2, 3, 16, 24)).shape
        (torch.Size([5, 2, 3, 16, 24]), torch.Size([2]))
    """

    citations: ClassVar[tuple[str, ...]] = (_BIBTEX,)

    config_class = SRFlowConfig
    presets: ClassVar[dict[str, SRFlowConfig]] = PRESETS
    config: SRFlowConfig
    transform: EncodedContext

    def __init__(self, config: SRFlowConfig) -> None:
        super().__init__(config)
        encoder = RRDBPyramid(
            config.image_channels,
            channels=config.features,
            growth=config.growth,
            blocks=config.rrdbs,
            stacked=config.stacked,
            levels=config.levels,
        )
        flow = _build(config, encoder.out_channels)
        self.transform = EncodedContext(encoder, flow, upscale=config.upscale)
        self.regression = RegressionHead(config.features, config.image_channels)

    @property
    def multiple(self) -> int:
        """What height and width of an HR image must be multiples of: twice the upscale factor."""
        return 2 * self.upscale

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an LR image of this height and width."""
        if height % 2 or width % 2:
            raise ValueError(
                f"expected an lr with even sides; got {size_text((height, width))}: pad it with "
                "flowsr.images.pad_to_multiple and crop the result"
            )
        return self.transform.transform.latent_shapes(height // 2, width // 2)

    def latent_levels(self) -> tuple[int, ...]:
        """The level that each latent belongs to, coarsest first; 1 is the finest, and some levels have none."""
        return self.transform.transform.latent_levels

    def encode(
        self,
        hr: Float[Tensor, "*batch channels height width"],
        lr: Float[Tensor, "*lr_batch channels h w"] | None = None,
        *,
        pad: bool = False,
    ) -> Latents:
        """Latents of an HR image given its LR image, with the log-determinant.

        Cost: one pass through the flow.

        Args:
            hr: HR image in [0, 1].
            lr: its LR image in [0, 1], whose batch broadcasts to that of ``hr``. It must be given: there is no such
                model without.
            pad: pad the LR image to even sides, and the HR image with it, at the bottom and the right by reflection;
                :meth:`decode` crops back. The log-determinant is then that of the padded image.

        Raises:
            ValueError: on wrong shape, dtype or values, or without an LR image.
        """
        if lr is None:
            raise ValueError(
                f"expected the LR image too, as {type(self).__name__} encodes an HR image given it; got none: pass the "
                f"one that it was made for, or flowsr.images.make_lr(hr, {self.upscale})"
            )
        size = (hr.shape[-2], hr.shape[-1])
        image, given = self._encoded_pair(hr, lr, pad=pad)
        assert given is not None
        packed, ladj = self.transform.inv_call_and_ladj(image, given)
        return Latents(given, self.transform.transform.unpack(packed), ladj, size)

    def condition(
        self, lr: Float[Tensor, "*batch channels h w"], *, temperature: Temperature = 1.0
    ) -> FlowDistribution:
        """The posterior over HR images given an LR image, as a Pyro distribution.

        Cost: nothing until it is sampled or scored.

        Args:
            lr: LR image in [0, 1] with even sides; its batch shape becomes the distribution's.
            temperature: τ ≥ 0 of the latents, global or, as a tuple, per level; τ = 1 is the model, at τ = 0 sampling
                is the deterministic decode and there is no density. A tensor keeps its gradient, and its shape is one
                of batches, which broadcasts with that of ``lr``.

        Returns:
            Distribution with ``batch_shape = lr.shape[:-3]``, or what that and tensors among the temperatures broadcast
            to, and ``event_shape = (C, s·h, s·w)``. What an inference proposes and cannot be has log-density −inf.

        Raises:
            ValueError: on wrong shape, dtype or values; from ``log_prob`` where there is no density.
        """
        lr, temperature = self.as_given(lr, temperature)
        base = self._latents(lr, temperature=temperature)
        return distribution_of(self, base, self.transform.condition(lr))

    def _latents(
        self, lr: Tensor, *, temperature: Temperature, lr_log_scale: float | Tensor = -math.inf
    ) -> PackedNormal:
        coarsest = self.latent_shapes(*lr.shape[-2:])[0]
        channels = [shape.numel() for shape in self.latent_shapes(2, 2)]
        size = (coarsest[-2], coarsest[-1])
        return packed_standard_normal(lr, latent_channels=channels, size=size, temperature=temperature)

    def _unpack(self, packed: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        return None, self.transform.transform.unpack(packed)

    def log_likelihood_terms(
        self,
        hr: Tensor,
        lr: Tensor | None = None,
        *,
        lr_log_scale: float | None = None,
        lr_likelihood: LRLikelihood = "density",
    ) -> tuple[Term, ...]:
        """The terms of ``log p(hr | lr)``, see :func:`flowsr.likelihood.decompose`; none is of the LR image."""
        return multiscale_terms(self.transform.transform, self._encode(hr, lr))

    def noise(self, hr: Tensor, lr: Tensor | None = None, *, lr_log_scale: float | None = None) -> dict[str, Tensor]:
        """The latents an image would be made from: standard normal under the model, by name. Cost: one pass."""
        return multiscale_noise(self.transform.transform, self._encode(hr, lr))

    def lr_features(self, lr: Tensor) -> Tensor:
        """What the coarsest level sees in an LR image: mean and deviation of its features, ``(*batch, F)``.

        Cost: the encoder.
        """
        check_image(lr, name="lr", channels=self.config.image_channels, tolerance=0.25)
        return pooled(self.transform.features(lr.to(self.dtype))[-1])

    def _encode(self, hr: Tensor, lr: Tensor | None) -> MultiscaleEncoding:
        lr = self.check_pair(hr, lr)
        return self.transform.transform.encode(hr.to(self.dtype), self.transform.features(lr))

    def regress(self, lr: Float[Tensor, "*batch channels h w"]) -> Tensor:
        """The HR image that the encoder predicts directly: train ``|regress(lr) − hr|`` to pretrain it, as published.

        Cost: the encoder and three convolutions; the flow is not run.
        """
        encoder = self.transform.encoder
        assert isinstance(encoder, RRDBPyramid)
        return self.regression(encoder.maps(lr.to(self.dtype))[0][-1])

    def decode_unchecked(self, lr: Tensor, z: Sequence[Tensor]) -> Tensor:
        return self.transform.transform.decode(z, self.transform.features(lr))[0]

    def _encode_ladj(self, hr: Tensor, lr: Tensor | None) -> Tensor:
        lr = bicubic_down(hr, self.upscale) if lr is None else lr.to(self.dtype)
        return self.transform.inv_call_and_ladj(hr, lr)[1]


def _build(config: SRFlowConfig, context_channels: int) -> Multiscale:
    mains: list[ImageTransform] = []
    heads: list[ImageTransform] = []
    kept: list[int] = []
    channels = config.image_channels
    for level in range(1, config.levels + 1):
        channels *= 4
        transitions = [
            Compose([InvertibleConv1x1(channels), ActNorm(channels)]) for _ in range(config.transition_steps)
        ]
        steps = [
            flow_step(
                channels,
                hidden_channels=config.hidden_channels,
                map=partial(AffineMap, log_scale=Sigmoid(eps=1e-4)),
                context_channels=context_channels,
                injector=True,
                conv_std=0.05,
            )
            for _ in range(config.steps)
        ]
        mains.append(Compose([*reversed(steps), *reversed(transitions), PixelShuffle(2)]))
        if level < config.levels:
            # The released models split at the finest levels only, and not above LR resolution's own level.
            splits = level < config.levels - 1
            kept.append(channels // 2 if splits else channels)
            heads.append(split_head(channels, channels // 2) if splits else Compose([]))
            channels = kept[-1]
    return Multiscale(mains, kept=kept, heads=heads, image_channels=config.image_channels)
