"""``flowsr study``: a named study of a model on a folder of images, as figures, a table and JSON."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from flowsr.cli.console import Reporter, to_json
from flowsr.cli.options import SR_MODEL, Device, Dtype, Force, Json, Model, Out, Precision, Quiet, Seed
from flowsr.cli.paths import check_outputs, expand_inputs, make_folder, write_text


class StudyName(StrEnum):
    """The studies there are."""

    uncertainty = "uncertainty"
    calibration = "calibration"
    inpainting = "inpainting"
    deblurring = "deblurring"


class Solver(StrEnum):
    """Solvers of inverse problems."""

    svi = "svi"
    nuts = "nuts"
    hmc = "hmc"
    langevin = "langevin"
    pcn = "pcn"
    map = "map"


_FIGURES = {
    StudyName.uncertainty: ("uncertainty", "draws"),
    StudyName.calibration: ("calibration", "latent PIT", "temperature"),
    StudyName.inpainting: ("solution",),
    StudyName.deblurring: ("solution",),
}


def study(
    name: Annotated[StudyName, typer.Argument(help="Which study.", metavar="NAME")],
    folder: Annotated[Path, typer.Argument(help="HR images, or one of them (png, jpg, tif).", metavar="FOLDER")],
    model: Model = SR_MODEL,
    out: Out = Path("study"),
    crop: Annotated[
        int | None,
        typer.Option("--crop", help="Side of the HR crops, a multiple of 8.", show_default="the study's own"),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--num-samples", "-n", min=4, help="Draws per image, pair or chain.", show_default="the study's own"
        ),
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", min=20, help="Crops for the calibration.")] = 60,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="τ of the draws; 1 is the model.")] = 1.0,
    lr_log_scale: Annotated[
        float, typer.Option("--lr-log-scale", help="log σ of the flow's LR image; -inf is HCFlow's way of sampling.")
    ] = -math.inf,
    noise: Annotated[
        float, typer.Option("--noise", help="Std of the observation's noise, of [0, 1]; inpainting and deblurring.")
    ] = 0.02,
    method: Annotated[Solver, typer.Option("--method", help="Solver for inpainting and deblurring.")] = Solver.svi,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Study a model's posterior on HR images: NAME is uncertainty, calibration, inpainting or deblurring.

    uncertainty: does the spread of the draws say where their mean is wrong? calibration: are draws and latents of
    crops as probable as the model says, which must not have been trained on them, and which temperature would be?
    inpainting, deblurring: the posterior of a crop of the first image, where it varies most, given its LR image and an
    observation. Writes NAME.json, NAME.txt and a figure for each part.
    """
    reporter = Reporter(quiet=quiet, json_only=json)
    files = expand_inputs([folder])
    stem = name.value
    figures = {part: f"{stem}_{part.replace(' ', '_')}.png" for part in _FIGURES[name]}
    check_outputs(out, [f"{stem}.json", f"{stem}.txt", *figures.values()], force=force)

    from flowsr.cli.options import open_model
    from flowsr.images import read_image
    from flowsr.models.conditional import require_conditional
    from flowsr.plots import save_figure
    from flowsr.workflows.study import STUDIES, StudySettings, run_study

    settings = StudySettings(
        crop=crop,
        num_samples=num_samples,
        pairs=pairs,
        temperature=temperature,
        lr_log_scale=lr_log_scale,
        noise=noise,
        method=method.value,
        seed=seed,
    )
    flow = require_conditional(open_model(model, device=device, dtype=dtype), what="a study of its posterior")
    images = {path.stem: read_image(path) for path in files}
    with reporter.progress(stem.capitalize(), STUDIES[stem].steps(len(images), settings)) as advance:
        report = run_study(stem, flow, images, settings, on_step=lambda *_: advance())
    make_folder(out)
    for part, figure in report.figures().items():
        save_figure(figure, out / figures[part], overwrite=True, dpi=110)
    document: dict[str, Any] = {"model": model, "provenance": flow.provenance, **report.to_dict()}
    write_text(out / f"{stem}.txt", report.to_text() + "\n")
    write_text(out / f"{stem}.json", to_json(document))
    reporter.result(report.to_text())
    reporter.document(document)
    reporter.remark(f"Wrote {stem}.json, {stem}.txt and {', '.join(figures.values())} to {out}")
