"""``flowsr study``: a named study of a model on a folder of images, as figures, a table and JSON."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flowsr._support.json import document, write_json
from flowsr._support.names import printable
from flowsr._support.temperatures import MODEL_TEMPERATURE
from flowsr.cli.complete import complete_problem, complete_sampler, complete_study
from flowsr.cli.console import Reporter
from flowsr.cli.layout import one_of
from flowsr.cli.options import SR_MODEL, Device, Dtype, Force, Json, Model, Out, Precision, Quiet, Seed, open_model
from flowsr.cli.paths import claim_outputs, expand_inputs, write_text
from flowsr.cli.tables import Facts


class Solver(StrEnum):
    """Solvers of inverse problems."""

    svi = "svi"
    nuts = "nuts"
    hmc = "hmc"
    langevin = "langevin"
    pcn = "pcn"
    map = "map"


def _list_studies(value: bool) -> None:
    if value:
        from flowsr.workflows.studies import STUDIES

        told = {name: study.question for name, study in STUDIES.items()}
        Reporter(quiet=False, json_only=False).result(Facts("Studies", told))
        raise typer.Exit()


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="Which study: flowsr study --list says which there are.", metavar="NAME", autocompletion=complete_study
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="HR images, or one of them (png, jpg, tif); none for samplers.", metavar="FOLDER", show_default=False
        ),
    ] = None,
    model: Model = SR_MODEL,
    out: Out = Path("study"),
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop", metavar="INT", help="Side of the HR crops, a multiple of 8.", show_default="the study's own"
        ),
    ] = None,
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--num-samples",
            "-n",
            min=4,
            metavar="INT",
            help="Draws per image, pair or chain; of samplers those that are judged.",
            show_default="the study's own",
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs", min=20, metavar="INT", help="Crops of all images for calibration, local_calibration, conformal."
        ),
    ] = 60,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", metavar="NUMBER", help="τ > 0 of the latents; 1 is the model.")
    ] = MODEL_TEMPERATURE,
    lr_log_scale: Annotated[
        float,
        typer.Option(
            "--lr-log-scale",
            metavar="NUMBER",
            help="log σ of the flow's LR image; -inf is HCFlow's way of sampling.",
        ),
    ] = -math.inf,
    noise: Annotated[
        float,
        typer.Option(
            "--noise", metavar="NUMBER", help="Std of the observation's noise, of [0, 1]; inpainting and deblurring."
        ),
    ] = 0.02,
    method: Annotated[
        Solver,
        typer.Option("--method", metavar="SOLVER", help=f"Solver for inpainting and deblurring: {one_of(Solver)}."),
    ] = Solver.svi,
    problem: Annotated[
        list[str] | None,
        typer.Option(
            "--problem",
            metavar="NAME",
            autocompletion=complete_problem,
            help="Known posterior, for samplers; more than once for several.",
            show_default="two small ones",
        ),
    ] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            metavar="NAME",
            autocompletion=complete_sampler,
            help="Sampler to compare; more than once for several.",
            show_default="all but nuts",
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option("--budget", min=100, metavar="INT", help="Gradients of each run of a sampler.")
    ] = 4000,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="INT", help="Runs of each sampler.")] = 3,
    c2st: Annotated[
        bool, typer.Option("--c2st", help="Tell samplers from the truth by a classifier too; needs sbi.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", callback=_list_studies, is_eager=True, help="List the studies, and leave.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Precision = Dtype.float32,
    json: Json = False,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Study a model's posterior on HR images: NAME is one of the studies that --list lists.

    Each answers a question, such as whether draws and latents of crops are as probable as the model says. Of images
    are all but samplers, which compares samplers on posteriors whose truth is known. Writes
    NAME.json, NAME.txt and a figure for each part of the answer. Under torchrun
    (torchrun --nproc-per-node 2 -m flowsr study uncertainty …) the images of a study of each image are shared out by
    rank; another is done by the first process.
    """
    from flowsr.workflows.processes import Processes

    processes = Processes.from_environment()
    reporter = Reporter(quiet=quiet or not processes.first, json_only=json)
    files = expand_inputs([folder] if folder else [])

    from flowsr.images import read_image
    from flowsr.models.conditional import require_conditional
    from flowsr.plots import save_figure
    from flowsr.workflows.studies import StudySettings, study_named
    from flowsr.workflows.study import run_study

    chosen = study_named(name)
    if bool(files) != chosen.of_images:
        wanted = "a FOLDER of HR images, or one" if chosen.of_images else "no FOLDER, as it makes its own problems,"
        form = f"flowsr study {name} photographs/" if chosen.of_images else f"flowsr study {name}"
        raise ValueError(
            f"expected {wanted} for the study {name}; got {printable(folder) if folder else 'none'}: {form}"
        )
    figures = {part: f"{name}_{part.replace(' ', '_')}.png" for part in chosen.parts}
    claim_outputs(out, [f"{name}.json", f"{name}.txt", *figures.values()], force=force)
    settings = StudySettings(
        crop=crop,
        num_samples=num_samples,
        pairs=pairs,
        temperature=temperature,
        lr_log_scale=lr_log_scale,
        noise=noise,
        method=method.value,
        seed=seed,
        problems=tuple(problem or ()),
        samplers=tuple(sampler or ()),
        budget=budget,
        seeds=seeds,
        classify=c2st,
    )
    if not (processes.first or chosen.shared):
        return
    flow = None
    if chosen.of_images:
        opened = open_model(model, device=processes.device(device), dtype=dtype)
        flow = require_conditional(opened, what="a study of its posterior")
    images = {printable(path.stem): read_image(path) for path in files}
    own = len(processes.share(files)) if chosen.shared else len(files)
    with reporter.progress(name.capitalize(), chosen.steps(own, settings)) as advance:
        report = run_study(name, flow, images, settings, processes=processes, on_step=lambda *_: advance())
    if not processes.first:
        return
    of = {"model": printable(model) if flow else None, "provenance": flow.provenance if flow else None}
    found = document("study", **of, **report.to_dict())
    write_text(out / f"{name}.txt", report.to_text() + "\n")
    write_json(out / f"{name}.json", found)
    for part, figure in report.figures().items():
        save_figure(figure, out / figures[part], overwrite=True, dpi=110)
    reporter.result(report.to_text())
    reporter.document(found)
    reporter.remark(f"Wrote {name}.json, {name}.txt and {', '.join(figures.values())} to {printable(out)}")
