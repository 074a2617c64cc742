"""``flowsr downscale`` and ``flowsr upscale``: the two ways through a rescaling model, or one through any other."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowsr._support.json import document
from flowsr._support.names import printable
from flowsr._support.temperatures import RESTORE_TEMPERATURE
from flowsr.cli.console import Reporter, counted
from flowsr.cli.options import (
    RESCALING_MODEL,
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
    from flowsr.workflows.rescale import Rescaled


def downscale(
    inputs: Inputs,
    model: Model = RESCALING_MODEL,
    out: Out = Path("lr"),
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    max_memory: MaxMemory = None,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Make images small with a rescaling model: writes name_LR.png, from which `upscale` restores them.

    Images of any size: sides that are not multiples of the factor are padded by reflection, and the size is kept in
    the PNG file. Edit, convert or recompress the file, and what it hides is lost.
    """
    from flowsr.workflows.processes import Processes
    from flowsr.workflows.rescale import check_downscale, downscale_file, lr_name

    reporter = Reporter(quiet=quiet, json_only=json)
    most = bound_memory(max_memory)
    files = expand_inputs(inputs)
    targets = _targets(files, lr_name, out, force=force)

    from flowsr.images import size_text
    from flowsr.models.conditional import require_conditional
    from flowsr.workflows.rescale import check_rescaling

    opened = open_model(model, device=device, dtype=dtype)
    check_rescaling(opened)
    flow = require_conditional(opened, what="making images small")
    results = Processes().in_tiles(
        files,
        lambda path: check_downscale(flow, path, max_memory=most),
        lambda path, tiling, advance: downscale_file(
            flow, path, targets[path], overwrite=force, tiling=tiling, on_tile=partial(advance, printable(path.name))
        ),
        progress=lambda tiles: reporter.progress("Downscaling", tiles),
    )
    for result in results:
        size = size_text(result.size) + (", padded" if result.padded else "")
        reporter.result(f"{printable(result.file)}: {size}; {result.encoded_lr_psnr}")
    _finish(reporter, model, flow.provenance, results, out, direction="downscale", temperature=None, seed=None)


def upscale(
    inputs: Inputs,
    model: Model = RESCALING_MODEL,
    out: Out = Path("hr"),
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", metavar="NUMBER", help=TEMPERATURE_HELP)
    ] = RESTORE_TEMPERATURE,
    original: Annotated[
        Path | None,
        typer.Option(
            "--original",
            "--verify",
            metavar="PATH",
            help="The HR image, or a folder of them: prints the loss against it.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="SIZE", help="WIDTHxHEIGHT to crop to.", show_default="the size downscale kept, or all"
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
    """Bring back what `downscale` made small, or super-resolve any LR image: writes name_HR.png.

    One image per LR image; `sample` draws several. With --original (or --verify) the loss is printed: PSNR and SSIM of
    RGB and luma, border as wide as the factor, rounded to 8 bits.
    """
    from flowsr.images import pair_by_name, parse_size
    from flowsr.workflows.outlook import outlook
    from flowsr.workflows.processes import Processes
    from flowsr.workflows.rescale import check_upscale, hr_name, stored_size, upscale_file
    from flowsr.workflows.sample import DrawPlan

    reporter = Reporter(quiet=quiet, json_only=json)
    most = bound_memory(max_memory)
    plan = DrawPlan(temperatures=(temperature,), seed=seed)
    crop = parse_size(size) if size is not None else None
    files = expand_inputs(inputs)
    if crop is not None and len(files) > 1:
        raise ValueError(f"expected one image with --size; got {len(files)}")
    truths = {} if original is None else pair_by_name(files, expand_inputs([original]), kind="HR")
    targets = _targets(files, hr_name, out, force=force)

    from flowsr.models import Capability
    from flowsr.models.conditional import require_conditional

    flow = require_conditional(open_model(model, device=device, dtype=dtype), what="enlarging images")
    if Capability.DOWNSCALE in flow.capabilities and any(stored_size(path) is None for path in files):
        reporter.remark(
            "Note: this is a rescaling model, which expects LR images that `flowsr downscale` made with it; on others "
            "its results degrade."
        )
    tilings: list[Tiling] = []

    def cut(path: Path) -> "Tiling":
        tilings.append(check_upscale(flow, path, compared=path in truths, max_memory=most))
        return tilings[-1]

    def progress(tiles: int) -> AbstractContextManager[Callable[..., None]]:
        if note := outlook(flow, tilings):
            reporter.remark(note)
        return reporter.progress("Upscaling", tiles)

    results = Processes().in_tiles(
        files,
        cut,
        lambda path, tiling, advance: upscale_file(
            flow,
            path,
            targets[path],
            temperature=plan.temperatures[0],
            seed=seed,
            size=crop,
            original=truths.get(path),
            overwrite=force,
            tiling=tiling,
            on_tile=partial(advance, printable(path.name)),
        ),
        progress=progress,
    )
    for result in results:
        if result.card is not None:
            reporter.result(card_table(result.card))
    _finish(reporter, model, flow.provenance, results, out, direction="upscale", temperature=temperature, seed=seed)


def _targets(files: Sequence[Path], name: Callable[[Path], str], out: Path, *, force: bool) -> dict[Path, Path]:
    """The file to write for each file read; two of one name, and files that exist, are refused."""
    targets = {path: out / name(path) for path in files}
    if len(set(targets.values())) < len(files):
        raise ValueError("expected images whose results have different names; got some that differ only by _LR")
    claim_outputs(out, [target.name for target in targets.values()], force=force)
    return targets


def _finish(
    reporter: Reporter, model: str, provenance: dict[str, Any], results: "Sequence[Rescaled]", out: Path, **more: Any
) -> None:
    images = [result.to_dict() for result in results]
    reporter.document(document("rescaling", model=printable(model), provenance=provenance, **more, images=images))
    reporter.remark(f"Wrote {counted(len(results), 'image')} to {printable(out)}")
