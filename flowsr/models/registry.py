"""All models by name, all presets of all models, and whom to cite for a model."""

from importlib.metadata import metadata
from typing import Any, overload

from flowsr.errors import did_you_mean
from flowsr.models.glow import Glow, GlowPreset
from flowsr.models.hcflow import HCFlow
from flowsr.models.hcflow_config import HCFlowPreset
from flowsr.models.image_model import ImageModel, ModelConfig
from flowsr.models.irn import IRN, IRNPreset
from flowsr.models.realnvp import RealNVP, RealNVPPreset
from flowsr.models.srflow import SRFlow, SRFlowPreset
from flowsr.models.unconditional import UnconditionalModel

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


def purpose(model: type[ImageModel], config: ModelConfig) -> str:
    """What a model of a configuration is for, in a sentence.

    Args:
        model: the class.
        config: one of its configurations.

    Example:
        >>> purpose(IRN, IRN.presets["irn-x4-small"])
        'x4 rescaling: makes an image small, and brings it back from there'
    """
    shown = config.to_dict()
    if issubclass(model, UnconditionalModel):
        what = "points of the plane" if shown["image_channels"] == 2 else "images"
        return f"density of {what}: says how probable they are, and draws new ones"
    if getattr(config, "task", None) == "rescaling":
        return f"x{config.upscale} rescaling: makes an image small, and brings it back from there"  # type: ignore[attr-defined]
    return f"x{config.upscale} super-resolution: draws HR images of an LR image, and says how probable one is"  # type: ignore[attr-defined]


def bibtex(model: ImageModel | None = None) -> str:
    """BibTeX of a model and of the parts in it, the model's own papers first, each once.

    Every class of model, transform or network that comes from a paper has it in its ``citations``.

    Args:
        model: any model of ``REGISTRY``; without one, of flowsr itself: the program, and the paper of HCFlow.

    Example:
        >>> print(bibtex(IRN.from_preset("irn-x2-small")).splitlines()[0])
        @inproceedings{xiao2020invertible,
    """
    if model is None:
        return "\n\n".join((_software(), *HCFlow.citations))
    entries = (entry for part in model.modules() for entry in getattr(type(part), "citations", ()))
    return "\n\n".join(dict.fromkeys(entries))


def _software() -> str:
    """BibTeX of this version of the package, from what is installed with it."""
    about = metadata("flowsr").json
    pages = dict(str(page).split(", ", 1) for page in about.get("project_url", []))
    fields = {
        "title": f"{{flowsr}}: {str(about['summary']).split(':')[0]}",
        "author": f"{{{about.get('author', 'The flowsr authors')}}}",  # braces, as it is no person's name
        "howpublished": f"Computer program, version {about['version']}",
        **({"url": pages["Homepage"]} if "Homepage" in pages else {}),
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{flowsr,\n{lines}\n}}"


def cite(model: ImageModel | None = None) -> None:
    """Print the BibTeX of a model and of the parts in it, or of flowsr itself, see :func:`bibtex`.

    Args:
        model: any model of ``REGISTRY``; None for flowsr itself.

    Example:
        >>> cite(Glow.from_preset("glow-small", levels=1, steps=1))
        @inproceedings{kingma2018glow,
        ...
    """
    print(bibtex(model))
