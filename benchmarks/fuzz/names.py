r"""Hostile names by the thousand: of images, models and folders, in any command, on any terminal.

Names hold bytes in no encoding, escape sequences, line breaks, formulas, markup, and as many letters as a file system
takes. Streams have other encodings, are closed, full, or pipes that nobody reads. What must hold of each command: it
ends with 0 and no error, with 2 and a sentence, or with 1 where a reader has gone; JSON can be parsed; nothing printed
acts on a terminal; files are whole, and each can be found by what the output calls it. A traceback never.

A command takes seconds to start, so each attempt is a fork of a process that has loaded everything.
"""

import csv
import importlib
import io
import json
import os
import random
import re
import shutil
import sys
import traceback
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

import flowsr
from benchmarks.fuzz.trial import Trial, attempts
from flowsr.cli import main

PIECES: tuple[bytes | str, ...] = (
    *(b"a", b"baby", b"_LR", b"x4", b" ", b".", b"~", b"#", b"%41", b"\\x41", b"\\", b"'", b'"', b",", b";", b"|"),
    *(b"\xe9", b"\xff\xfe", b"\xc3", b"\xed\xb3\xa9", b"\x1b[31m", b"\x1b]0;gone\x07", b"\n", b"\r", b"\t", b"\x7f"),
    *("é", "日本", "\U0001f600", "\u202egnp", "\x9b2J", "\u2028", "τ", "＝1"),
    *(b"=cmd|' C calc'!A0", b"+1", b"-1", b"@SUM(1)", b"$x_{$", b"[bold]", b"{}%s", b"<script>", b"&amp;", b"*?"),
)
ENCODINGS = ("utf-8", "utf-8", "cp1252", "ascii", "latin-1", "cp932", "utf-16")
STREAMS = ("file", "file", "file", "closed", "full", "gone")
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_LOADED = (
    *(f"flowsr.workflows.{name}" for name in ("compare", "report", "rescale", "sample", "score", "study")),
    *("flowsr.cli.app", "flowsr.training.fit", "flowsr.training.loop", "scipy.stats", "skimage.metrics", "lightning"),
    *("matplotlib.backends.backend_agg", "tifffile", "imagecodecs", "jinja2", "rich.progress", "typer.rich_utils"),
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_TINY: dict[str, Any] = {"hidden_channels": 4, "conditional_hidden_channels": 4, "features": 4, "growth": 2}


@dataclass
class Attempt:
    """One command: its words, what it writes, and the streams that it prints to."""

    words: list[str]
    out: Path
    images: list[Path]
    encoding: str
    stdout: str
    stderr: str
    wrong: bool = False

    @property
    def json(self) -> bool:
        """Whether a document is asked for."""
        return "--json" in self.words


@dataclass
class Ending:
    """What came of a command."""

    code: int
    stdout: bytes
    stderr: bytes

    def text(self, attempt: Attempt) -> tuple[str, str]:
        """What was printed on stdout and stderr, decoded as the terminal does."""
        return self.stdout.decode(attempt.encoding), self.stderr.decode(attempt.encoding)


def hostile_name(rng: random.Random, *, longest: int = 255) -> bytes:
    """The bytes of a name that a file can have, a few pieces or as long as can be."""
    pieces = [piece.encode() if isinstance(piece, str) else piece for piece in PIECES]
    name = b"".join(rng.choices(pieces, k=rng.choice((1, 2, 2, 3, 5))))
    if rng.random() < 0.15:
        name = (name * 255)[: longest - rng.choice((0, 1, 2, 10))]
    return name[:longest].lstrip(b".") or b"a"


def decoded(text: str) -> bytes:
    """The name that an output calls so."""
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())


# ------------------------------------------------------------------------------------------------------ the attempts


