"""``flowsr score``: what images cost under a model, in bits, term by term."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.json import document, write_json
from flowsr._support.names import output_stem, printable
from flowsr.cli.console import Reporter, counted
from flowsr.cli.options import (
    SR_MODEL,
    Device,
    Dtype,
    Force,
    GivenLR,
    Inputs,
    Json,
    Model,
    Precision,
    Quiet,
    Seed,
    open_model,
)
from flowsr.cli.paths import claim_outputs, expand_inputs, keep_hr, keep_lr

_LISTING = "scores.json"


def score(
    inputs: Inputs,
    model: Model = SR_MODEL,
    lr: GivenLR = None,
    num_samples: Annotated[
        int,
        typer.Option("--num-samples", "-n", min=1, help="Draws of the noise; more tighten the bound."),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", file_okay=False, help="Write scores.json and name_terms.png (with the map) there."),
    ] = None,
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="Add the authors' NLL and the PSNR of the flow's own LR image (two more passes)."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Score HR images: bits per dimension given their LR images, with the error of the noise, term by term.

    HR images of any size are cropped from the top left to multiples of what the model needs, where `evaluate` by
    default crops to multiples of 16. Where a folder holds both kinds, names with HR and LR in them tell them apart. A
    density of images alone, such as Glow, scores HR images without LR images.
    """
    from flowsr.images import pair_by_name
    from flowsr.workflows.pairs import read_pair
    from flowsr.workflows.score import score_file

    reporter = Reporter(quiet=quiet, json_only=json)
    files = keep_hr(expand_inputs(inputs), reporter)
    lr_files = keep_lr(lr) if lr is not None else []
    lr_of = pair_by_name(files, lr_files, kind="LR") if lr is not None else {}
    pictures = {path: f"{output_stem(path)}_terms.png" for path in files}
    if out is not None:
        claim_outputs(out, [_LISTING, *pictures.values()], force=force)

    from flowsr.plots import save_figure

    flow = open_model(model, device=device, dtype=dtype)
    for path in files:
        read_pair(flow, path, lr_of.get(path))  # a damaged file shows now, not after all before it
    results = []
    with reporter.progress("Scoring", len(files)) as advance:
        for path in files:
            results.append(
                score_file(
                    flow,
                    path,
                    lr=lr_of.get(path),
                    num_samples=num_samples,
                    seed=seed,
                    maps=out is not None,
                    official=official,
                )
            )
            advance(printable(path.name))
    found = document(
        "scores",
        model=printable(model),
        provenance=flow.provenance,
        seed=seed,
        images=[scored.to_dict() for scored in results],
    )
    if out is not None:
        write_json(out / _LISTING, found)
        for scored in results:
            save_figure(scored.plot(), out / pictures[scored.source], overwrite=force)
    for scored in results:
        reporter.result(scored.to_text() + "\n")
    reporter.document(found)
    if out is not None:
        reporter.remark(f"Wrote {_LISTING} and {counted(len(results), 'figure')} to {printable(out)}")
