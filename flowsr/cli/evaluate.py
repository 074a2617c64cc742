"""``flowsr evaluate``: a model's figures on a folder of images, each with its convention."""

from pathlib import Path

from flowsr._support.json import document, write_json
from flowsr._support.names import printable
from flowsr.cli.console import Reporter
from flowsr.cli.options import (
    SR_MODEL,
    CropToMultiple,
    Device,
    DrawsPerImage,
    Dtype,
    Force,
    GivenLR,
    Inputs,
    Json,
    MeasuredTemperatures,
    Model,
    Out,
    Precision,
    Quiet,
    Seed,
    open_model,
)
from flowsr.cli.paths import claim_outputs, expand_inputs, keep_hr, keep_lr, write_text
from flowsr.cli.tables import card_table

_NAMES = ("evaluation.csv", "evaluation.json")


def evaluate(
    inputs: Inputs,
    model: Model = SR_MODEL,
    out: Out = Path("evaluation"),
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
    """Measure a model on HR images: likelihood, PSNR, SSIM, LPIPS, LR-PSNR, diversity, time.

    Where a folder holds both kinds, names with HR and LR in them tell them apart.

    Writes evaluation.csv (image by image) and evaluation.json, and prints mean, standard error, median and worst value
    over the images. A rescaling model is measured on the round trip through its own 8-bit LR image; of a density of
    images alone, such as Glow, there are likelihood and time to measure. Under torchrun
    (torchrun --nproc-per-node 2 -m flowsr evaluate …) the images are shared out by rank and the results merged.
    """
    from flowsr.evaluation import EvaluationPlan
    from flowsr.workflows.evaluate import evaluate_files
    from flowsr.workflows.processes import Processes

    processes = Processes.from_environment()
    reporter = Reporter(quiet=quiet or not processes.first, json_only=json)
    plan = EvaluationPlan(
        num_samples=num_samples,
        temperatures=tuple(temperature) if temperature else None,
        multiple=crop_to_multiple,
        seed=seed,
    )
    files = keep_hr(expand_inputs(inputs), reporter)
    lr_files = keep_lr(lr) if lr is not None else None
    claim_outputs(out, _NAMES, force=force)

    from flowsr.models import Capability

    flow = open_model(model, device=processes.device(device), dtype=dtype)
    with reporter.progress("Measuring", len(processes.share(files))) as advance:
        result = evaluate_files(
            flow, files, plan=plan, lr=lr_files, title=printable(model), processes=processes, on_image=advance
        )
    if not processes.first:
        return
    found = document(
        "evaluation",
        model=printable(model),
        provenance=flow.provenance,
        plan=result.plan.to_dict(),
        processes=processes.count,
        **result.to_dict(),
    )
    write_text(out / _NAMES[0], result.to_csv())
    write_json(out / _NAMES[1], found)
    reporter.result(card_table(result.card()))
    reporter.document(found)
    rescaling = Capability.DOWNSCALE in flow.capabilities
    key, what = ("encoded_lr_psnr", "PSNR of the LR image") if rescaling else ("bits_per_dim", "bits per dimension")
    reporter.remark(
        f"Wrote {' and '.join(_NAMES)} to {printable(out)}; the worst image by {what} is {result.worst_image(key)}"
    )
