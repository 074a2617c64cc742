"""What a model file, a preset or an image is, and which models there are: what ``flowsr info`` shows, JSON-ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowsr._support.json import size_of, snake_keys
from flowsr._support.names import printable
from flowsr.errors import did_you_mean, what_is_at
from flowsr.images import read_image, size_text
from flowsr.models import MEANINGS, Capability, ImageModel, from_preset, load, presets, purpose
from flowsr.models.conditional import as_conditional
from flowsr.models.memory import memory_estimate
from flowsr.models.weights import RELEASES, shipped_path
from flowsr.workflows.outlook import seconds_per_pixel

_WEIGHTS = (".safetensors", ".pth", ".pt")
_WEIGHTS_TOLD = {
    "shipped": "shipped",
    "released": "fetched from the authors when used",
    "random": "none: random until trained",
}
_SERVED = {
    Capability.CONDITION: ("sample", "upscale", "evaluate", "compare", "score", "report", "study"),
    Capability.DENSITY: ("evaluate", "compare", "score"),
    Capability.DOWNSCALE: ("downscale",),
}
"""The commands that a capability is enough for."""


def list_models() -> list[dict[str, Any]]:
    """All names that load: of presets with their model, purpose and where the weights come from.

    Example:
        >>> found = {one["name"]: one for one in list_models()}
        >>> found["sr-x4-small"]["weights"], found["irn-x2"]["purpose"]
        ('shipped', 'x2 rescaling: makes an image small, and brings it back from there')
    """
    return [
        {
            "name": name,
            "model": model.__name__,
            "weights": weights_of(name),
            "purpose": purpose(model, model.presets[name]),
        }
        for name, model in presets().items()
    ]


def weights_of(name: str) -> str:
    """Where the weights of a preset come from: shipped, released or random.

    Example:
        >>> weights_of("sr-x4-small"), weights_of("irn-x2")
        ('shipped', 'random')
    """
    if shipped_path(name) is not None:
        return "shipped"
    return "released" if name in RELEASES else "random"


def describe(name: str, *, size: tuple[int, int] | None = None, model: bool = False) -> dict[str, Any]:
    """The facts about an image, a model file or a preset, JSON-ready.

    Cost: that of loading the model; with a size, that of :func:`flowsr.workflows.outlook.seconds_per_pixel` twice.

    Args:
        name: a file, or a preset's name, which a file of that name hides.
        size: height and width of an HR image: adds what it is to a model.
        model: it is a model, whatever its name ends in.

    Raises:
        FileNotFoundError: if it is none of these.
        IsADirectoryError: for a folder.
        ImageError: for a damaged image.
        CheckpointError: for a damaged model file.
        ValueError: for an image with a size.

    Example:
        >>> facts = describe("sr-x4-small-v1")
        >>> facts["kind"], facts["upscale"], facts["levels"], facts["configuration"]["steps"]
        ('preset', 4, 2, 8)
    """
    path = Path(name)
    if not model and path.is_file() and path.suffix.lower() not in _WEIGHTS:
        if size is not None:
            raise ValueError(f"expected --size with a model; got it with the image {printable(path)}: leave one out")
        return describe_image(path)
    if path.is_file():
        return {"kind": "model", "bytes": path.stat().st_size, **describe_model(load(path), size=size)}
    if name in presets():
        weights = weights_of(name)
        flow = load(name) if weights == "shipped" else from_preset(name)
        facts = {"kind": "preset", "weights": _WEIGHTS_TOLD[weights], **describe_model(flow, size=size)}
        return facts | ({"provenance": _released(name)} if weights == "released" else {})
    raise _not_there(name, path)


def _released(name: str) -> dict[str, str]:
    release = RELEASES[name]
    return {"released_as": release.file, "about": release.about, "licence": release.licence}


def _not_there(name: str, path: Path) -> OSError:
    wanted = f"expected an image, a model file or a preset ({', '.join(presets())})"
    if path.is_dir():
        return IsADirectoryError(f"expected an image or a model file; {printable(path)} is a folder: give a file in it")
    if path.exists():
        return FileNotFoundError(f"{wanted}; {printable(path)} is {what_is_at(path)}: give a file")
    close = did_you_mean(name, presets()) or ": check the name"
    return FileNotFoundError(f"{wanted}; {printable(name)} does not exist{close}")


def describe_model(flow: ImageModel, *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """What a model is for and can do, its task and scale where there are some, size, configuration, provenance."""
    has = {"task": getattr(flow.config, "task", None), "upscale": getattr(flow, "upscale", None)}
    none = f"{type(flow).__name__} has none"
    points = flow.config.image_channels == 2  # of the plane, which come in no image file
    able = [capability for capability in Capability if capability in flow.capabilities]
    served = {command for capability in able if not points for command in _SERVED.get(capability, ())}
    commands = [command for commands in _SERVED.values() for command in commands if command in served]
    return {
        "model": type(flow).__name__,
        "purpose": purpose(type(flow), flow.config),
        "can": [MEANINGS[capability] for capability in able],
        "commands": list(dict.fromkeys(commands)),
        "capabilities": sorted(map(str, able)),
        **has,
        "levels": max(levels_of(flow)),
        "sides_are_multiples_of": flow.multiple,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "dtype": str(flow.dtype).removeprefix("torch."),
        "configuration": flow.config.to_dict(),
        "provenance": snake_keys(flow.provenance),
        **({} if size is None else {"for_size": passes_over(flow, size), "memory": memory_of(flow, size)}),
        "reasons": {name: none for name, value in has.items() if value is None},
    }


def levels_of(flow: ImageModel) -> tuple[int, ...]:
    """The level of each latent, coarsest first.

    Example:
        >>> levels_of(from_preset("sr-x4-small"))
        (2, 1)
    """
    conditional = as_conditional(flow)
    return flow.transform.latent_levels if conditional is None else conditional.latent_levels()  # type: ignore[return-value]


def passes_over(flow: ImageModel, size: tuple[int, int]) -> dict[str, Any]:
    """The latents of an HR image, and the seconds that passes over it take, from small ones measured now.

    Sides that are no multiples of what the model needs are padded, as commands do.

    Example:
        >>> found = passes_over(load("sr-x4-small"), (30, 32))
        >>> found["padded_to"], found["latents"][0]
        ({'height': 32, 'width': 32}, {'level': 2, 'channels': 21, 'height': 8, 'width': 8})
    """
    conditional = as_conditional(flow)
    padded = tuple(-(-side // flow.multiple) * flow.multiple for side in size)
    scale = 1 if conditional is None else conditional.upscale
    shapes = flow.latent_shapes(padded[0] // scale, padded[1] // scale)  # type: ignore[operator]
    pixels = padded[0] * padded[1]
    draw = None if conditional is None else pixels * seconds_per_pixel(flow, task="draw")
    return {
        "padded_to": size_of(padded),
        "latents": [
            {"level": level, "channels": shape[-3], **size_of(shape)}
            for level, shape in zip(levels_of(flow), shapes, strict=True)
        ],
        "encode_seconds": pixels * seconds_per_pixel(flow, task="encode"),
        "draw_seconds": draw,
    }


def memory_of(flow: ImageModel, size: tuple[int, int]) -> dict[str, Any]:
    """The bytes that passes over an HR image take besides the weights, within a quarter, JSON-ready.

    Commands work in tiles where that is more than there is.
    """
    draw = None if as_conditional(flow) is None else memory_estimate(flow, size, task="draw")
    return {"hr_size": size_of(size), "encode_bytes": memory_estimate(flow, size), "draw_bytes": draw}


def describe_image(path: Path) -> dict[str, Any]:
    """The facts about an image file, and what it may serve as, JSON-ready.

    Raises:
        ImageError: for a damaged image.
    """
    image = read_image(path, mode=None)
    channels, height, width = image.shape
    return {
        "kind": "image",
        "size": size_of(image.shape),
        "channels": {1: "gray", 2: "gray and alpha", 3: "RGB", 4: "RGBA"}[channels],
        "smallest_value": round(float(image.min()), 4),
        "largest_value": round(float(image.max()), 4),
        "as_hr_image": {f"x{scale}": _fit(height, width, scale) for scale in (4, 8)},
        "as_lr_image": {f"x{scale}": f"gives {size_text((height * scale, width * scale))}" for scale in (4, 8)},
    }


def _fit(height: int, width: int, scale: int) -> str:
    over = height % scale, width % scale
    inside = size_text((height - over[0], width - over[1]))
    return f"crop to {inside} or pad to a multiple of {scale}" if any(over) else "fits"
