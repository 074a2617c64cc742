"""What a run needs before its first step: model, recipe, images and processes that fit each other, and where it was."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flowsr._support.extras import import_extra
from flowsr.errors import CheckpointError
from flowsr.evaluation import EvaluationPlan
from flowsr.models import ImageModel, from_preset, presets
from flowsr.models.conditional import as_conditional
from flowsr.models.hcflow import Start
from flowsr.models.memory import require_memory
from flowsr.training.adversarial import Discriminator
from flowsr.training.checkpoint import CheckpointFolder
from flowsr.training.crops import CropBatches
from flowsr.training.data import ImageFolder
from flowsr.training.perceptual import VGGFeatures
from flowsr.training.recipes import Recipe, check_recipe, default_recipe
from flowsr.training.recipes import recipe as named_recipe
from flowsr.training.settings import Data, Run
from flowsr.training.sources import copies
from flowsr.training.trainer import Trainer, random_state, set_random_state
from flowsr.training.validation import Named
from flowsr.training.wrapper import Objective, dequantize, set_memory

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_BATCHES_TO_JUDGE_BY = 3

WITHOUT_EFFECT = frozenset(
    (
        *("start", "checkpoint_every", "keep", "validate_every", "validate_at", "validation_images", "log_every"),
        *("patience", "tensorboard", "pictures", "folders", "lr_folders", "validation", "workers", "cache_bytes"),
        "strict",
    )
)
"""Settings that the weights do not depend on; what the files are that folders hold is compared itself."""

_IMPLIED: dict[str, dict[str, Any]] = {"choice of crops": {"grain": 0.0}}
"""What runs did that were made before it could be chosen."""


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
        MissingExtraError: if Lightning is not installed.
    """
    lightning = import_extra("lightning.fabric", to="train a model")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    several = world_size > 1 or run.devices > 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    fabric = lightning.Fabric(
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
    data: Data, recipe: Recipe, run: Run, *, flow: ImageModel, fabric: "Fabric", out: Path
) -> tuple[CropBatches, list[Named]]:
    """The batches of a run for this process, and named validation images, with their LR images if they are paired.

    What is validated with, or held out, is not trained on, nor is a copy of it.

    Raises:
        ImageError: if there are no usable images, or with ``strict`` for one that is not.
        ValueError: if all of them are validated with or held out, or a folder is one of a run.
    """
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
        out=out,
    )
    train_on, held_out = folder.split(data.hold_out, seed=run.seed)
    source = folder
    if data.validation is not None:
        multiple = EvaluationPlan().resolve(flow).multiple
        source = ImageFolder(data.validation, channels=channels, minimum=multiple, strict=data.strict, out=out)
        train_on = _without_copies(folder, train_on, of=folder, held_out=held_out)
        held_out = list(range(len(source)))
    train_on = _without_copies(folder, train_on, of=source, held_out=held_out)
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
        grain=data.grain,
        degradation=data.degradation,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        accumulate=run.accumulate,
    )
    return batches, validation


def _without_copies(folder: ImageFolder, train_on: list[int], *, of: ImageFolder, held_out: list[int]) -> list[int]:
    """The indices to train on, without images that are held out, under whatever name."""
    paths = [folder.pairs[index][0] for index in train_on]
    found = copies(paths, of=[of.pairs[index][0] for index in held_out])
    reasons = {path: f"the same as {other}, which is held out" for path, other in found.items()}
    folder.leave_out(reasons, what="images that are validated with or held out")
    if len(found) == len(paths):
        raise ValueError(f"expected images to train on; all {len(paths)} are validated with or held out: add others")
    return [index for index, path in zip(train_on, paths, strict=True) if path not in found]


def initialize(flow: ImageModel, batches: CropBatches, *, bins: int) -> None:
    """Data-dependent start from the whole first batch, the same in all processes."""
    first = batches.whole()[0].to(flow.device)
    flow.initialize(dequantize(first, bins=bins), first.lr)


