"""The application: which commands there are, in the order of the help."""

from typing import Annotated

import typer

from flowsr.cli.demo import demo
from flowsr.cli.evaluate import evaluate
from flowsr.cli.guard import GuardedGroup
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
    add_completion=False,
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


app.command("demo")(demo)
app.command("sample")(sample)
app.command("train", no_args_is_help=True)(train)
app.command("evaluate")(evaluate)
app.command("score")(score)
app.command("report")(report)
app.command("study")(study)
app.command("downscale")(downscale)
app.command("upscale")(upscale)
app.command("info")(info)
app.command("import")(import_weights)
