"""flowsr: HCFlow, a flow between an image and its low-resolution version, as Pyro transforms and distributions.

Names are looked up when first used, so that ``flowsr --help`` need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowsr.errors import CheckpointError, DownloadError, ImageError, NonFiniteError

if TYPE_CHECKING:
    from flowsr import (
        calibration,
        distributions,
        images,
        likelihood,
        metrics,
        models,
        nn,
        plots,
        posterior,
        programs,
        testing,
        training,
        transforms,
    )
    from flowsr.models import (
        IRN,
        Glow,
        GlowConfig,
        HCFlow,
        HCFlowConfig,
        IRNConfig,
        Latents,
        RealNVP,
        RealNVPConfig,
        SRFlow,
        SRFlowConfig,
        cite,
        from_preset,
        load,
        save,
    )

__version__ = "0.1.0"

__all__ = [
    "IRN",
    "CheckpointError",
    "DownloadError",
    "Glow",
    "GlowConfig",
    "HCFlow",
    "HCFlowConfig",
    "IRNConfig",
    "ImageError",
    "Latents",
    "NonFiniteError",
    "RealNVP",
    "RealNVPConfig",
    "SRFlow",
    "SRFlowConfig",
    "calibration",
    "cite",
    "distributions",
    "from_preset",
    "images",
    "likelihood",
    "load",
    "metrics",
    "models",
    "nn",
    "plots",
    "posterior",
    "programs",
    "save",
    "testing",
    "training",
    "transforms",
]

_FROM_MODELS = frozenset(
    {
        "Glow",
        "GlowConfig",
        "HCFlow",
        "HCFlowConfig",
        "IRN",
        "IRNConfig",
        "Latents",
        "RealNVP",
        "RealNVPConfig",
        "SRFlow",
        "SRFlowConfig",
        "cite",
        "from_preset",
        "load",
        "save",
    }
)


def __getattr__(name: str) -> Any:
    if name in _FROM_MODELS:
        return getattr(import_module("flowsr.models"), name)
    if name in __all__:
        return import_module(f"flowsr.{name}")
    raise AttributeError(f"module 'flowsr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
