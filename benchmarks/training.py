"""The yardstick: the authors' own code on the same work, and this package beside it.

``python -m benchmarks.training --data BSDS500 --set5 SET5`` trains ``sr-x4-small`` with the settings that the
authors' program was run with, scores Set5 at the same steps, and prints both. Conventions: images cropped from the top
left to multiples of 16; LR = bicubic rounded to 8 bits; encoded LR-PSNR = clamp(encode(hr).lr), not rounded (for
rescaling rounded to 8 bits), against it, no border; bits/dim with D = C·H·W, uniform noise of width 1/256, LR term with
σ = e^-6 included; PSNR of RGB (rescaling: of Y), border 4, rounded to 8 bits.
"""

import argparse
import csv
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from flowsr._support.json import write_json
from flowsr.training.data import ImageFolder
from flowsr.training.fit import Trained, train
from flowsr.training.journal import read_csv
from flowsr.training.recipes import Recipe, recipe
from flowsr.training.settings import Data, Run, parse_fields
from flowsr.training.sources import find_images
from flowsr.training.validation import NUMBERS, ImageScores, score_images, summarize

COLUMNS = ("bits_per_dim", "encoded_lr_psnr", "psnr_mean", "psnr_draw")
RESCALING_COLUMNS = ("psnr_y_draw", "encoded_lr_psnr", "psnr_y_mean")

_SR = dict.fromkeys(("sr-x4-small", "sr-x4-small-v1"), "bicubic: 26.66 dB")
BICUBIC = {**_SR, "rescaling-x4-small": "bicubic: 28.43 dB (Y)"}

_WIDTH = 17


def authors(model: str, steps: int) -> dict[int, dict[str, float]]:
    """What the authors' program reached on Set5, by step: the rows of ``authors.csv`` of one run.

    Args:
        model: sr-x4-small-v1, the network that the program had, or rescaling-x4-small; of others nothing is known.
        steps: length of the cosine schedule.

    Example:
        >>> authors("sr-x4-small-v1", 6000)[6000]["bits_per_dim"]
        4.64
    """
    text = Path(__file__).with_name("authors.csv").read_text(encoding="utf-8")
    asked = (model, steps)
    rows = [row for row in csv.DictReader(text.splitlines()) if (row["model"], int(row["schedule"])) == asked]
    columns = {*COLUMNS, *RESCALING_COLUMNS}
    return {int(row["step"]): {name: float(row[name]) for name in columns if row[name]} for row in rows}


def yardstick(model: str, steps: int, **changes: Any) -> Recipe:
    """The settings of the yardstick: batches of 8 crops of 64x64, Adam 5e-4 (0.9, 0.99), cosine to 1e-5, clip 5/100.

    Example:
        >>> yardstick("sr-x4-small", 1500).batch_size
        8
    """
    settings: dict[str, Any] = {
        "steps": steps,
        "batch_size": 8,
        "crop": 64,
        "learning_rate": 5e-4,
        "halve_at": (),
        "cosine_to": 1e-5,
    }
    return recipe("rescaling" if model.startswith("rescaling") else "nll", **{**settings, **changes})


def table(model: str, steps: int, rows: list[dict[str, float]]) -> str:
    """The authors' figures beside ours, step by step, as text.

    Args:
        model: sr-x4-small or rescaling-x4-small.
        steps: length of the schedule.
        rows: rows of ``validation.csv``.
    """
    columns = RESCALING_COLUMNS if model.startswith("rescaling") else COLUMNS
    theirs = authors(model, steps)
    ours = {int(row["step"]): row for row in rows}
    extra = ("bits_per_dim_median", "bits_per_dim_worst") if columns is COLUMNS else ("encoded_lr_psnr_median",)
    head = f"{'step':>6} |" + "".join(f"{'authors ' + name:>25}" for name in columns)
    head += " |" + "".join(f"{'ours ' + name:>29}" for name in (*columns, *extra))
    lines = [head]
    for step in sorted(set(theirs) | set(ours)):
        left, right = (
            [f"{rows[step][name]:.2f}" if name in rows.get(step, {}) else "-" for name in names]
            for rows, names in ((theirs, columns), (ours, (*columns, *extra)))
        )
        lines.append(f"{step:>6} |" + "".join(f"{x:>25}" for x in left) + " |" + "".join(f"{x:>29}" for x in right))
    return "\n".join([*lines, BICUBIC.get(model, "")])


