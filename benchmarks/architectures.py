"""Which architecture has the best likelihood for its budget: ``python -m benchmarks.architectures --data … --set5 …``.

Every option is trained for the same process time with the same images and seed, and scored on Set5 and on images held
out. How many steps there is time for is measured first, as the schedule must end with the time. Each run that has ended
is kept, so that the same command goes on where it was stopped. Conventions of bits/dim: ``benchmarks.training``.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import machine
from benchmarks.training import set5_files, yardstick
from benchmarks.transformers import with_transformers
from flowsr._support.atomic import atomic_path
from flowsr._support.json import write_json
from flowsr.distributions import VariationalDequantizer
from flowsr.evaluation.cards import seeded_bits
from flowsr.images import crop_pair, make_lr, round_to_8bit, write_image
from flowsr.likelihood import decompose, fit_dequantizer
from flowsr.metrics import psnr
from flowsr.models import HCFlow
from flowsr.results import text_table
from flowsr.training.crops import CropBatches
from flowsr.training.data import ImageFolder
from flowsr.training.fit import train
from flowsr.training.settings import Data, Run

Facts = dict[str, Any]

CSV = Path(__file__).with_suffix(".csv")
"""The figures that the documentation shows: one row for each run."""

BASE: dict[str, Any] = {
    "steps": 16,
    "conditional_steps": 12,
    "hidden_channels": 48,
    "conditional_hidden_channels": 48,
    "features": 16,
    "growth": 8,
    "head": "gaussian",
}
"""The configuration that every option changes."""

_LEARNING: dict[str, Any] = {"l1": 100.0, "separate": False}
_MULTIPLE, _WARMUP = 16, 50


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is changed of the base.

    Attributes:
        question: what it is an answer to.
        model: fields of the configuration.
        recipe: fields of the recipe.
        grain: most grey levels of noise on crops.
        dequantizer_steps: of training a variational dequantizer on the finished model, beyond the time of the others.
        transformer: width and layers of transformers as conditioners of the conditional steps.
        scored: side of the crops to score, each an image of its own; None for whole images.
    """

    question: str
    model: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    grain: float = 0.0
    dequantizer_steps: int = 0
    transformer: tuple[int, int] | None = None
    scored: int | None = None

    @property
    def change(self) -> str:
        """What is changed, in words."""
        changes = {**self.model, **self.recipe}
        changes |= {"grain": self.grain} if self.grain else {}
        changes |= {"transformer": " x ".join(map(str, self.transformer))} if self.transformer else {}
        changes |= {"dequantizer steps": self.dequantizer_steps} if self.dequantizer_steps else {}
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changes.items()) or "none"


def _both(width: int) -> dict[str, int]:
    return {"hidden_channels": width, "conditional_hidden_channels": width}


_SMALL_CROPS: dict[str, Any] = {"crop": 32, "batch_size": 32}

