"""What a sampler is, and what it may spend: passes through the model, counted where they are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from flowsr.known_posteriors.truth import KnownPosterior
from flowsr.posterior import InverseProblem

PASS = 0.5
"""What a pass without its gradient counts, in gradients: measured, 0.45 of the time for the shipped model."""


@dataclass
class Budget:
    """Gradients that a sampler may take, and how many it took.

    A gradient is one pass of one image through the model and back; a pass without the way back counts half. Both are
    counted by the model, whichever way it is asked: images of a batch are counted one by one.

    Attributes:
        gradients: that may be taken, ≥ 1.
        passes: images that went through the model, in either direction.
        taken: of them those whose gradient was taken.
        seconds: CPU time of the sampler.

    Raises:
        ValueError: for a budget of less than one gradient.

    Example:
        >>> from flowsr.known_posteriors import known_posterior
        >>> known, budget = known_posterior("linear deblurring"), Budget(10)
        >>> u = torch.zeros(3, 64, dtype=torch.float64, requires_grad=True)
        >>> with budget.counting(known.problem):
        ...     known.problem.latent_log_likelihood(u).sum().backward()
        >>> budget.taken, budget.spent, budget.left
        (3, 3.0, 7.0)
    """

    gradients: int
    passes: int = 0
    taken: int = 0
    seconds: float = 0.0
    _depth: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.gradients < 1:
            raise ValueError(f"expected a budget of at least one gradient; got {self.gradients}")

    @property
    def spent(self) -> float:
        """In gradients."""
        return self.taken + PASS * max(0, self.passes - self.taken)

    @property
    def left(self) -> float:
        """In gradients; negative where more was spent than there was."""
        return self.gradients - self.spent

    @contextmanager
    def counting(self, problem: InverseProblem) -> Iterator[Budget]:
        """Count what the model of a problem is asked, within the block."""
        flow: Any = problem.flow
        places = [(flow, "decode_unchecked"), (flow, "encode")]
        places += [(flow.transform, name) for name in _WAYS if hasattr(flow.transform, name)]
        for owner, name in places:
            setattr(owner, name, self._counted(getattr(owner, name)))
        begin = time.process_time()
        try:
            yield self
        finally:
            self.seconds += time.process_time() - begin
            for owner, name in places:
                delattr(owner, name)

    def _counted(self, way: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(way)
        def counted(*arguments: Any, **options: Any) -> Any:
            # A way through the model calls another: the outer one counts.
            if self._depth == 0:
                seen = self._watched((*arguments, *options.values()))
                arguments, named = seen[: len(arguments)], seen[len(arguments) :]
                options = dict(zip(options, named, strict=True))
            self._depth += 1
            try:
                return way(*arguments, **options)
            finally:
                self._depth -= 1

        return counted

    def _watched(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, those that need gradients replaced by views, of which the first counts the way back."""
        tensors = [part for given in arguments for part in _tensors(given)]
        images = max((part.shape[:-3].numel() for part in tensors if part.dim() >= 3), default=1)
        self.passes += images
        waiting = [True]

        def count(_slope: Tensor) -> None:
            self.taken += images

        def view(part: Tensor) -> Tensor:
            if not (waiting[0] and part.requires_grad and torch.is_grad_enabled()):
                return part
            waiting[0] = False
            seen = part.view_as(part)
            seen.register_hook(count)
            return seen

        return tuple(_mapped(given, view) for given in arguments)


_WAYS = ("decode", "encode", "call_and_ladj", "inv_call_and_ladj")


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    return [part for one in given for part in _tensors(one)] if isinstance(given, list | tuple) else []


def _mapped(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(given, Tensor):
        return change(given)
    return type(given)(_mapped(one, change) for one in given) if type(given) in (list, tuple) else given


@dataclass(frozen=True)
class Draws:
    """What a sampler returns: draws of images, or of latents, whose decoding is then not charged.

    Attributes:
        images: ``(n, C, H, W)``, chain after chain; None if there are latents.
        latents: whitened vectors ``(chains, draws, dims)``; None for samplers that have none.
        chains: number of chains that ``images`` are of.
        log_evidence: an estimate of it, in nats, if the sampler has one.
        correlated: whether the draws of a chain follow one another; False for independent draws and particles.

    Raises:
        ValueError: without images or latents, or for a number of images that is not that of whole chains.
    """

    images: Tensor | None = None
    latents: Tensor | None = None
    chains: int = 1
    log_evidence: float | None = None
    correlated: bool = True

    def __post_init__(self) -> None:
        if self.images is None and self.latents is None:
            raise ValueError("expected draws of a sampler: images (n, C, H, W) or latents (chains, draws, dims)")
        if self.latents is not None and self.latents.dim() != 3:
            raise ValueError(f"expected latents (chains, draws, dims); got shape {tuple(self.latents.shape)}")
        if self.images is not None and (self.images.dim() != 4 or len(self.images) % self.chains):
            raise ValueError(
                f"expected images (n, C, H, W), n a multiple of the {self.chains} chains; got shape "
                f"{tuple(self.images.shape)}"
            )


Sampler = Callable[[KnownPosterior, Budget, int, int], Draws]
"""From a known posterior, of which it asks the problem alone, a budget, a number of draws wanted and a seed to draws.

It may return more draws than wanted, all of its chains: effective draws are counted on them all, and the rest is judged
on as many as are wanted, evenly spaced. Fewer are judged as they are.
"""