def save_models(folder: Path) -> dict[str, Path]:
    """Models small enough for hundreds of commands: for super-resolution and for rescaling."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("sr-x4-small", "rescaling-x4-small"):
            config = flowsr.HCFlow.preset(name, steps=1, conditional_steps=1, rrdbs=(1, 1), **_TINY)
            model = flowsr.HCFlow(config, start="haar")
            model.provenance = {"made by": "\x1b[31m\n\u202e\udce9"}
            model.initialize(torch.rand(2, 3, 16, 16))
            flowsr.save(model, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in ("sr-x4-small", "rescaling-x4-small")}


def make_attempt(rng: random.Random, folder: Path, models: dict[str, Path]) -> Attempt:
    """Images, a model and a folder of hostile names, and a command on them."""
    command = rng.choice([*_COMMANDS, *_QUICK, *_QUICK])
    source = folder / os.fsdecode(hostile_name(rng, longest=200))
    source.mkdir()
    images = []
    for _ in range(2):
        path = source / os.fsdecode(hostile_name(rng, longest=251) + b".png")
        if path.stem not in {image.stem for image in images} and path.suffix == ".png":
            images.append(path)
            _write_picture(path, rng)
    model = source / os.fsdecode(hostile_name(rng, longest=243) + b".safetensors")
    shutil.copy(models["rescaling-x4-small" if command in ("downscale", "upscale") else "sr-x4-small"], model)
    out = folder / os.fsdecode(hostile_name(rng, longest=200))
    words = [command, *_COMMANDS[command](source, images, model, out)]
    wrong = rng.random() < 0.1
    if wrong:
        words.insert(rng.randrange(1, len(words)), os.fsdecode(b"--" + hostile_name(rng)))
    words += ["--json"] if command != "report" and rng.random() < 0.6 else []
    streams = rng.choice(STREAMS), rng.choice(STREAMS)
    return Attempt(words, out, images, rng.choice(ENCODINGS), *streams, wrong=wrong)


def _write_picture(path: Path, rng: random.Random) -> None:
    waves = 128 + 90 * np.sin(np.arange(32) / 5 + rng.random())
    picture = waves[:, None, None] + np.zeros((32, 32, 3)) + 5 * rng.random()
    content = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(content, "PNG")
    path.write_bytes(content.getvalue())


_QUICK = ("score", "sample", "downscale", "upscale", "evaluate", "info")
_LISTED = ("score", "sample", "downscale", "upscale")
_TRAIN = "steps=1 crop=16 batch_size=1"
_COMMANDS: dict[str, Any] = {
    "score": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o)],
    "sample": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o), "-n", "2", "--moments"],
    "evaluate": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o), "-t", "0", "-n", "1"],
    "compare": lambda s, i, m, o: [str(m), str(m), str(s), "--out", str(o), "-t", "0", "-n", "1"],
    "downscale": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o)],
    "upscale": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o)],
    "report": lambda s, i, m, o: [str(i[0]), "--model", str(m), "--out", str(o / "page.html"), "-n", "2"],
    "study": lambda s, i, m, o: ["uncertainty", str(s), "-m", str(m), "--out", str(o), "--crop", "16", "-n", "4"],
    "train": lambda s, i, m, o: [str(s), "--model", str(m), "--out", str(o), "--set", _TRAIN],
    "info": lambda s, i, m, o: ["--model", str(m)],
    "import": lambda s, i, m, o: [str(m.with_suffix(".pth")), str(o / "m.safetensors")],
}


def run_forked(attempt: Attempt, folder: Path) -> Ending:
    """Run a command in a fork of this process, on streams of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    said = [folder / ".stdout", folder / ".stderr"]
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = _run_here(attempt, said)
        except BaseException:
            Path(said[1]).write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    printed = [path.read_bytes() if path.exists() else b"" for path in said]
    return Ending(os.waitstatus_to_exitcode(status), *printed)


def _run_here(attempt: Attempt, said: list[Path]) -> int:
    sys.stdout, sys.stderr = (
        _as_python_begins(number, kind, path, attempt.encoding)
        for number, kind, path in ((1, attempt.stdout, said[0]), (2, attempt.stderr, said[1]))
    )
    sys.argv = ["flowsr", *attempt.words]
    warnings.resetwarnings()  # to a test they are errors
    code: object = 0
    try:
        main()
    except SystemExit as leave:
        code = leave.code
    except BaseException:
        said[1].write_text(traceback.format_exc(), errors="backslashreplace")  # wherever stderr leads
        code = 99
    for stream in (sys.stdout, sys.stderr):  # as Python does at its end
        if stream is not None:
            try:
                stream.flush()
            except Exception:
                code = 120
    return code if isinstance(code, int) else 0


def _as_python_begins(number: int, kind: str, path: Path, encoding: str) -> Any:
    """A standard stream as Python makes it of a file, a closed number, a full disk, or a pipe without a reader."""
    if kind == "closed":
        os.close(number)
        return None
    unread, opened = os.pipe()
    if kind != "gone":
        os.close(opened)
        opened = os.open("/dev/full" if kind == "full" else path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, number)
    for done in {opened, unread} - {number}:
        os.close(done)
    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(open(number, "wb", closefd=False), encoding, errors)


# ------------------------------------------------------------------------------------------------------- what must hold


def fault(attempt: Attempt, ending: Ending) -> str:
    """What must not be of a command's end, in a few words; empty if all is well."""
    try:
        stdout, stderr = ending.text(attempt)
    except UnicodeDecodeError:
        return "printed what its terminal cannot decode"
    for check in (_fault_of_code, _fault_of_text, _fault_of_json, _fault_of_files):
        if found := check(attempt, ending, stdout, stderr):
            return found
    return ""


def _fault_of_code(attempt: Attempt, ending: Ending, stdout: str, stderr: str) -> str:
    if "Traceback" in stderr or ending.code not in (0, 1, 2):
        return f"traceback, or code {ending.code}"
    if ending.code == 1 and attempt.stdout != "gone":
        return "code 1 though somebody reads"
    said = "Error" in stderr
    if attempt.stderr == "file" and said != (ending.code == 2):
        return f"code {ending.code} and {'an' if said else 'no'} error said"
    mistaken = attempt.wrong or attempt.words[0] == "import"
    if ending.code == 0 and mistaken:
        return "code 0 of a wrong command line"
    if ending.code == 2 and not mistaken and attempt.stdout != "full" and not _may_refuse(attempt):
        return "refused a name"
    return ""


