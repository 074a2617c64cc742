"""``train``: from a folder of images to a trained model, with everything a run leaves behind in one folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowsr._files import sweep_unfinished
from flowsr._json import write_json
from flowsr.errors import CheckpointError
from flowsr.evaluation import EvaluationPlan
from flowsr.models import ImageModel, from_preset, presets
from flowsr.models.conditional import as_conditional
from flowsr.models.start import Start
from flowsr.training.checkpoint import CheckpointFolder
from flowsr.training.crops import CropBatches
from flowsr.training.folder import Folder, ImageFolder
from flowsr.training.journal import require_tensorboard
from flowsr.training.manifest import manifest
from flowsr.training.memory import set_memory
from flowsr.training.recipes import Recipe, check_recipe, default_recipe
from flowsr.training.recipes import recipe as named_recipe
from flowsr.training.settings import Data, Run
from flowsr.training.validation import Named
from flowsr.training.wrapper import Objective, dequantize

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from flowsr.training.trainer import Trainer


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
        saved: whether ``model.safetensors`` has these weights, which a full disk may have prevented.
    """

    flow: ImageModel
    step: int
    out: Path
    interrupted: int | None
    skipped: int
    validation: dict[str, float]
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
    ``pictures/`` and ``curve.png``, and ``model.safetensors``, which :func:`flowsr.load` reads. SIGINT and SIGTERM save
    a checkpoint and return. Torch's global random state is set from the seed. Under ``torchrun`` every process calls
    this function.

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
        ImageError: if there are no usable images, or with ``strict`` for one that is not.
        NonFiniteError: if too many steps in a row were not finite.
        CheckpointError: if ``out`` has checkpoints but none is whole, or they belong to another architecture.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4, for all settings of the recipes.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("a.png", "b.png"):
        ...     write_image(folder / name, torch.rand(3, 40, 48))
        >>> quick = named_recipe("nll", steps=2, batch_size=2, crop=16)
        >>> run = Run(accelerator="cpu", progress=False, pictures=False)
        >>> train("sr-x4-small", folder, out=folder / "run", recipe=quick, run=run).step
        2
        >>> sorted(path.name for path in (folder / "run").iterdir())
        ['checkpoints', 'model.safetensors', 'run.json', 'train.csv', 'validation.csv']
    """
    from flowsr.training.loop import Loop

    run, out = run or Run(), Path(out)
    data = data if isinstance(data, Data) else Data(folders=data)
    checkpoints = CheckpointFolder(out / "checkpoints", keep=run.keep)
    if checkpoints.steps() and not resume:
        raise ValueError(f"expected a new folder, or resume=True to continue; {out} has checkpoints already")
    if run.tensorboard:
        require_tensorboard()
    torch.manual_seed(run.seed)
    flow, started = build_model(model, start) if isinstance(model, str) else (model, "a given model")
    recipe = choose_recipe(recipe, flow)
    check_data(data, flow)
    fabric = launch(run, unused=has_more_than_bijection(flow))
    batches, validation = open_images(data, recipe, run, flow=flow, fabric=fabric)
    found = checkpoints.read_last() if resume else None
    if resume and found is None and (out / "run.json").exists():
        warnings.warn(f"no checkpoint in {out}: the run starts from the beginning", stacklevel=2)
    if found is None:
        initialize(flow, batches, bins=recipe.bins)
    trainer = build_trainer(flow, recipe, run, fabric=fabric)
    about = {
        "config": flow.config.to_dict(),
        "recipe": recipe.to_dict(),
        "data": batches.folder.fingerprint(),
        "choice of crops": data.choice_of_crops(run.seed),
    }
    if found is not None:
        restore(trainer, found, about, out)
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        for folder in (out, out / "pictures"):
            sweep_unfinished(folder)
        skipped = batches.folder.skipped
        facts: dict[str, Any] = {
            "model": about["config"],
            "parameters": sum(p.numel() for p in flow.parameters()),
            "start": started,
            "recipe": about["recipe"],
            "data": data.to_dict(),
            "data_fingerprint": about["data"],
            "images": {"training": len(batches.indices), "validation": len(validation), "left out": skipped},
            "run": run.to_dict(),
            "processes": fabric.world_size,
            "resumed at step": trainer.step,
        }
        write_json(out / "run.json", manifest(**facts))
    loop = Loop(trainer, batches, validation, checkpoints, out=out, workers=data.workers, about=about)
    interrupted = loop.run()
    trainer.fabric.barrier()
    set_memory(flow, "full")
    if trainer.average is not None:
        flow.load_state_dict(trainer.average.average)
    return Trained(flow.eval(), trainer.step, out, interrupted, trainer.guard.total, loop.validation, loop.saved)


def build_model(name: str, start: Start | None = None) -> tuple[ImageModel, str]:
    """A model to train from the name of any preset, and what its weights start from.

    Args:
        name: of the preset.
        start: initial weights, for models that have a choice; by default "haar".

    Raises:
        ValueError: for an unknown preset, or a start that the model does not have.

    Example:
        >>> build_model("irn-x4-small")[1], build_model("sr-x4-small")[1]
        ('random weights', 'haar')
    """
    models = presets()
    if name in models and not models[name].starts:
        if start is not None:
            raise ValueError(f"expected no start for {name}, as {models[name].__name__} has no choice; got {start!r}")
        return from_preset(name), "random weights"
    start = start or "haar"
    return from_preset(name, start=start), start


def choose_recipe(recipe: Recipe | str | None, flow: ImageModel) -> Recipe:
    """The recipe asked for, or the first one for the model; raises ValueError for one that is not for it."""
    if not isinstance(recipe, Recipe):
        return named_recipe(recipe or default_recipe(flow), flow=flow)
    check_recipe(recipe, flow)
    return recipe


def check_data(data: Data, flow: ImageModel) -> None:
    """Raise ValueError unless images can be read for a model, and LR images are given only to one that has them."""
    name, channels = type(flow).__name__, flow.config.image_channels
    if channels not in (1, 3):
        raise ValueError(
            f"expected a model of gray or RGB images, as files are; got {name} of {channels} channels: train it by "
            "hand, with flowsr.training.likelihood_loss on tensors"
        )
    given = {"lr_folders": data.lr_folders, "degradation": data.degradation}
    found = [field for field, value in given.items() if value is not None]
    if found and as_conditional(flow) is None:
        raise ValueError(f"expected no LR images for {name}, a density of images alone; got {found[0]}: leave it out")


def has_more_than_bijection(flow: ImageModel) -> bool:
    """Whether a model has weights outside its bijection, which some losses do not reach: a width, a regression."""
    reached = {id(parameter) for parameter in flow.transform.parameters()}
    return any(id(parameter) not in reached for parameter in flow.parameters())


def launch(run: Run, *, unused: bool = False) -> "Fabric":
    """Lightning Fabric with the devices and precision of a run; joins the other processes under torchrun.

    Args:
        run: the settings.
        unused: several processes shall look for weights that a loss does not reach, at some cost.

    Raises:
        ValueError: if a GPU is asked for and there is none.
    """
    import os

    from lightning.fabric import Fabric

    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    several = world_size > 1 or run.devices > 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    fabric = Fabric(
        accelerator=choose_accelerator(run.accelerator),
        devices=local if world_size > 1 else run.devices,
        num_nodes=max(1, world_size // local),
        strategy="auto" if not several else "ddp_find_unused_parameters_true" if unused else "ddp",
        precision="bf16-mixed" if run.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def choose_accelerator(name: str) -> str:
    """Lightning's name of the accelerator asked for; its own "auto" and "gpu" may be Apple's, which lacks float64.

    Raises:
        ValueError: if CUDA is asked for, and this machine does not have it.

    Example:
        >>> choose_accelerator("cpu"), choose_accelerator("auto") in ("cpu", "cuda")
        ('cpu', True)
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(f"expected a machine with a CUDA device for {name!r}; this one has none: use cpu or auto")
    return "cuda"


