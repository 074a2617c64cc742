"""Bijections of images, one per file; :class:`ImageTransform` is the contract they all keep."""

from flowsr._shapes import add_ladj, constant_ladj, per_pixel, pixelwise_ladj, sum_event
from flowsr.transforms.actnorm import ActNorm
from flowsr.transforms.base import Conditioned, ImageTransform, Inverse
from flowsr.transforms.compose import Compose
from flowsr.transforms.conditional_affine import ConditionalAffine
from flowsr.transforms.conditional_level import ConditionalLevel
from flowsr.transforms.conv1x1 import InvertibleConv1x1, InvertibleConv1x1PLU
from flowsr.transforms.coupling import Coupling, affine_coupling, rescaling_coupling
from flowsr.transforms.elementwise import AdditiveMap, AffineMap, ElementwiseMap
from flowsr.transforms.flow_step import FlowStep
from flowsr.transforms.haar import Haar
from flowsr.transforms.hierarchy import Encoding, Hierarchy
from flowsr.transforms.log_scale import LOG_SCALE_MAPS, LogScaleMap, log_scale_map
from flowsr.transforms.pixel_shuffle import PixelShuffle, depth_to_space, space_to_depth
from flowsr.transforms.recording import Call, record_calls

__all__ = [
    "LOG_SCALE_MAPS",
    "ActNorm",
    "AdditiveMap",
    "AffineMap",
    "Call",
    "Compose",
    "ConditionalAffine",
    "ConditionalLevel",
    "Conditioned",
    "Coupling",
    "ElementwiseMap",
    "Encoding",
    "FlowStep",
    "Haar",
    "Hierarchy",
    "ImageTransform",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleConv1x1PLU",
    "LogScaleMap",
    "PixelShuffle",
    "add_ladj",
    "affine_coupling",
    "constant_ladj",
    "depth_to_space",
    "log_scale_map",
    "per_pixel",
    "pixelwise_ladj",
    "record_calls",
    "rescaling_coupling",
    "space_to_depth",
    "sum_event",
]
