"""Randomness that belongs to a sample, not to a process: the n-th crop of a run and its noise follow from (seed, n).

A resumed run, a run with other worker processes, and a run spread over many processes then see the same crops and the
same noise, and nothing about the position in the data needs saving except the step.
"""

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def derive_seed(*keys: int) -> int:
    """A seed from integers, well mixed (the splitmix64 finalizer over each), in [0, 2^63).

    Example:
        >>> derive_seed(0, 1) != derive_seed(1, 0)
        True
    """
    state = 0
    for key in keys:
        state = (state ^ (key & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state >> 1


def sample_generators(seeds: Tensor, *, stream: int, device: torch.device) -> list[torch.Generator]:
    """One generator for each sample of a batch, different for each stream."""
    return [torch.Generator(device).manual_seed(derive_seed(seed, stream)) for seed in seeds.tolist()]
