"""The run manifest: what was run, with which versions, on which data; enough to run it again."""

import json
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flowsr.training.recipes import Recipe

MANIFEST = "run.json"
"""Its name in the folder of a run."""

_PACKAGES = ("flowsr", "torch", "pyro-ppl", "lightning", "numpy", "pillow")


def manifest(**facts: Any) -> dict[str, Any]:
    """Facts of a run together with the versions, the platform, the command and the time.

    Example:
        >>> manifest(seed=3)["seed"]
        3
    """
    return {
        **facts,
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def recorded_recipe(out: Path) -> Recipe | None:
    """The recipe of the run in a folder, or None where no run was begun.

    Raises:
        ValueError: if ``run.json`` cannot be read.
    """
    path = out / MANIFEST
    if not path.exists():
        return None
    try:
        return Recipe.from_dict(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"expected the recipe of a run in {path}; it cannot be read: {error!r}") from error


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