def _may_refuse(attempt: Attempt) -> bool:
    """Whether two images are of one name for the command, up to endings: that is refused, in words."""
    stems = {image.stem.removesuffix("_LR") for image in attempt.images}
    return len(stems) < 2


def _fault_of_text(attempt: Attempt, ending: Ending, stdout: str, stderr: str) -> str:
    for letter in stdout + stderr:
        acting = unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") and letter not in "\n\t"
        if acting or unicodedata.bidirectional(letter) in _TURNING:
            return f"printed {letter!r}"
    return ""


def _fault_of_json(attempt: Attempt, ending: Ending, stdout: str, stderr: str) -> str:
    if not attempt.json or ending.code != 0 or attempt.stdout != "file":
        return ""
    try:
        document = json.loads(stdout)
    except ValueError:
        return "printed JSON that is none"
    return _fault_of_listing(document["images"], attempt) if attempt.words[0] in _LISTED else ""


def _fault_of_listing(listed: list[dict[str, Any]], attempt: Attempt) -> str:
    """Whether all that was read and written is called so that it can be found."""
    if {decoded(image["source"]) for image in listed} != set(map(os.fsencode, attempt.images)):
        return "images that nobody finds by their source"
    named = {decoded(name) for image in listed for name in (*image.get("files", ()), image.get("file", ""))}
    found = {os.path.basename(name) for name in named if name}
    written = {os.fsencode(path.name) for path in attempt.out.glob("*.png")}
    return "" if attempt.words[0] == "score" or found == written else "files that nobody finds by their name"


def _fault_of_files(attempt: Attempt, ending: Ending, stdout: str, stderr: str) -> str:
    files = [path for path in attempt.out.rglob("*") if path.is_file()] if attempt.out.exists() else []
    if ending.code in (0, 1) and not files and attempt.words[0] not in ("info", "import"):
        return "nothing written"
    for path in files:
        if path.name.startswith(".flowsr-"):
            return "half a file left"
        try:
            _read_whole(path, attempt)
        except Exception as error:
            return f"a file that is not whole: {type(error).__name__}"
    return ""


def _read_whole(path: Path, attempt: Attempt) -> None:
    """Read a file as other programs do; an exception if it cannot be."""
    content = path.read_bytes()
    if path.suffix == ".png":
        Image.open(io.BytesIO(content)).load()
    elif path.suffix in (".html", ".txt"):
        content.decode()
    elif path.suffix == ".json":
        json.loads(content.decode())
    elif path.suffix == ".csv":
        head, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
        assert all(len(row) == len(head) for row in rows)
        if head[0] == "image":
            assert not any(row[0].startswith(("=", "+", "-", "@")) for row in rows)
            names = {decoded(re.sub("^'(?='*[=+@＝＋－＠-])", "", row[0])) for row in rows}
            assert names == {os.fsencode(image.name) for image in attempt.images}
    elif path.suffix == ".safetensors":
        os.chdir(path.parent)
        with safe_open(path.name, framework="pt") as file:
            assert file.metadata()


# ------------------------------------------------------------------------------------------------------- the trial


def run(*, seconds: float, seed: int) -> Trial:
    """Try commands on hostile names for a time."""
    torch.set_num_threads(1)
    _load_everything()
    before = os.getcwd()
    models: dict[str, Path] = {}

    def attempt(trial: Trial, rng: random.Random, folder: Path) -> None:
        if not models:
            models.update(save_models(folder))
        with _emptied(folder / "attempt") as place:
            trying = make_attempt(rng, place, models)
            ending = run_forked(trying, place)
            wrong = fault(trying, ending)
        end = wrong or {0: "done", 1: "unread"}.get(ending.code, "refused")
        record = {**vars(trying), "out": str(trying.out), "images": list(map(str, trying.images)), "code": ending.code}
        said = json.dumps(record, indent=1).encode() + b"\n" + ending.stderr[-4000:]
        trial.note(end, trying.words[0], said, fine=not wrong)

    try:
        return attempts(attempt, seconds=seconds, seed=seed)
    finally:
        os.chdir(before)


def _load_everything() -> None:
    """What commands import when they need it, and matplotlib's fonts: once, before the forks."""
    for name in _LOADED:
        importlib.import_module(name)
    figure = flowsr.plots.new_figure(1, 1)
    figure.subplots().set_title("a")
    figure.savefig(io.BytesIO())


class _emptied:
    """An empty folder that is gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        self._folder.mkdir()
        return self._folder

    def __exit__(self, *_: object) -> None:
        os.chdir(self._folder.parent)
        shutil.rmtree(self._folder)
