"""The registry of transforms under test: a name, a randomized instance, the shape of a latent, a context."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform

from flowsr import IRN, HCFlow
from flowsr.interop import NflowsTransform, ZukoTransform
from flowsr.models import presets
from flowsr.models.blocks import split_head
from flowsr.models.image_model import ImageModel
from flowsr.nn import FCN, BatchStatistics, DenseBlock, RRDBEncoder, ZeroConv2d
from flowsr.testing import randomize
from flowsr.transforms import (
    LOG_SCALE_MAPS,
    ActNorm,
    AdditiveMap,
    AffineMap,
    Checkerboard,
    CheckerboardShuffle,
    Compose,
    ConditionalAffine,
    ConditionalLevel,
    Coupling,
    FlowBatchNorm,
    FlowStep,
    Haar,
    ImageTransform,
    InvertibleConv1x1,
    InvertibleConv1x1Orthogonal,
    InvertibleConv1x1PLU,
    LearnedDownsampling,
    LearnedNormal,
    LogisticMixtureMap,
    Logit,
    Multiscale,
    Partial,
    PixelShuffle,
    SinhArcsinhMap,
    SplineMap,
    affine_coupling,
    rescaling_coupling,
)

Module = TypeVar("Module", bound=nn.Module)

TINY = {
    "steps": 3,
    "conditional_steps": 1,
    "hidden_channels": 5,
    "conditional_hidden_channels": 4,
    "dense_growth": 2,
    "features": 3,
    "growth": 2,
    "rrdbs": (1, 1),
}
"""Changes that make a preset small enough for autograd Jacobians."""


@dataclass(frozen=True)
class Case:
    build: Callable[[], ImageTransform]
    shape: tuple[int, int, int]
    context_shape: tuple[int, ...] | None = None
    model: bool = False
    volume_preserving: bool = False

    def transform(self) -> ImageTransform:
        torch.manual_seed(7)
        return randomize(self.build())

    def latent(self) -> Tensor:
        return torch.randn(self.shape)

    def context(self) -> Tensor | None:
        return None if self.context_shape is None else torch.rand(self.context_shape)


VARIANTS = {
    "spline": {"coupling": "spline", "spline_bins": 4},
    "plu": {"mixing": "plu"},
    "orthogonal": {"mixing": "orthogonal"},
    "sinh-arcsinh": {"head": "sinh-arcsinh"},
    "logistic-mixture": {"coupling": "logistic-mixture", "head": "logistic-mixture", "mixture_components": 2},
    "learned-prior": {"prior": "learned"},
    "not-hierarchical": {"hierarchical": False},
    "learned-lr-width": {"learned_lr_width": True},
}
"""The variants of HCFlow, one at a time."""


def tiny_flow(name: str = "sr-x4", *, strength: float = 0.3, **changes) -> HCFlow:
    """A randomized HCFlow with every part of the preset, at a size for exhaustive checks."""
    torch.manual_seed(7)
    return randomize(HCFlow.from_preset(name, **{**TINY, **changes}), strength=strength)


TINY_FAMILY = {
    "Glow": {"levels": 2, "steps": 1, "hidden_channels": 4},
    "RealNVP": {"scales": 2, "checkerboard_couplings": 1, "channel_couplings": 2, "features": 3, "blocks": 1},
    "IRN": {"blocks": (1,), "growth": 2},
    "SRFlow": {
        "steps": 1,
        "transition_steps": 1,
        "hidden_channels": 4,
        "features": 3,
        "growth": 2,
        "rrdbs": 2,
        "stacked": (0,),
    },
}
"""The same for the other models, by the name of the class."""


def tiny(name: str, *, strength: float = 0.3, **changes) -> ImageModel:
    """A randomized model of any kind from the name of its preset, at a size for exhaustive checks."""
    model = presets()[name]
    if model is HCFlow:
        return tiny_flow(name, strength=strength, **changes)
    small = dict(TINY_FAMILY[model.__name__])
    if model is IRN:
        small["blocks"] = (1,) * len(model.presets[name].blocks)
    torch.manual_seed(7)
    return randomize(model.from_preset(name, **{**small, **changes}), strength=strength)


def _fcn_coupling(channels: int = 4, context: int = 0, **kwargs) -> Coupling:
    conditioner = FCN(channels // 2, channels, hidden_channels=6, context_channels=context)
    return affine_coupling(channels, conditioner, kept_channels=channels // 2, context_channels=context, **kwargs)


def _seen(module: Module) -> Module:
    """A module whose batch norms remember some batch, so that they are not the identity."""
    for part in module.modules():
        if isinstance(part, BatchStatistics):
            part.mean.normal_()
            part.var.uniform_(0.5, 2.0)
    return module


def _level() -> ConditionalLevel:
    encoder = RRDBEncoder(3, channels=4, growth=2, blocks=(1, 1), stack_trunks=True)
    step = FlowStep(6, coupling=_fcn_coupling(6, context=8), mixing=InvertibleConv1x1(6))
    return ConditionalLevel(6, encoder=encoder, steps=[step])


class _AsOfNflows(nn.Module):
    """What nflows' transforms look like from outside: forward encodes, inverse generates, each with its ladj."""

    def __init__(self) -> None:
        super().__init__()
        self.shift_log_scale = nn.Linear(3, 8)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.shift_log_scale(context).chunk(2, -1)
        return (x - shift) * (-log_scale).exp(), -log_scale.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.shift_log_scale(context).chunk(2, -1)
        return z * log_scale.exp() + shift, log_scale.sum(-1)


