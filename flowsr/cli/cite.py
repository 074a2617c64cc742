"""``flowsr cite``: whom to cite for flowsr, or for a model and the parts in it, as BibTeX."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.names import printable
from flowsr.cli.complete import complete_model
from flowsr.cli.console import Reporter
from flowsr.cli.options import MODEL_HELP
from flowsr.errors import did_you_mean


def cite(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help=MODEL_HELP,
            metavar="MODEL",
            show_default="none: flowsr itself",
            autocompletion=complete_model,
        ),
    ] = None,
) -> None:
    """Print whom to cite, as BibTeX: flowsr and the paper of HCFlow, or the papers of a model and of the parts in it.

    Of a preset nothing is fetched: who wrote of a model does not depend on its weights.
    """
    from flowsr.models import bibtex, from_preset, load, presets

    if model is None:
        text = bibtex()
    elif model in presets():
        text = bibtex(from_preset(model))
    elif Path(model).is_file():
        text = bibtex(load(model))
    else:
        close = did_you_mean(model, presets()) or ": check the name"
        raise FileNotFoundError(f"expected a preset or a model file; there is no {printable(model)}{close}")
    Reporter(quiet=False, json_only=False).result(text)
