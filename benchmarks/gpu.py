"""Everything that needs a GPU, in eight minutes on a bare machine: ``make gpu``, or ``python -m benchmarks.gpu``.

The tests marked gpu, the benchmark with its rows for a GPU, and some minutes of training, each in a process of its own
with a budget of time; what fails or takes too long does not keep the rest from running. The folder then has
``summary.json``, ``log.txt``, and what each part leaves. This file needs nothing but Python; what the machine lacks
comes as wheels, see :mod:`benchmarks.wheels`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_GRACE = 20.0
"""Seconds for a process to stop by itself once it has been asked to."""
_LEAST = 60.0
"""Seconds that training takes at least, however long the parts before it took."""

_FACTS = """
import json, platform, torch
cuda = torch.cuda.is_available()
facts = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
if cuda:
    found = torch.cuda.get_device_properties(0)
    facts |= {"gpu": found.name, "memory": found.total_memory, "capability": f"{found.major}.{found.minor}"}
    facts |= {"cudnn": torch.backends.cudnn.version(), "bf16": torch.cuda.is_bf16_supported()}
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Part:
    """A piece of the work.

    Attributes:
        name: what it is called.
        command: arguments after ``python``.
        budget: seconds it may take.
    """

    name: str
    command: tuple[str, ...]
    budget: float


@dataclass(frozen=True)
class Outcome:
    """What has become of a part: its exit code, None where it was stopped for its time, and its last words."""

    name: str
    seconds: float
    code: int | None
    said: str

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.code is None:
            return "TOO LONG"
        return "passed" if self.code == 0 else f"FAILED ({self.code})"


def parts(device: str, out: Path, *, quick: bool, total: float) -> list[Part]:
    """The work in its order; ``quick`` is seconds of it, to see that each part runs at all."""
    bench = ("-m", "benchmarks.bench", "--device", device)
    tests = ("-m", "pytest", "-q", "tests/gpu", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider")
    tests += ("-o", "timeout=100", f"--junitxml={out / 'tests.xml'}")
    if find_spec("xdist") is not None:
        tests += ("-n", str(min(12, os.cpu_count() or 1)))
    passes, graphs, chains = (("--json", str(out / f"{name}.json")) for name in ("passes", "graphs", "chains"))
    learn = ("-m", "benchmarks.timed_training", "--device", device, "--out", str(out / "training"))
    if quick:
        small = ("--batch", "1", "--crop", "32", "--trial", "3", "--largest", "64", "--seconds", "2")
        return [
            Part("tests", (*tests, "-k", "actnorm"), total),
            Part("passes", (*bench, *passes, "--repeats", "1", "small-1x20"), total),
            Part("graphs", (*bench, *graphs, "--repeats", "1", "graph-small-1x20"), total),
            Part("training", (*learn, *small), total),
        ]
    convolutions = ("decode-2x20", "decode-8x40", "log_prob-2x20", "log_prob-8x40", "small-4x40", "small-1x20")
    convolutions += ("rescaling-1x40", "bf16-2x20", "step-fp32", "step-bf16")
    repeated = ("graph-2x20", "graph-small-4x40", "graph-small-1x20", "compile-small-4x40")
    return [
        Part("tests", tests, 0.25 * total),
        Part("passes", (*bench, *passes, *convolutions), 0.08 * total),
        Part("chains", (*bench, *chains, "--repeats", "1", "solve-256", "solve-16", "solve-4"), 0.12 * total),
        Part("graphs", (*bench, *graphs, *repeated), 0.15 * total),
        Part("training", learn, 0.65 * total),
    ]


def run(part: Part, *, budget: float, environment: dict[str, str], log: Path) -> Outcome:
    """Run a part, its output on the terminal and in the log; it is asked to stop after its time, and made to later."""
    begin, said = time.monotonic(), ""
    head = f"\n=== {part.name}: at most {budget:.0f} s\n"
    print(head, end="", flush=True)
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            [sys.executable, *part.command],
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
        _Deadline(process, budget) as deadline,
    ):
        file.write(head)
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
            said = line.strip() or said
        code = process.wait()
    return Outcome(part.name, time.monotonic() - begin, None if deadline.passed and code != 0 else code, said)


class _Deadline:
    """Ends a process and all that it started once its time is over: first SIGTERM to it, then SIGKILL to all."""

    def __init__(self, process: "subprocess.Popen[str]", seconds: float) -> None:
        from threading import Timer

        self.passed = False
        self._process = process
        self._timers = [Timer(seconds, self._ask), Timer(seconds + _GRACE, self._end)]

    def __enter__(self) -> "_Deadline":
        for timer in self._timers:
            timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        for timer in self._timers:
            timer.cancel()

    def _ask(self) -> None:
        self.passed = True
        self._process.terminate()

    def _end(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            return


def facts(environment: dict[str, str]) -> dict[str, object]:
    """What the machine is, as its torch says; empty where torch does not load."""
    found = subprocess.run([sys.executable, "-c", _FACTS], env=environment, capture_output=True, text=True, check=False)
    return json.loads(found.stdout) if found.returncode == 0 else {}


def summary(outcomes: Sequence[Outcome], about: dict[str, object]) -> str:
    """The outcomes as a table under the name of the device."""
    lines = [f"{outcome.name:10}{outcome.verdict:12}{outcome.seconds:6.0f} s  {outcome.said}" for outcome in outcomes]
    return "\n".join([f"\nOn {about.get('gpu', 'the CPU')}, torch {about.get('torch')}:", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing, run all parts, sum up; the exit code is 0 if all passed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install what is missing from")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try the script")
    parser.add_argument("--quick", action="store_true", help="a little of each part")
    parser.add_argument("--seconds", type=float, default=470.0, help="for all parts")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    out = options.out.resolve()
    packages = out / "packages"
    paths = [str(_ROOT), str(_ROOT / "tests"), str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    environment |= {"FLOWSR_GPU_TESTS_ON": options.device, "PYTHONUNBUFFERED": "1"}
    about = facts(environment)
    if options.device == "cuda" and "gpu" not in about:
        print("expected a machine with a CUDA device; torch finds none here: nothing was run", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.write_text(json.dumps(about) + "\n", encoding="utf-8")
    if options.wheels is not None:
        from benchmarks.wheels import install

        print("installed for this:", ", ".join(install(options.wheels, packages)) or "nothing", flush=True)
    sys.path.append(str(packages))
    outcomes = []
    for part in parts(options.device, out, quick=options.quick, total=options.seconds):
        left = options.seconds - (time.monotonic() - begin)
        budget = min(part.budget, max(left, _LEAST))
        if part.name == "training" and not options.quick:
            part = Part(part.name, (*part.command, "--seconds", f"{budget - _GRACE:.0f}"), budget)
        outcomes.append(run(part, budget=budget, environment=environment, log=log))
        record = {"machine": about, "parts": [{**asdict(one), "verdict": one.verdict} for one in outcomes]}
        (out / "summary.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = summary(outcomes, about)
    print(text)
    with log.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return int(any(outcome.code != 0 for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