class _AsOfZuko(nn.Module):
    """What zuko's lazy transforms look like from outside: a call with a context gives a transform of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.shift_log_scale = nn.Linear(3, 8)

    def forward(self, c: Tensor) -> AffineTransform:
        shift, log_scale = self.shift_log_scale(c).chunk(2, -1)
        return AffineTransform(shift, log_scale.exp(), event_dim=1)


CASES: dict[str, Case] = {
    "foreign, as of nflows": Case(
        lambda: NflowsTransform(_AsOfNflows(), image_shape=(1, 2, 2), context_shape=(3,), flat=True), (1, 2, 2), (3,)
    ),
    "foreign, as of zuko": Case(
        lambda: ZukoTransform(_AsOfZuko(), image_shape=(1, 2, 2), context_shape=(3,)), (1, 2, 2), (3,)
    ),
    "actnorm": Case(lambda: ActNorm(4), (4, 3, 5)),
    "conv1x1": Case(lambda: InvertibleConv1x1(5), (5, 3, 4)),
    "conv1x1-plu": Case(lambda: InvertibleConv1x1PLU(5), (5, 3, 4)),
    "pixel-shuffle-2": Case(lambda: PixelShuffle(2), (12, 2, 3), volume_preserving=True),
    "pixel-shuffle-3": Case(lambda: PixelShuffle(3), (9, 2, 3), volume_preserving=True),
    "haar": Case(Haar, (12, 2, 3)),
    "coupling-additive": Case(
        lambda: Coupling(5, DenseBlock(3, 2, growth=3), map=AdditiveMap(), kept_channels=3, keep="last"),
        (5, 3, 4),
        volume_preserving=True,
    ),
    "coupling-context": Case(lambda: _fcn_coupling(4, context=3), (4, 3, 4), (3, 3, 4)),
    "coupling-halves": Case(
        lambda: Coupling(
            5,
            FCN(2, 6, hidden_channels=4),
            map=AffineMap(log_scale="tanh", interleaved=False),
            kept_channels=2,
        ),
        (5, 3, 4),
    ),
    "coupling-irn-form": Case(lambda: _fcn_coupling(4, form="scale-then-shift"), (4, 3, 4)),
    **{
        f"coupling-{name}": Case(lambda name=name: _fcn_coupling(4, log_scale=name), (4, 3, 4))
        for name in LOG_SCALE_MAPS
    },
    "rescaling-coupling-even": Case(lambda: rescaling_coupling(8, step=0, image_channels=2, growth=3), (8, 3, 4)),
    "rescaling-coupling-odd": Case(
        lambda: rescaling_coupling(8, step=1, image_channels=2, growth=3), (8, 3, 4), volume_preserving=True
    ),
    **{
        f"conditional-affine-{form}": Case(
            lambda form=form: ConditionalAffine(
                4, ZeroConv2d(3, 8), map=AffineMap(form=form, log_scale="exp"), context_channels=3
            ),
            (4, 3, 4),
            (3, 3, 4),
        )
        for form in ("standardize", "shift-then-scale")
    },
    "compose": Case(lambda: Compose([_fcn_coupling(4), ActNorm(4), PixelShuffle(2)]), (4, 3, 5)),
    "inverse": Case(lambda: Compose([ActNorm(3), PixelShuffle(1)]).inv, (3, 4, 4)),
    "conditioned": Case(lambda: _fcn_coupling(4, context=3).condition(torch.rand(3, 3, 4)), (4, 3, 4)),
    "flow-step": Case(lambda: FlowStep(4, coupling=_fcn_coupling(4), mixing=InvertibleConv1x1(4)), (4, 3, 5)),
    "flow-step-unmixed": Case(lambda: FlowStep(4, coupling=_fcn_coupling(4)), (4, 3, 5)),
    "conditional-level": Case(_level, (6, 2, 3), (3, 2, 3)),
    "conv1x1-orthogonal": Case(lambda: InvertibleConv1x1Orthogonal(5), (5, 3, 4), volume_preserving=True),
    "coupling-spline": Case(
        lambda: Coupling(4, FCN(2, 2 * 11, hidden_channels=6), map=SplineMap(bins=4, bound=2.0), kept_channels=2),
        (4, 3, 4),
    ),
    "coupling-sinh-arcsinh": Case(
        lambda: Coupling(5, FCN(2, 3 * 4, hidden_channels=6), map=SinhArcsinhMap(), kept_channels=2), (5, 3, 4)
    ),
    "coupling-logistic-mixture": Case(
        lambda: Coupling(5, FCN(2, 3 * 11, hidden_channels=6), map=LogisticMixtureMap(components=3), kept_channels=2),
        (5, 3, 4),
    ),
    "rescaling-coupling-spline": Case(
        lambda: rescaling_coupling(8, step=0, image_channels=2, growth=3, map=SplineMap(bins=3, bound=3.0)), (8, 3, 4)
    ),
    **{
        f"hcflow-{label}": Case(
            lambda changes=changes: tiny_flow("sr-x4", image_channels=1, **changes).transform, (16, 2, 1), model=True
        )
        for label, changes in VARIANTS.items()
    },
    "checkerboard": Case(Checkerboard, (4, 3, 2), volume_preserving=True),
    "checkerboard-shuffle": Case(CheckerboardShuffle, (8, 2, 3), volume_preserving=True),
    "flow-batch-norm": Case(lambda: _seen(FlowBatchNorm(4)), (4, 3, 5)),
    "partial-first": Case(lambda: Partial(5, ActNorm(2), kept_channels=3), (5, 3, 4)),
    "partial-last": Case(lambda: Partial(5, _fcn_coupling(4), kept_channels=1, keep="last"), (5, 3, 4)),
    "logit": Case(lambda: Logit(0.05), (2, 3, 4)),
    "logit-composed": Case(lambda: Compose([ActNorm(2), Logit(0.2)]), (2, 3, 4)),
    "multiscale": Case(
        lambda: Multiscale(
            [Compose([ActNorm(c), PixelShuffle(2)]) for c in (8, 16, 64)],
            kept=[4, 16],
            heads=[split_head(8, 4), Compose([])],
            image_channels=2,
        ),
        (128, 1, 1),
    ),
    "glow": Case(lambda: tiny("glow").transform, (48, 1, 2), model=True),
    "glow-additive-plu": Case(
        lambda: tiny("glow", coupling="additive", mixing="plu", levels=1).transform, (12, 3, 2), model=True
    ),
    "glow-border-top": Case(
        lambda: tiny("glow", strength=0.1, mark_border=True, learned_top=True).transform, (48, 1, 2), model=True
    ),
    "learned-normal": Case(lambda: LearnedNormal(3), (3, 4, 5)),
    "learned-normal-border": Case(lambda: LearnedNormal(3, mark_border=True), (3, 4, 5)),
    "realnvp-batch": Case(lambda: _seen(tiny("realnvp", image_channels=1)).transform, (4, 2, 4), model=True),
    "realnvp-actnorm": Case(lambda: tiny("realnvp-small").transform, (12, 1, 2), model=True),
    "realnvp-points": Case(
        lambda: tiny("realnvp-points", scales=1, checkerboard_couplings=0, channel_couplings=3).transform,
        (2, 1, 1),
        model=True,
    ),
    "learned-downsampling-2": Case(lambda: LearnedDownsampling(2), (8, 2, 3)),
    "learned-downsampling-3": Case(lambda: LearnedDownsampling(3), (9, 2, 3)),
    "srflow-x2": Case(lambda: tiny("srflow-x4", upscale=2).transform, (48, 1, 2), (3, 2, 4), model=True),
    "srflow-x4-gray": Case(lambda: tiny("srflow-x4", image_channels=1).transform, (64, 1, 2), (1, 2, 4), model=True),
    "irn-x2": Case(lambda: tiny("irn-x2").transform, (12, 3, 2), model=True),
    "irn-x3": Case(lambda: tiny("irn-x3").transform, (27, 2, 1), model=True),
    "irn-x4": Case(lambda: tiny("irn-x4").transform, (48, 2, 1), model=True),
    "irn-x8-gray": Case(lambda: tiny("irn-x8", image_channels=1).transform, (64, 1, 2), model=True),
    "hcflow-sr-x4": Case(lambda: tiny_flow("sr-x4").transform, (48, 2, 1), model=True),
    "hcflow-sr-x2": Case(lambda: tiny_flow("sr-x4", levels=1).transform, (12, 3, 2), model=True),
    "hcflow-sr-x8": Case(lambda: tiny_flow("sr-x8", image_channels=1).transform, (64, 1, 2), model=True),
    "hcflow-sr-x4-gray": Case(lambda: tiny_flow("sr-x4", image_channels=1).transform, (16, 2, 3), model=True),
    "hcflow-sr-x4-rgba": Case(lambda: tiny_flow("sr-x4", image_channels=4).transform, (64, 1, 2), model=True),
    "hcflow-rescaling-x4": Case(lambda: tiny_flow("rescaling-x4").transform, (48, 1, 2), model=True),
}
