"""What some minutes of training reach: ``python -m benchmarks.timed_training --seconds 300 --device cuda``.

``sr-x4-small`` is trained from random weights on the photographs of ``flowsr demo``, and scored on one that it has not
seen. How many steps there is time for is measured first, as the schedule must end with the time. Conventions: those of
``python -m benchmarks.training``.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.training import yardstick
from flowsr._support.json import write_json
from flowsr.images import write_image
from flowsr.training import Data, Recipe, Run, train
from flowsr.training.journal import label_of, read_csv
from flowsr.training.validation import NUMBERS
from flowsr.workflows.demo import training_photographs, unseen_photograph

_SHARE = 0.9
"""Of the time left that the steps shall take; validation, checkpoints and their judging take the rest."""


def photographs(folder: Path, *, largest: int | None = None) -> Data:
    """The photographs of the demonstration as folders, and one to validate with, of which ``largest`` pixels a side."""
    for part in ("training", "validation"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, image in training_photographs().items():
        write_image(folder / "training" / f"{name}.png", image, overwrite=True)
    write_image(folder / "validation" / "unseen.png", unseen_photograph(multiple=16, largest=largest), overwrite=True)
    return Data(folders=folder / "training", validation=folder / "validation", scales=(1.0, 0.75, 0.5))


def recipe_for(steps: int, *, batch_size: int, crop: int) -> Recipe:
    """The yardstick's settings, with what made the difference there: L1 at τ = 0 from the start, and a warm-up."""
    settings: dict[str, Any] = {"l1": 100.0, "separate": False, "warmup": min(50, steps // 2)}
    return yardstick("sr-x4-small", steps, batch_size=batch_size, crop=crop, **settings)


def seconds_per_step(data: Data, run: Run, *, steps: int, **settings: Any) -> float:
    """How long a step takes after the first ones, from the log of a short run."""
    data = replace(data, validation=None)
    with TemporaryDirectory() as folder:
        train("sr-x4-small", data, out=Path(folder), recipe=recipe_for(steps, **settings), run=run)
        rows = read_csv(Path(folder) / "train.csv")
    return settings["batch_size"] / rows[-1]["images_per_second"]


def main(arguments: list[str] | None = None) -> int:
    """Measure, train, score, write ``training.json``; the exit code is 1 if steps were not finite."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timed_training", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for all of it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=Path("out/timed"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--trial", type=int, default=30, help="steps to measure the speed with")
    parser.add_argument("--largest", type=int, help="pixels a side of the photograph to validate with")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    data = photographs(options.out / "photographs", largest=options.largest)
    settings = {"batch_size": options.batch, "crop": options.crop}
    quiet: dict[str, Any] = {"accelerator": options.device, "precision": options.precision, "validate_every": 0}
    log_every = max(1, options.trial // 3)
    trial = Run(**quiet, progress=False, pictures=False, log_every=log_every)
    each = seconds_per_step(data, trial, steps=options.trial, **settings)
    steps = max(options.trial, int(_SHARE * (options.seconds - (time.perf_counter() - begin)) / each))
    print(f"{each:.4f} s a step: {steps} steps", flush=True)
    run = Run(**quiet, log_every=max(1, steps // 50), checkpoint_every=steps)
    trained = train("sr-x4-small", data, out=options.out / "run", recipe=recipe_for(steps, **settings), run=run)
    facts = {
        "seconds": time.perf_counter() - begin,
        "seconds_per_step": each,
        "steps": trained.step,
        "skipped": trained.skipped,
        "stopped_by_signal": trained.interrupted,
        **{name: getattr(options, name) for name in ("device", "batch", "crop", "precision")},
        "validation": trained.validation,
    }
    write_json(options.out / "training.json", facts)
    known = trained.validation
    found = ", ".join(f"{label_of(name)} {known[name]:.3f}" for name in NUMBERS if name in known)
    print(f"{trained.step} steps of sr-x4-small in {facts['seconds']:.0f} s reached {found}", flush=True)
    return int(trained.skipped > 0 or not trained.validation)


if __name__ == "__main__":
    sys.exit(main())
