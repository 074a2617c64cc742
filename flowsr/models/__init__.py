"""Models: configurations, HCFlow and its family, and the files that hold their weights."""

from flowsr.models.capabilities import MEANINGS, Capability, require
from flowsr.models.conditional import ConditionalModel
from flowsr.models.export import export_decoder, noise_shape
from flowsr.models.glow import Glow, GlowConfig
from flowsr.models.hcflow import HCFlow
from flowsr.models.hcflow_config import HCFlowConfig
from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.models.image_model import ImageModel, ModelConfig
from flowsr.models.irn import IRN, IRNConfig
from flowsr.models.latents import HasTerms, ImageLatents, Latents, LRLikelihood, Term
from flowsr.models.realnvp import RealNVP, RealNVPConfig
from flowsr.models.registry import REGISTRY, bibtex, cite, from_preset, presets, purpose
from flowsr.models.srflow import SRFlow, SRFlowConfig
from flowsr.models.storage import load, save
from flowsr.models.tile_plan import measured_halo, plan_tiles
from flowsr.models.tiling import Tiling
from flowsr.models.unconditional import UnconditionalModel

__all__ = [
    "IRN",
    "MEANINGS",
    "REGISTRY",
    "Capability",
    "ConditionalModel",
    "Glow",
    "GlowConfig",
    "HCFlow",
    "HCFlowConfig",
    "HasTerms",
    "HierarchyModel",
    "IRNConfig",
    "ImageLatents",
    "ImageModel",
    "LRLikelihood",
    "Latents",
    "ModelConfig",
    "RealNVP",
    "RealNVPConfig",
    "SRFlow",
    "SRFlowConfig",
    "Term",
    "Tiling",
    "UnconditionalModel",
    "bibtex",
    "cite",
    "export_decoder",
    "from_preset",
    "load",
    "measured_halo",
    "noise_shape",
    "plan_tiles",
    "presets",
    "purpose",
    "require",
    "save",
]
