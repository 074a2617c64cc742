"""Where the images are and how a run is carried out: everything that is not the recipe."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from flowsr.training.degradation import Degradation
from flowsr.training.folder import Folder
from flowsr.transforms._reversible import MEMORY_MODES, Memory

Precision = Literal["fp32", "bf16"]


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
        return {"seed": seed, "hold_out": self.hold_out, "scales": list(self.scales)}


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
        memory: activation memory, see :func:`flowsr.training.memory.set_memory`.
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


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else str(value)
