"""The wheels that a machine without a network lacks: ``python -m benchmarks.wheels FOLDER``, or ``make wheels``.

A machine with a GPU is taken to have torch, torchvision, lightning and scikit-image, with what those need. All else
that flowsr and its tests need is downloaded, in the versions installed here; there, what is missing is installed.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PRESENT = ("torch", "torchvision", "lightning", "scikit-image", "setuptools", "pip")
_FOR_TESTS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema")
_ROOT = Path(__file__).resolve().parents[1]
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")


def closure(names: Iterable[str]) -> dict[str, str]:
    """Distributions installed here that some need, they themselves among them, with their versions.

    Example:
        >>> "pyro-api" in closure(["pyro-ppl"])
        True
    """
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = [_normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or not _is_installed(name):
            continue
        found[name] = distribution(name).version
        needs = [Requirement(text) for text in distribution(name).requires or []]
        waiting += [_normal(need.name) for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def lacking() -> dict[str, str]:
    """What flowsr and the tests need beyond what a machine with a GPU is taken to have, with versions."""
    from packaging.requirements import Requirement

    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = closure([*(Requirement(text).name for text in project["dependencies"]), *_FOR_TESTS])
    present = closure(PRESENT)
    return {name: version for name, version in sorted(needed.items()) if name not in present}


def collect(folder: Path, *, python: str) -> None:
    """Download the wheels that are lacking, for a version of Python on Linux.

    Raises:
        CalledProcessError: if pip cannot get one of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}=={version}" for name, version in lacking().items()]
    platforms = [argument for name in _PLATFORMS for argument in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, *platforms, "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *options, *wanted], check=True)


def install(folder: Path, target: Path) -> list[str]:
    """Install those wheels of a folder whose distributions are missing here into another folder; returns their names.

    Raises:
        FileNotFoundError: if the folder has no wheels.
        CalledProcessError: if pip refuses one.
    """
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise FileNotFoundError(f"expected wheels in {folder}; found none: make them with `make wheels`")
    missing = [path for path in wheels if not _is_installed(_normal(path.name.split("-")[0]))]
    if missing:
        options = ["--quiet", "--no-deps", "--no-index", "--upgrade", "--target", str(target)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, missing)], check=True)
    return [path.name.split("-")[0] for path in missing]


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Collect the wheels and say how large they are; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wheels", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to put the wheels")
    parser.add_argument("--python", default="3.12", help="the version of Python they are for")
    options = parser.parse_args(arguments)
    collect(options.folder, python=options.python)
    files = sorted(options.folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{len(files)} wheels for Python {options.python}, {size:.0f} MB, in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
