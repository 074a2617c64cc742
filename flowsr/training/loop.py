"""The loop around the steps: logs, validation, checkpoints at intervals, and a clean stop when asked for one."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import fill
from types import FrameType
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from flowsr._support.json import json_number
from flowsr.errors import ImageError, NonFiniteError
from flowsr.models import Capability, save
from flowsr.training.checkpoint import CheckpointFolder
from flowsr.training.crops import Batch, CropBatches, end_workers
from flowsr.training.journal import CsvLog, ProgressBar, in_words, tensorboard_writer
from flowsr.training.pictures import draw_curve, validation_grid
from flowsr.training.sources import PICTURES, name_some
from flowsr.training.trainer import ADVICE, Numbers, Trainer
from flowsr.training.validation import NUMBERS, Named, score_images, summarize

_FIRST = [
    "step",
    "loss",
    "bits_per_dim",
    "encoded_lr_psnr",
    "psnr",
    "images_per_second",
    "learning_rate",
    "gradient_norm",
]
_MORE = ["l1", "perceptual", "adversarial", "critic", "z_square", "skipped"]


STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that stop a run after the step it is in; Windows lacks the last."""


class StopSignals:
    """Within this context SIGINT, SIGTERM and SIGHUP set ``received`` instead of ending the process; a second ends it.

    Not a second SIGHUP: a terminal that is closed may send one, and the shell in it another.

    One that the process was started to ignore, as shells start the background jobs of a script to ignore SIGINT, stays
    ignored: it is meant for somebody else.

    Args:
        says_so: answer a signal with a line on stderr.
    """

    def __init__(self, *, says_so: bool = False) -> None:
        self._says_so = says_so
        self.received: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            try:
                self._old[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: signals are somebody else's
                break
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if number != getattr(signal, "SIGHUP", None):
            signal.signal(number, self._old[number])
        if self._says_so:
            # Not print: the signal may have come in the midst of one, whose stream does not bear another.
            with suppress(OSError):
                os.write(2, b"\nStopping after this step; once more ends at once, without a checkpoint\n")


class Interrupted(Exception):
    """A signal came while something was going on that can be done again."""


class Loop:
    """Runs a trainer to the last step of its recipe, or to a signal.

    A run that goes on begins with the validation of the step it goes on from, if one is due: the run before it may
    have ended in the midst of it.

    Args:
        trainer: at the step to start from.
        batches: of this process.
        validation: named images in [0, 1], with LR images if they are paired.
        checkpoints: where to save.
        out: folder of the run.
        workers: processes that prepare batches.
        about: facts saved with each checkpoint and model.
        settings: of the run, saved with each checkpoint.
        record: writes what is run into the folder, which it makes.
    """

    def __init__(
        self,
        trainer: Trainer,
        batches: CropBatches,
        validation: list[Named],
        checkpoints: CheckpointFolder,
        *,
        out: Path,
        workers: int,
        about: dict[str, Any],
        settings: dict[str, Any],
        record: Callable[[], None],
    ) -> None:
        self.trainer, self.batches, self.images, self.checkpoints = trainer, batches, validation, checkpoints
        self.out, self.workers, self.about, self.settings, self._record = out, workers, about, settings, record
        self.validation: dict[str, float] = {}
        self.validated_at: int | None = None
        self.saved = False
        self._main = trainer.fabric.is_global_zero
        # A checkpoint is judged by the micro-batches of the last step that was made: they are not to blame themselves.
        self._judges: list[Batch] = []
        self._signals = StopSignals(says_so=self._main and trainer.run.progress)
        self._unreadable: set[str] = set()
        self._sound = True

    def run(self) -> int | None:
        """Run; returns the signal that stopped it, or None."""
        trainer, run, steps = self.trainer, self.trainer.run, self.trainer.recipe.steps
        self._open_logs()
        stop, due, loader = None, False, None
        try:
            loader = self._loader(trainer.step, steps)
            with self._signals:
                if trainer.step and self._validates(trainer.step):
                    self._validate()
                self._clock()
                while trainer.step < steps and not stop:
                    micro = [self._next(loader) for _ in range(run.accumulate)]
                    numbers = trainer.make_step([trainer.place(batch) for batch in micro])
                    self._judges = self._judges if trainer.guard.in_a_row else micro
                    done = trainer.step == steps
                    if trainer.step % run.log_every == 0 or done:
                        self._log(numbers)
                    stop = self._agreed(self._signals.received)
                    due = due or trainer.step % run.checkpoint_every == 0
                    # Not while steps fail: their weights may be past help, and would drive out the last good ones.
                    if (due and not trainer.guard.in_a_row) or done or stop:
                        self._save(last=done)
                        due = False
                    if not stop and self._validates(trainer.step):
                        self._validate()
                        self._clock()
                stop = stop or self._agreed(self._signals.received)
                if self._main and self._sound:
                    self.export()
                self.saved = trainer.fabric.broadcast(self.saved)
        except RuntimeError as error:
            # Torch raises this in the midst of whatever is going on.
            if not str(error).startswith("DataLoader worker"):
                raise
            raise ChildProcessError(
                "a process that prepares batches was killed, for its memory perhaps: resume, with fewer workers or none"
            ) from error
        finally:
            end_workers(loader)
            self._close_logs()
        if not stop and self._main and run.pictures:
            try:
                draw_curve(self.out)
            except Exception as error:  # a picture must not cost the run
                warnings.warn(f"could not draw the curve: {error}", stacklevel=2)
        return stop

    def _validates(self, step: int) -> bool:
        run, last = self.trainer.run, self.trainer.recipe.steps
        return step >= last or step in run.validate_at or bool(run.validate_every and step % run.validate_every == 0)

    def _save(self, *, last: bool) -> None:
        """Write checkpoint and model, unless the last step has destroyed the weights: those before it shall stay.

        Raises:
            NonFiniteError: if it has, and was the last one.
        """
        trainer = self.trainer
        self._sound = bool(self._judges) and trainer.is_sound([trainer.place(batch) for batch in self._judges])
        if self._main and self._sound:
            self._keep_folder()
            about = {**self.about, "settings": self.settings}
            self.checkpoints.write(trainer.step, {**trainer.state(), "about": about})
            self.export()
        trainer.fabric.barrier()
        if self._sound:
            return
        self.saved = False
        fault = f"no checkpoint of step {trainer.step}, as no loss is finite with its weights"
        if last:
            raise NonFiniteError(f"{fault}. {ADVICE}")
        warnings.warn(fault, stacklevel=2)

    def _keep_folder(self) -> None:
        """Go on in a new folder where the run's has been renamed or removed, and say so."""
        try:
            if os.path.samestat(self.out.stat(), self._folder):
                return
        except FileNotFoundError:
            pass
        self._record()
        self._folder = self.out.stat()
        warnings.warn(
            f"{self.out} has been renamed or removed during the run: what comes from step {self.trainer.step} on is in "
            "a new folder of that name, but for the rows of the logs",
            stacklevel=2,
        )

    def export(self) -> None:
        """Write ``model.safetensors`` with the averaged weights; a full disk is a warning, not the end of the run."""
        trainer, flow = self.trainer, self.trainer.objective.flow
        facts: dict[str, Any] = {"trained_by": "flowsr.training", "step": trainer.step}
        facts["validation"] = {name: json_number(value) for name, value in self.validation.items()}
        flow.provenance |= {**self.about, **facts}
        try:
            with trainer.averaged():
                save(flow, self.out / "model.safetensors")
            self.saved = True
        except (OSError, SafetensorError) as error:
            self.saved = False
            warnings.warn(f"could not write model.safetensors at step {trainer.step}: {error}", stacklevel=2)

    def _agreed(self, received: int | None) -> int | None:
        """The signal any process has received: all must stop at the same step."""
        fabric = self.trainer.fabric
        if fabric.world_size == 1:
            return received
        number = torch.tensor(float(received or 0), device=fabric.device)
        return int(cast(Tensor, fabric.all_reduce(number, reduce_op="max"))) or None

    def _validate(self) -> None:
        trainer = self.trainer
        if not self.images or not self._main:
            trainer.fabric.barrier()
            return
        try:
            self._score()
        except Interrupted:
            warnings.warn(f"validation at step {trainer.step} was broken off by a signal", stacklevel=2)
        except Exception as error:  # whatever it was, it must not cost the run
            warnings.warn(f"validation at step {trainer.step} failed: {error}", stacklevel=2)
        trainer.fabric.barrier()

    def _score(self) -> None:
        trainer = self.trainer
        flow, step = trainer.objective.flow, trainer.step
        temperature = 1.0 if Capability.DOWNSCALE in flow.capabilities else trainer.recipe.temperature
        with trainer.averaged():
            scores = score_images(flow, self._unless_stopped(), temperature=temperature)
            self.validation, self.validated_at = summarize(scores), step
            self._validation_log.write({"step": step, **self.validation})
            self._to_tensorboard(step, {f"validation/{name}": value for name, value in self.validation.items()})
            shown = {name: self.validation[name] for name in NUMBERS if name in self.validation}
            print(fill(f"step {step}: validation, {in_words(shown)}", 88, subsequent_indent="  "), flush=True)
            if trainer.run.pictures:
                path = self.out / PICTURES / f"step-{step:08d}.png"
                validation_grid(flow, self.images, path, temperature=temperature)

    def _unless_stopped(self) -> Iterator[Named]:
        # Many large images may take longer than a scheduler waits for.
        for image in self.images:
            if self._signals.received:
                raise Interrupted
            yield image

    def _open_logs(self) -> None:
        if not self._main:
            return
        self._record()
        self._folder = self.out.stat()
        step, run = self.trainer.step, self.trainer.run
        self._board = tensorboard_writer(self.out / "tensorboard", start=step) if run.tensorboard else None
        summary = [*NUMBERS, *(f"{name}_median" for name in NUMBERS), "bits_per_dim_worst"]
        self._train_log = CsvLog(self.out / "train.csv", [*_FIRST, *_MORE], start=step)
        again = int(self._validates(step))
        self._validation_log = CsvLog(self.out / "validation.csv", ["step", *summary], start=max(step - again, 0))
        if run.progress:
            print(self._plan(), flush=True)
        self._bar = ProgressBar(self.trainer.recipe.steps, start=step, enabled=run.progress)

    def _plan(self) -> str:
        """What is going to be done, in a line."""
        recipe, run, fabric = self.trainer.recipe, self.trainer.run, self.trainer.fabric
        devices = f"{fabric.device}{f' x {fabric.world_size}' if fabric.world_size > 1 else ''}"
        return (
            f"Training on {len(self.batches.indices)} images, {len(self.images)} for validation: steps "
            f"{self.trainer.step} to {recipe.steps}, {recipe.batch_size} crops of {recipe.crop}x{recipe.crop} each, on "
            f"{devices} in {run.precision}"
        )

    def _close_logs(self) -> None:
        if self._main:
            self._bar.close()
            self._train_log.close()
            self._validation_log.close()
            if self._board is not None:
                with suppress(OSError):
                    self._board.finalize("success")

    def _log(self, numbers: Numbers) -> None:
        elapsed = time.perf_counter() - self._since[0]
        images = (self.trainer.step - self._since[1]) * self.trainer.recipe.batch_size
        self._clock()
        if not self._main:
            return
        step = self.trainer.step
        numbers = {**numbers, "images_per_second": images / elapsed, "skipped": self.trainer.guard.total}
        self._train_log.write({"step": step, **numbers})
        self._to_tensorboard(step, {f"training/{name}": value for name, value in numbers.items()})
        self._bar.update(step, {name: numbers[name] for name in _FIRST[2:6] if name in numbers})

    def _to_tensorboard(self, step: int, numbers: Numbers) -> None:
        if self._board is None:
            return
        try:
            self._board.log_metrics(numbers, step)
        except OSError as error:
            self._board = None
            warnings.warn(f"no more TensorBoard logs from step {step} on: {error}", stacklevel=2)

    def _clock(self) -> None:
        self._since = (time.perf_counter(), self.trainer.step)

    def _loader(self, start: int, stop: int) -> Iterator[Batch]:
        try:
            return iter(self.batches.loader(start, stop, workers=self.workers))
        except OSError as error:
            if not self.workers:
                raise
            raise OSError(
                f"expected to start {self.workers} processes that prepare batches; got {error}: take fewer, or none"
            ) from error

    def _next(self, loader: Iterator[Batch]) -> Batch:
        """The next micro-batch; what is wrong with it is said.

        Raises:
            ImageError: if no image can be read, or with ``strict`` for one.
        """
        batch = next(loader)
        if batch.lost:
            raise ImageError(batch.lost)
        self._report(batch.unreadable)
        return batch

    def _report(self, messages: tuple[str, ...]) -> None:
        new = [message for message in dict.fromkeys(messages) if message not in self._unreadable]
        if not new:
            return
        if self.batches.folder.strict:
            raise ImageError(new[0])
        self._unreadable.update(new)
        count = len(self._unreadable) + len(self.batches.folder.skipped)
        which = f"image {count}" if len(new) == 1 else f"{len(new)} images, {count} by now"
        warnings.warn(f"left out {which}: {name_some(new)}", stacklevel=2)
