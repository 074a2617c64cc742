"""``flowsr demo``: a trained model on a photograph it has not seen, as a figure, a metric card and JSON."""

from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.json import document, write_json
from flowsr._support.names import printable
from flowsr.cli.console import Reporter
from flowsr.cli.options import (
    SR_MODEL,
    Device,
    Dtype,
    Force,
    Json,
    Out,
    Precision,
    Quiet,
    Seed,
    open_model,
    resolve_device,
)
from flowsr.cli.paths import claim_outputs
from flowsr.cli.tables import card_table
from flowsr.cli.train import remarks


def demo(
    out: Out = Path("out"),
    train: Annotated[bool, typer.Option("--train", help="Train even if weights are shipped with the package.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few steps on tiny crops: seconds; shows only that it runs.")
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Precision = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Super-resolve a photograph in half a minute: draws, metric card, likelihood terms.

    Takes the shipped weights of sr-x4-small, or trains them on photographs from scikit-image (about two minutes on
    two cores), and writes demo.png, demo.json and, if trained, demo.safetensors. Nothing is downloaded.
    """
    from flowsr.models.weights import shipped_path

    reporter = Reporter(quiet=quiet, json_only=json)
    training = train or shipped_path(SR_MODEL) is None
    names = ["demo.png", "demo.json", *(["demo.safetensors"] if training else [])]
    claim_outputs(out, names, force=force)

    import torch

    from flowsr.models import save
    from flowsr.models.conditional import require_conditional
    from flowsr.plots import save_figure
    from flowsr.workflows.demo import (
        TEMPERATURES,
        demo_picture,
        demo_recipe,
        study_photograph,
        train_demo_model,
        training_photographs,
        unseen_photograph,
    )

    place = resolve_device(device)
    if training:
        recipe = demo_recipe(2, batch_size=1, crop=32) if smoke else demo_recipe()
        reporter.remark(f"Training {SR_MODEL} on photographs from scikit-image, {recipe.steps} steps")
        with remarks(reporter):
            flow = train_demo_model(
                training_photographs(),
                recipe,
                preset=SR_MODEL,
                seed=seed,
                device=place,
                dtype=getattr(torch, dtype),
                progress=not reporter.quiet,
            )
        save(flow, out / "demo.safetensors")
        weights = f"model trained for {recipe.steps} steps"
    else:
        opened = open_model(SR_MODEL, device=device, dtype=dtype)
        flow, weights = require_conditional(opened, what="the demonstration"), "shipped weights"

    hr = unseen_photograph(multiple=flow.upscale, largest=48 if smoke else None)
    draws = 2 if smoke else 8
    with reporter.progress("Drawing and scoring", draws + len(TEMPERATURES) + 1) as advance:
        study = study_photograph(flow, hr, num_samples=draws, seed=seed, on_step=advance)
    found = document("demo", model=SR_MODEL, weights=weights, provenance=flow.provenance, seed=seed, **study.to_dict())
    write_json(out / "demo.json", found)
    save_figure(demo_picture(study, weights=weights), out / "demo.png", overwrite=True, dpi=170)
    for card in study.cards:
        reporter.result(card_table(card))
    reporter.document(found)
    reporter.remark("Wrote " + ", ".join(printable(out / name) for name in names))
    if training:
        reporter.remark(
            f"Next: flowsr sample YOUR_SMALL_IMAGE.png --model {printable(out / 'demo.safetensors')} --out samples"
        )
