"""Couplings, injectors, and the flow step that normalizes, mixes the channels and couples."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from flowsr._support.shapes import check_context
from flowsr.nn import DenseBlock, Parallel
from flowsr.transforms.actnorm import ActNorm
from flowsr.transforms.base import ImageTransform, SameShapeTransform
from flowsr.transforms.compose import check_kept, join_kept, split_kept
from flowsr.transforms.elementwise import AdditiveMap, AffineForm, AffineMap, ElementwiseMap, LogScaleMap

_REAL_NVP = """@inproceedings{dinh2017density,
  title     = {Density Estimation Using {Real NVP}},
  author    = {Dinh, Laurent and Sohl-Dickstein, Jascha and Bengio, Samy},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2017},
  url       = {https://arxiv.org/abs/1605.08803}
}"""

_CONDITIONAL_FLOWS = """@article{winkler2019learning,
  title   = {Learning Likelihoods with Conditional Normalizing Flows},
  author  = {Winkler, Christina and Worrall, Daniel and Hoogeboom, Emiel and Welling, Max},
  journal = {arXiv preprint arXiv:1912.00042},
  year    = {2019},
  url     = {https://arxiv.org/abs/1912.00042}
}"""


class Coupling(SameShapeTransform):
    """Coupling bijection: the kept channels pass through, the others go through ``map`` with ``h = conditioner(kept)``.

    Encoding ``z_kept = x_kept``, ``z_rest = map(x_rest; conditioner(x_kept, context))``; the Jacobian is triangular,
    so its log-determinant is that of the elementwise map.

    Cost: one run of the conditioner, in either direction.

    Args:
        channels: channels of the image.
        conditioner: module from ``(*batch, kept, H, W)`` [and features] to ``params_per_channel`` times the changed
            channels.
        map: the elementwise bijection.
        kept_channels: how many channels are kept.
        keep: whether these are the first or the last ones.
        context_channels: channels of the features passed to the conditioner; 0 for an unconditional coupling.

    Raises:
        ValueError: if nothing would be kept or changed; on wrong channels; on a context that is missing or unfit.

    References:
        Dinh et al., RealNVP (ICLR 2017), section 3.2; Winkler et al., arXiv 1912.00042, section 3.1 for the context.

    Example:
        >>> from flowsr.nn import FCN
        >>> coupling = Coupling(6, FCN(3, 3, hidden_channels=8), map=AdditiveMap(), kept_channels=3)
        >>> coupling(torch.ones(6, 4, 4)).shape
        torch.Size([6, 4, 4])
    """

    citations: ClassVar[tuple[str, ...]] = (_REAL_NVP,)

    def __init__(
        self,
        channels: int,
        conditioner: nn.Module,
        *,
        map: ElementwiseMap,
        kept_channels: int,
        keep: Literal["first", "last"] = "first",
        context_channels: int = 0,
    ) -> None:
        super().__init__(channels)
        check_kept(channels, kept_channels, keep=keep)
        self.kept_channels, self.keep = kept_channels, keep
        self.context_channels = context_channels
        self.conditioner = conditioner
        self.map = map

    def call_and_ladj(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed, h = self._condition(z, context)
        changed, ladj = self.map.decode(changed, h)
        return join_kept(kept, changed, keep=self.keep), ladj

    def inv_call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed, h = self._condition(x, context)
        changed, ladj = self.map.encode(changed, h)
        return join_kept(kept, changed, keep=self.keep), ladj

    def _condition(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        self.inverse_shape(x.shape)
        kept, changed = split_kept(x, self.kept_channels, keep=self.keep)
        if not self.context_channels:
            return kept, changed, self.conditioner(kept)
        context = check_context(x, context, channels=self.context_channels, name="Coupling")
        return kept, changed, self.conditioner(kept, context)

    def extra_repr(self) -> str:
        return f"{self.channels}, kept_channels={self.kept_channels}, keep={self.keep!r}"


def affine_coupling(
    channels: int,
    conditioner: nn.Module,
    *,
    kept_channels: int,
    log_scale: str | LogScaleMap = "atan",
    form: AffineForm = "shift-then-scale",
    interleaved: bool = True,
    context_channels: int = 0,
) -> Coupling:
    """Affine coupling that keeps the first channels: :class:`Coupling` with an :class:`AffineMap`.

    Args:
        channels: channels of the image.
        conditioner: module from the kept channels [and features] to twice the changed channels.
        kept_channels: how many of the first channels are kept.
        log_scale: name or instance of a log-scale map, see ``LOG_SCALE_MAPS``.
        form: order of shift and scale, see :class:`AffineMap`.
        interleaved: how the conditioner returns shift and scale, see :class:`AffineMap`.
        context_channels: channels of the features; 0 for none.

    Example:
        >>> from flowsr.nn import FCN
        >>> affine_coupling(6, FCN(3, 6, hidden_channels=8), kept_channels=3)(torch.ones(6, 4, 4)).mean().item()
        1.0
    """
    return Coupling(
        channels,
        conditioner,
        map=AffineMap(log_scale=log_scale, form=form, interleaved=interleaved),
        kept_channels=kept_channels,
        context_channels=context_channels,
    )


def rescaling_coupling(
    channels: int, *, step: int, image_channels: int = 3, growth: int = 32, map: ElementwiseMap | None = None
) -> Coupling:
    """The coupling of HCFlow's rescaling model, which treats the image's own channels apart.

    After a Haar transform the first ``image_channels`` channels are the averages. On even steps they are kept and the
    rest goes through an affine map; on odd steps they are changed, by addition of a function of the rest.

    Args:
        channels: channels of the image.
        step: number of the flow step within its level, from 0 at the image side.
        image_channels: channels of the LR image, 3 for RGB.
        growth: growth of the dense block that is the conditioner.
        map: the elementwise map of even steps; by default HCFlow's affine one.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3, and the released code.

    Example:
        >>> rescaling_coupling(12, step=1, growth=4)
        Coupling(...
    """
    rest = channels - image_channels
    if step % 2 == 0:
        map = AffineMap() if map is None else map
        conditioner = DenseBlock(image_channels, map.params_per_channel * rest, growth=growth)
        return Coupling(channels, conditioner, map=map, kept_channels=image_channels)
    conditioner = DenseBlock(rest, image_channels, growth=growth)
    return Coupling(channels, conditioner, map=AdditiveMap(), kept_channels=rest, keep="last")


def irn_couplings(channels: int, *, image_channels: int = 3, growth: int = 32) -> tuple[Coupling, Coupling]:
    """The two couplings of IRN's block, in encoding order: ``y₁ = x₁ + F(x₂)``, then ``y₂ = x₂·exp(s) + G(y₁)``.

    ``x₁`` are the first ``image_channels`` channels, ``s = 2σ(H(y₁)) − 1``. HCFlow's rescaling couplings are the same
    two, alternating from step to step, with one network for shift and scale where IRN has G and H.

    Args:
        channels: channels of the image.
        image_channels: channels of the LR image, 3 for RGB.
        growth: growth of the three dense blocks.

    References:
        Xiao et al., IRN (ECCV 2020), section 3.2, equation 2, and the released code.

    Example:
        >>> additive, affine = irn_couplings(12, growth=4)
        >>> affine.inv(additive.inv(torch.ones(12, 2, 2))).mean().item()
        1.0
    """
    rest = channels - image_channels
    shift_and_scale = Parallel(*(DenseBlock(image_channels, rest, growth=growth) for _ in range(2)))
    affine = affine_coupling(
        channels,
        shift_and_scale,
        kept_channels=image_channels,
        log_scale="symmetric-sigmoid",
        form="scale-then-shift",
        interleaved=False,
    )
    return rescaling_coupling(channels, step=1, image_channels=image_channels, growth=growth), affine


class ConditionalAffine(SameShapeTransform):
    """Elementwise bijection with ``h = conditioner(context)``, mostly affine: a Gaussian of x, or SRFlow's injector.

    With ``AffineMap(form="standardize", log_scale="exp")`` and a standard normal latent, x is Gaussian with the mean
    and the log standard deviation that the conditioner predicts.

    Cost: one run of the conditioner.

    Args:
        channels: channels of the image.
        conditioner: module from the features to ``map.params_per_channel`` times ``channels``.
        map: the affine map, or another elementwise one.
        context_channels: channels of the features.

    Raises:
        ValueError: on wrong channels, or a context that is missing or does not fit.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3; Lugmayr et al., SRFlow (ECCV 2020), section 3.3.

    Example:
        >>> from flowsr.nn import ZeroConv2d
        >>> from flowsr.transforms import AffineMap
        >>> head = ConditionalAffine(4, ZeroConv2d(8, 8), map=AffineMap(form="standardize"), context_channels=8)
        >>> head.call_and_ladj(torch.ones(4, 2, 2), torch.ones(8, 2, 2))[1].item()
        0.0
    """

    citations: ClassVar[tuple[str, ...]] = (_CONDITIONAL_FLOWS,)

    def __init__(self, channels: int, conditioner: nn.Module, *, map: ElementwiseMap, context_channels: int) -> None:
        super().__init__(channels)
        self.context_channels = context_channels
        self.conditioner = conditioner
        self.map = map

    def call_and_ladj(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map.decode(z, self._condition(z, context))

    def inv_call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.map.encode(x, self._condition(x, context))

    def _condition(self, x: Tensor, context: Tensor | None) -> Tensor:
        self.inverse_shape(x.shape)
        return self.conditioner(check_context(x, context, channels=self.context_channels, name="ConditionalAffine"))

    def extra_repr(self) -> str:
        return f"{self.channels}, context_channels={self.context_channels}"


class FlowStep(ImageTransform):
    """One flow step; encoding is ActNorm, then ``mixing`` (if any), then ``coupling``, which alone sees the context.

    Cost: nearly all of it is the coupling's conditioner.

    Args:
        channels: channels of the image.
        coupling: the bijection that does the work.
        mixing: what lets channels change places, usually an invertible 1x1 convolution; None for nothing.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), figure 2a; Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> from flowsr.nn import FCN
        >>> from flowsr.transforms import InvertibleConv1x1, affine_coupling
        >>> coupling = affine_coupling(6, FCN(3, 6, hidden_channels=8), kept_channels=3)
        >>> FlowStep(6, coupling=coupling, mixing=InvertibleConv1x1(6)).inv(torch.zeros(6, 4, 4)).shape
        torch.Size([6, 4, 4])
    """

    def __init__(self, channels: int, *, coupling: ImageTransform, mixing: ImageTransform | None = None) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = mixing
        self.coupling = coupling

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        x, ladj = self.coupling.call_and_ladj(z, context)
        if self.mixing is not None:
            x, mixing_ladj = self.mixing.call_and_ladj(x)
            ladj = ladj + mixing_ladj
        x, norm_ladj = self.actnorm.call_and_ladj(x)
        return x, ladj + norm_ladj

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = self.actnorm.inv_call_and_ladj(x)
        if self.mixing is not None:
            z, mixing_ladj = self.mixing.inv_call_and_ladj(z)
            ladj = ladj + mixing_ladj
        z, coupling_ladj = self.coupling.inv_call_and_ladj(z, context)
        return z, ladj + coupling_ladj

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return self.inverse_shape(shape)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return self.actnorm.inverse_shape(shape)
