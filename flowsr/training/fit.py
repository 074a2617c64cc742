"""``train``: from a folder of images to a trained model, with everything a run leaves behind in one folder."""

import json
import platform
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from flowsr._support.atomic import sweep_unfinished
from flowsr._support.extras import import_extra
from flowsr._support.json import document, write_json
from flowsr._support.lock import sole_writer
from flowsr._support.states import as_written
from flowsr.errors import NonFiniteError
from flowsr.models import ImageModel
from flowsr.models.hcflow import Start
from flowsr.training.checkpoint import CheckpointFolder
from flowsr.training.data import Folder
from flowsr.training.loop import Loop
from flowsr.training.preparation import (
    build_model,
    build_trainer,
    check_data,
    choose_recipe,
    go_on,
    has_more_than_bijection,
    initialize,
    launch,
    open_images,
)
from flowsr.training.recipes import Recipe
from flowsr.training.settings import Data, Run, settings_of
from flowsr.training.sources import MANIFEST, PICTURES
from flowsr.training.wrapper import set_memory

_PACKAGES = ("flowsr", "torch", "pyro-ppl", "lightning", "numpy", "pillow")


def manifest(**facts: Any) -> dict[str, Any]:
    """Facts of a run together with the versions, the platform, the command and the time.

    Example:
        >>> manifest(seed=3)["seed"]
        3
    """
    return {
        **facts,
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def recorded_recipe(out: Path) -> Recipe | None:
    """The recipe of the run in a folder, or None where no run was begun.

    Raises:
        ValueError: if ``run.json`` cannot be read.
    """
    path = out / MANIFEST
    if not path.exists():
        return None
    try:
        return Recipe.from_dict(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected the recipe of a run in {path}; it cannot be read: {error!r}") from error


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Trained:
    """What a run has come to.

    Attributes:
        flow: the model, with averaged weights if the recipe has them, in evaluation mode.
        step: steps made.
        out: folder of the run.
        interrupted: number of the signal that stopped it, or None.
        skipped: steps that were not finite.
        validation: means, medians and worst values over the validation images; empty if there were none.
        validated_at: the step they are of, the last or the last one validated before a signal; None without.
        saved: whether ``model.safetensors`` has these weights, which a full disk may have prevented.
    """

    flow: ImageModel
    step: int
    out: Path
    interrupted: int | None
    skipped: int
    validation: dict[str, float]
    validated_at: int | None
    saved: bool


def train(
    model: ImageModel | str,
    data: Data | Folder,
    *,
    out: Folder,
    recipe: Recipe | str | None = None,
    run: Run | None = None,
    start: Start | None = None,
    resume: bool = False,
) -> Trained:
    """Train a model of any kind on a folder of images.

    A density of images alone (Glow, RealNVP) is trained on the HR images, without LR images.

    The folder ``out`` then has ``run.json`` (what was run), ``train.csv`` and ``validation.csv``, ``checkpoints/``,
    ``pictures/`` and ``curve.png``, and ``model.safetensors``, which :func:`flowsr.load` reads. SIGINT, SIGTERM and
    SIGHUP save a checkpoint and return. Torch's global random state is set from the seed. Under ``torchrun`` every
    process calls this function.

    Cost: per step, one to three passes through the flow and back.

    Args:
        model: a preset's name, of any model of the family, for random weights, or a model to go on training.
        data: a folder of HR images, or :class:`Data` for more.
        out: folder of the run; made if missing.
        recipe: the recipe or its name; by default ``rescaling`` for rescaling models and ``nll`` for all others.
        run: how to carry it out, see :class:`Run`.
        start: initial weights of a preset of HCFlow, "rotation" or, by default, "haar"; others have no choice.
        resume: go on from the last good checkpoint in ``out``, if there is one.

    Raises:
        ValueError: for settings that do not fit, or if ``out`` has checkpoints and ``resume`` is False.
        MissingExtraError: without Lightning (``flowsr[train]``), or without TensorBoard where its logs are asked for.
        ImageError: if there are no usable images, or with ``strict`` for one that is not.
        NonFiniteError: if too many steps in a row were not finite.
        BlockingIOError: if another process is writing into ``out``.
        CheckpointError: if ``out`` has checkpoints but none is whole, or they belong to another architecture.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4, for all settings of the recipes.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> from flowsr.training.recipes import recipe
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     write_image(folder / name, torch.rand(3, 40, 48))
        >>> quick = recipe("nll", steps=2, batch_size=2, crop=16)
        >>> run = Run(accelerator="cpu", progress=False, pictures=False)
        >>> train("sr-x4-small", folder, out=folder / "run", recipe=quick, run=run).step
        2
        >>> sorted(path.name for path in (folder / "run").iterdir())
        ['checkpoints', 'model.safetensors', 'run.json', 'train.csv', 'validation.csv']
    """
    run, out = run or Run(), Path(out)
    data = data if isinstance(data, Data) else Data(folders=data)
    with sole_writer(out):
        return _train(model, data, out, recipe=recipe, run=run, start=start, resume=resume)


def _train(
    model: ImageModel | str,
    data: Data,
    out: Path,
    *,
    recipe: Recipe | str | None,
    run: Run,
    start: Start | None,
    resume: bool,
) -> Trained:
    checkpoints = CheckpointFolder(out / "checkpoints", keep=run.keep)
    if checkpoints.steps() and not resume:
        raise ValueError(f"expected a new folder, or resume=True to continue; {out} has checkpoints already")
    if run.tensorboard:
        import_extra("tensorboard", to="write its logs")
    torch.manual_seed(run.seed)
    flow, started = build_model(model, start) if isinstance(model, str) else (model, "a given model")
    recipe = choose_recipe(recipe, flow)
    check_data(data, flow)
    fabric = launch(run, unused=has_more_than_bijection(flow))
    batches, validation = open_images(data, recipe, run, flow=flow, fabric=fabric, out=out)
    going_on = resume and bool(checkpoints.steps())
    if resume and not going_on:
        _say_nothing_to_resume(out, run, main=fabric.is_global_zero)
    if not going_on:
        initialize(flow, batches, bins=recipe.bins)
    trainer = build_trainer(flow, recipe, run, fabric=fabric)
    about = {
        "config": flow.config.to_dict(),
        "recipe": recipe.to_dict(),
        "data": batches.folder.fingerprint(),
        "choice of crops": {**data.choice_of_crops(run.seed), "images": len(batches.indices)},
    }
    settings = settings_of(data, run, start=started)
    if going_on:
        with as_written(checkpoints.folder, kind="training checkpoint"):
            go_on(trainer, checkpoints, batches, {**about, "settings": settings}, out)
        _say_why_it_ended(out, trainer.step)

    def record() -> None:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / PICTURES):
            sweep_unfinished(folder)
        skipped = [{"image": name, "reason": why} for name, why in batches.folder.skipped.items()]
        facts: dict[str, Any] = {
            "model": about["config"],
            "parameters": sum(p.numel() for p in flow.parameters()),
            "start": started,
            "recipe": about["recipe"],
            "data": data.to_dict(),
            "data_fingerprint": about["data"],
            "images": {"training": len(batches.indices), "validation": len(validation), "left_out": skipped},
            "run": run.to_dict(),
            "processes": fabric.world_size,
            "resumed_at_step": trainer.step,
        }
        write_json(out / MANIFEST, document("run", **manifest(**facts)))

    loop = Loop(
        trainer,
        batches,
        validation,
        checkpoints,
        out=out,
        workers=data.workers,
        about=about,
        settings=settings,
        record=record,
    )
    try:
        interrupted = loop.run()
    except NonFiniteError as error:
        if fabric.is_global_zero:
            _note_end(out, trainer.step)
        raise NonFiniteError(f"{error}. {_way_back(checkpoints)}") from None
    trainer.fabric.barrier()
    set_memory(flow, "full")
    if trainer.average is not None:
        flow.load_state_dict(trainer.average.average)
    return Trained(
        flow.eval(),
        trainer.step,
        out,
        interrupted,
        trainer.guard.total,
        validation=loop.validation,
        validated_at=loop.validated_at,
        saved=loop.saved,
    )


def _note_end(out: Path, step: int) -> None:
    """Write into ``run.json`` that losses were no longer finite, for the run that goes on to say."""
    with suppress(OSError, ValueError):  # renamed, or a full disk: the error itself is what matters
        facts = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        write_json(out / MANIFEST, {**facts, "not_finite_at_step": step})


def _way_back(checkpoints: CheckpointFolder) -> str:
    steps = checkpoints.steps()
    if not steps:
        return "Resuming starts at step 0, as there is no checkpoint yet"
    return f"Resuming goes back to the checkpoint of step {steps[-1]}, with whose weights the loss was finite"


def _say_why_it_ended(out: Path, step: int) -> None:
    try:
        end = json.loads((out / MANIFEST).read_text(encoding="utf-8")).get("not_finite_at_step")
    except (OSError, ValueError, AttributeError):  # gone or not ours; it is about to be written anew
        return
    if end is not None:
        warnings.warn(
            f"the run was stopped at step {end}, as losses were no longer finite: going back to step {step}, with "
            "whose weights they are",
            stacklevel=3,
        )


def _say_nothing_to_resume(out: Path, run: Run, *, main: bool) -> None:
    """A warning where a run was begun; a line of its progress otherwise, as scripts of clusters always resume."""
    note = f"no checkpoint in {out}: starting at step 0"
    if (out / MANIFEST).exists():
        warnings.warn(note, stacklevel=3)
    elif main and run.progress:
        print(note, flush=True)
