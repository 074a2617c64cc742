"""One step of training: passes, guarded optimizer steps, averaged weights, and all that the next step depends on."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from flowsr.errors import NonFiniteError
from flowsr.nn import BatchStatistics
from flowsr.training.adversarial import CriticObjective
from flowsr.training.averaging import WeightAverage
from flowsr.training.crops import Batch
from flowsr.training.recipes import Recipe, learning_rate, lr_log_scale
from flowsr.training.settings import Run
from flowsr.training.wrapper import Objective

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Numbers = dict[str, float]

ADVICE = (
    "Resume with a lower learning_rate, a warmup longer than the steps made so far, an annealed LR width "
    '(lr_log_scale_start=-1), or fp32 instead of bf16, or begin anew with start="haar"; and look at the training '
    "images: a constant image has unbounded likelihood without dequantization"
)
"""What to do when losses are no longer finite."""


def random_state() -> dict[str, Any]:
    """The states of the global random generators of Python, numpy and torch, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is what other code uses
    return {
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *(float(value) for value in rest)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together; not finite if any entry is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Iterable[Tensor], *, value: float | None, norm: float | None) -> None:
    """Bound each gradient entry by ``value``, then the norm of all by ``norm``, as HCFlow does; None for no bound."""
    parameters = [p for p in parameters if p.grad is not None]
    if value is not None:
        torch.nn.utils.clip_grad_value_(parameters, value)
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, norm)


class NonFiniteGuard:
    """Counts steps whose loss or gradient is not finite, and stops a run that does nothing else.

    Args:
        patience: how many such steps in a row to allow.

    Example:
        >>> guard = NonFiniteGuard(patience=3)
        >>> guard.accept(True), guard.accept(False), guard.total
        (True, False, 1)
    """

    def __init__(self, *, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f"expected patience >= 1; got {patience}")
        self.patience, self.total, self.in_a_row = patience, 0, 0

    def accept(self, finite: bool) -> bool:
        """Whether to make the step; counts those refused.

        Raises:
            NonFiniteError: when ``patience`` steps in a row were not finite.
        """
        if finite:
            self.in_a_row = 0
            return True
        self.total += 1
        self.in_a_row += 1
        if self.in_a_row >= self.patience:
            raise NonFiniteError(
                f"{self.in_a_row} steps in a row had a loss or gradient that is not finite ({self.total} in this run), "
                f"so it was stopped. {ADVICE}"
            )
        return False


