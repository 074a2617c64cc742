"""Run the fuzzers: ``python -m benchmarks.fuzz [PART ...] --seconds 60 --seed 0``.

Each part runs for the stated time and prints how many attempts met which end; the exit status is 1 if one met an end
that must not be (``--keep FOLDER`` writes what those were made with).
"""

import argparse
from pathlib import Path

from benchmarks.fuzz import downloads, images, kills, models, names, official

PARTS = {
    "downloads": downloads.run,
    "images": images.run,
    "kills": kills.run,
    "models": models.run,
    "names": names.run,
    "official": official.run,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them if none is named")
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for what met an end that must not be")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    raise SystemExit(max(_report(part, options) for part in options.parts or PARTS))


def _report(part: str, options: argparse.Namespace) -> int:
    trial = PARTS[part](seconds=options.seconds, seed=options.seed)
    print(f"{part}: {trial}", flush=True)
    for end, name, _ in trial.failures:
        print(f"  {end}: {name}")
    if options.keep:
        trial.keep(options.keep / part)
    return bool(trial.failures)


if __name__ == "__main__":
    main()
