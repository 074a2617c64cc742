"""How much memory there is for this process, by the system, a container, the shell or an accelerator; freed memory."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowsr.errors import quoted

if TYPE_CHECKING:
    import torch

_CGROUPS = (
    ("", "memory.max", "memory.current", "memory.stat"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"),
)
"""For each version of control groups: under which folder, and in which files, limits, use and statistics stand."""
_TRIM_THRESHOLD = -1  # of glibc's malloc.h, as the next
_MMAP_THRESHOLD = -3


def free_memory(device: torch.device | str = "cpu") -> int | None:
    """The bytes that can still be allocated on a device; None where nothing tells.

    On a CPU it is the least of what the system has, with swap, what the control groups of the process leave it
    (containers, clusters), and what ``ulimit -v`` leaves it. Processes that torchrun started beside this one, of which
    it tells in LOCAL_WORLD_SIZE, get as much of the first two each.

    Example:
        >>> free = free_memory()
        >>> free is None or free > 0
        True
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type != "cpu" or sys.platform != "linux":
        return None
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")
    shared = [free // max(1, int(count) if count.isdigit() else 1) for free in (*_of_system(), *_of_control_groups())]
    told = [*shared, *_of_limits()]
    return max(0, min(told)) if told else None


def used_memory(device: torch.device | str = "cpu") -> int:
    """The bytes that this process has taken on a device: of a CPU, what of it is resident; 0 where nothing tells.

    Example:
        >>> used_memory() >= 0
        True
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    pages = _lines(Path("/proc/self/statm"))
    return int(pages[0].split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory in place of giving it back to the system; whether it could be told so.

    A flow makes and frees tensors of megabytes at every layer. By default glibc returns such memory to the system at
    once, and gets it back page by page: up to a fifth of the time of a decoding on a CPU, as ``python -m
    benchmarks.bench decode-2x20`` shows without and with ``--give-memory-back``. The price is that the process holds
    the most memory that it ever needed until it ends. That is for a program to choose, not for a library, so only the
    command ``flowsr`` does it.
    """
    return _options(mmap_threshold=2**25, trim_threshold=2**31 - 1)


def bound_freed_memory() -> bool:
    """Let glibc give every megabyte that is freed back to the system at once; whether it could be told so.

    Kept memory lies in pieces, of which the next layer may find none that suits it: a quarter more than is in use, and
    more on one machine than on another. A process that shall keep to a stated amount cannot afford that, and takes a
    quarter longer instead.
    """
    return _options(mmap_threshold=2**20, trim_threshold=2**20)


def _options(*, mmap_threshold: int, trim_threshold: int) -> bool:
    mallopt = _of_c_library("mallopt")
    return mallopt is not None and bool(
        mallopt(_MMAP_THRESHOLD, mmap_threshold) and mallopt(_TRIM_THRESHOLD, trim_threshold)
    )


def give_back_freed_memory() -> None:
    """Let the C library give the system what was freed and kept, where it can: between two works that take much."""
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of Linux's C library; not every one has it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def parse_memory(text: str) -> int:
    """The bytes of a text such as ``2GiB``, ``1.5 GB`` or ``800M``; a bare number is bytes.

    Raises:
        ValueError: for another text, or less than a megabyte.

    Example:
        >>> parse_memory("2GiB"), parse_memory("1.5 gb"), parse_memory("800M")
        (2147483648, 1500000000, 800000000)
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    size = 0.0 if found is None else float(found[1])
    if found is not None and found[2]:
        size *= (1024 if found[3] else 1000) ** (1 + "kmgt".index(found[2]))
    if not 1e6 <= size < 1e18:
        raise ValueError(f"expected an amount of memory from 1MB on, such as 2GiB or 800MB; got '{quoted(text)}'")
    return int(size)


def memory_text(size: float) -> str:
    """Bytes for people, in powers of 1000.

    Example:
        >>> memory_text(12_345_678_901), memory_text(345_678)
        ('12.3 GB', '0.3 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _of_system() -> Iterator[int]:
    found = _fields(Path("/proc/meminfo"))
    if "MemAvailable:" in found:
        yield 1024 * (found["MemAvailable:"] + found.get("SwapFree:", 0))


def _of_control_groups() -> Iterator[int]:
    """What each group that the process is in, and those around it, leave; page cache is given back when needed."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, own = line.split(":", 2)
        for folder, limit, use, statistics in _CGROUPS:
            if folder not in controllers.split(","):
                continue
            root = Path("/sys/fs/cgroup", folder)
            place = root / own.lstrip("/")
            for group in (place, *place.parents):
                most, used = (_number(group / name) for name in (limit, use))
                if most is not None and used is not None:
                    yield most - used + _fields(group / statistics).get("inactive_file", 0)
                if group == root:
                    break


def _of_limits() -> Iterator[int]:
    import resource  # not on every system

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _lines(Path("/proc/self/statm"))
    if most != resource.RLIM_INFINITY and pages:
        yield most - int(pages[0].split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, as for no limit."""
    found = _lines(path)
    return int(found[0]) if found and found[0].isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """The numbers behind the names in a file."""
    words = (line.split() for line in _lines(path))
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}
