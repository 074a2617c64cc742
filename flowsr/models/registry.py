"""All models by name, all presets of all models, and whom to cite for a model."""

from typing import Any, overload

from flowsr.errors import did_you_mean
from flowsr.models.glow import Glow, GlowPreset
from flowsr.models.hcflow import HCFlow, HCFlowPreset
from flowsr.models.image_model import ImageModel
from flowsr.models.irn import IRN, IRNPreset
from flowsr.models.realnvp import RealNVP, RealNVPPreset
from flowsr.models.srflow import SRFlow, SRFlowPreset

REGISTRY: dict[str, type[ImageModel]] = {cls.__name__: cls for cls in (HCFlow, SRFlow, IRN, Glow, RealNVP)}
"""The classes of models by name; files of weights say which of them they hold."""


def presets() -> dict[str, type[ImageModel]]:
    """The model that each preset is one of.

    Example:
        >>> presets()["irn-x4"].__name__
        'IRN'
    """
    return {name: model for model in REGISTRY.values() for name in model.presets}


@overload
def from_preset(name: HCFlowPreset, **changes: Any) -> HCFlow: ...


@overload
def from_preset(name: SRFlowPreset, **changes: Any) -> SRFlow: ...


@overload
def from_preset(name: IRNPreset, **changes: Any) -> IRN: ...


@overload
def from_preset(name: GlowPreset, **changes: Any) -> Glow: ...


@overload
def from_preset(name: RealNVPPreset, **changes: Any) -> RealNVP: ...


@overload
def from_preset(name: str, **changes: Any) -> ImageModel: ...


def from_preset(name: str, **changes: Any) -> ImageModel:
    """A model with random weights from the name of a preset of any model.

    Args:
        name: one of :func:`presets`.
        **changes: fields of the model's configuration to change, and what else ``from_preset`` of the model takes, such
            as ``start`` for HCFlow.

    Raises:
        ValueError: for an unknown preset or field.

    Example:
        >>> type(from_preset("irn-x4-small")).__name__
        'IRN'
    """
    models = presets()
    if name not in models:
        raise ValueError(f"expected a preset among {', '.join(models)}; got {name!r}{did_you_mean(name, models)}")
    return models[name].from_preset(name, **changes)


def bibtex(model: ImageModel) -> str:
    """BibTeX of a model and of the parts in it, the model's own papers first, each once.

    Every class of model, transform or network that comes from a paper has it in its ``citations``.

    Example:
        >>> print(bibtex(IRN.from_preset("irn-x2-small")).splitlines()[0])
        @inproceedings{xiao2020invertible,
    """
    entries = (entry for part in model.modules() for entry in getattr(type(part), "citations", ()))
    return "\n\n".join(dict.fromkeys(entries))


def cite(model: ImageModel) -> None:
    """Print the BibTeX of a model and of the parts in it, see :func:`bibtex`.

    Args:
        model: any model of ``REGISTRY``.

    Example:
        >>> cite(Glow.from_preset("glow-small", levels=1, steps=1))
        @inproceedings{kingma2018glow,
        ...
    """
    print(bibtex(model))
