"""``flowsr report``: one page on one image."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.names import output_stem, printable
from flowsr.cli.console import Reporter
from flowsr.cli.layout import OUTPUT
from flowsr.cli.options import SR_MODEL, Device, Dtype, Force, GivenLR, Model, Precision, Quiet, Seed, open_model
from flowsr.cli.paths import claim_outputs, expand_inputs, keep_hr, write_text


def report(
    image: Annotated[Path, typer.Argument(help="An HR image (png, jpg, tif).", metavar="IMAGE", dir_okay=False)],
    model: Model = SR_MODEL,
    lr: GivenLR = None,
    num_samples: Annotated[
        int,
        typer.Option(
            "--num-samples",
            "-n",
            min=2,
            metavar="INT",
            help="Draws behind mean and deviation; noises behind the bound.",
        ),
    ] = 8,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page.", metavar="FILE", show_default="name.html", rich_help_panel=OUTPUT),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Write all there is to say about one image as one HTML page that needs nothing else.

    Metric cards with their conventions, the log-likelihood term by term and as maps, draws at several temperatures,
    tests of the latents, and the stability of the inverse.
    """
    from flowsr.images import pair_by_name
    from flowsr.workflows.report import STEPS, build_report

    reporter = Reporter(quiet=quiet, json_only=False)
    (path,) = keep_hr(expand_inputs([image]), reporter)
    lr_path = pair_by_name([path], expand_inputs([lr]), kind="LR")[path] if lr is not None else None
    page = out or Path(f"{output_stem(path)}.html")
    if any(page.exists() and page.samefile(given) for given in (path, lr_path) if given is not None):
        raise ValueError(f"expected another file for the page than the image itself; got {printable(page)}")
    claim_outputs(page.parent, [page.name], force=force, alone=False)

    flow, told = open_model(model, device=device, dtype=dtype), printable(model)
    with reporter.progress("Reporting", STEPS) as advance:
        text = build_report(flow, path, model=told, lr=lr_path, num_samples=num_samples, seed=seed, on_step=advance)
    write_text(page, text)
    reporter.remark(f"Wrote {printable(page)}")
