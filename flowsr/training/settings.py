"""Where the images are and how a run is carried out; and recipes with fields changed by texts, as commands get them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from flowsr.models import ImageModel
from flowsr.training.data import Degradation, Folder
from flowsr.training.recipes import RECIPES, Recipe, check_recipe, default_recipe, recipe
from flowsr.transforms.reversible import MEMORY_MODES, Memory

Precision = Literal["fp32", "bf16"]
Value = float | int | bool | str | tuple[float, ...] | None

_MAY_BE_NONE = ("cosine_to", "clip_value", "clip_norm", "lr_log_scale_start")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images to train on and to validate with.

    Args:
        folders: one folder of HR images or several; sub-folders are searched where a folder has no images itself.
        lr_folders: folders of paired LR images; by default LR is made by bicubic downscaling, rounded to 8 bits.
        validation: folder of validation images, or files, whose LR images are bicubic; by default those held out, with
            their paired LR images if they have any.
        hold_out: how many images of the training folders, drawn with the run's seed, not to train on.
        scales: factors in (0, 1], one drawn for each crop, by which an image is shrunk first.
        grain: most grey levels of noise that crops get, at least 0, see :class:`flowsr.training.crops.CropBatches`.
        degradation: how LR is made instead of by bicubic downscaling.
        workers: processes that prepare batches; 0 prepares them in the training process.
        cache_bytes: memory for decoded images.
        strict: stop at an image that cannot be used, instead of leaving it out.
    """

    folders: Folder | Sequence[Folder]
    lr_folders: Folder | Sequence[Folder] | None = None
    validation: Folder | Sequence[Folder] | None = None
    hold_out: int = 0
    scales: tuple[float, ...] = (1.0,)
    grain: float = 0.0
    degradation: Degradation | None = None
    workers: int = 0
    cache_bytes: int = 2**31
    strict: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"expected workers >= 0; got {self.workers}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def choice_of_crops(self, seed: int) -> dict[str, Any]:
        """What, beside the images and the recipe, decides which crops a step sees; JSON-ready."""
        return {"seed": seed, "hold_out": self.hold_out, "scales": list(self.scales), "grain": self.grain}


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run is carried out.

    Args:
        seed: of weights, crops and noise.
        accelerator: cpu, gpu or cuda, which are the same, or auto for a GPU where there is one.
        devices: how many per machine; under torchrun its number of processes counts.
        precision: fp32, or bf16 for autocast of the conditioners (the bijection stays in fp32).
        channels_last: keep convolution weights and images in channels-last order, faster for bf16.
        accumulate: micro-batches per step.
        memory: activation memory, see :func:`flowsr.training.wrapper.set_memory`.
        checkpoint_every: steps between checkpoints.
        keep: checkpoints kept, at least 2.
        validate_every: steps between validations; 0 for none but the last.
        validate_at: further steps to validate at.
        validation_images: at most this many.
        log_every: steps per row of the log.
        patience: steps in a row that may be not finite before the run is stopped.
        vgg: file with VGG19's weights for the perceptual loss; torchvision's by default.
        tensorboard: write TensorBoard logs too; needs ``pip install 'flowsr[tensorboard]'``.
        progress: show a progress bar.
        pictures: write grids of validation images, and the curve at the end.

    Raises:
        ValueError: for values out of range.
    """

    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    precision: Precision = "fp32"
    channels_last: bool = False
    accumulate: int = 1
    memory: Memory = "full"
    checkpoint_every: int = 500
    keep: int = 2
    validate_every: int = 1000
    validate_at: tuple[int, ...] = ()
    validation_images: int = 16
    log_every: int = 10
    patience: int = 50
    vgg: str | None = None
    tensorboard: bool = False
    progress: bool = True
    pictures: bool = True

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu", "cuda"):
            raise ValueError(f"expected accelerator auto, cpu, gpu or cuda; got {self.accelerator!r}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"expected precision fp32 or bf16; got {self.precision!r}")
        if self.memory not in MEMORY_MODES:
            raise ValueError(f"expected memory full, checkpoint or reversible; got {self.memory!r}")
        for name, least in (("accumulate", 1), ("checkpoint_every", 1), ("log_every", 1), ("validate_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least}; got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def settings_of(data: Data, run: Run, *, start: str) -> dict[str, Any]:
    """All that a run is given but recipe and choice of crops, JSON-ready, for one that goes on to compare.

    What is shown while it runs is nothing that another run could have.

    Example:
        >>> settings_of(Data(folders="photographs"), Run(accumulate=2), start="haar")["accumulate"]
        2
    """
    found = {"start": start, **run.to_dict(), **data.to_dict()}
    return {name: value for name, value in found.items() if name not in (*data.choice_of_crops(run.seed), "progress")}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    # Not an address, which is another one in each process.
    named = value if hasattr(value, "__qualname__") else type(value) if " object at 0x" in repr(value) else None
    return str(value) if named is None else f"{named.__module__}.{named.__qualname__}"


# Not pydantic or cattrs: neither takes 1e3 for a whole number, "none", or a tuple without brackets from a command line,
# and their messages, translated into these, would be as long as this.
def parse_fields(texts: list[str]) -> dict[str, Any]:
    """Fields of a recipe from texts such as ``steps=100``.

    Raises:
        ValueError: for a text without ``=``, or nothing on one side of it.

    Example:
        >>> parse_fields(["steps=100", "cosine_to=1e-5"])
        {'steps': 100, 'cosine_to': 1e-05}
    """
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise ValueError(f"expected NAME=VALUE, without blanks around =; got {text!r}")
    return {name: parse_field(value) for name, value in (text.split("=", 1) for text in texts)}


def parse_field(text: str) -> Value:
    """A field's value from the command line: a number, true, false, none, a comma-separated tuple, or text.

    Example:
        >>> parse_field("1e-5"), parse_field("none"), parse_field("0.5,0.9")
        (1e-05, None, (0.5, 0.9))
    """
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    if "," in text or text == "()":
        return tuple(float(part) for part in text.strip("()").split(",") if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def recipe_from_texts(name: str | None, texts: list[str], *, flow: ImageModel, before: Recipe | None = None) -> Recipe:
    """The recipe of a name, or the first of the model's task, with fields changed by texts.

    Args:
        name: of a published recipe; by default that of ``before``, or the first for the model.
        texts: the changes, such as ``steps=100``.
        flow: the model.
        before: the recipe of a run to go on with, whose own changes to its published recipe are kept.

    Raises:
        ValueError: for an unknown recipe or field, one that is not for the model, or a value of the wrong kind.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> recipe_from_texts(None, ["steps=1e3", "halve_at=0.5"], flow=flow).halve_at
        (0.5,)
        >>> before = flowsr.training.recipe("nll", steps=30, batch_size=4)
        >>> again = recipe_from_texts(None, ["batch_size=8"], flow=flow, before=before)
        >>> again.steps, again.batch_size
        (30, 8)
    """
    start = _start(name, flow=flow, before=before)
    # Not the kind of what ``start`` has, which may be 1 for 1.0.
    kinds = RECIPES["nll"]
    changes = {
        field: _fitting(field, value, getattr(kinds, field, value)) for field, value in parse_fields(texts).items()
    }
    found = start.with_changes(**changes)
    check_recipe(found, flow)
    return found


def _start(name: str | None, *, flow: ImageModel, before: Recipe | None) -> Recipe:
    """What the texts change: a published recipe, or the one before, whose changes another published one inherits."""
    if before is None:
        return recipe(name or default_recipe(flow), flow=flow)
    if name in (None, before.name):
        return before
    published = recipe(before.name, flow=flow).to_dict() if before.name in RECIPES else {}
    changed = {field: value for field, value in before.to_dict().items() if published.get(field, value) != value}
    return recipe(name, flow=flow, **changed)


def _fitting(field: str, value: Value, published: Value) -> Value:
    """The value as the kind of the published one: whole numbers from ``1e3``, tuples from single numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(published, bool | str):
        kind, good = ("true or false", isinstance(value, bool))
        if isinstance(published, str):
            kind, good = "a word", isinstance(value, str)
    elif isinstance(published, tuple):
        kind, good = "numbers with commas between", isinstance(value, tuple) or number
        value = (float(value),) if number else value  # type: ignore[arg-type]
    elif isinstance(published, int):
        kind, good = "a whole number", number and float(value) == int(value)  # type: ignore[arg-type]
        value = int(value) if good else value  # type: ignore[arg-type]
    else:
        kind, good = "a number", number or (value is None and field in _MAY_BE_NONE)
    if not good:
        raise ValueError(f"expected {kind} for {field}; got {value!r}")
    return value