class Trainer:
    """State of a run and one step of it.

    Args:
        fabric: launched.
        objective: the module to train.
        run: settings.
        critic: the discriminator, for recipes with an adversarial loss.

    Attributes:
        step: how many steps have been made.
    """

    def __init__(self, fabric: Fabric, objective: Objective, run: Run, *, critic: nn.Module | None = None) -> None:
        self.fabric, self.objective, self.run, self.critic = fabric, objective, run, critic
        self.recipe: Recipe = objective.recipe
        self.step = 0
        self._statistics = [part for part in objective.flow.modules() if isinstance(part, BatchStatistics)]
        self.guard = NonFiniteGuard(patience=run.patience)
        self.optimizer = self._adam(objective, self.recipe.learning_rate)
        self._wrapped, self._wrapped_optimizer = fabric.setup(objective, self.optimizer)
        # After the model has been moved to its device.
        self.average = WeightAverage(objective.flow, decay=self.recipe.ema) if self.recipe.ema else None
        if critic is not None:
            self.critic_optimizer = self._adam(critic, self.recipe.critic_learning_rate)
            critic_objective = CriticObjective(critic, form=self.recipe.adversary)
            self._wrapped_critic, self._wrapped_critic_optimizer = fabric.setup(critic_objective, self.critic_optimizer)

    def _adam(self, module: nn.Module, rate: float) -> torch.optim.Optimizer:
        parameters = [p for p in module.parameters() if p.requires_grad]
        return torch.optim.Adam(parameters, lr=rate, betas=self.recipe.betas)

    def make_step(self, batches: list[Batch]) -> Numbers:
        """One iteration on the micro-batches of this process: every pass, then the moving average.

        Raises:
            NonFiniteError: when too many in a row were not finite.
        """
        critic_alone = self.critic is not None and self.step < self.recipe.critic_warmup
        seen, finite = self._every_pass(batches, update=True)
        # Counted once per iteration, whichever pass it was.
        self.step += 1
        if self.guard.accept(finite) and self.average is not None and not critic_alone:
            self.average.update()
        return seen

    def is_sound(self, batches: list[Batch]) -> bool:
        """Whether a run can go on from here: finite weights, averages and moments, loss and gradient of every pass.

        A step that destroys the weights has a finite loss itself, which was computed before it. Nothing is changed.

        Cost: an iteration without its updates.

        Args:
            batches: micro-batches of this process which are known to be good, or are as likely to be as any.
        """
        before = random_state()
        _, finite = self._every_pass(batches, update=False)
        set_random_state(before)
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)
        found = all(bool(value.isfinite().all()) for value in _tensors(self.state()) if value.is_floating_point())
        return finite and self._reduced(torch.tensor(float(found), device=self.fabric.device)).item() == 1.0

    def _every_pass(self, batches: list[Batch], *, update: bool) -> tuple[Numbers, bool]:
        """The numbers of the passes of an iteration, and whether all were finite."""
        self.objective.train()
        rate = learning_rate(self.recipe, self.step)
        _set_rate(self.optimizer, rate)
        passes = self.recipe.passes
        groups = [(name,) for name in passes] if self.recipe.separate else [passes]
        if self.critic is not None and self.step < self.recipe.critic_warmup:
            groups = []
        seen: Numbers = {"learning_rate": rate}
        draws: list[Tensor] | None = None
        every = True
        for group in groups:
            numbers, found, finite = self._generator_step(group, batches, update=update)
            seen |= numbers
            draws = found or draws
            every = every and finite
        if self.critic is not None:
            numbers, finite = self._critic_step(batches, draws, update=update)
            seen |= numbers
            every = every and finite
        return seen, every

    def _generator_step(
        self, passes: tuple[str, ...], batches: list[Batch], *, update: bool = True
    ) -> tuple[Numbers, list[Tensor], bool]:
        width = lr_log_scale(self.recipe, self.step)
        draws: list[Tensor] = []
        if self.critic is not None:
            self.critic.requires_grad_(False)

        def forward(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, seen, draw = self._wrapped(batch, passes, lr_log_scale=width)
            if draw is not None:
                draws.append(draw)
            return loss, seen

        optimizers = (self.optimizer, self._wrapped_optimizer)
        numbers, finite = self._optimize(forward, batches, self._wrapped, *optimizers, update=update)
        if self.critic is not None:
            self.critic.requires_grad_(True)
        return numbers, draws, finite

    def _critic_step(
        self, batches: list[Batch], draws: list[Tensor] | None, *, update: bool = True
    ) -> tuple[Numbers, bool]:
        if draws is None:
            with torch.no_grad():
                draws = [self._wrapped(batch, ("draw",))[2] for batch in batches]
        base = self.recipe.critic_learning_rate
        _set_rate(self.critic_optimizer, learning_rate(self.recipe, self.step, base=base))
        fakes: Iterator[Tensor] = iter(draws)

        def forward(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            loss = self._wrapped_critic(next(fakes), batch.hr)
            return loss, {"critic": loss.detach()}

        optimizers = (self.critic_optimizer, self._wrapped_critic_optimizer)
        return self._optimize(forward, batches, self._wrapped_critic, *optimizers, update=update)

    def _optimize(
        self,
        forward: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]],
        batches: list[Batch],
        module: Any,
        optimizer: torch.optim.Optimizer,
        wrapped_optimizer: Any,
        *,
        update: bool,
    ) -> tuple[Numbers, bool]:
        """Accumulate gradients over the micro-batches and step, if asked to and loss and gradient are finite."""
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        totals: dict[str, Tensor] = {}
        # A step that is not made must not leave its traces in running statistics.
        before = [(part.mean.clone(), part.var.clone()) for part in self._statistics]
        for index, batch in enumerate(batches):
            with self.fabric.no_backward_sync(module, enabled=index < len(batches) - 1):
                loss, seen = forward(batch)
                self.fabric.backward(loss / len(batches))
            for name, value in {**seen, "loss": loss.detach()}.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value / len(batches)
        norm = gradient_norm(parameters)
        names = sorted(totals)
        # One reduction for all numbers; all processes must agree on whether the step is finite.
        numbers = self._reduced(torch.stack([norm.float(), *(totals[name].float() for name in names)])).tolist()
        finite = bool(np.isfinite([numbers[0], numbers[1 + names.index("loss")]]).all())
        if finite and update:
            clip_gradients(parameters, value=self.recipe.clip_value, norm=self.recipe.clip_norm)
            wrapped_optimizer.step()
        else:
            for statistics, (mean, var) in zip(self._statistics, before, strict=True):
                statistics.mean.copy_(mean)
                statistics.var.copy_(var)
        return {"gradient_norm": numbers[0], **dict(zip(names, numbers[1:], strict=True))}, finite

    def _reduced(self, values: Tensor) -> Tensor:
        if self.fabric.world_size == 1:
            return values
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer] if self.critic is None else [self.optimizer, self.critic_optimizer]

    def place(self, batch: Batch) -> Batch:
        """A micro-batch where and as the model computes."""
        device, dtype = self.fabric.device, self.objective.flow.dtype
        return batch.to(device, dtype=dtype, channels_last=self.run.channels_last)

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the model has its averaged weights, if the recipe has them."""
        return nullcontext() if self.average is None else self.average.applied()

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors and plain values."""
        state: dict[str, Any] = {
            "step": self.step,
            "flow": self.objective.flow.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "skipped": [self.guard.total, self.guard.in_a_row],
            "random": random_state(),
        }
        if self.critic is not None:
            state |= {"critic": self.critic.state_dict(), "critic_optimizer": self.critic_optimizer.state_dict()}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`, be it of another recipe: what it lacks starts anew."""
        self.step = int(state["step"])
        self.objective.flow.load_state_dict(state["flow"])
        self._restore_adam(self.optimizer, state["optimizer"])
        if self.average is not None:
            self.average.restart()
            if state["average"] is not None:
                self.average.load_state_dict(state["average"])
        self.guard.total, self.guard.in_a_row = state["skipped"]
        if self.critic is not None:
            if _fits(self.critic, state.get("critic")):
                self.critic.load_state_dict(state["critic"])
                self._restore_adam(self.critic_optimizer, state["critic_optimizer"])
            else:
                warnings.warn("no discriminator for crops of this size in the checkpoint: it starts anew", stacklevel=2)
        set_random_state(state["random"])

    def _restore_adam(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        optimizer.load_state_dict(state)
        for group in optimizer.param_groups:
            group["betas"] = self.recipe.betas  # the recipe's, not the checkpoint's; so is the rate, at each step


def _tensors(state: Any) -> Iterator[Tensor]:
    """All tensors in nested containers."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def _fits(module: nn.Module, state: dict[str, Tensor] | None) -> bool:
    """Whether a module can load a state: a discriminator's depends on the crop."""
    own = module.state_dict()
    return state is not None and {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in state.items()
    }


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
