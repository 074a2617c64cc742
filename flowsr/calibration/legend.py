"""What the names of test functions mean, in one line for tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

_MEANINGS = {
    r"projection": "projection: inner product with a fixed random direction",
    r"^band": "band: log energy of the details of one scale",
    r"^patch": "patch: mean of the cell in this row and column of a grid",
    r"^along LR": "along LR: inner product with the enlarged LR image, or with its slope along x or y",
    r"^distance to the reference": "reference: the enlarged LR image with the details of another pair",
    r"^z_\d": "z_1: latents of the finest level",
    r"^lr ": "lr: the flow's LR image minus the given one, in units of σ",
    r" norm$": "norm: length of the vector of all latents of the level",
}


def legend(names: Iterable[str]) -> str:
    """One line that explains the names that the package gives; names of others explain themselves.

    Example:
        >>> legend(["band 0, finest", "band 1, coarsest", "mine"])
        'band: log energy of the details of one scale'
    """
    names = list(names)
    return "; ".join(text for pattern, text in _MEANINGS.items() if any(re.search(pattern, name) for name in names))
