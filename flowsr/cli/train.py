"""``flowsr train``: a model trained on folders of images, in a run that can be stopped, killed and resumed."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from flowsr._support.json import document
from flowsr._support.lock import is_first_process
from flowsr._support.names import printable
from flowsr.cli.console import Reporter
from flowsr.cli.options import SR_MODEL, Json, Model, Out, Quiet, Seed
from flowsr.cli.paths import check_folder
from flowsr.cli.tables import Facts
from flowsr.cli.train_options import (
    VGG,
    Accelerator,
    Accumulate,
    Autocast,
    ChannelsLast,
    CheckpointEvery,
    Devices,
    DryRun,
    Efficiency,
    Fields,
    Folders,
    Grain,
    HoldOut,
    LogEvery,
    LRFolders,
    Memory,
    MemoryMode,
    Pretrained,
    Processes,
    RecipeName,
    Resume,
    Scales,
    StartOf,
    StepSeconds,
    Strict,
    TensorBoard,
    Threads,
    TrainPrecision,
    ValidateEvery,
    Validation,
    Workers,
)
from flowsr.errors import did_you_mean

if TYPE_CHECKING:
    from flowsr.models import ImageModel
    from flowsr.training import Data
    from flowsr.training.fit import Trained

Number = TypeVar("Number", int, float)

_DEVICES = ("auto", "cpu", "gpu", "cuda")
_TRACES = ("run.json", "train.csv", "checkpoints", "model.safetensors")


def train(
    folders: Folders,
    out: Out,
    model: Model = SR_MODEL,
    recipe: RecipeName = None,
    set_: Fields = None,
    start: StartOf = None,
    pretrained: Pretrained = False,
    resume: Resume = False,
    lr_folder: LRFolders = None,
    validation: Validation = None,
    hold_out: HoldOut = 0,
    scales: Scales = "1",
    grain: Grain = 0.0,
    strict: Strict = False,
    device: Accelerator = "auto",
    devices: Devices = 1,
    precision: TrainPrecision = Autocast.fp32,
    channels_last: ChannelsLast = False,
    memory: MemoryMode = Memory.full,
    accumulate: Accumulate = 1,
    threads: Threads = None,
    workers: Workers = 0,
    vgg: VGG = None,
    checkpoint_every: CheckpointEvery = 500,
    validate_every: ValidateEvery = 1000,
    log_every: LogEvery = 10,
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    processes: Processes = None,
    efficiency: Efficiency = None,
    step_seconds: StepSeconds = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model of any kind on folders of images with a published recipe.

    A preset, such as sr-x4-small, srflow-x4-small or glow-small, starts with random weights; a model file is gone on
    from.

    Writes run.json, train.csv, validation.csv, checkpoints/, pictures/, curve.png and model.safetensors. Ctrl-C,
    SIGTERM and SIGHUP save a checkpoint first, and leave with 128 + the signal; --resume goes on, with the recipe of
    the run but for what --recipe and --set change. An existing run is never overwritten. Several processes:
    torchrun --nproc-per-node 2 -m flowsr train …

    With --dry-run a few steps are timed instead, and hours and memory said for one process and for several.
    """
    first = is_first_process()
    reporter = Reporter(quiet=quiet or not first, json_only=json and first)
    counts = None if processes is None else _numbers(processes, int, "--processes")
    asked = {"processes": counts, "efficiency": efficiency, "step_seconds": step_seconds}
    planned = {name: value for name, value in asked.items() if value is not None}
    if planned and not dry_run:
        option = f"--{next(iter(planned)).replace('_', '-')}"
        raise ValueError(f"expected {option} with --dry-run; got a run: add it, or start processes by torchrun")
    factors = _check(folders, out, resume=resume, device=device, scales=scales, writes=not dry_run)

    import torch

    from flowsr.models import from_preset
    from flowsr.training import Data, Run
    from flowsr.training import train as fit
    from flowsr.training.fit import recorded_recipe
    from flowsr.training.journal import label_of
    from flowsr.training.settings import recipe_from_texts

    data = Data(
        folders=folders,
        lr_folders=lr_folder or None,
        validation=validation or None,
        hold_out=hold_out,
        scales=factors,
        grain=grain,
        workers=workers,
        strict=strict,
    )
    run = Run(
        seed=seed,
        accelerator=device,
        devices=devices,
        precision=precision.value,
        channels_last=channels_last,
        accumulate=accumulate,
        memory=memory.value,
        checkpoint_every=checkpoint_every,
        validate_every=validate_every,
        log_every=log_every,
        vgg=None if vgg is None else str(vgg),
        tensorboard=tensorboard,
        progress=not reporter.quiet,
    )
    source: ImageModel | str = _weights(model, pretrained=pretrained) or model
    chosen = recipe_from_texts(
        recipe,
        " ".join(set_ or []).split(),
        flow=from_preset(source) if isinstance(source, str) else source,
        before=recorded_recipe(out) if resume else None,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    if dry_run:
        _plan(
            reporter,
            source,
            data,
            printable(model),
            recipe=chosen,
            run=run,
            start=start.value if start is not None else None,
            **planned,
        )
        return
    with remarks(reporter):
        trained = fit(
            source,
            data,
            out=out,
            recipe=chosen,
            run=run,
            start=start.value if start is not None else None,
            resume=resume,
        )
    weights = printable(trained.out / "model.safetensors")
    facts: dict[str, Any] = {
        "model": printable(model),
        "recipe": chosen.name,
        "steps": trained.step,
        "steps asked for": chosen.steps,
        "steps skipped as not finite": trained.skipped,
        "stopped by signal": trained.interrupted,
        "weights": weights,
    }
    reporter.result(Facts(f"Run {printable(out)}", {name: value for name, value in facts.items() if value is not None}))
    if trained.validation:
        labelled = {label_of(name): f"{value:.4g}" for name, value in trained.validation.items()}
        reporter.result(Facts(f"Validation at step {trained.validated_at}", labelled))
    reporter.document(
        document(
            "training",
            model=printable(model),
            recipe=chosen.name,
            steps=trained.step,
            steps_asked_for=chosen.steps,
            steps_skipped=trained.skipped,
            stopped_by_signal=trained.interrupted,
            weights=weights,
            validated_at_step=trained.validated_at,
            validation=trained.validation,
            reasons=_reasons(trained),
        )
    )
    if trained.interrupted:
        saved = "saved" if trained.saved else "could not save, see above"
        reporter.remark(f"Stopped at step {trained.step} and {saved}; the same command with --resume goes on")
        raise typer.Exit(128 + trained.interrupted)
    if not trained.saved:
        raise OSError(f"the run is at its end, but {weights} could not be written: make room and go on with --resume")
    reporter.remark(f"Next: flowsr evaluate YOUR_TEST_IMAGES --model {weights} --out evaluation")


def _plan(reporter: Reporter, source: "ImageModel | str", data: "Data", model: str, **settings: Any) -> None:
    """Say what a run would take; nothing is written."""
    from flowsr.training import plan

    with remarks(reporter):
        found = plan(source, data, **settings)
    reporter.result(found.to_text())
    reporter.document(
        document("plan", model=model, **found.to_dict(), assumptions=found.assumptions, reasons=found.reasons)
    )


def _reasons(trained: "Trained") -> dict[str, str]:
    """Why there is no figure of the validation, which belong beside what is null."""
    none = "" if trained.validation else "no validation image was scored"
    unstopped = "the run came to its end" if trained.interrupted is None else ""
    found = {"validated_at_step": none, "stopped_by_signal": unstopped}
    return {name: reason for name, reason in found.items() if reason}


def _numbers(text: str, kind: type[Number], option: str) -> tuple[Number, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"expected {what} with commas between for {option}; got {text!r}") from error


def _check(
    folders: list[Path], out: Path, *, resume: bool, device: str, scales: str, writes: bool
) -> tuple[float, ...]:
    """Refuse, before anything heavy is loaded, what cannot work; the scales as numbers."""

    missing = [path for path in folders if not path.exists()]
    if missing:
        raise FileNotFoundError(f"expected folders of images; {printable(missing[0])} does not exist: check the name")
    if device == "mps":
        raise ValueError("expected a device with float64, which determinants are computed in; got 'mps': use cpu")
    if device not in _DEVICES:
        raise ValueError(f"expected a device among {', '.join(_DEVICES)}; got {device!r}: see --devices for several")
    found = [name for name in _TRACES if (out / name).exists()]
    if found and writes and not resume:
        raise FileExistsError(
            f"{printable(out)} holds a run already ({found[0]}): choose another --out, or add --resume"
        )
    if writes:
        check_folder(out)
    return _numbers(scales, float, "--scales")


def _weights(model: str, *, pretrained: bool) -> "ImageModel | None":
    """The model of a file, or of a preset's weights if asked for; None for a preset to start from random weights."""
    from flowsr.models import load, presets

    known = presets()
    if model not in known and not Path(model).exists():
        raise FileNotFoundError(
            f"expected a preset among {', '.join(known)}, or a model file to go on from; there is no "
            f"{printable(model)}{did_you_mean(model, known)}"
        )
    if pretrained or model not in known:
        return load(model).train()
    return None


@contextlib.contextmanager
def remarks(reporter: Reporter) -> Iterator[None]:
    """Send the run's progress to stderr, and say its warnings in a line each."""

    def say(message: Warning | str, *_where: Any, **_more: Any) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone must not cost the run
            reporter.remark(f"Warning: {message}")

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("always", category=UserWarning, module=r"flowsr\.")  # each is about another thing
        warnings.showwarning = say
        target = stack.enter_context(open(os.devnull, "w", encoding="utf-8")) if reporter.quiet else sys.stderr
        stack.enter_context(contextlib.redirect_stdout(target))
        yield
