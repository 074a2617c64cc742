"""``flowsr import``: the authors' released weights as a safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.json import document
from flowsr._support.names import printable
from flowsr.cli.console import Reporter
from flowsr.cli.info import in_words
from flowsr.cli.options import Force, Json, Quiet
from flowsr.cli.paths import claim_outputs, instead
from flowsr.cli.tables import Facts


def import_weights(
    source: Annotated[Path, typer.Argument(help="Released weights of HCFlow, SRFlow or IRN.", metavar="SRC.pth")],
    destination: Annotated[Path, typer.Argument(help="The file to write.", metavar="DST.safetensors")],
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Convert released weights of HCFlow, SRFlow or IRN to safetensors; the configuration is read off the weights.

    Nothing in the file is executed: a pickle that holds more than tensors is refused.
    """
    if destination.suffix != ".safetensors":
        raise ValueError(f"expected a destination that ends in .safetensors; got {printable(destination.name)}")
    if source.suffix == ".safetensors":
        raise ValueError(
            f"expected an official .pth; {printable(source.name)} is safetensors already, so there is nothing to import"
        )
    if not source.is_file():
        raise FileNotFoundError(f"expected an official .pth file; {printable(source)} {instead(source)}")
    claim_outputs(destination.parent, [destination.name], force=force, alone=False)

    from flowsr.models import load, save
    from flowsr.workflows.info import describe_model

    flow = load(source)
    save(flow, destination, overwrite=force)
    facts = describe_model(flow)
    facts["preset"] = next((name for name, config in type(flow).presets.items() if config == flow.config), None)
    reporter = Reporter(quiet=quiet, json_only=json)
    flat = {key: value for key, value in facts.items() if not isinstance(value, dict)}
    reporter.result(
        Facts(f"{printable(source)} -> {printable(destination)}", {**in_words(flat), **facts["configuration"]})
    )
    if facts["preset"] is None:
        facts["reasons"] |= {"preset": "no preset has this configuration"}
    reporter.document(document("import", source=source, destination=destination, **facts))
    reporter.remark(f"Wrote {printable(destination)}")
