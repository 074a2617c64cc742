"""How a command keeps memory: freed activations stay with the process, so that the next layer need not ask again."""

import ctypes
import sys

_TRIM_THRESHOLD = -1  # of glibc's malloc.h, as the next
_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory in place of giving it back to the system; whether it could be told so.

    A flow makes and frees tensors of megabytes at every layer. By default glibc returns such memory to the system at
    once, and gets it back page by page: up to a sixth of the time of a decoding on a CPU, as
    ``python -m flowsr.models.speed sr-x4-small --size 40`` shows with and without. The price is that the process holds
    the most memory that it ever needed until it ends. That is for a program to choose, not for a library, so only the
    command ``flowsr`` does it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is None:
        return False
    largest = 2**31 - 1
    return bool(mallopt(_MMAP_THRESHOLD, 2**25) and mallopt(_TRIM_THRESHOLD, largest))
