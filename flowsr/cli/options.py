"""Options that every command shares, so that they have one name, one help and one meaning."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """The precisions a model can be run in."""

    float32 = "float32"
    float64 = "float64"


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; created if missing.", file_okay=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of all randomness: same seed, same files.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, …; auto takes an accelerator if any.")]
Precision = Annotated[Dtype, typer.Option("--dtype", help="Precision of the computation.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON, and nothing else, on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors (and JSON, if asked for).")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")]
Inputs = Annotated[list[Path], typer.Argument(help="Images, or folders of images (png, jpg, tif).", metavar="IMAGE")]
Model = Annotated[
    str,
    typer.Argument(help="A .safetensors file, an official .pth, or a preset's name.", metavar="MODEL"),
]
ScoredModel = Annotated[
    str,
    typer.Option("--model", "-m", help="A .safetensors file, an official .pth, or a preset's name."),
]
GivenLR = Annotated[
    Path | None,
    typer.Option("--lr", help="LR images with the same names.", show_default="bicubic of the HR images, 8 bits"),
]
