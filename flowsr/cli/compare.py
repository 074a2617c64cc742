"""``flowsr compare``: two models on the same images, figure by figure, with intervals of the paired differences."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.json import document, write_json
from flowsr._support.names import printable
from flowsr.cli.complete import complete_model
from flowsr.cli.console import Reporter
from flowsr.cli.options import (
    CropToMultiple,
    Device,
    DrawsPerImage,
    Dtype,
    Force,
    GivenLR,
    Inputs,
    Json,
    MeasuredTemperatures,
    Out,
    Precision,
    Quiet,
    Seed,
    open_model,
)
from flowsr.cli.paths import claim_outputs, expand_inputs, keep_hr, keep_lr, write_text
from flowsr.cli.tables import comparison_table

_NAMES = ("compare.csv", "compare.json", "compare.png")
_HELP = "A .safetensors file, an official .pth, or a preset's name: the {} model."


def compare(
    a: Annotated[str, typer.Argument(help=_HELP.format("first"), metavar="A", autocompletion=complete_model)],
    b: Annotated[str, typer.Argument(help=_HELP.format("second"), metavar="B", autocompletion=complete_model)],
    inputs: Inputs,
    out: Out = Path("comparison"),
    lr: GivenLR = None,
    num_samples: DrawsPerImage = 2,
    temperature: MeasuredTemperatures = None,
    crop_to_multiple: CropToMultiple = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Compare two models, or two checkpoints of one, on the same images.

    Figure by figure: the mean of each, the mean of B − A with an interval of the paired differences, and on how many
    images B is better, worse and the same. Both models get the same crops, LR images and seeds. What only one model
    has, or what is measured in two ways, is listed with the reason; models for different tasks are refused.

    Writes compare.csv (image by image), compare.json and compare.png. Under torchrun the images are shared out.
    """
    from flowsr.evaluation import EvaluationPlan
    from flowsr.models import presets
    from flowsr.workflows.compare import compare_files
    from flowsr.workflows.processes import Processes

    processes = Processes.from_environment()
    reporter = Reporter(quiet=quiet or not processes.first, json_only=json)
    for name in (a, b):
        if name not in presets() and Path(name).is_dir():
            raise ValueError(f"expected two models, then images; got the folder {printable(name)} in a model's place")
    plan = EvaluationPlan(
        num_samples=num_samples,
        temperatures=tuple(temperature) if temperature else None,
        multiple=crop_to_multiple,
        seed=seed,
    )
    files = keep_hr(expand_inputs(inputs), reporter)
    lr_files = keep_lr(lr) if lr is not None else None
    claim_outputs(out, _NAMES, force=force)

    from flowsr.plots import save_figure

    first, second = (open_model(name, device=processes.device(device), dtype=dtype) for name in (a, b))
    with reporter.progress("Measuring", 2 * len(processes.share(files))) as advance:
        found = compare_files(
            first,
            second,
            files,
            models=(printable(a), printable(b)),
            plan=plan,
            lr=lr_files,
            processes=processes,
            on_image=advance,
        )
    if not processes.first:
        return
    models = {
        key: {"model": printable(n), "provenance": f.provenance} for key, n, f in (("a", a, first), ("b", b, second))
    }
    facts = document("comparison", models=models, num_samples=num_samples, seed=seed, **found.to_dict())
    write_text(out / _NAMES[0], found.to_csv())
    write_json(out / _NAMES[1], facts)
    save_figure(found.plot(), out / _NAMES[2], overwrite=True, dpi=130)
    reporter.result(comparison_table(found))
    reporter.document(facts)
    reporter.remark(f"Wrote {', '.join(_NAMES)} to {printable(out)}")
