"""The application: which commands there are, in the order of the help."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from flowsr.cli.cite import cite
from flowsr.cli.compare import compare
from flowsr.cli.convert_nll import convert_nll
from flowsr.cli.demo import demo
from flowsr.cli.evaluate import evaluate
from flowsr.cli.guard import EXAMPLE, GuardedCommand, GuardedGroup
from flowsr.cli.import_weights import import_weights
from flowsr.cli.info import info
from flowsr.cli.report import report
from flowsr.cli.rescale import downscale, upscale
from flowsr.cli.sample import sample
from flowsr.cli.score import score
from flowsr.cli.study import study
from flowsr.cli.train import train

app = typer.Typer(
    cls=GuardedGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"flowsr {version('flowsr')}")
        raise typer.Exit()


@app.callback()
def _flowsr(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback of mistakes too. Goes before the command.")
    ] = False,
) -> None:
    """Flows between an image and its low-resolution version: train them, sample them, score with them, study them."""


def _add(function: Callable[..., Any], example: str, **settings: Any) -> None:
    """A command under its example's name, with its docstring as help: rich would keep the line breaks of the code."""
    paragraphs = inspect.getdoc(function).split("\n\n")  # type: ignore[union-attr]
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(example.split()[1], cls=GuardedCommand, help=text, epilog=EXAMPLE + example, **settings)(function)


_add(demo, "flowsr demo --out out")
_add(sample, "flowsr sample lr.png")
_add(train, "flowsr train photographs/ --out runs/first", no_args_is_help=True)
_add(evaluate, "flowsr evaluate photographs/ --model sr-x4-small")
_add(compare, "flowsr compare sr-x4-small runs/first/model.safetensors photographs/")
_add(score, "flowsr score hr.png --model sr-x4-small")
_add(convert_nll, "flowsr convert-nll srflow --value -7.5", no_args_is_help=True)
_add(report, "flowsr report hr.png --model sr-x4-small")
_add(study, "flowsr study calibration photographs/ --model sr-x4-small")
_add(downscale, "flowsr downscale hr.png")
_add(upscale, "flowsr upscale lr.png --model rescaling-x4-small")
_add(info, "flowsr info sr-x4-small --size 640x480")
_add(cite, "flowsr cite --model srflow-x4-small")
_add(import_weights, "flowsr import official.pth mine.safetensors")
