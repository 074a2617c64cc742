"""Commands that write, killed at random moments: nothing half-written is taken for whole, and what went on can go on.

Each attempt starts a command in a forked process (start-up is seconds, the work of a tiny model a tenth of one), sends
it SIGKILL, SIGTERM, SIGHUP or SIGINT after a while, and then looks: every file in its folder that is not hidden is
whole; nobody holds the lock; the same command, ``--resume`` for a run and ``--force`` for the others, ends well and
leaves no lock file; and a run ends in the very weights of one that nobody killed.
"""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

import flowsr
from benchmarks.fuzz.trial import Trial, attempts
from flowsr._support.lock import sole_writer
from flowsr.cli.app import app
from flowsr.errors import CheckpointError
from flowsr.images import read_image, write_image
from flowsr.training import read_checkpoint
from flowsr.training.journal import read_csv

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_TINY = {"steps": 2, "conditional_steps": 1, "hidden_channels": 8, "features": 4, "conditional_hidden_channels": 8}
_WHOLE = "whole"
_COMMANDS = {
    "train": (
        *("--set", "steps=12 batch_size=1 crop=16 learning_rate=1e-4 halve_at=()", "--hold-out", "1"),
        *("--checkpoint-every", "1", "--validate-every", "6", "--log-every", "1"),
    ),
    "sample": ("--num-samples", "3"),
    "evaluate": ("--num-samples", "2"),
    "downscale": (),
    "upscale": (),
}


def run(*, seconds: float, seed: int) -> Trial:
    """Kill commands for a time."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        place = Path(folder)
        make_inputs(place)
        times = {name: _try_whole(name, place) for name in _COMMANDS}
        return attempts(lambda trial, rng, _: try_kill(trial, rng, place, times), seconds=seconds, seed=seed)


def _try_whole(name: str, place: Path) -> float:
    """How long a command takes that nobody kills, once all that it imports is here, where the others fork off."""
    out = place / _WHOLE / name
    with (
        open(place / "said", "w", encoding="utf-8") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        contextlib.suppress(SystemExit),
    ):
        app(words(name, place, out))
    start = time.monotonic()
    if run_command([*words(name, place, out), "--resume" if name == "train" else "--force"]) != 0:
        raise RuntimeError(f"{name} has failed without a kill: {(place / 'said').read_text()[-2000:]}")
    return time.monotonic() - start


def make_inputs(place: Path) -> None:
    """A tiny model for each task, and small images."""
    torch.manual_seed(0)
    for name in ("sr-x4-small", "rescaling-x4-small"):
        flow = flowsr.HCFlow.from_preset(name, start="haar", growth=4, **_TINY)
        flowsr.save(flow, place / f"{name}.safetensors")
    (place / "images").mkdir()
    for i in range(3):
        write_image(place / "images" / f"{i}.png", torch.rand(3, 24, 32))


def words(name: str, place: Path, out: Path) -> list[str]:
    """A command's arguments; the folder of its results is ``out``."""
    task = "rescaling-x4-small" if name == "downscale" else "sr-x4-small"
    model = place / f"{task}.safetensors"
    return [name, f"{place / 'images'}", "--model", f"{model}", "--out", f"{out}", "--device", "cpu", *_COMMANDS[name]]


def run_command(arguments: list[str], *, moment: float | None = None, number: int = 0) -> int:
    """Run a command in a forked process, and send it a signal after a while; its status, or minus the signal.

    What it says is in the file ``said`` beside the images. Signals wait while it forks: one that came before the child
    guards itself would let it go on as a second copy of this process.
    """
    said = Path(arguments[1]).parent / "said"
    said.write_text("", encoding="utf-8")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    child = os.fork()
    if child == 0:
        _be_command(arguments, said)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if moment is not None:
        time.sleep(moment)
        os.kill(child, number)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"flowsr {' '.join(arguments)} did not end")