def open_images(
    data: Data, recipe: Recipe, run: Run, *, flow: ImageModel, fabric: "Fabric"
) -> tuple[CropBatches, list[Named]]:
    """The batches of a run for this process, and named validation images, with their LR images if they are paired."""
    channels, conditional = flow.config.image_channels, as_conditional(flow)
    upscale = None if conditional is None else conditional.upscale
    folder = ImageFolder(
        data.folders,
        lr_folders=data.lr_folders,
        upscale=upscale or 1,
        channels=channels,
        minimum=recipe.crop,
        cache_bytes=data.cache_bytes,
        strict=data.strict,
    )
    train_on, held_out = folder.split(data.hold_out, seed=run.seed)
    source = folder
    if data.validation is not None:
        source = ImageFolder(
            data.validation, channels=channels, minimum=EvaluationPlan().multiple_of(flow), strict=data.strict
        )
        held_out = list(range(len(source)))
    shown = held_out[: run.validation_images]
    validation: list[Named] = []
    for index in shown:
        hr, lr = source[index]
        name = source.pairs[index][0].name
        validation.append((name, hr.float().div(255.0), None if lr is None else lr.float().div(255.0)))
    batches = CropBatches(
        folder,
        train_on,
        crop=recipe.crop,
        upscale=upscale,
        batch_size=recipe.batch_size,
        seed=run.seed,
        flips=recipe.flips,
        rotations=recipe.rotations,
        scales=data.scales,
        degradation=data.degradation,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        accumulate=run.accumulate,
    )
    return batches, validation


