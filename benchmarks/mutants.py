"""Do the fast tests notice a wrong operator or constant? ``python -m benchmarks.mutants --count 200 --seed 0``.

Random places in the rooms of mathematics are changed one at a time (an operator for its neighbour, ``<`` for ``<=``, a
constant for another, a condition for its negation), and the fast tests that run the changed line must fail. Functions
that draw pictures are left out: those are judged by eye. Survivors are printed with their change: each is to be
explained, or to get a test.

The tests run once whole to learn which of them run which lines; ``--map FILE`` keeps that. Every change is tried in a
copy of the working tree, in a process forked from one that has torch loaded: a mutant takes seconds rather than the
minutes of the whole suite, which is why no general tool is used.
"""

import argparse
import ast
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOMS = ("transforms", "distributions", "likelihood", "posterior", "calibration", "metrics")
_OF_DEFAULTS = "tests/test_ranges.py::test_defaults_are_part_of_the_interface"
_ROOT = Path(__file__).resolve().parents[1]
_FAST = ["-m", "not slow and not long and not gpu", "-q", "-p", "no:cacheprovider", "--no-header", "--durations=0"]
_OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


# ------------------------------------------------------------------------------------------------------ the changes


@dataclass(frozen=True)
class Mutant:
    """One change of one expression: the file, its lines, and the text before and after."""

    file: str
    line: int
    last_line: int
    column: int
    last_column: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.before}  ->  {self.after}"

    def apply(self, source: str) -> str:
        """The source with the change in it; columns count bytes of UTF-8, as ast's do."""
        lines = [line.encode() for line in source.splitlines(keepends=True)]
        head = b"".join([*lines[: self.line - 1], lines[self.line - 1][: self.column]])
        tail = b"".join([lines[self.last_line - 1][self.last_column :], *lines[self.last_line :]])
        return (head + f"({self.after})".encode() + tail).decode()


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Every change of one operator, comparison or constant in a file; annotations and texts are left alone."""
    for node in _expressions(ast.parse(source)):
        for changed in _changes(node):
            before, after = ast.unparse(node), ast.unparse(changed)
            yield Mutant(
                file, node.lineno, node.end_lineno or 0, node.col_offset, node.end_col_offset or 0, before, after
            )


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or isinstance(node, (ast.JoinedStr, ast.Raise)):
            continue  # types, and the words of messages
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_silent(child):
                yield from ([child] if isinstance(child, ast.expr) else [])
                yield from _expressions(child)


def _is_silent(node: ast.AST) -> bool:
    """What is not searched: imports for type checkers, jaxtyping's shapes, and pictures, which are looked at."""
    if isinstance(node, ast.FunctionDef):
        names = {argument.arg for argument in node.args.args}
        return node.name in ("plot", "_draw_figure") or bool(names & {"ax", "axes", "figure"})
    return (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING") or (
        isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and _is_text(node.slice.elts[-1])
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(_OPERATORS[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare):
        for index, op in enumerate(node.ops):
            yield ast.Compare(
                node.left, [*node.ops[:index], _OPERATORS[type(op)](), *node.ops[index + 1 :]], node.comparators
            )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield ast.Constant(_another(node.value))


def _another(value: Any) -> Any:
    return (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else 2 * value or 1.0


def population(rooms: list[str]) -> list[Mutant]:
    """Every mutant of some rooms of the package, in a fixed order."""
    files = [path for room in rooms for path in sorted((_ROOT / "flowsr" / room).rglob("*.py"))]
    return [m for path in files for m in mutants_of(str(path.relative_to(_ROOT)), path.read_text(encoding="utf-8"))]


# -------------------------------------------------------------------------------------------- which tests run a line


@dataclass
class Coverage:
    """The tests that run each line (by file, then line), and the seconds that each test takes."""

    lines: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Tests of the changed lines, and of what importing makes: those of the room and the quick first.

        A line that runs at import only, such as a constant, is tested by all tests of the room.
        """
        found = self.lines.get(mutant.file, {})
        tests = {test for line in range(mutant.line, mutant.last_line + 1) for test in found.get(str(line), [])}
        room = f"tests/{mutant.file.split('/')[1]}/"
        tests = tests or {test for test in self.seconds if test.startswith(room)}
        tests |= {test for test in self.seconds if test.startswith(_OF_DEFAULTS)}
        return sorted(tests, key=lambda test: (not test.startswith(room), self.seconds.get(test, 0.0), test))


class _Recorder:
    """A plugin of pytest: coverage's context is the test that runs, and its seconds are kept."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.seconds, self.failed = coverage, Counter[str](), set[str]()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.add(report.nodeid)


def learn(rooms: list[str]) -> Coverage:
    """Run the fast tests once and note which of them run which lines; those that fail without a change do not count."""
    import coverage
    import pytest

    watched = coverage.Coverage(data_file=None, source=[str(_ROOT / "flowsr" / room) for room in rooms])
    recorder = _Recorder(watched)
    watched.start()
    status = pytest.main([*_FAST, str(_ROOT / "tests")], plugins=[recorder])
    watched.stop()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"expected tests that run to their end; they ended with {status!r}")
    for test in sorted(recorder.failed):
        print(f"left out, as it fails without any change: {test}", flush=True)
    data, left_out = watched.get_data(), {"", *recorder.failed}
    lines = {str(Path(file).relative_to(_ROOT)): _by_line(data, file, left_out) for file in data.measured_files()}
    return Coverage(lines, {test: spent for test, spent in recorder.seconds.items() if test not in left_out})


def _by_line(data: Any, file: str, left_out: set[str]) -> dict[str, list[str]]:
    found = data.contexts_by_lineno(file)
    return {str(line): [test for test in tests if test not in left_out] for line, tests in found.items()}


# --------------------------------------------------------------------------------------------------------- the trial


class Worker:
    """A copy of the working tree in which one mutant after another is tested, in a forked process."""

    def __init__(self, folder: Path) -> None:
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.pyc", "out", "_build", "auto_examples")
        shutil.copytree(_ROOT, folder, ignore=ignored, symlinks=True)
        self.folder, self.mutant = folder, None

    def start(self, mutant: Mutant, tests: list[str], limit: float) -> None:
        """Make the change and begin the tests; what takes longer than the limit (in seconds) has failed them."""
        path = self.folder / mutant.file
        self.source = path.read_text(encoding="utf-8")
        path.write_text(mutant.apply(self.source), encoding="utf-8")
        self.mutant, self.count, self.end = mutant, len(tests), time.monotonic() + limit
        self.child = os.fork()
        if self.child == 0:
            _test(self.folder, tests)

    def survived(self) -> bool | None:
        """Whether all tests passed with the change, which is taken back; None while they run."""
        ended, status = os.waitpid(self.child, os.WNOHANG)
        late = time.monotonic() > self.end
        if not ended and not late:
            return None
        if not ended:
            os.killpg(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
        assert self.mutant is not None
        (self.folder / self.mutant.file).write_text(self.source, encoding="utf-8")
        alive = bool(ended) and os.waitstatus_to_exitcode(status) == 0
        print(f"{'SURVIVED' if alive else 'killed  '} {self.mutant}  ({self.count} tests)", flush=True)
        return alive


def _test(folder: Path, tests: list[str]) -> None:
    """In a forked process: run the tests of a copy of the working tree, silently, and leave with their status."""
    import pytest

    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder)
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT]
    sys.path[:] = [str(folder), str(folder / "tests"), *others]
    silence, status = os.open(os.devnull, os.O_WRONLY), 1
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        status = int(pytest.main([*_FAST, "-x", *tests]))
    finally:
        os._exit(status)  # nothing of the parent's is cleaned up here


def try_all(mutants: list[Mutant], known: Coverage, workers: int) -> list[Mutant]:
    """The survivors; each mutant is printed as its fate is known."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a changed file may have the size and the second of the one before
    survivors, waiting = [], list(mutants)
    with tempfile.TemporaryDirectory() as top:
        free, busy = [Worker(Path(top, str(index))) for index in range(workers)], list[Worker]()
        while waiting or busy:
            while waiting and free:
                mutant, worker = waiting.pop(0), free.pop()
                tests = known.tests_of(mutant)
                worker.start(mutant, tests, 60 + 5 * sum(known.seconds.get(test, 0.0) for test in tests))
                busy.append(worker)
            time.sleep(0.05)
            for worker in list(busy):
                if (alive := worker.survived()) is not None:
                    survivors += [worker.mutant] if alive else []
                    busy.remove(worker)
                    free.append(worker)
    return survivors


def main() -> None:
    """Run from the command line; the exit status is 1 if less than nine tenths are killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", default=list(ROOMS), choices=ROOMS)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--map", type=Path, help="a file that keeps which tests run which lines")
    parser.add_argument("--learn", type=Path, help="only learn which tests run which lines, into this file")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.learn:
        options.learn.write_text(json.dumps(asdict(learn(options.rooms))), encoding="utf-8")
        return
    known = _known(options)
    everything = population(options.rooms)
    mutants = random.Random(options.seed).sample(everything, min(options.count, len(everything)))
    _preload()
    survivors = try_all(mutants, known, options.workers)
    print(f"{len(everything)} mutants, {len(mutants)} tried, {len(mutants) - len(survivors)} killed; survivors:")
    for mutant in survivors:
        print(f"  {mutant}")
    raise SystemExit(10 * len(survivors) > len(mutants))


def _known(options: argparse.Namespace) -> Coverage:
    if options.map and options.map.exists():
        return Coverage(**json.loads(options.map.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        path = options.map or Path(folder, "map.json")
        # In a process of its own: what it imports of the package would be there, unchanged, for every mutant.
        subprocess.run([sys.executable, "-m", "benchmarks.mutants", "--learn", str(path), *_rooms(options)], check=True)
        return Coverage(**json.loads(path.read_text(encoding="utf-8")))


def _rooms(options: argparse.Namespace) -> list[str]:
    return ["--rooms", *options.rooms]


def _preload() -> None:
    for name in ("torch", "pyro", "pytest", "scipy.stats", "skimage.metrics", "torchvision", "arviz"):
        with contextlib.suppress(ImportError):
            __import__(name)


if __name__ == "__main__":
    main()
