"""``flowsr score``: what images cost under a model, in bits, term by term."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsr._support.json import document, to_plain, write_json
from flowsr._support.names import output_stem, printable
from flowsr.cli.complete import complete_convention
from flowsr.cli.console import Reporter, counted
from flowsr.cli.layout import OUTPUT
from flowsr.cli.options import (
    OUT_HELP,
    SR_MODEL,
    Device,
    Dtype,
    Force,
    GivenLR,
    Inputs,
    Json,
    MaxMemory,
    Model,
    Precision,
    Quiet,
    Seed,
    bound_memory,
    open_model,
)
from flowsr.cli.paths import claim_outputs, expand_inputs, keep_hr, keep_lr

if TYPE_CHECKING:
    from flowsr.models import Tiling

_LISTING = "scores.json"


def score(
    inputs: Inputs,
    model: Model = SR_MODEL,
    lr: GivenLR = None,
    num_samples: Annotated[
        int,
        typer.Option("--num-samples", "-n", min=1, metavar="INT", help="Draws of the noise; more tighten the bound."),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            file_okay=False,
            help=OUT_HELP,
            metavar="FOLDER",
            show_default="none: scores are printed only",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Add the authors' NLL and the PSNR of the flow's own LR image (three more passes)."
        ),
    ] = False,
    convention: Annotated[
        list[str] | None,
        typer.Option(
            "--convention",
            help="Add what another code would report, such as srflow; see convert-nll. May be given several times.",
            metavar="NAME",
            show_default="none",
            autocompletion=complete_convention,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    max_memory: MaxMemory = None,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Score HR images: bits per dimension given their LR images, with the error of the noise, term by term.

    HR images of any size are cropped from the top left to multiples of what the model needs, where `evaluate` by
    default crops to multiples of 16. Where a folder holds both kinds, names with HR and LR in them tell them apart. A
    density of images alone, such as Glow, scores HR images without LR images. Under torchrun
    (torchrun --nproc-per-node 2 -m flowsr score …) the images are shared out by rank.
    """
    from flowsr.images import pair_by_name
    from flowsr.workflows.processes import Processes
    from flowsr.workflows.score import check_score, score_file

    processes = Processes.from_environment()
    reporter = Reporter(quiet=quiet or not processes.first, json_only=json)
    most = bound_memory(max_memory)
    files = keep_hr(expand_inputs(inputs), reporter)
    lr_files = keep_lr(lr) if lr is not None else []
    lr_of = pair_by_name(files, lr_files, kind="LR") if lr is not None else {}
    pictures = {path: f"{output_stem(path)}_terms.png" for path in files}
    if out is not None:
        claim_outputs(out, [_LISTING, *pictures.values()], force=force)

    from flowsr.plots import save_figure

    flow = open_model(model, device=processes.device(device), dtype=dtype)

    def told(path: Path, tiling: "Tiling", advance: Callable[..., None]) -> tuple[dict[str, Any], str]:
        """An image's score as JSON and as text; its figure is written by the process that made it."""
        scored = score_file(
            flow,
            path,
            lr=lr_of.get(path),
            num_samples=num_samples,
            seed=seed,
            maps=out is not None,
            official=official,
            conventions=convention or (),
            tiling=tiling,
            on_tile=partial(advance, printable(path.name)),
        )
        if out is not None:
            save_figure(scored.plot(), out / pictures[path], overwrite=force)
        return to_plain(scored.to_dict()), scored.to_text()

    results = processes.in_tiles(
        files,
        lambda path: check_score(flow, path, lr_of.get(path), maps=out is not None, max_memory=most),
        told,
        progress=lambda tiles: reporter.progress("Scoring", num_samples * tiles),
    )
    if not processes.first:
        return
    images = [facts for facts, _ in results]
    found = document("scores", model=printable(model), provenance=flow.provenance, seed=seed, images=images)
    if out is not None:
        write_json(out / _LISTING, found)
    for _, text in results:
        reporter.result(text + "\n")
    reporter.document(found)
    if out is not None:
        reporter.remark(f"Wrote {_LISTING} and {counted(len(results), 'figure')} to {printable(out)}")