def initialize(flow: ImageModel, batches: CropBatches, *, bins: int) -> None:
    """Data-dependent start from the whole first batch, the same in all processes."""
    first = batches.whole()[0].to(flow.device)
    flow.initialize(dequantize(first, bins=bins), first.lr)


def build_trainer(flow: ImageModel, recipe: Recipe, run: Run, *, fabric: "Fabric") -> "Trainer":
    """The trainer with the networks that the recipe's losses need."""
    from flowsr.training.trainer import Trainer

    set_memory(flow, run.memory)
    if run.channels_last:
        flow.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = critic = None
    if recipe.perceptual:
        from flowsr.training.perceptual import VGGFeatures

        features = VGGFeatures(run.vgg).to(fabric.device, flow.dtype)
    if recipe.gan:
        from flowsr.training.discriminator import Discriminator

        critic = Discriminator(recipe.crop, image_channels=flow.config.image_channels).to(flow.dtype)
    objective = Objective(flow, recipe, features=features, critic=critic)
    return Trainer(fabric, objective, run, critic=critic)


def restore(trainer: "Trainer", found: tuple[int, dict[str, Any]], about: dict[str, Any], out: Path) -> None:
    """Continue from a checkpoint; warns if the recipe or the data are not those it was made with.

    Raises:
        CheckpointError: if it belongs to another architecture.
    """
    step, state = found
    before = state["about"]
    if before["config"] != about["config"]:
        ours, theirs = about["config"], before["config"]
        differ = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        differences = ", ".join(f"{name} {theirs.get(name)} for {ours.get(name)}" for name in differ)
        raise CheckpointError(
            f"expected checkpoints of the model to be trained; those in {out} are of another architecture, with "
            f"{differences}: give the model that the run was begun with, or another folder"
        )
    for name in ("recipe", "data", "choice of crops"):
        if name in before and before[name] != about[name]:
            warnings.warn(
                f"resuming at step {step} with another {name} than before: the run goes on, but as another run",
                stacklevel=2,
            )
    trainer.restore(state)
