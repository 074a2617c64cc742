"""``flowsr info``: what a model file, a preset or an image is, and which models there are."""

from typing import Annotated, Any

import typer

from flowsr._support.free_memory import memory_text
from flowsr._support.json import document
from flowsr._support.names import printable
from flowsr.cli.complete import complete_model
from flowsr.cli.console import Reporter
from flowsr.cli.options import MODEL_HELP, Json, Quiet
from flowsr.cli.tables import Facts

_TITLES = {
    "shipped": "Models whose weights come with the package",
    "released": "Models whose weights their authors have released; fetched when used",
    "random": "Models with random weights, to be trained",
}


def info(
    what: Annotated[
        str | None,
        typer.Argument(
            help="An image (png, jpg, tif), a model file or a preset's name; without one, the models are listed.",
            metavar="WHAT",
            autocompletion=complete_model,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help=MODEL_HELP, metavar="MODEL", show_default=False, autocompletion=complete_model
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="WIDTHxHEIGHT of an HR image: adds a model's latents, memory and time.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a model is for and what it takes, what an image may serve as, or which models there are.

    Of a model: its purpose, the commands that it serves, levels, parameters, where its weights come from, its
    configuration. With --size: the shapes of its latents for an HR image, the memory that passes over it take, and the
    time, from a small pass that is measured.
    """
    from flowsr.images import parse_size
    from flowsr.workflows.info import describe, list_models

    if what is not None and model is not None:
        raise ValueError(
            f"expected an image or a model; got {printable(what)} and {printable(model)}: ask for one at a time"
        )
    name = what or model
    reporter = Reporter(quiet=quiet, json_only=json)
    if name is None:
        if size is not None:
            raise ValueError("expected --size with a model; got none: add its name")
        _show_models(reporter, list_models())
        return
    facts = describe(name, size=None if size is None else parse_size(size), model=model is not None)
    _show_facts(reporter, printable(name), facts)


def _show_models(reporter: Reporter, models: list[dict[str, Any]]) -> None:
    for weights, title in _TITLES.items():
        there = {one["name"]: f"{one['model']}, {one['purpose']}" for one in models if one["weights"] == weights}
        if there:
            reporter.result(Facts(title, there))
    reporter.document(document("info", kind="models", models=models))
    reporter.remark("More of one: flowsr info NAME")


def _show_facts(reporter: Reporter, name: str, facts: dict[str, Any]) -> None:
    from flowsr.images import size_text

    apart = {"configuration", "provenance", "for_size", "memory", "reasons", "capabilities"}
    size = {"size": size_text((facts["size"]["height"], facts["size"]["width"]))} if "size" in facts else {}
    flat = size | {key: value for key, value in facts.items() if key not in apart and not isinstance(value, dict)}
    reporter.result(Facts(name, in_words(flat)))
    for key, value in facts.items():
        if isinstance(value, dict) and value and key not in ("reasons", "memory", "size"):
            # The fields of a configuration have the names that Python has for them.
            told = {"configuration": dict, "for_size": lambda found: size_in_words(found, facts["memory"])}
            reporter.result(Facts(key.replace("_", " "), told.get(key, in_words)(value)))
    reporter.document(document("info", name=name, **facts))


def in_words(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts for people: keys in words, lists with commas between, without what there is not.

    Example:
        >>> in_words({"smallest_value": 0.5, "task": None})
        {'smallest value': 0.5}
    """
    there = {key: value for key, value in facts.items() if value not in (None, [])}
    shown = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in there.items()}
    return {key.replace("_", " "): value for key, value in shown.items()}


def size_in_words(found: dict[str, Any], memory: dict[str, Any]) -> dict[str, str]:
    """What an HR image of a size is to a model, for people.

    Example:
        >>> size = {"height": 480, "width": 640}
        >>> z = {"level": 1, "channels": 24, "height": 120, "width": 160}
        >>> found = {"padded_to": size, "latents": [z], "encode_seconds": 3.1, "draw_seconds": None}
        >>> size_in_words(found, {"hr_size": size, "encode_bytes": 2 * 10**9, "draw_bytes": None})
        {'HR image': '640 × 480 pixels', 'latent z_1': '24 channels of 160 × 120', 'scoring': 'about 2.0 GB, 3 seconds'}
    """
    from flowsr.images import size_text
    from flowsr.workflows.outlook import duration

    size, padded = ((one["height"], one["width"]) for one in (memory["hr_size"], found["padded_to"]))
    text = size_text(size) + (f", padded to {size_text(padded)}" if padded != size else "")
    latents = {
        f"latent z_{z['level']}": f"{z['channels']} channels of {z['width']} × {z['height']}" for z in found["latents"]
    }
    passes = {"sampling": "draw", "scoring": "encode"}
    taken = {
        name: f"about {memory_text(memory[f'{task}_bytes'])}, {duration(found[f'{task}_seconds'])}"
        for name, task in passes.items()
        if memory[f"{task}_bytes"] is not None
    }
    return {"HR image": text, **latents, **taken}