OPTIONS: dict[str, Option] = {
    "base": Option(question="base"),
    "sinh-arcsinh": Option(question="head", model={"head": "sinh-arcsinh"}),
    "grain": Option(question="data", grain=6.0),
    "sinh-arcsinh, grain": Option(question="head and data", model={"head": "sinh-arcsinh"}, grain=6.0),
    "former": Option(
        question="share of the encoders",
        model={"steps": 8, "conditional_steps": 4, **_both(32), "features": 32, "growth": 16},
    ),
    "larger encoders": Option(question="share of the encoders", model={**_both(32), "features": 24, "growth": 12}),
    "deeper": Option(question="depth against width", model={"steps": 24, "conditional_steps": 18, **_both(32)}),
    "wider": Option(question="depth against width", model={"steps": 12, "conditional_steps": 9, **_both(64)}),
    "8 of 16": Option(question="share of conditional steps", model={"conditional_steps": 8}),
    "14 of 16": Option(question="share of conditional steps", model={"conditional_steps": 14}),
    "learned prior": Option(question="base distribution", model={"prior": "learned"}),
    "spline": Option(question="coupling", model={"coupling": "spline", "spline_bins": 4, **_both(24)}),
    "mixture head": Option(question="head", model={"head": "logistic-mixture"}),
    "mixture coupling": Option(
        question="coupling", model={"coupling": "logistic-mixture", "mixture_components": 4, **_both(18)}
    ),
    "rate 1e-3": Option(question="learning rate", recipe={"learning_rate": 1e-3}),
    "batch 4": Option(question="batch", recipe={"batch_size": 4}),
    "EMA 0.99": Option(question="average of the weights", recipe={"ema": 0.99}),
    "dequantizer": Option(question="dequantization", dequantizer_steps=60),
    "base, 32x32": Option(question="transformer", recipe=_SMALL_CROPS, scored=32),
    "transformer, 32x32": Option(question="transformer", recipe=_SMALL_CROPS, transformer=(48, 1), scored=32),
}
"""The options by name."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all options share.

    Attributes:
        data: folders of training images.
        set5: folder of test images.
        seconds: of process time for the training of each.
        seed: of weights, crops and noise.
        hold_out: how many training images are kept to be scored.
        trial: steps by which the time of one is measured.
        batch: crops in a step.
        crop: their side in pixels.
    """

    data: Sequence[Path]
    set5: Path
    seconds: float
    seed: int = 0
    hold_out: int = 16
    trial: int = 10
    batch: int = 8
    crop: int = 64


def run_option(option: Option, work: Work) -> Facts:
    """Train one option for the time there is, and score it.

    Returns:
        Steps, parameters, seconds and figures, as they are kept.
    """
    steps = max(1, int(work.seconds / seconds_per_step(option, work)))
    flow, stamps = trained(option, work, steps)
    noise, more = _dequantizer(option, work, flow)
    flow.eval()
    others = _images(ImageFolder(split(work)[1], minimum=_MULTIPLE), option.scored)
    test = _images(ImageFolder(set5_files(work.set5), minimum=_MULTIPLE), option.scored)
    fidelity = [_fidelity(flow, image) for image in test]
    return {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "steps": steps,
        "seconds": (stamps[-1] - stamps[0]) * steps / max(1, steps - 1),
        "more_seconds": more,
        "set5_bits": [bits_of(flow, image, noise) for image in test],
        "set5_psnr": [mean for mean, _ in fidelity],
        "set5_lr_psnr": [own for _, own in fidelity],
        "held_out_bits": [bits_of(flow, image, noise) for image in others],
    }


def seconds_per_step(option: Option, work: Work) -> float:
    """Process time of a step: the least of some, as what else the machine does only ever adds to it."""
    stamps = trained(option, work, work.trial + 1)[1]
    return min(after - before for before, after in pairwise(stamps))


