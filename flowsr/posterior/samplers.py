"""Chains as one batch: one decode and one gradient for all of them, warmed up by what all have seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.kernels import ChainKernel
from flowsr.posterior.target import LogLikelihood, Target, in_parts


class EnoughDraws(Exception):
    """Raised by a callback after a draw to end the sampling with the draws there are, as when a budget is spent."""


@dataclass
class ChainRun:
    """What a run of chains leaves.

    Attributes:
        draws: latents u ``(chains, draws, dims)`` on the CPU.
        acceptance: mean acceptance probability of each chain after the warm-up.
        divergences: draws after the warm-up on whose way the energy of a trajectory rose by 1000 nats.
        seconds: wall time of "warmup" and "sampling".
        evaluations: of the likelihood of one chain, warm-up included.
    """

    draws: Tensor
    acceptance: tuple[float, ...]
    divergences: int
    seconds: dict[str, float]
    evaluations: int


def sample_chains(
    log_likelihood: LogLikelihood,
    starts: Tensor,
    kernel: ChainKernel,
    *,
    num_samples: int,
    num_warmup: int,
    seed: int,
    coordinates: Coordinates | None = None,
    refit: Callable[[Tensor], Coordinates] | None = None,
    batch: int | None = None,
    on_draw: Callable[[], None] | None = None,
) -> ChainRun:
    """Run all chains together: warm up, adapting to what all of them have seen, then draw.

    While warming up in standard coordinates, the kernels with gradients rescale each latent by its standard deviation
    over all chains, at a third and at two thirds of the warm-up; given coordinates stay, or are fitted anew then.

    Cost: ``(num_warmup + num_samples)·num_steps`` proposals of all chains.

    Args:
        log_likelihood: of latents ``(n, dims)``, which have the prior N(0, I).
        starts: u of each chain, ``(chains, dims)``.
        kernel: which is adapted in place.
        num_samples: draws per chain to keep.
        num_warmup: draws per chain to drop.
        seed: of all randomness.
        coordinates: in which the kernel moves; those of the prior by default.
        refit: new coordinates from where the chains are while warming up, ``(chains, dims)``; none by default.
        batch: most chains to evaluate together; all by default.
        on_draw: called after each draw of all chains; after the warm-up it may raise ``EnoughDraws``.

    Returns:
        The draws and how the kernel fared.

    Raises:
        ValueError: if a chain starts where the likelihood is not finite.

    Example:
        >>> from flowsr.posterior.kernels import HMC
        >>> run = sample_chains(lambda u: -u.square().sum(-1), torch.randn(4, 2), HMC(), num_samples=50, num_warmup=50,
        ...     seed=1)
        >>> run.draws.shape, len(run.acceptance)
        (torch.Size([4, 50, 2]), 4)
    """
    check_starts(log_likelihood, starts, batch=batch)
    generator = torch.Generator(starts.device).manual_seed(seed)
    fixed = refit is None and (coordinates is not None or not kernel.has_slope)
    target = Target(log_likelihood, coordinates or Coordinates.standard(starts[0]), batch=batch)
    state = kernel.begin(target, target.coordinates.from_latents(starts))
    advance = on_draw or (lambda: None)
    begin = time.perf_counter()
    windows = _windows(num_warmup, fixed)
    seen: list[Tensor] = []
    if num_warmup:
        kernel.restart(target, state, generator)
    for number in range(1, num_warmup + 1):
        for _ in range(kernel.num_steps):
            state = kernel.step(target, state, generator, warming=True).state
        seen.append(state.position)
        if number in windows:
            u = target.coordinates.to_latents(state.position)
            latest = torch.stack(seen[len(seen) // 2 :])
            target.coordinates = refit(u) if refit else _rescaled(target.coordinates, latest)
            state = kernel.begin(target, target.coordinates.from_latents(u))
            kernel.restart(target, state, generator)
            seen.clear()
        advance()
    kernel.end_warmup()
    middle = time.perf_counter()
    draws, probabilities, divergences = [], torch.zeros(len(starts), dtype=torch.float64, device="cpu"), 0
    for _ in range(num_samples):
        diverged = torch.zeros(len(starts), dtype=torch.bool, device="cpu")
        for _ in range(kernel.num_steps):
            move = kernel.step(target, state, generator, warming=False)
            state = move.state
            probabilities += move.probability.cpu()
            diverged |= move.diverged.cpu()
        divergences += int(diverged.sum())
        draws.append(target.coordinates.to_latents(state.position).cpu())
        try:
            advance()
        except EnoughDraws:
            break
    seconds = {"warmup": middle - begin, "sampling": time.perf_counter() - middle}
    acceptance = tuple((probabilities / (len(draws) * kernel.num_steps)).tolist())
    return ChainRun(torch.stack(draws, 1), acceptance, divergences, seconds, target.evaluations)


@torch.no_grad()
def check_starts(log_likelihood: LogLikelihood, starts: Tensor, *, batch: int | None = None) -> None:
    """Raise ValueError unless the likelihood is finite where each chain starts, ``(chains, dims)``."""
    values = in_parts(log_likelihood, starts, batch)
    for number, value in enumerate(values.tolist(), start=1):
        if not math.isfinite(value):
            raise ValueError(
                f"expected a finite likelihood where chain {number} starts; got {value}: look for a division by zero "
                "or the logarithm of a negative value in the operator, or give another start"
            )


def _windows(num_warmup: int, fixed: bool) -> tuple[int, ...]:
    """After which draws of the warm-up to rescale; not in a warm-up too short to find the step size again."""
    return () if fixed or num_warmup < 60 else (num_warmup // 3, 2 * num_warmup // 3)


def _rescaled(old: Coordinates, seen: Tensor) -> Coordinates:
    """Scaled by what was seen ``(draws, chains, dims)``, its logarithm shrunk towards the prior's scale."""
    seen = seen.flatten(0, 1)
    return Coordinates(old.mean, (old.scale * seen.std(0)) ** (len(seen) / (len(seen) + 5)))
