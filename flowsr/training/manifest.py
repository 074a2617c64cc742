"""The run manifest: what was run, with which versions, on which data; enough to run it again."""

import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
