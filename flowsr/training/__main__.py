"""``python -m flowsr.training MODEL FOLDER… --out OUT``: train without the ``flowsr`` command."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from flowsr.models import load
from flowsr.training.fit import train
from flowsr.training.recipes import RECIPES, Recipe, recipe
from flowsr.training.settings import Data, Run


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, and return the exit code: 0, or 128 + the signal that stopped the run."""
    parser = argparse.ArgumentParser(prog="python -m flowsr.training", description=__doc__)
    parser.add_argument("model", help="a preset such as sr-x4-small, or a .safetensors to go on from")
    parser.add_argument("folders", nargs="+", help="folders of HR images")
    parser.add_argument("--out", required=True)
    parser.add_argument("--recipe", choices=list(RECIPES))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="fields of the recipe to change")
    parser.add_argument("--start", choices=["haar", "rotation"], default="haar")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--validation", help="folder of validation images")
    parser.add_argument("--hold-out", type=int, default=0)
    parser.add_argument("--scales", type=float, nargs="*", default=[1.0])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--memory", choices=["full", "checkpoint", "reversible"], default="full")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--checkpoint-every", type=int, default=500)
    parser.add_argument("--validate-every", type=int, default=1000)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--tensorboard", action="store_true")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    names = ("seed", "accelerator", "devices", "precision", "channels_last", "memory", "accumulate", "checkpoint_every")
    names += ("validate_every", "log_every", "tensorboard")
    flow = load(options.model).train() if Path(options.model).suffix else options.model
    trained = train(
        flow,
        Data(
            folders=options.folders,
            validation=options.validation,
            hold_out=options.hold_out,
            scales=tuple(options.scales),
            workers=options.workers,
            strict=options.strict,
        ),
        out=options.out,
        recipe=_recipe(options, task=flow if isinstance(flow, str) else flow.config.task),
        run=Run(**{name: getattr(options, name) for name in names}),
        start=options.start,
        resume=options.resume,
    )
    print(f"{trained.step} steps, {trained.skipped} skipped; {trained.out / 'model.safetensors'}")
    return 128 + trained.interrupted if trained.interrupted else 0


def _recipe(options: argparse.Namespace, *, task: str) -> Recipe:
    name = options.recipe or ("rescaling" if task.startswith("rescaling") else "nll")
    return recipe(name, **parse_fields(options.set))


def parse_fields(texts: list[str]) -> dict[str, Any]:
    """Fields of a recipe from texts such as ``steps=100``.

    Raises:
        ValueError: for a text without ``=``.

    Example:
        >>> parse_fields(["steps=100", "cosine_to=1e-5"])
        {'steps': 100, 'cosine_to': 1e-05}
    """
    for text in texts:
        if "=" not in text:
            raise ValueError(f"expected NAME=VALUE; got {text!r}")
    return {name: parse_field(value) for name, value in (text.split("=", 1) for text in texts)}


def parse_field(text: str) -> float | int | bool | str | tuple[float, ...] | None:
    """A field's value from the command line: a number, true, false, none, a comma-separated tuple, or text.

    Example:
        >>> parse_field("1e-5"), parse_field("none"), parse_field("0.5,0.9")
        (1e-05, None, (0.5, 0.9))
    """
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    if "," in text or text == "()":
        return tuple(float(part) for part in text.strip("()").split(",") if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    sys.exit(main())
