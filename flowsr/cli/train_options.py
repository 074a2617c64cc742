"""The options of ``flowsr train``: what is trained on, how it is computed, how the run is recorded, and its dry run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flowsr.cli.complete import complete_accelerator, complete_field, complete_recipe
from flowsr.cli.layout import COMPUTATION, DATA, DRY_RUN, RECORD, one_of


class Memory(StrEnum):
    """How activations are kept."""

    full = "full"
    checkpoint = "checkpoint"
    reversible = "reversible"


class Autocast(StrEnum):
    """The precisions of training."""

    fp32 = "fp32"
    bf16 = "bf16"


class Start(StrEnum):
    """The random weights of a preset."""

    haar = "haar"
    rotation = "rotation"


Folders = Annotated[list[Path], typer.Argument(help="Folders of HR images.", metavar="FOLDER")]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        autocompletion=complete_recipe,
        help="nll, nll+l1, nll+l1+perceptual+gan or rescaling.",
        show_default="rescaling for such a model, else nll",
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        autocompletion=complete_field,
        help="Field of the recipe to change: steps=1500. Repeatable.",
    ),
]
StartOf = Annotated[
    Start | None,
    typer.Option(
        "--start",
        metavar="START",
        help=f"Random weights of a preset of HCFlow: {one_of(Start)}.",
        show_default="haar",
    ),
]
Pretrained = Annotated[
    bool, typer.Option("--pretrained", help="Go on from the shipped or released weights of the preset.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last good checkpoint in --out, with its recipe.")
]
LRFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--lr-folder",
        metavar="FOLDER",
        help="LR images paired by name, one folder per HR folder.",
        show_default="bicubic",
        rich_help_panel=DATA,
    ),
]
Validation = Annotated[
    list[Path] | None,
    typer.Option(
        "--validation",
        metavar="FOLDER",
        help="Folder of validation images.",
        show_default="those held out",
        rich_help_panel=DATA,
    ),
]
HoldOut = Annotated[
    int,
    typer.Option(
        "--hold-out",
        min=0,
        metavar="INT",
        help="Training images, drawn at random, not to train on.",
        rich_help_panel=DATA,
    ),
]
Scales = Annotated[
    str,
    typer.Option(
        "--scales",
        metavar="LIST",
        help="Shrink each crop's image by one of these first: 1,0.7,0.5.",
        rich_help_panel=DATA,
    ),
]
Grain = Annotated[
    float,
    typer.Option(
        "--grain",
        min=0.0,
        metavar="FLOAT",
        help="Most grey levels of noise that crops get: 6.",
        rich_help_panel=DATA,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be used.", rich_help_panel=DATA)]
Accelerator = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        autocompletion=complete_accelerator,
        help="auto, cpu, gpu or cuda.",
        rich_help_panel=COMPUTATION,
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        metavar="INT",
        help="How many; under torchrun its processes count.",
        rich_help_panel=COMPUTATION,
    ),
]
TrainPrecision = Annotated[
    Autocast,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help=f"{one_of(Autocast)}; bf16 is for the conditioners only.",
        rich_help_panel=COMPUTATION,
    ),
]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Faster with bf16.", rich_help_panel=COMPUTATION)]
MemoryMode = Annotated[
    Memory,
    typer.Option(
        "--memory",
        metavar="MODE",
        help=f"How activations are kept, for less memory and more time: {one_of(Memory)}.",
        rich_help_panel=COMPUTATION,
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        "--accumulate",
        min=1,
        metavar="INT",
        help="Parts that each batch is made in.",
        rich_help_panel=COMPUTATION,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="INT", help="CPU threads.", rich_help_panel=COMPUTATION),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        metavar="INT",
        help="Processes that prepare batches.",
        rich_help_panel=COMPUTATION,
    ),
]
VGG = Annotated[
    Path | None,
    typer.Option(
        "--vgg",
        metavar="FILE",
        help="File with torchvision's VGG19 weights, for perceptual losses.",
        show_default="torchvision's cache",
        rich_help_panel=COMPUTATION,
    ),
]
CheckpointEvery = Annotated[
    int,
    typer.Option("--checkpoint-every", min=1, metavar="INT", help="Steps between checkpoints.", rich_help_panel=RECORD),
]
ValidateEvery = Annotated[
    int,
    typer.Option(
        "--validate-every",
        min=0,
        metavar="INT",
        help="Steps between validations; 0: at the end only.",
        rich_help_panel=RECORD,
    ),
]
LogEvery = Annotated[
    int,
    typer.Option("--log-every", min=1, metavar="INT", help="Steps per row of train.csv.", rich_help_panel=RECORD),
]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write TensorBoard logs too (an extra).", rich_help_panel=RECORD),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Time a few steps, say what the run would take, and write nothing.",
        rich_help_panel=DRY_RUN,
    ),
]
Processes = Annotated[
    str | None,
    typer.Option(
        "--processes",
        metavar="LIST",
        help="Numbers of processes to plan for, with commas between.",
        show_default="1,8,64",
        rich_help_panel=DRY_RUN,
    ),
]
Efficiency = Annotated[
    float | None,
    typer.Option(
        "--efficiency",
        metavar="NUMBER",
        help="What several processes reach, as a part of ideal scaling.",
        show_default="0.9",
        rich_help_panel=DRY_RUN,
    ),
]
StepSeconds = Annotated[
    float | None,
    typer.Option(
        "--step-seconds",
        metavar="NUMBER",
        help="Seconds of a step of the whole batch on one process.",
        show_default="measured",
        rich_help_panel=DRY_RUN,
    ),
]
