"""``flowsr sample``: HR images drawn for LR images."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowsr._support.json import document, write_json
from flowsr._support.names import printable
from flowsr._support.temperatures import DRAW_TEMPERATURE
from flowsr.cli.console import Reporter, counted
from flowsr.cli.options import (
    SR_MODEL,
    TEMPERATURE_HELP,
    Device,
    Dtype,
    Force,
    Inputs,
    Json,
    MaxMemory,
    Model,
    Out,
    Precision,
    Quiet,
    Seed,
    bound_memory,
    open_model,
)
from flowsr.cli.paths import claim_outputs, expand_inputs
from flowsr.cli.tables import card_table

if TYPE_CHECKING:
    from flowsr.models import Tiling

_LISTING = "samples.json"


def sample(
    inputs: Inputs,
    model: Model = SR_MODEL,
    out: Out = Path("samples"),
    num_samples: Annotated[
        int, typer.Option("--num-samples", "-n", min=1, metavar="INT", help="Draws per image and temperature.")
    ] = 1,
    temperature: Annotated[
        list[float] | None,
        typer.Option(
            "--temperature",
            "-t",
            help=f"{TEMPERATURE_HELP} Repeatable.",
            metavar="NUMBER",
            show_default=f"{DRAW_TEMPERATURE:g}",
        ),
    ] = None,
    moments: Annotated[
        bool, typer.Option("--moments", help="Write mean and standard deviation of the draws too (needs two draws).")
    ] = False,
    hr: Annotated[
        Path | None,
        typer.Option(
            "--hr", metavar="PATH", help="True HR image, or a folder of them with the same names: adds metrics."
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
    """Super-resolve LR images of any size: writes name_tau0.8_0.png … and samples.json.

    Where the LR image is a part of the latent (HCFlow, IRN) the flow's LR image is the given one exactly. The same seed
    gives the same files, whichever other images are given. Images too large for the memory are drawn in tiles. Under
    torchrun (torchrun --nproc-per-node 2 -m flowsr sample …) the images are shared out by rank.
    """
    from flowsr.images import pair_by_name
    from flowsr.workflows.outlook import outlook
    from flowsr.workflows.processes import Processes
    from flowsr.workflows.sample import DrawPlan, check_file, superresolve_file

    processes = Processes.from_environment()
    reporter = Reporter(quiet=quiet or not processes.first, json_only=json)
    plan = DrawPlan(
        num_samples=num_samples, temperatures=tuple(temperature or (DRAW_TEMPERATURE,)), moments=moments, seed=seed
    )
    most = bound_memory(max_memory)
    files = expand_inputs(inputs)
    truths = {} if hr is None else pair_by_name(files, expand_inputs([hr]), kind="HR")
    claim_outputs(out, [_LISTING, *(name for path in files for name in plan.names(path))], force=force)

    from flowsr.models import Capability
    from flowsr.models.conditional import require_conditional

    flow = require_conditional(
        open_model(model, device=processes.device(device), dtype=dtype), what="sampling HR images"
    )
    if Capability.DOWNSCALE in flow.capabilities:
        reporter.remark(
            "Note: this is a rescaling model, which expects LR images it made itself; on others its results degrade."
        )
    tilings: list[Tiling] = []

    def cut(path: Path) -> "Tiling":
        tilings.append(check_file(flow, path, plan=plan, hr=truths.get(path), max_memory=most))
        return tilings[-1]

    def progress(tiles: int) -> AbstractContextManager[Callable[..., None]]:
        if note := outlook(flow, tilings, draws=plan.draws):
            reporter.remark(note)
        return reporter.progress("Sampling", plan.draws * tiles)

    results = processes.in_tiles(
        files,
        cut,
        lambda path, tiling, advance: superresolve_file(
            flow, path, out, plan=plan, hr=truths.get(path), tiling=tiling, on_tile=advance
        ),
        progress=progress,
    )
    if not processes.first:
        return
    found = document(
        "samples",
        model=printable(model),
        provenance=flow.provenance,
        **plan.to_dict(),
        images=[result.to_dict() for result in results],
    )
    write_json(out / _LISTING, found)
    for result in results:
        if result.card is not None:
            reporter.result(card_table(result.card))
    reporter.document(found)
    written = sum(len(result.files) for result in results)
    reporter.remark(f"Wrote {counted(written, 'image')} and {_LISTING} to {printable(out)}")
