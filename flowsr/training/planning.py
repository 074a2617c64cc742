"""What a run will take before it is begun: a few of its steps are timed, and carried over to more processes.

The time of a step is a line in the crops of a process, ``t(n) = once + each·n``, through what one crop and a batch were
measured to take; it grows with the pixels of a crop. Of several times the fastest counts, as other work on a machine
only slows it. More processes share the crops of a step out, as :func:`flowsr.training.train` does, and reach a stated
part of the ideal.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import torch

from flowsr._support.free_memory import memory_text
from flowsr.errors import OutOfMemoryError
from flowsr.models import ImageModel
from flowsr.models.hcflow import Start
from flowsr.models.memory import memory_estimate
from flowsr.results import Result, text_table
from flowsr.training.crops import CropBatches
from flowsr.training.data import Folder
from flowsr.training.preparation import build_model, build_trainer, check_data, choose_recipe, launch, open_images
from flowsr.training.recipes import Recipe
from flowsr.training.settings import Data, Run
from flowsr.training.trainer import random_state, set_random_state
from flowsr.training.wrapper import set_memory

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_WARM_UP, _TIMED = 1, 3
_OTHER = {"fp32": "bf16", "bf16": "fp32"}
_NOWHERE = Path("a folder that is not made")


@dataclass(frozen=True)
class PlannedRun(Result):
    """A run on some processes.

    Attributes:
        processes: how many.
        batch_size: crops of a step over all of them: the recipe's, or as many more as there must be for each process
            and part of a batch to have one.
        crop: side of a crop in pixels.
        precision: fp32 or bf16.
        step_seconds: of a step.
        hours: of all steps of the recipe.
        same_crops_hours: until as many crops have been seen as the recipe has.
        memory: bytes of a process beside the weights, as :func:`flowsr.models.memory.memory_estimate` has it.
    """

    processes: int
    batch_size: int
    crop: int
    precision: str
    step_seconds: float
    hours: float
    same_crops_hours: float
    memory: int


@dataclass(frozen=True)
class Plan(Result):
    """How long a run takes on several numbers of processes, and what each of them needs.

    Attributes:
        recipe: its name.
        steps: of it.
        device: that was measured, with its name; empty where the time of a step was given.
        threads: of the CPU.
        once: seconds of a step whatever its crops.
        each: seconds of each crop of a process.
        timed_crops: crops of the larger of the batches that were timed, which the line goes through.
        timed_seconds: of its steps.
        measured_memory: bytes that its process grew by; None where that cannot be told.
        estimated_memory: what the estimate says of the same.
        efficiency: of several processes, of the ideal.
        runs: the numbers of processes, then other crops and the other precision on the first of them.
    """

    recipe: str
    steps: int
    device: str
    threads: int
    once: float
    each: float
    timed_crops: int
    timed_seconds: tuple[float, ...]
    measured_memory: int | None
    estimated_memory: int
    efficiency: float
    runs: tuple[PlannedRun, ...]

    def to_text(self) -> str:
        """The runs as a table, with what they are held to be."""
        rows = [
            [
                str(run.processes),
                str(run.batch_size),
                str(run.crop),
                run.precision,
                _three_digits(run.step_seconds),
                _three_digits(run.hours),
                _three_digits(run.same_crops_hours),
                memory_text(run.memory),
            ]
            for run in self.runs
        ]
        head = ["processes", "batch", "crop", "precision", "s/step", "hours", "same crops", "memory each"]
        notes = [line for sentence in self.assumptions for line in wrap(sentence, 76)]
        return text_table(head, rows, title=f"{self.steps} steps of {self.recipe}", notes=["", *notes])

    @property
    def reasons(self) -> dict[str, str]:
        """Why there is no figure where there is none."""
        why = "the time of a step was given" if not self.device else "nothing tells what a process holds here"
        return {"measured_memory": why} if self.measured_memory is None else {}

    @property
    def assumptions(self) -> list[str]:
        """What the figures rest on, a sentence each."""
        grown = "" if self.measured_memory is None else f"; the process grew by {memory_text(self.measured_memory)}"
        estimated = f"{self.timed_crops} crops are held to take {memory_text(self.estimated_memory)}{grown}."
        return [
            self._measured if self.device else "The time of a step was given, not measured.",
            f"Several processes are assumed to reach {self.efficiency:.0%} of ideal scaling.",
            "Time and memory are assumed to grow with the pixels of a crop.",
            "A batch larger than the recipe's is another recipe: 'same crops' is the time until as many are seen.",
            "Validation and checkpoints are left out.",
            "Memory is the estimate beside the weights, in fp32.",
            *([estimated] if self.device else []),
        ]

    @property
    def _measured(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.device == "cpu" else ""
        taken = f"{min(self.timed_seconds):.3g} to {max(self.timed_seconds):.3g} s"
        return (
            f"A step of n crops takes {self.once:.3g} s + n·{self.each:.3g} s on {self.device}{threads}: the fastest "
            f"of {_TIMED}, up to {self.timed_crops} crops, which took {taken}."
        )


def plan(
    model: ImageModel | str,
    data: Data | Folder,
    *,
    recipe: Recipe | str | None = None,
    run: Run | None = None,
    start: Start | None = None,
    processes: Sequence[int] = (1, 8, 64),
    efficiency: float = 0.9,
    step_seconds: float | None = None,
    seconds: float = 60.0,
) -> Plan:
    """Time a few real steps of a run, and say how long all of it takes, on how many processes, with how much memory.

    Nothing is written, and neither the model nor torch's random state is changed. With ``n`` crops for each of N
    processes a step takes ``(once + each·n)/efficiency``; on one, without the efficiency.

    Cost: twice to thrice four steps, of fewer crops than the recipe's where those would take longer than ``seconds``.

    Args:
        model: see :func:`flowsr.training.train`, as are ``data``, ``recipe``, ``run`` and ``start``.
        data: images, which the timed steps read.
        recipe: the recipe or its name.
        run: how it is carried out; its device and precision are measured.
        start: initial weights of a preset of HCFlow.
        processes: numbers of processes to plan for, each at least 1.
        efficiency: of several processes, in (0, 1], as a part of ideal scaling.
        step_seconds: of a step of the whole batch on one process, from elsewhere; nothing is timed then.
        seconds: that the timed steps of a batch may take.

    Raises:
        ValueError: for settings that do not fit, numbers out of range, or in one of several processes.
        ImageError: if there are no usable images.
        OutOfMemoryError: if not even one crop fits.
        MissingExtraError: if Lightning is not installed.

    Example:
        >>> import tempfile
        >>> from flowsr.images import write_image
        >>> from flowsr.training.recipes import recipe
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_image(folder / "a.png", torch.rand(3, 40, 48))
        >>> quick = recipe("nll", steps=1000, batch_size=4, crop=16)
        >>> found = plan("sr-x4-small", folder, recipe=quick, run=Run(accelerator="cpu"), step_seconds=0.36)
        >>> [(one.processes, one.batch_size, round(one.hours, 3)) for one in found.runs[:3]]
        [(1, 4, 0.1), (8, 8, 0.028), (64, 64, 0.028)]
    """
    _check(processes, efficiency, step_seconds)
    run = replace(run or Run(), progress=False)
    data = data if isinstance(data, Data) else Data(folders=data)
    before = random_state()
    try:
        torch.manual_seed(run.seed)
        flow = build_model(model, start)[0] if isinstance(model, str) else copy.deepcopy(model)
        chosen = choose_recipe(recipe, flow)
        check_data(data, flow)
        fabric = launch(run)
        if fabric.world_size > 1:
            raise ValueError("expected one process to plan for several; got several: leave out torchrun and --devices")
        found = _Timing(flow, chosen, run, fabric, data)
        return found.plan(tuple(processes), efficiency, step_seconds, seconds)
    finally:
        set_random_state(before)


def _three_digits(value: float) -> str:
    """A number as people write it.

    Example:
        >>> _three_digits(4583.0), _three_digits(0.02812)
        ('4580', '0.0281')
    """
    return f"{float(f'{value:.3g}'):g}"


def _check(processes: Sequence[int], efficiency: float, step_seconds: float | None) -> None:
    if not processes or min(processes) < 1:
        raise ValueError(f"expected numbers of processes >= 1; got {tuple(processes)}")
    if not 0 < efficiency <= 1:
        raise ValueError(f"expected an efficiency in (0, 1]; got {efficiency}")
    if step_seconds is not None and not 0 < step_seconds < float("inf"):
        raise ValueError(f"expected step_seconds to be finite and > 0; got {step_seconds}")


@dataclass(frozen=True)
class _Line:
    """Seconds of a step of n crops, ``once + each·n``, and the largest batch that it was measured with.

    Attributes:
        once: whatever the crops.
        each: for each of them.
        crops: of that batch.
        seconds: of its steps.
        memory: bytes that its process grew by.
        other_precision: how many times as long its steps take in it.
    """

    once: float
    each: float
    crops: int
    seconds: tuple[float, ...] = ()
    memory: int | None = None
    other_precision: float | None = None


class _Timing:
    """Times steps of a run, and makes the plan."""

    def __init__(self, flow: ImageModel, recipe: Recipe, run: Run, fabric: Fabric, data: Data) -> None:
        self.flow, self.recipe, self.run, self.fabric = flow, recipe, run, fabric
        self._before = _held(fabric.device)
        self.batches = open_images(
            data, replace(recipe, batch_size=run.accumulate), run, flow=flow, fabric=fabric, out=_NOWHERE
        )[0]

    def plan(self, processes: tuple[int, ...], efficiency: float, step_seconds: float | None, seconds: float) -> Plan:
        recipe, first = self.recipe, processes[0]
        if step_seconds is None:
            line = self.measured(seconds)
        else:
            line = _Line(0.0, step_seconds / recipe.batch_size, self.crops)
        planned = partial(self.planned, line, efficiency)
        runs = [planned(count) for count in processes] + [planned(first, crop=crop) for crop in self.other_crops()]
        if line.other_precision is not None:
            runs.append(planned(first, precision=_OTHER[self.run.precision], scale=line.other_precision))
        return Plan(
            recipe=recipe.name,
            steps=recipe.steps,
            device=self.device() if step_seconds is None else "",
            threads=torch.get_num_threads(),
            once=line.once,
            each=line.each,
            timed_crops=line.crops,
            timed_seconds=line.seconds,
            measured_memory=line.memory,
            estimated_memory=self.memory(line.crops, recipe.crop),
            efficiency=efficiency,
            runs=tuple(runs),
        )

    @property
    def crops(self) -> int:
        """Of a step of one process, or of a part of it."""
        return max(1, self.recipe.batch_size // self.run.accumulate)

    def measured(self, seconds: float) -> _Line:
        """The line through steps of few crops, and of as many as there is time and memory for."""
        few = min(2 if self.recipe.gan else 1, self.crops)  # a discriminator normalizes over a batch, not one crop
        least = min(self.steps(few, self.run.precision)[0])
        in_time = min(self.crops, int(few * seconds / (least * (_WARM_UP + _TIMED))))
        crops, times, memory = self.fitting(max(in_time, min(2 * few, self.crops)))
        each = (min(times) - least) / (crops - few) if crops > few else least / few
        each = min(max(0.0, each), least / few)
        other = min(self.steps(crops, _OTHER[self.run.precision])[0]) / min(times)
        return _Line(least - few * each, each, crops, tuple(times), memory, other)

    def planned(
        self,
        line: _Line,
        efficiency: float,
        processes: int,
        *,
        crop: int | None = None,
        precision: str | None = None,
        scale: float = 1.0,
    ) -> PlannedRun:
        """A run by the line, of crops of another side, or in a precision that takes so many times as long."""
        recipe, parts = self.recipe, processes * self.run.accumulate
        crop = crop or recipe.crop
        each = -(-recipe.batch_size // parts)
        step = self.run.accumulate * scale * (line.once + line.each * (crop / recipe.crop) ** 2 * each)
        step /= efficiency if processes > 1 else 1.0
        hours, batch = step * recipe.steps / 3600, each * parts
        return PlannedRun(
            processes=processes,
            batch_size=batch,
            crop=crop,
            precision=precision or self.run.precision,
            step_seconds=step,
            hours=hours,
            same_crops_hours=hours * recipe.batch_size / batch,
            memory=self.memory(each, crop),
        )

    def other_crops(self) -> list[int]:
        """Half and twice the side of the recipe's crops, as the model can take them."""
        side, unit = self.recipe.crop, self.flow.multiple
        return sorted({max(unit, round(part * side / unit) * unit) for part in (0.5, 2.0)} - {side})

    def device(self) -> str:
        """The device and its name."""
        device = self.fabric.device
        return str(device) if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"

    def memory(self, crops: int, crop: int) -> int:
        """Bytes of a step of one process, by the estimate."""
        set_memory(self.flow, self.run.memory)
        return memory_estimate(self.flow, (crop, crop), batch=self.recipe.held_passes * crops, task="train")

    def fitting(self, crops: int) -> tuple[int, list[float], int | None]:
        """The times of steps of a batch, halved until it fits, and the bytes the process grew by."""
        while True:
            try:
                return crops, *self.steps(crops, self.run.precision)
            except OutOfMemoryError:
                if crops == 1:
                    raise
                crops //= 2

    def steps(self, crops: int, precision: Any) -> tuple[list[float], int | None]:
        """Seconds of steps of one process with so many crops, and the bytes that it grew by."""
        run = replace(self.run, precision=precision, accumulate=1)
        fabric = self.fabric if precision == self.run.precision else launch(run)
        recipe = replace(self.recipe, batch_size=crops, critic_warmup=0)
        batches = _of(self.batches, crops)
        device = fabric.device
        # The most that a process has held never falls, but on a GPU, so that there it counts from the first steps.
        before = _held(device, restart=True) if device.type == "cuda" else self._before
        trainer = build_trainer(copy.deepcopy(self.flow), recipe, run, fabric=fabric)
        times = []
        for number in range(_WARM_UP + _TIMED):
            begin = time.perf_counter()
            trainer.make_step([trainer.place(batches[number])])
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - begin)
        return times[_WARM_UP:], (_held(device) - before) or None


def _of(batches: CropBatches, crops: int) -> CropBatches:
    """The batches of one process, each of so many crops."""
    one = batches.whole()
    one.batch_size = crops
    return one


def _held(device: torch.device, *, restart: bool = False) -> int:
    """The most bytes that the process has held so far: on a GPU since the last restart."""
    if device.type == "cuda":
        if restart:
            torch.cuda.reset_peak_memory_stats(device)
            return torch.cuda.memory_allocated(device)
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # not on every system
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
