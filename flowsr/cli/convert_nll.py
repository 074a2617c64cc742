"""``flowsr convert-nll``: a likelihood that another code reported, in the conventions of all of them."""

from typing import Annotated

import typer

from flowsr._support.json import document
from flowsr.cli.complete import complete_convention, convention_names
from flowsr.cli.console import Reporter
from flowsr.cli.options import Json, Quiet
from flowsr.cli.tables import card_table


def convert_nll(
    source: Annotated[
        str,
        typer.Argument(
            help=f"Whose figure it is: {', '.join(convention_names())}.",
            metavar="CONVENTION",
            autocompletion=complete_convention,
        ),
    ],
    value: Annotated[float, typer.Option("--value", help="The figure that the code printed.", metavar="NUMBER")],
    lr_psnr: Annotated[
        float | None,
        typer.Option(
            "--lr-psnr",
            help="PSNR of the flow's own LR image, as HCFlow's code prints it: gives what the term of the LR image is.",
            metavar="DB",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            help="WIDTHxHEIGHT of the HR image, for log-likelihoods per image.",
            metavar="SIZE",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[int, typer.Option("--channels", min=1, help="Of the images.", metavar="INT")] = 3,
    upscale: Annotated[
        int | None,
        typer.Option(
            "--upscale", min=1, help="s, with --lr-psnr.", metavar="INT", show_default="that of the code, else 4"
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a likelihood that another code reported: HCFlow, SRFlow, Glow, RealNVP or a library of flows.

    One table: the figure in flowsr's units, of what the other code evaluated, and as each other code would report it.
    A figure follows from another where both are of the same noise and count the LR image alike, or where --lr-psnr says
    what the LR image counts; where it does not, the table says what to run instead.
    """
    from flowsr.images import parse_size
    from flowsr.likelihood import conversions, find_convention
    from flowsr.results import Card

    pixels = None if size is None else parse_size(size)
    card = conversions(value, source, size=pixels, channels=channels, lr_psnr=lr_psnr, upscale=upscale)
    reporter = Reporter(quiet=quiet, json_only=json)
    there = {column: [figure for figure in row if not figure.reason] for column, row in card.columns.items()}
    reporter.result(card_table(Card(card.title, there)))
    for figure in (figure for row in card.columns.values() for figure in row if figure.reason):
        reporter.result(f"{figure.name}: {figure.reason}")
    for reference in find_convention(source).references:
        reporter.remark(reference)
    reporter.document(document("conversion", source=source, value=value, card=card.to_dict()))