def _be_command(arguments: list[str], said: Path) -> None:
    """What the forked process does, to its end, which is here whatever comes."""
    status = 70
    try:
        try:
            _say_into(said)
            _take_signals()
            torch.set_num_threads(1)
            app(arguments)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except KeyboardInterrupt:  # before the command could guard itself: Python's own end
            status = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _say_into(said: Path) -> None:
    file = os.open(said, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _take_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def try_kill(trial: Trial, rng: random.Random, place: Path, times: dict[str, float]) -> None:
    """One command, killed once or, as a scheduler may do, several times, and what is found after that."""
    name = rng.choice((*_COMMANDS, next(iter(_COMMANDS))))  # a run, which is the first, twice as often
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    arguments, what = words(name, place, out), ""
    for kills in range(rng.choice((1, 1, 2))):
        number = rng.choice(_SIGNALS)
        moment = 1.5 * times[name] * rng.random()
        what = f"{name}-{signal.Signals(number).name}-{moment:.3f}"
        again = (["--resume"] if name == "train" else ["--force"]) if kills else []
        status = run_command([*arguments, *again], moment=moment, number=number)
        fault = _status_fault(status, name, number, place) or next(faults(out), "")
        if fault:
            trial.note("half-written or said wrongly", what, fault.encode(), fine=False)
            return
    ended = "in time" if status == 0 else "killed"
    status = run_command([*arguments, "--resume" if name == "train" else "--force"])
    fault = f"going on ended with {status}: {(place / 'said').read_text()[-2000:]}" if status else next(faults(out), "")
    fault = fault or next((f"{path.name} was left" for path in out.glob(".flowsr*.lock")), "")
    if not fault and name == "train":
        fault = weights_fault(out, place / _WHOLE / name)
    if fault:
        trial.note("could not go on", what, fault.encode(), fine=False)
        return
    trial.note(f"{name} {ended}, whole, gone on", what, fine=True)


def _status_fault(status: int, name: str, number: int, place: Path) -> str:
    """A word on an end that none of these signals explains; before its handlers stand, a signal ends any process."""
    ends = {0, -number, 128 + number if name == "train" or number == signal.SIGINT else 0}
    said = (place / "said").read_text(errors="replace")
    if status not in ends:
        return f"status {status}: {said[-2000:]}"
    # Python drops a KeyboardInterrupt that comes in the midst of a weak reference's end, says so, and goes on.
    dropped = number == signal.SIGINT and "KeyboardInterrupt" in said
    return f"a traceback: {said[-2000:]}" if "Traceback" in said and not dropped else ""


def faults(out: Path) -> Iterator[str]:
    """What is wrong with the files in a folder of results, hidden ones aside, and whether somebody holds it."""
    for path in sorted(out.rglob("*")) if out.exists() else ():
        if path.is_file() and not path.name.startswith("."):
            try:
                _read(path)
            except Exception as error:
                yield f"{path.relative_to(out)} is not whole: {error!r}"
    try:
        with sole_writer(out):
            pass
    except BlockingIOError as error:
        yield str(error)


def _read(path: Path) -> None:
    if path.suffix == ".png":
        read_image(path)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".safetensors":
        flowsr.load(path)
    elif path.suffix == ".ckpt":
        read_checkpoint(path)
    elif path.name in ("train.csv", "validation.csv"):
        read_csv(path)  # rows that are written one by one, of which the last may be cut
    elif path.suffix == ".csv":
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        if len(rows) < 2 or len({len(row) for row in rows}) != 1:
            raise ValueError("rows of different lengths")
    else:
        raise CheckpointError("a file that nobody knows")


def weights_fault(out: Path, whole: Path) -> str:
    """What tells the weights of a run from those of one that nobody killed; nothing if none of their bits does."""
    ours, theirs = (flowsr.load(folder / "model.safetensors").state_dict() for folder in (out, whole))
    differ = [name for name, value in theirs.items() if not torch.equal(value, ours[name])]
    rows = [len(read_csv(folder / "train.csv")) for folder in (out, whole)]
    if differ or rows[0] != rows[1]:
        return f"{len(differ)} tensors are not those of the run that nobody killed, {rows[0]} rows for {rows[1]}"
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Files read in this process say nothing of their own."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
