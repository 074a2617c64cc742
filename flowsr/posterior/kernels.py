"""Kernels that move all chains at once and leave their target invariant: pCN, MALA, and HMC with tuned trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowsr.posterior.target import Target

_DIVERGED = 1000.0  # nats of energy gained along a trajectory, as in Stan and Pyro
_MOST_LEAPFROG_STEPS = 1024
_MOST_DOUBLINGS = 40
_LEAST_ACCEPT = 1e-3  # of a chain in the harmonic mean, which one stuck chain would take to zero


@dataclass
class State:
    """Where the chains are: positions ``(chains, dims)``, energies ``(chains,)``, slopes where the kernel has any."""

    position: Tensor
    energy: Tensor
    slope: Tensor | None = None

    def take(self, other: State, accepted: Tensor) -> State:
        """The other's chains where accepted, else these."""
        position = torch.where(accepted[:, None], other.position, self.position)
        slope = self.slope
        if slope is not None and other.slope is not None:
            slope = torch.where(accepted[:, None], other.slope, slope)
        return State(position, torch.where(accepted, other.energy, self.energy), slope)


class ChainKernel:
    """A step of all chains that leaves the target invariant: propose, then accept chain by chain.

    A subclass defines :meth:`propose`. The step size is one for all chains, and adapted while warming up so that the
    mean acceptance of the chains is ``target_accept``; of HMC and MALA their harmonic mean, which leaves no chain
    behind in a tail where the slope is too steep for the others' steps.

    Args:
        step_size: to start from, > 0.
        target_accept: acceptance probability to adapt the step size to, in (0, 1); by default ``usual_accept``.
        num_steps: proposals per draw, at least 1: thinning that costs no memory.

    Attributes:
        usual_accept: the acceptance probability at which the kernel is known to do best.
        largest_step: of the step size, if it has a bound.

    Raises:
        ValueError: for numbers out of range.

    References:
        Hoffman and Sountsov, Tuning-free generalized Hamiltonian Monte Carlo (AISTATS 2022), section 3, for step sizes
        adapted by Adam over all chains.
    """

    usual_accept: ClassVar[float]
    largest_step: ClassVar[float] = math.inf
    has_slope: ClassVar[bool] = True
    harmonic: ClassVar[bool] = False

    def __init__(self, *, step_size: float = 0.1, target_accept: float | None = None, num_steps: int = 1) -> None:
        if not (math.isfinite(step_size) and 0 < step_size <= self.largest_step):
            raise ValueError(f"expected a step_size in (0, {self.largest_step:g}]; got {step_size}")
        target_accept = self.usual_accept if target_accept is None else target_accept
        if not 0 < target_accept < 1:
            raise ValueError(f"expected target_accept in (0, 1); got {target_accept}")
        if num_steps < 1:
            raise ValueError(f"expected num_steps >= 1; got {num_steps}")
        self._step, self.target_accept, self.num_steps = _Tuned(step_size, rate=0.05), target_accept, num_steps

    @property
    def step_size(self) -> float:
        """ε, of HMC and MALA in units of the coordinates; β of pCN."""
        return self._step.value

    def restart(self, target: Target, state: State, generator: torch.Generator) -> None:
        """Find a step size of the right order by doubling or halving, and adapt anew from there.

        At the start and after a change of coordinates; about ten short proposals.
        """
        size, rises = self.step_size, None
        for _ in range(_MOST_DOUBLINGS):
            self._step = _Tuned(min(size, self.largest_step), rate=0.05)
            accepts = float(self.short(target, state, generator).clamp(max=0.0).exp().nan_to_num(0.0).mean()) > 0.5
            if rises is None:
                rises = accepts
            if accepts != rises or (rises and size >= self.largest_step):
                return
            size = size * 2 if rises else size / 2

    def short(self, target: Target, state: State, generator: torch.Generator) -> Tensor:
        """The log acceptance ratio of the cheapest proposal there is."""
        return self.propose(target, state, generator)[1]

    def begin(self, target: Target, position: Tensor) -> State:
        """The state of chains at positions ``(chains, dims)``."""
        if self.has_slope:
            return State(position, *target.slope(position))
        return State(position, target.energy(position))

    def propose(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        """The proposal of every chain and its log acceptance ratio."""
        raise NotImplementedError

    def step(self, target: Target, state: State, generator: torch.Generator, *, warming: bool) -> Move:
        """One proposal of every chain, accepted or not, and while warming up one step of the adaptation."""
        proposal, log_ratio = self.propose(target, state, generator)
        log_ratio = torch.where(log_ratio.isnan(), -math.inf, log_ratio)
        probability = log_ratio.clamp(max=0.0).exp()
        accepted = _uniform(len(probability), generator).to(probability) < probability
        if warming:
            self.adapt(state, proposal, probability)
        # A large step of pCN that is refused is no trajectory that went astray.
        diverged = (log_ratio < -_DIVERGED) & self.has_slope
        return Move(state.take(proposal, accepted), probability, diverged)

    def adapt(self, state: State, proposal: State, probability: Tensor) -> None:
        """Move the step size towards the one of the target acceptance."""
        mean = probability.mean()
        if self.harmonic:
            mean = 1 / (1 / probability.clamp_min(_LEAST_ACCEPT)).mean()
        self._step.climb(float(mean) - self.target_accept, most=self.largest_step)

    def end_warmup(self) -> None:
        """Fix what was adapted at its average."""
        self._step.settle()


class _Tuned:
    """A number > 0 whose logarithm climbs a noisy slope by Adam without momentum, and settles at its average."""

    _DECAY = 0.95

    def __init__(self, value: float, *, rate: float) -> None:
        self.value, self._rate = float(value), rate
        self._square, self._steps, self._log_mean = 0.0, 0, math.log(value)

    def climb(self, slope: float, *, least: float = 0.0, most: float = math.inf) -> None:
        if not math.isfinite(slope):
            return
        self._steps += 1
        self._square = self._DECAY * self._square + (1 - self._DECAY) * slope**2
        size = math.sqrt(self._square / (1 - self._DECAY**self._steps))
        self.value = min(most, max(least, self.value * math.exp(self._rate * slope / max(size, 1e-12))))
        weight = self._steps**-0.5
        self._log_mean = (1 - weight) * self._log_mean + weight * math.log(self.value)

    def settle(self) -> None:
        if self._steps:
            self.value = math.exp(self._log_mean)


@dataclass
class Move:
    """Where a step led, each chain's acceptance probability, and which trajectories diverged."""

    state: State
    probability: Tensor
    diverged: Tensor


class CrankNicolson(ChainKernel):
    """pCN: propose ``v' = √(1 − β²)·v + β·ξ``, ``ξ ~ N(0, I)``; accept by what the target has beyond N(0, I).

    In standard coordinates that is the likelihood alone: acceptance does not fall with the number of dimensions, only
    with how much the data say. In others the reference is theirs, and the better they fit the larger the steps. It
    needs no gradient.

    Cost: one evaluation of the likelihood per chain and proposal.

    References:
        Cotter, Roberts, Stuart and White, MCMC methods for functions (Statistical Science 2013), section 4.2; Pinski
        et al. (SIAM J. Sci. Comput. 2015), section 4, for other references.

    Example:
        >>> from flowsr.posterior.samplers import sample_chains
        >>> run = sample_chains(
        ...     lambda u: -(u - 1).square().sum(-1) / 2, torch.zeros(4, 2), CrankNicolson(), num_samples=600,
        ...     num_warmup=200, seed=0)
        >>> bool((run.draws.mean((0, 1)) - 0.5).abs().max() < 0.15)
        True
    """

    usual_accept = 0.3
    largest_step = 1.0
    has_slope = False

    def propose(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        v = state.position
        there = math.sqrt(1.0 - self.step_size**2) * v + self.step_size * white_noise(v, generator)
        energy = target.energy(there)
        beyond = (state.energy - _white(v)) - (energy - _white(there))
        return State(there, energy), beyond


class HMC(ChainKernel):
    """Hamiltonian Monte Carlo: all chains along trajectories of one length, which cross-chain statistics choose.

    The length of a trajectory is ``h·T``, h quasi-random in (0, 1), so that no period of the target resonates. T climbs
    the ChEES criterion ``E[(|v' − E v'|² − |v − E v|²)²]/4``, the change of squared distances from the centre, whose
    maximum decorrelates the slowest of them.

    Cost: one gradient per chain and leapfrog step, at most 1024 of them.

    Args:
        trajectory: T to start from, > 0, in units of the coordinates.
        adapt_trajectory: whether to adapt T while warming up; needs two chains, and is better with many.
        step_size: as of every kernel; so are the others.

    References:
        Hoffman, Radul and Sountsov, An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo
        (AISTATS 2021), sections 3 and 4.

    Example:
        >>> kernel = HMC(trajectory=1.5)
        >>> from flowsr.posterior.samplers import sample_chains
        >>> run = sample_chains(lambda u: -2 * u.square().sum(-1), torch.randn(4, 3), kernel, num_samples=100,
        ...     num_warmup=100, seed=0)
        >>> run.draws.shape, bool((run.draws.var((0, 1)) - 0.2).abs().max() < 0.08)
        (torch.Size([4, 100, 3]), True)
    """

    usual_accept = 0.65
    harmonic = True

    def __init__(
        self,
        *,
        trajectory: float = 1.5,
        adapt_trajectory: bool = True,
        step_size: float = 0.1,
        target_accept: float | None = None,
        num_steps: int = 1,
    ) -> None:
        if not 0 < trajectory < math.inf:
            raise ValueError(f"expected a finite trajectory > 0; got {trajectory}")
        self._length, self.adapt_trajectory = _Tuned(trajectory, rate=0.025), adapt_trajectory
        self._number = 0
        super().__init__(step_size=step_size, target_accept=target_accept, num_steps=num_steps)

    @property
    def trajectory(self) -> float:
        """T, in units of the coordinates."""
        return self._length.value

    def propose(self, target: Target, state: State, generator: torch.Generator) -> tuple[State, Tensor]:
        self._number += 1
        self._share = _van_der_corput(self._number)
        steps = max(1, math.ceil(self._share * self.trajectory / self.step_size))
        return self._travel(target, state, min(steps, _MOST_LEAPFROG_STEPS), generator)

    def short(self, target: Target, state: State, generator: torch.Generator) -> Tensor:
        return self._travel(target, state, 1, generator)[1]

    def _travel(self, target: Target, state: State, steps: int, generator: torch.Generator) -> tuple[State, Tensor]:
        momentum = white_noise(state.position, generator)
        proposal, self._momentum = self._leapfrog(target, state, momentum, steps)
        gained = (proposal.energy - state.energy) + (_white(self._momentum) - _white(momentum))
        return proposal, -gained

    def _leapfrog(self, target: Target, state: State, momentum: Tensor, steps: int) -> tuple[State, Tensor]:
        step, v, energy, slope = self.step_size, state.position, state.energy, _slope_of(state)
        for _ in range(steps):
            momentum = momentum - 0.5 * step * slope
            v = v + step * momentum
            energy, slope = target.slope(v)
            momentum = momentum - 0.5 * step * slope
        return State(v, energy, slope), momentum

    def adapt(self, state: State, proposal: State, probability: Tensor) -> None:
        super().adapt(state, proposal, probability)
        if self.adapt_trajectory and len(probability) > 1:
            here, there = state.position.double(), proposal.position.double()
            climb = _chees_slope(here, there, self._momentum.double(), probability) * self._share * self.trajectory
            self._length.climb(climb, least=self.step_size, most=_MOST_LEAPFROG_STEPS * self.step_size)

    def end_warmup(self) -> None:
        super().end_warmup()
        self._length.settle()


class Langevin(HMC):
    """MALA: HMC of one leapfrog step, ``v' = v − (ε²/2)·∇U(v) + ε·ξ``, ``ξ ~ N(0, I)``.

    Its step must be as small as the narrowest direction of the target, and the number of steps to cross the widest
    grows with the square of the ratio: HMC is its better.

    Cost: one gradient per chain and proposal.

    References:
        Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations
        (Bernoulli 1996), section 1.4; Roberts and Rosenthal (JRSS B 1998) for the acceptance of 0.574.

    Example:
        >>> from flowsr.posterior.samplers import sample_chains
        >>> run = sample_chains(
        ...     lambda u: -u.square().sum(-1), torch.randn(4, 2), Langevin(num_steps=3), num_samples=300,
        ...     num_warmup=100, seed=0)
        >>> bool((run.draws.var((0, 1)) - 1 / 3).abs().max() < 0.1)
        True
    """

    usual_accept = 0.574

    def __init__(self, *, step_size: float = 0.1, target_accept: float | None = None, num_steps: int = 1) -> None:
        super().__init__(adapt_trajectory=False, step_size=step_size, target_accept=target_accept, num_steps=num_steps)

    @property
    def trajectory(self) -> float:
        return self.step_size


def _chees_slope(here: Tensor, there: Tensor, momentum: Tensor, probability: Tensor) -> float:
    """The slope of the criterion with respect to the time travelled, chains weighted by their acceptance."""
    weight = torch.where(there.isfinite().all(-1), probability, 0.0)
    total = float(weight.sum())
    if total == 0:
        return 0.0
    there, momentum = (torch.where(weight[:, None] > 0, x, 0.0) for x in (there, momentum))
    centre = (weight[:, None] * there).sum(0) / total
    change = (there - centre).square().sum(-1) - (here - here.mean(0)).square().sum(-1)
    return float((weight * change * ((there - centre) * momentum).sum(-1)).sum()) / total


def _white(v: Tensor) -> Tensor:
    return 0.5 * v.double().square().sum(-1)


def _slope_of(state: State) -> Tensor:
    assert state.slope is not None, "the state was begun by a kernel without gradients"
    return state.slope


def white_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of a tensor, the same in any dtype."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=torch.float64).to(like)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)


def _van_der_corput(number: int) -> float:
    """The number's binary digits behind the point, in reverse: 1/2, 1/4, 3/4, 1/8, …"""
    share, unit = 0.0, 0.5
    while number:
        number, digit = divmod(number, 2)
        share, unit = share + unit * digit, unit / 2
    return share