def per_image(scores: list[ImageScores]) -> str:
    """Every image's scores, with means and medians, as text."""
    summary = summarize(scores)
    names = [name for name in NUMBERS if name in summary]
    lines = [f"{'image':<24}" + "".join(f"{name:>{_WIDTH}}" for name in names)]
    lines += [f"{s.name:<24}" + "".join(f"{getattr(s, name):>{_WIDTH}.2f}" for name in names) for s in scores]
    lines.append(f"{'mean':<24}" + "".join(f"{summary[name]:>{_WIDTH}.2f}" for name in names))
    lines.append(f"{'median':<24}" + "".join(f"{summary[f'{name}_median']:>{_WIDTH}.2f}" for name in names))
    return "\n".join(lines)


def set5_files(folder: Path) -> list[Path]:
    """The HR images of a folder that may hold LR images beside them, told apart by ``HR`` in their names."""
    files = find_images(folder)
    return [path for path in files if "HR" in path.stem] or files


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, score, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--data", required=True, nargs="+", help="folders of training images (BSDS500 train and test)")
    parser.add_argument("--set5", required=True, type=Path, help="folder of test images")
    parser.add_argument("--model", default="sr-x4-small", choices=sorted(BICUBIC))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--start", choices=["haar", "rotation"], default="haar")
    parser.add_argument("--scales", type=float, nargs="*", default=[1.0], help="shrink images by these factors")
    parser.add_argument("--grain", type=float, default=0.0, help="most grey levels of noise on crops")
    parser.add_argument("--hold-out", type=int, default=8, help="training images kept out, to see over-fitting")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="fields of the recipe to change")
    parser.add_argument("--at", type=int, nargs="*", default=[100, 250, 300, 500, 750, 1000, 1500, 3000, 4500, 6000])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/benchmark"))
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    files = set5_files(options.set5)
    trained = train(
        options.model,
        Data(
            folders=options.data,
            validation=list(files),
            hold_out=options.hold_out,
            scales=tuple(options.scales),
            grain=options.grain,
        ),
        out=options.out,
        recipe=yardstick(options.model, options.steps, **parse_fields(options.set)),
        run=Run(
            seed=options.seed,
            precision=options.precision,
            channels_last=options.channels_last,
            validate_every=0,
            validate_at=tuple(options.at),
            checkpoint_every=250,
        ),
        start=options.start,
        resume=options.resume,
    )
    if trained.interrupted:
        return 128 + trained.interrupted
    report(trained, options.model, options.steps, files, options)
    return 0


def report(trained: Trained, model: str, steps: int, files: list[Path], options: argparse.Namespace) -> None:
    """Print the tables, and write them as ``benchmark.json``."""
    temperature = 1.0 if model.startswith("rescaling") else 0.9
    images = ImageFolder([*files], minimum=16)
    named = [(images.pairs[i][0].name, images[i][0].float().div(255.0)) for i in range(len(images))]
    scores = score_images(trained.flow, named, temperature=temperature)
    rows = read_csv(trained.out / "validation.csv")
    print(table(model, steps, rows), "\n\nSet5 at the end:", per_image(scores), sep="\n")
    facts: dict[str, Any] = {"settings": vars(options), "rows": rows, "set5": [asdict(score) for score in scores]}
    if options.hold_out:
        folder = ImageFolder(options.data, minimum=64)
        held_out = folder.split(options.hold_out, seed=options.seed)[1]
        named = [(folder.pairs[i][0].name, folder[i][0].float().div(255.0)) for i in held_out]
        others = score_images(trained.flow, named, temperature=temperature)
        print("\nTraining images held out, at the end:", per_image(others), sep="\n")
        facts["held_out"] = [asdict(score) for score in others]
    write_json(trained.out / "benchmark.json", facts)


if __name__ == "__main__":
    sys.exit(main())
