"""Working with other libraries: zuko, nflows, deepinv, sbi. None is imported before its adapter is used."""

from flowsr.interop.deepinv_chains import DeepinvChains
from flowsr.interop.deepinv_diffusion import (
    DEEPINV_SAMPLERS,
    DeepinvDiffusion,
    deepinv_samplers,
    to_deepinv_denoiser,
    to_deepinv_physics,
)
from flowsr.interop.libraries import library
from flowsr.interop.with_deepinv import from_deepinv, to_deepinv_prior, to_deepinv_sampler
from flowsr.interop.with_nflows import NflowsTransform, to_nflows
from flowsr.interop.with_sbi import sbi_ranks, to_sbi
from flowsr.interop.with_zuko import ZukoTransform, to_zuko

__all__ = [
    "DEEPINV_SAMPLERS",
    "DeepinvChains",
    "DeepinvDiffusion",
    "NflowsTransform",
    "ZukoTransform",
    "deepinv_samplers",
    "from_deepinv",
    "library",
    "sbi_ranks",
    "to_deepinv_denoiser",
    "to_deepinv_physics",
    "to_deepinv_prior",
    "to_deepinv_sampler",
    "to_nflows",
    "to_sbi",
    "to_zuko",
]
