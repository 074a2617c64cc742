"""Bijections of images; :class:`ImageTransform` is the contract they all keep."""

from flowsr._support.shapes import add_ladj, constant_ladj, per_pixel, pixelwise_ladj, sum_event
from flowsr.transforms.actnorm import ActNorm
from flowsr.transforms.base import Conditioned, ImageTransform, Inverse
from flowsr.transforms.checkerboard import Checkerboard, CheckerboardConditioner, CheckerboardShuffle
from flowsr.transforms.compose import Compose, Partial
from flowsr.transforms.conv1x1 import InvertibleConv1x1, InvertibleConv1x1Orthogonal, InvertibleConv1x1PLU
from flowsr.transforms.coupling import (
    ConditionalAffine,
    Coupling,
    FlowStep,
    affine_coupling,
    irn_couplings,
    rescaling_coupling,
)
from flowsr.transforms.elementwise import (
    LOG_SCALE_MAPS,
    AdditiveMap,
    AffineMap,
    ElementwiseMap,
    LogScaleMap,
    SinhArcsinhMap,
    SplineMap,
    log_scale_map,
)
from flowsr.transforms.encoded_context import EncodedContext
from flowsr.transforms.flow_batch_norm import FlowBatchNorm
from flowsr.transforms.haar import Haar
from flowsr.transforms.hierarchy import Encoding, Hierarchy
from flowsr.transforms.learned_downsampling import LearnedDownsampling
from flowsr.transforms.levels import ConditionalLevel, UnconditionalLevel
from flowsr.transforms.logistic_mixture import LogisticMixtureMap
from flowsr.transforms.logit import Logit
from flowsr.transforms.multiscale import LearnedNormal, Multiscale, MultiscaleEncoding
from flowsr.transforms.pixel_shuffle import PixelShuffle, depth_to_space, space_to_depth
from flowsr.transforms.recording import Call, record_calls

__all__ = [
    "LOG_SCALE_MAPS",
    "ActNorm",
    "AdditiveMap",
    "AffineMap",
    "Call",
    "Checkerboard",
    "CheckerboardConditioner",
    "CheckerboardShuffle",
    "Compose",
    "ConditionalAffine",
    "ConditionalLevel",
    "Conditioned",
    "Coupling",
    "ElementwiseMap",
    "EncodedContext",
    "Encoding",
    "FlowBatchNorm",
    "FlowStep",
    "Haar",
    "Hierarchy",
    "ImageTransform",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleConv1x1Orthogonal",
    "InvertibleConv1x1PLU",
    "LearnedDownsampling",
    "LearnedNormal",
    "LogScaleMap",
    "LogisticMixtureMap",
    "Logit",
    "Multiscale",
    "MultiscaleEncoding",
    "Partial",
    "PixelShuffle",
    "SinhArcsinhMap",
    "SplineMap",
    "UnconditionalLevel",
    "add_ladj",
    "affine_coupling",
    "constant_ladj",
    "depth_to_space",
    "irn_couplings",
    "log_scale_map",
    "per_pixel",
    "pixelwise_ladj",
    "record_calls",
    "rescaling_coupling",
    "space_to_depth",
    "sum_event",
]
