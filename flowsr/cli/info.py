"""``flowsr info``: what a model file, a preset or an image is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flowsr._support.free_memory import memory_text
from flowsr._support.json import document, size_of, snake_keys
from flowsr._support.names import printable
from flowsr.cli.console import Reporter
from flowsr.cli.options import SR_MODEL, Json, Model, Quiet
from flowsr.cli.paths import instead
from flowsr.cli.tables import Facts
from flowsr.errors import did_you_mean


def info(
    ctx: typer.Context,
    image: Annotated[
        Path | None, typer.Argument(help="An image (png, jpg, tif); without one, --model is shown.", metavar="IMAGE")
    ] = None,
    model: Model = SR_MODEL,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="WIDTHxHEIGHT of an HR image: adds the memory that a pass over it takes."
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the configuration of a model or preset, or the size and kind of an image."""
    from flowsr.images import parse_size

    if image is not None and ctx.get_parameter_source("model").name != "DEFAULT":  # type: ignore[union-attr]
        raise ValueError(
            f"expected an image or a model; got {printable(image)} and {printable(model)}: ask for one at a time"
        )
    if image is not None and size is not None:
        raise ValueError(f"expected --size with a model; got it with the image {printable(image)}: leave one out")
    facts = describe(model, size=None if size is None else parse_size(size)) if image is None else describe_image(image)
    reporter = Reporter(quiet=quiet, json_only=json)
    flat = {key: value for key, value in facts.items() if not isinstance(value, dict)}
    name = printable(Path(model).name if image is None else image.name)
    reporter.result(Facts(name, in_words(flat)))
    for key, value in facts.items():
        if isinstance(value, dict) and value and key != "reasons":
            # The fields of a configuration have the names that Python has for them.
            told = {"configuration": dict, "memory": memory_in_words}.get(key, in_words)
            reporter.result(Facts(key.replace("_", " "), told(value)))
    reporter.document(document("info", name=name, **facts))


def in_words(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts for people: keys in words, lists with commas between, without what there is not.

    Example:
        >>> in_words({"smallest_value": 0.5, "task": None})
        {'smallest value': 0.5}
    """
    there = {key: value for key, value in facts.items() if value is not None}
    shown = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in there.items()}
    return {key.replace("_", " "): value for key, value in shown.items()}


def memory_in_words(memory: dict[str, Any]) -> dict[str, str]:
    """What passes take, for people.

    Example:
        >>> memory_in_words({"hr_size": {"height": 480, "width": 640}, "encode_bytes": 2 * 10**9, "draw_bytes": None})
        {'HR image': '640 × 480 pixels', 'scoring or downscaling': '2.0 GB'}
    """
    from flowsr.images import size_text

    passes = {"sampling or upscaling": memory["draw_bytes"], "scoring or downscaling": memory["encode_bytes"]}
    taken = {name: memory_text(size) for name, size in passes.items() if size is not None}
    return {"HR image": size_text((memory["hr_size"]["height"], memory["hr_size"]["width"])), **taken}


def describe(name: str, *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """The facts about a model file or a preset, JSON-ready; with the size of an HR image, what passes over it take.

    Raises:
        FileNotFoundError: if it is neither.
        CheckpointError: for a damaged model file.

    Example:
        >>> facts = describe("sr-x4-small")
        >>> facts["kind"], facts["upscale"], facts["configuration"]["steps"]
        ('preset', 4, 8)
    """
    from flowsr.models import from_preset, load, presets
    from flowsr.models.weights import RELEASES, shipped_path

    path = Path(name)
    if path.is_file():
        return {"kind": "model", "bytes": path.stat().st_size, **describe_model(load(path), size=size)}
    if name in presets():
        shipped = shipped_path(name) is not None
        elsewhere = "fetched from the authors when used" if name in RELEASES else "none: random until trained"
        flow = load(name) if shipped else from_preset(name)
        return {"kind": "preset", "weights": "shipped" if shipped else elsewhere, **describe_model(flow, size=size)}
    if path.exists():
        raise FileNotFoundError(f"expected a model file or a preset; {printable(path)} {instead(path)}")
    raise FileNotFoundError(
        f"expected a model file or a preset ({', '.join(presets())}); there is no {printable(name)}"
        f"{did_you_mean(name, presets()) or ': check the name'}"
    )


def describe_model(flow: Any, *, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Class, capabilities, task and scale where there are some, size, dtype, configuration, provenance of a model."""
    has = {"task": getattr(flow.config, "task", None), "upscale": getattr(flow, "upscale", None)}
    none = f"{type(flow).__name__} has none"
    return {
        "model": type(flow).__name__,
        "capabilities": sorted(map(str, flow.capabilities)),
        **has,
        "sides_are_multiples_of": flow.multiple,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "dtype": str(flow.dtype).removeprefix("torch."),
        "configuration": flow.config.to_dict(),
        "provenance": snake_keys(flow.provenance),
        **({} if size is None else {"memory": memory_of(flow, size)}),
        "reasons": {name: none for name, value in has.items() if value is None},
    }


def memory_of(flow: Any, size: tuple[int, int]) -> dict[str, Any]:
    """The bytes that passes over an HR image take besides the weights, within a quarter, JSON-ready.

    Commands work in tiles where that is more than there is.
    """
    from flowsr.models.conditional import as_conditional
    from flowsr.models.memory import memory_estimate

    draw = None if as_conditional(flow) is None else memory_estimate(flow, size, task="draw")
    return {"hr_size": size_of(size), "encode_bytes": memory_estimate(flow, size), "draw_bytes": draw}


def describe_image(path: Path) -> dict[str, Any]:
    """The facts about an image file, and what it may serve as, JSON-ready.

    Raises:
        FileNotFoundError: if there is none.
        IsADirectoryError: for a folder.
        ImageError: for a damaged image.
    """
    from flowsr.images import read_image, size_text

    if not path.exists():
        raise FileNotFoundError(f"expected an image; {printable(path)} {instead(path)}; a model goes behind --model")
    if path.is_dir():
        raise IsADirectoryError(f"expected an image; {printable(path)} is a folder: give a file in it")
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
    from flowsr.images import size_text

    over = height % scale, width % scale
    inside = size_text((height - over[0], width - over[1]))
    return f"crop to {inside} or pad to a multiple of {scale}" if any(over) else "fits"
