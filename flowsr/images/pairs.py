"""Which file belongs to which: HR and LR images paired by their names."""

import re
from collections.abc import Sequence
from pathlib import Path

_ENDING = re.compile(r"(x2|x4|x8|x16|[_-]?(lr|hr)|_srf_[248]|[_-])$", re.IGNORECASE)


def pair_by_name(files: Sequence[Path], others: Sequence[Path], *, kind: str) -> dict[Path, Path]:
    """For each file the other one of the same name, up to endings of either such as ``x4``, ``_LR``, ``_HR``.

    A name that is the same as it stands goes before one that is the same without endings. One file and one other make
    a pair whatever their names.

    Cost: looks at names only.

    Args:
        files: what others are looked for.
        others: where they are looked for.
        kind: what the others are, "HR" or "LR", for the message.

    Raises:
        ValueError: if some file has no other, or several.

    Example:
        >>> pair_by_name([Path("lr/babyx4.png")], [Path("hr/baby.png"), Path("hr/bird.png")], kind="HR")
        {PosixPath('lr/babyx4.png'): PosixPath('hr/baby.png')}
    """
    if len(files) == len(others) == 1:
        return {files[0]: others[0]}
    exact: dict[str, list[Path]] = {}
    bare: dict[str, list[Path]] = {}
    for path in others:
        exact.setdefault(path.stem, []).append(path)
        bare.setdefault(_bare(path.stem), []).append(path)
    pairs = {}
    for path in files:
        found = exact.get(path.stem) or bare.get(_bare(path.stem), [])
        if len(found) != 1:
            got = f"several: {', '.join(sorted(str(other) for other in found))}" if found else "none"
            where = f" in {others[0].parent}" if others and not found else ""
            raise ValueError(
                f"expected one {kind} image named like {path.name}, up to endings such as x4, _LR and _HR; "
                f"got {got}{where}: rename it, or take it out"
            )
        pairs[path] = found[0]
    return pairs


def _bare(stem: str) -> str:
    """A name without the endings that benchmarks put on LR and HR files."""
    while (shorter := _ENDING.sub("", stem)) not in ("", stem):
        stem = shorter
    return stem