def build_trainer(flow: ImageModel, recipe: Recipe, run: Run, *, fabric: "Fabric") -> Trainer:
    """The trainer with the networks that the recipe's losses need; raises OutOfMemoryError for steps too large."""
    set_memory(flow, run.memory)
    if run.channels_last:
        flow.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = critic = None
    if recipe.perceptual:
        features = VGGFeatures(run.vgg).to(fabric.device, flow.dtype)
    if recipe.gan:
        critic = Discriminator(recipe.crop, image_channels=flow.config.image_channels).to(flow.dtype)
    require_memory(
        flow,
        (recipe.crop, recipe.crop),
        batch=recipe.batch_size // (run.accumulate * fabric.world_size),
        task="train",
        passes=recipe.held_passes,
        what="a training step",
        instead='take a smaller crop or batch_size, more accumulate, or memory="checkpoint" (--memory checkpoint)',
    )
    objective = Objective(flow, recipe, features=features, critic=critic)
    return Trainer(fabric, objective, run, critic=critic)


def go_on(
    trainer: Trainer, checkpoints: CheckpointFolder, batches: CropBatches, about: dict[str, Any], out: Path
) -> None:
    """Go on from the newest checkpoint that is whole and has weights to go on from; says what is not as it was.

    Raises:
        CheckpointError: if there is none, or it belongs to another architecture.
    """

    def fault(state: dict[str, Any]) -> str:
        _check_architecture(state["about"], about, out)
        trainer.restore(state)
        lost = "the checkpoint of step {step} has weights past help, with which no loss is finite"
        return "" if _is_sound(trainer, batches) else lost.format(step=trainer.step)

    found = checkpoints.read_last(fault=fault)
    if found is not None:
        _say_differences(found[1]["about"], about, step=found[0])


def _is_sound(trainer: Trainer, batches: CropBatches) -> bool:
    """Whether weights just restored are worth going on from; one batch that is not finite may be to blame itself."""
    parts, before = batches.accumulate, random_state()
    for step in range(trainer.step, trainer.step + _BATCHES_TO_JUDGE_BY):
        micro = [trainer.place(batches[number]) for number in range(step * parts, (step + 1) * parts)]
        set_random_state(before)  # a degradation may draw from the global one, against the rules
        if trainer.is_sound(micro):
            return True
    return False


def _check_architecture(before: dict[str, Any], about: dict[str, Any], out: Path) -> None:
    if before["config"] == about["config"]:
        return
    ours, theirs = about["config"], before["config"]
    differ = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    differences = ", ".join(f"{name} {theirs.get(name)} for {ours.get(name)}" for name in differ)
    raise CheckpointError(
        f"expected checkpoints of the model to be trained; those in {out} are of another architecture, with "
        f"{differences}: give the model that the run was begun with, or another folder"
    )


def _say_differences(before: dict[str, Any], about: dict[str, Any], *, step: int) -> None:
    """Warn of all that a run is given now and was not given before, or the other way round."""
    if before.get("data") != about["data"]:
        _warn(step, "other data than before", another=True)
    for name, words in {
        "recipe": "another recipe",
        "choice of crops": "another choice of crops",
        "settings": "other settings",
    }.items():
        changed = _changes({**_IMPLIED.get(name, {}), **before.get(name, {})}, about[name])
        for another in (True, False):
            found = [text for field, text in changed.items() if (field not in WITHOUT_EFFECT) == another]
            if found:
                _warn(step, f"{words} than before ({', '.join(found)})", another=another)


def _warn(step: int, difference: str, *, another: bool) -> None:
    result = "the run goes on, but as another run" if another else "its weights do not depend on that"
    warnings.warn(f"resuming at step {step} with {difference}: {result}", stacklevel=4)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """``steps 30 → 40`` for what is not the same, by name; earlier versions did not say all, so only what they did."""
    return {name: f"{name} {value} → {now.get(name)}" for name, value in before.items() if value != now.get(name)}
