"""How an inverse problem is to be solved, checked once, and what every solver hands back to be judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.inverse_problem import InverseProblem
from flowsr.posterior.solution import Solution

Method = Literal["nuts", "hmc", "pcn", "langevin", "svi", "map"]
Guide = Literal["normal", "lowrank", "flow"]
Place = Literal["draw", "mode", "laplace"]
_LEAST = {"num_samples": 4, "num_warmup": 0, "num_chains": 1, "steps": 1, "num_particles": 1}
_LEAST |= {"max_tree_depth": 1, "num_steps": 1, "rank": 1}
_OPTIONAL = ("num_steps", "rank")


@dataclass(frozen=True)
class SolverSettings:
    """The arguments of :func:`flowsr.posterior.solve`, which explains them."""

    method: Method
    num_samples: int
    num_warmup: int
    num_chains: int
    start: Place | Tensor | Solution
    seed: int
    target_accept: float | None
    trajectory: float
    max_tree_depth: int
    num_steps: int | None
    guide: Guide
    rank: int | None
    steps: int
    learning_rate: float
    num_particles: int
    advance: Callable[[], None]

    def __post_init__(self) -> None:
        for name, known in (("method", Method), ("guide", Guide)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"expected {name} to be one of {', '.join(get_args(known))}; got {getattr(self, name)!r}"
                )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"expected an integer {name} >= {least}; got {value!r}")
        if self.target_accept is not None and not 0 < self.target_accept < 1:
            raise ValueError(f"expected target_accept in (0, 1); got {self.target_accept}")
        if not 0 < self.trajectory < math.inf or not 0 < self.learning_rate < math.inf:
            raise ValueError(
                f"expected finite trajectory and learning_rate > 0; got {self.trajectory} and {self.learning_rate}"
            )

    @property
    def optimizes(self) -> bool:
        """Whether the method is an optimization, and runs no chains."""
        return self.method in ("svi", "map")

    def check(self, problem: InverseProblem) -> None:
        """Refuse a start that does not fit the problem, and an operator without the gradients that are needed."""
        if isinstance(self.start, Solution):
            self._check_solution(problem, self.start)
        elif isinstance(self.start, Tensor):
            one, each = (problem.dims,), (self.num_chains, problem.dims)
            if self.start.shape != one and (self.optimizes or self.start.shape != each):
                wanted = f"{one}" + ("" if self.optimizes else f", or one per chain {each}")
                raise ValueError(
                    f"expected start to be a whitened vector {wanted}; got shape {tuple(self.start.shape)}"
                )
            if self.start.is_complex():
                raise ValueError(f"expected start to be real; got dtype {self.start.dtype}: take its real part")
            if not bool(torch.isfinite(self.start).all()):
                raise ValueError("expected a finite start; got NaN or infinity in it: take start='draw'")
        elif self.start not in get_args(Place):
            places = ", ".join(get_args(Place))
            raise ValueError(f"expected start to be {places}, a whitened vector or a Solution; got {self.start!r}")
        if self.method != "pcn":
            problem.check_differentiable(f"method {self.method!r}")
        elif isinstance(self.start, str) and self.start != "draw":
            problem.check_differentiable(f"start={self.start!r}", instead="start='draw'")

    def _check_solution(self, problem: InverseProblem, solution: Solution) -> None:
        """Refuse a solution that is not of this problem, or says no more than draws to start from."""
        if not solution.method.startswith(("svi", "map")):
            raise ValueError(
                f"expected start to be a Solution of svi or map; got one of {solution.method}: to go on where its "
                "chains ended give their last draws, start=solution.latents[:, -1]"
            )
        difference = _difference(solution.problem, problem)
        if difference:
            raise ValueError(
                f"expected start to be a Solution of this problem; got one of another, whose {difference}: solve this "
                "one by svi or map, or give whitened vectors"
            )
        draws = solution.latents.shape[1]
        if not self.optimizes and solution.method != "map" and draws < self.num_chains:
            raise ValueError(
                f"expected start to have a draw for each of {self.num_chains} chains; got {draws}: raise num_samples "
                "of svi"
            )

    def centre(self, problem: InverseProblem) -> Tensor:
        """Where an optimization begins: the mean of the prior, or the start that was given."""
        given = self.start
        if isinstance(given, Solution):
            given = given.latents.mean((0, 1))
        elif not isinstance(given, Tensor):
            given = problem.lr.new_zeros(problem.dims)
        return given.detach().to(problem.lr)


def _difference(other: InverseProblem, problem: InverseProblem) -> str:
    """What tells two problems apart, in words; nothing if it can be seen nowhere."""
    if other.image_shape != problem.image_shape or other.dims != problem.dims:
        return f"images are {other.image_shape} of {other.dims} latents, not {problem.image_shape} of {problem.dims}"
    for name in ("lr", "observation"):
        a, b = getattr(other, name), getattr(problem, name)
        if a.dtype != b.dtype:
            return f"{name} has dtype {a.dtype}, not {b.dtype}"
        if not torch.equal(a.cpu(), b.cpu()):
            return f"{name} is another"
    return "model is another" if other.flow is not problem.flow else ""


@dataclass(frozen=True)
class Found:
    """What a solver found, before it is judged.

    Attributes:
        name: of the solver, with its guide.
        latents: whitened vectors ``(chains, draws, dims)`` on the CPU.
        seconds: by stage.
        facts: fields of :class:`flowsr.posterior.Diagnostics` that only this solver knows.
        remarks: what only this solver can say of its draws.
        starts: where chains started, ``(chains, dims)`` on the CPU; None without chains.
        one_place: whether all of them started at one.
        coordinates: in which a guide is white noise; None without one.
    """

    name: str
    latents: Tensor
    seconds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    starts: Tensor | None = None
    one_place: bool = False
    coordinates: Coordinates | None = None