def trained(option: Option, work: Work, steps: int) -> tuple[HCFlow, list[float]]:
    """A model after this many steps, and the process time at which each step had its gradients."""
    flow, stamps = start(option, work), list[float]()
    # Neither loading, nor the start from data, nor the validation at the end is time of training.
    level: Any = flow.transform.conditionals[0]
    level.head.conditioner.weight.register_post_accumulate_grad_hook(lambda _: stamps.append(time.process_time()))
    settings = {"batch_size": work.batch, "crop": work.crop, **_LEARNING, "warmup": min(_WARMUP, steps // 2)}
    recipe = yardstick("sr-x4-small", steps, **{**settings, **option.recipe})
    run = Run(
        seed=work.seed,
        accelerator="cpu",
        precision="bf16",
        channels_last=True,
        validate_every=0,
        checkpoint_every=steps,
        progress=False,
        pictures=False,
    )
    with TemporaryDirectory() as folder:
        # Whatever it is: a run validates at its end, and this costs next to nothing.
        write_image(small := Path(folder) / "small.png", torch.zeros(3, _MULTIPLE, _MULTIPLE))
        data = Data(folders=split(work)[0], validation=small, scales=(1.0, 0.75, 0.5), grain=option.grain)
        done = train(flow, data, out=Path(folder) / "run", recipe=recipe, run=run)
    if done.interrupted:
        sys.exit(128 + done.interrupted)
    return flow, stamps[:steps]  # a run judges its last checkpoint by gradients too


def start(option: Option, work: Work) -> HCFlow:
    """The option's model before training."""
    torch.manual_seed(work.seed)
    flow = HCFlow.from_preset("sr-x4-small", start="haar", **{**BASE, **option.model})
    if option.transformer is None:
        return flow
    width, layers = option.transformer
    return with_transformers(flow, width=width, layers=layers)


def _dequantizer(option: Option, work: Work, flow: HCFlow) -> tuple[VariationalDequantizer | None, float]:
    """The noise fitted to a finished model, on crops of its training images, and the seconds that it took."""
    if not option.dequantizer_steps:
        return None, 0.0
    folder = ImageFolder(split(work)[0], minimum=work.crop)
    crops = CropBatches(folder, range(len(folder)), crop=work.crop, upscale=4, batch_size=work.batch, seed=work.seed)
    begin = time.process_time()
    pairs = [(batch.hr, batch.lr) for batch in (crops[n] for n in range(option.dequantizer_steps))]
    noise = VariationalDequantizer(3)
    fit_dequantizer(noise, flow.eval(), pairs, steps=option.dequantizer_steps)
    return noise, time.process_time() - begin


def split(work: Work) -> tuple[list[Path], list[Path]]:
    """The files to train on, and those held out, which are the same for every seed."""
    folder = ImageFolder(work.data, minimum=work.crop)
    parts = folder.split(work.hold_out, seed=0)
    return [folder.pairs[i][0] for i in parts[0]], [folder.pairs[i][0] for i in parts[1]]


def _images(folder: ImageFolder, side: int | None = None) -> list[Tensor]:
    """Images in [0, 1], or of each the squares of this side that it has on a grid of three by three."""
    whole = [folder[i][0].float().div(255.0) for i in range(len(folder))]
    return whole if side is None else [crop for image in whole for crop in _grid(image, side)]


def _grid(image: Tensor, side: int) -> list[Tensor]:
    top, left = (sorted({(size - side) * i // 2 for i in range(3)}) for size in image.shape[-2:])
    return [image[:, y : y + side, x : x + side] for y in top for x in left]


@torch.no_grad()
def _fidelity(flow: HCFlow, image: Tensor) -> tuple[float, float]:
    """PSNR of the decoding at τ = 0, and of the flow's own LR image."""
    hr, lr = _pair(flow, image)
    mean, own = round_to_8bit(flow.decode(lr)), flow.encode(hr).lr.clamp(0, 1)
    return float(psnr(mean, hr, border=flow.upscale)), float(psnr(own, lr, border=0))


def _pair(flow: HCFlow, image: Tensor) -> tuple[Tensor, Tensor]:
    hr = crop_pair(image, None, upscale=flow.upscale, multiple=_MULTIPLE)[0]
    return hr, make_lr(hr, flow.upscale)


@torch.no_grad()
def bits_of(flow: HCFlow, image: Tensor, dequantizer: VariationalDequantizer | None = None) -> float:
    """Bits per dimension of an 8-bit image ``(C, H, W)``: with uniform noise, or a bound with that of a dequantizer."""
    hr, lr = _pair(flow, image)
    if dequantizer is None:
        return float(seeded_bits(flow, hr, lr, seed=0, lr_log_scale=None).figure)
    generator = torch.Generator().manual_seed(0)
    return float(decompose(flow, hr, lr, dequantizer=dequantizer, generator=generator).bits_per_dim)


def kept(name: str, work: Work, folder: Path) -> Facts:
    """The facts of an option's run: of its file, if it has ended before, else of a run that is made now.

    Raises:
        ValueError: if the file is of another option under that name, or of other work.
    """
    option = OPTIONS[name]
    path = folder / f"{name} {work.seed}.json"
    about = {"option": asdict(option), "work": {key: str(value) for key, value in asdict(work).items()}}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["about"] != json.loads(json.dumps(about)):
            raise ValueError(f"expected runs of the same options and work in {folder}; got {path.name}: take another")
        return dict(known)
    facts = {"name": name, "seed": work.seed, "machine": machine("cpu"), "about": about, **run_option(option, work)}
    write_json(path, facts)
    return facts


def row_of(facts: Facts) -> dict[str, str]:
    """A run as a row of :data:`CSV`."""
    option, where = OPTIONS[facts["name"]], facts["machine"]
    return {
        "option": facts["name"],
        "question": option.question,
        "change": option.change,
        "seed": str(facts["seed"]),
        "parameters": str(facts["parameters"]),
        "steps": str(facts["steps"]),
        "seconds": f"{facts['seconds'] + facts['more_seconds']:.0f}",
        "set5": f"{fmean(facts['set5_bits']):.3f}",
        "set5_worst": f"{max(facts['set5_bits']):.2f}",
        "held_out": f"{fmean(facts['held_out_bits']):.3f}",
        "psnr": f"{fmean(facts['set5_psnr']):.2f}",
        "lr_psnr": f"{fmean(facts['set5_lr_psnr']):.2f}",
        "machine": f"{where['cpu']}, {where['threads']} thread, torch {where['torch']}, bf16",
    }


def write_csv(rows: list[dict[str, str]], path: Path) -> None:
    """The rows as a file; those of other options that stand there already stay."""
    old = read_csv(path) if path.exists() else []
    new = {(row["option"], row["seed"]) for row in rows}
    rows = [row for row in old if (row["option"], row["seed"]) not in new] + rows
    order = list(OPTIONS)
    rows.sort(key=lambda row: (order.index(row["option"]), int(row["seed"])))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path = CSV) -> list[dict[str, str]]:
    """The rows of a file that :func:`write_csv` wrote."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


_HEAD = ("option", "change", "params", "steps", "s", "seeds", "Set5", "worst", "held out", "dB τ=0", "LR dB")


def table(rows: list[dict[str, str]]) -> str:
    """The options with means over their seeds, and the standard deviation over seeds where there are several.

    Example:
        >>> about = {"option": "base", "change": "none", "parameters": "900000", "steps": "9", "seconds": "100"}
        >>> figures = {"set5": "4.0", "set5_worst": "6.0", "held_out": "3.3", "psnr": "26.7", "lr_psnr": "47"}
        >>> print(table([{**about, **figures, "seed": "0"}]))
        option  change  params  steps    s  seeds   Set5  worst  held out  dB τ=0  LR dB
        base      none   0.90M      9  100      1  4.000   6.00     3.300   26.70  47.00
    """
    of = {row["option"]: [other for other in rows if other["option"] == row["option"]] for row in rows}
    return text_table(_HEAD, [_cells(found) for found in of.values()])


def _cells(runs: list[dict[str, str]]) -> tuple[str, ...]:
    first = runs[0]

    def mean(name: str, digits: int) -> str:
        values = [float(run[name]) for run in runs]
        spread = f" ±{stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{fmean(values):.{digits}f}{spread}"

    size = f"{float(first['parameters']) / 1e6:.2f}M"
    work = [f"{fmean(float(run[name]) for run in runs):.0f}" for name in ("steps", "seconds")]
    figures = [("set5", 3), ("set5_worst", 2), ("held_out", 3), ("psnr", 2), ("lr_psnr", 2)]
    named = (first["option"], first["change"], size, *work, str(len(runs)))
    return (*named, *(mean(name, digits) for name, digits in figures))


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for and not kept yet; print the table of all, and write it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="folders of training images")
    parser.add_argument("--set5", required=True, type=Path, help="folder of test images")
    parser.add_argument("--seconds", type=float, default=100.0, help="process time for the training of each option")
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--hold-out", type=int, default=16, help="training images kept out and scored")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--trial", type=int, default=10, help="steps to measure the speed with")
    parser.add_argument("--out", type=Path, default=Path("out/architectures"), help="where runs are kept")
    parser.add_argument("--csv", type=Path, default=CSV, help="table of runs, to which these are added")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shared = {name: getattr(asked, name) for name in ("data", "set5", "seconds", "hold_out", "trial", "batch", "crop")}
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for name in asked.only:
            row = row_of(kept(name, Work(**shared, seed=seed), asked.out))
            write_csv([row], asked.csv)
            print(table([row]), flush=True)
    print(table(read_csv(asked.csv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
