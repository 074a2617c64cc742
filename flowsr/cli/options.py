"""What commands share: options with one name, one help and one meaning, and the model, device and dtype they name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowsr._support.free_memory import bound_freed_memory, parse_memory
from flowsr._support.temperatures import DRAW_TEMPERATURE, MODEL_TEMPERATURE, RESTORE_TEMPERATURE
from flowsr.cli.complete import complete_device, complete_model
from flowsr.cli.layout import COMPUTATION, OUTPUT, one_of

if TYPE_CHECKING:
    import torch

    from flowsr.models import ImageModel


class Dtype(StrEnum):
    """The precisions a model can be run in."""

    float32 = "float32"
    float64 = "float64"


OUT_HELP = "Folder for the results; created if missing."
MODEL_HELP = "A .safetensors file, an official .pth, or a preset's name."
TEMPERATURE_HELP = "τ ≥ 0 of the latents; 1 is the model, 0 no noise."


def _check_seed(seed: int) -> int:
    if seed >= 2**63:
        raise typer.BadParameter(f"expected a seed below 2^63; got {seed}")
    return seed


Out = Annotated[
    Path,
    typer.Option("--out", "-o", help=OUT_HELP, metavar="FOLDER", file_okay=False, rich_help_panel=OUTPUT),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        callback=_check_seed,
        help="Of all randomness: same seed, same files.",
        metavar="INT",
        rich_help_panel=COMPUTATION,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1, …; auto takes an accelerator if any.",
        metavar="DEVICE",
        autocompletion=complete_device,
        rich_help_panel=COMPUTATION,
    ),
]
Precision = Annotated[
    Dtype,
    typer.Option(
        "--dtype",
        help=f"Precision of the computation: {one_of(Dtype)}.",
        metavar="DTYPE",
        rich_help_panel=COMPUTATION,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the results as JSON, and nothing else, on stdout.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing but errors (and JSON, if asked for).", rich_help_panel=OUTPUT),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.", rich_help_panel=OUTPUT)]
Inputs = Annotated[list[Path], typer.Argument(help="Images, or folders of images (png, jpg, tif).", metavar="IMAGE")]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        help="What the process may take in all, such as 2GiB: larger images are worked on in tiles.",
        metavar="BYTES",
        rich_help_panel=COMPUTATION,
        show_default="three quarters of what is free",
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help=MODEL_HELP, metavar="MODEL", autocompletion=complete_model),
]
SR_MODEL = "sr-x4-small"
"""The model of commands that are not told one, as it comes with the package."""
RESCALING_MODEL = "rescaling-x4-small"
"""The same where images are made small and brought back."""
GivenLR = Annotated[
    Path | None,
    typer.Option(
        "--lr",
        help="LR image, or a folder of them with the same names.",
        metavar="PATH",
        show_default="bicubic of the HR images, 8 bits",
    ),
]
DrawsPerImage = Annotated[
    int,
    typer.Option(
        "--num-samples", "-n", min=1, metavar="INT", help="Draws per image and τ > 0; two or more give diversity."
    ),
]
_TEMPERATURES = (
    f"{RESTORE_TEMPERATURE:g} and {DRAW_TEMPERATURE:g}; rescaling: {RESTORE_TEMPERATURE:g} and {MODEL_TEMPERATURE:g}"
)
MeasuredTemperatures = Annotated[
    list[float] | None,
    typer.Option(
        "--temperature",
        "-t",
        help=f"{TEMPERATURE_HELP} Repeatable.",
        metavar="NUMBER",
        show_default=_TEMPERATURES,
    ),
]
CropToMultiple = Annotated[
    int | None,
    typer.Option(
        "--crop-to-multiple",
        min=1,
        metavar="INT",
        help="Sides of the HR images are cropped to multiples of this.",
        show_default="16, or what the model needs",
    ),
]


def bound_memory(text: str | None) -> int | None:
    """The bytes that --max-memory says, or None without it; where it says any, what is freed is kept no longer.

    Raises:
        ValueError: for something that is no amount of memory.
    """
    if text is None:
        return None
    try:
        most = parse_memory(text)
    except ValueError as error:
        raise ValueError(f"--max-memory: {error}") from None
    bound_freed_memory()
    return most


_WITHOUT_FLOAT64 = ("mps",)


def open_model(name: str, *, device: str = "cpu", dtype: str = "float32") -> ImageModel:
    """A model for use: a file, shipped weights or released ones by their preset's name, on a device, in a dtype.

    Raises:
        ValueError: if the device or the dtype does not exist, or the weights are not usable.
        OSError: if there is neither a file nor a name like that, or released weights cannot be fetched.
    """
    import torch

    from flowsr.models import load

    return load(name, device=resolve_device(device)).to(getattr(torch, dtype))


def resolve_device(name: str) -> torch.device:
    """A torch device that works here, from its name or "auto".

    Raises:
        ValueError: if torch does not know it, the machine does not have it, or it lacks float64.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return torch.device("cpu") if found is None or found.type in _WITHOUT_FLOAT64 else found
    kind = name.split(":")[0]
    if kind in _WITHOUT_FLOAT64:
        raise ValueError(f"expected a device with float64, which determinants are computed in; got {name!r}: use cpu")
    if kind == "meta":
        raise ValueError(f"expected a device that computes, such as cpu; got {name!r}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"expected a device of this machine, such as cpu, or auto; got {name!r}") from error
    return device
