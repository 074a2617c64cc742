"""The package as its users get it: ``python -m benchmarks.package FOLDER``, or ``make package``.

Builds the wheel and the sdist, checks what an index would show of them, installs the wheel into an empty environment
outside the repository, runs the demo there, and says how large all is and how long it took.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_MB = {".whl": 25.0, ".gz": 25.0}
"""What a wheel and an sdist may measure."""
_ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path) -> list[Path]:
    """The wheel and the sdist, new, in a folder, by what is installed here: nothing is downloaded.

    Raises:
        CalledProcessError: if one cannot be built.
    """
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder.resolve()), cwd=_ROOT)
    return sorted([*folder.glob("flowsr-*.whl"), *folder.glob("flowsr-*.tar.gz")])


def check(files: list[Path]) -> None:
    """Refuse what an index would refuse, or could not show, and what is too large.

    Raises:
        CalledProcessError: if twine finds a fault.
        ValueError: for a file above :data:`MOST_MB`.
    """
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    for path in files:
        if megabytes(path) > MOST_MB[path.suffix]:
            raise ValueError(f"expected at most {MOST_MB[path.suffix]} MB; got {path.name} of {megabytes(path):.1f} MB")


def install(wheel: Path, folder: Path) -> Path:
    """An empty environment with the wheel and what it requires, from the index; returns its folder of programs."""
    venv.create(folder, with_pip=True)
    programs = next(path for path in (folder / "bin", folder / "Scripts") if path.is_dir())
    run(str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel.resolve()))
    return programs


def run(*command: str, cwd: Path | None = None) -> None:
    """A program in a folder, without the modules of this repository on its path.

    Raises:
        CalledProcessError: if it fails; what it said has been shown.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, cwd=cwd, env=environment, check=True)


def megabytes(path: Path) -> float:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files) / 1e6


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Build, check, install and try the package; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.package", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to put the wheel and the sdist")
    parser.add_argument("--no-install", action="store_true", help="build and check only")
    options = parser.parse_args(arguments)
    with _timed("built"):
        files = build(options.folder)
    check(files)
    for path in files:
        print(f"{path.name}: {megabytes(path):.1f} MB")
    if options.no_install:
        return 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with _timed("installed"):
            programs = install(next(path for path in files if path.suffix == ".whl"), place / "environment")
        print(f"environment: {megabytes(place / 'environment'):.0f} MB", flush=True)
        with _timed("demo"):
            run(str(programs / "flowsr"), "demo", "--out", "demo", cwd=place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
