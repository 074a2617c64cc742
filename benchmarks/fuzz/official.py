"""Damaged and hostile ``.pth`` files by the thousand: no code runs, and what loads is what was saved.

The originals are released weights in small, of every key layout that is read, in torch's present format (a zip file
with checksums) and in that of before version 1.6 (pickles in a row, without). Damage is to bytes, to the members of the
zip file and their checksums, and to the opcodes of the pickle in it, hostile ones among them.
"""

import pickle
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import torch

import flowsr
from benchmarks.fuzz.models import change_bytes, what_loads
from benchmarks.fuzz.trial import Trial, attempts, outcome
from flowsr.models import ImageModel
from flowsr.models.official import OFFICIAL_LAYOUTS
from flowsr.testing import randomize

_SMALL = {"steps": 2, "conditional_steps": 1, "features": 3, "growth": 2}
_TINY = {
    "sr-x4-small-v1": {**_SMALL, "hidden_channels": 3, "conditional_hidden_channels": 3},
    "rescaling-x4-small": {**_SMALL, "dense_growth": 2, "conditional_hidden_channels": 3},
    "srflow-x4-small": {
        "steps": 1,
        "transition_steps": 1,
        "hidden_channels": 3,
        "features": 3,
        "growth": 2,
        "rrdbs": 2,
        "stacked": (0, 1),
    },
    "irn-x4-small": {"blocks": (1, 1), "growth": 2},
}
_FINE = ("refused", "same", "remarked", "forged")
_NUMBERS = (0, 1, 2, 3, 255, 65_535, 2**27, 2**31 - 1)


def originals() -> dict[str, tuple[bytes, ImageModel]]:
    """A file of every layout in both formats, and the model that is loaded from it."""
    files = {}
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, changes in _TINY.items():
            flow = randomize(flowsr.from_preset(name, **changes))
            layout = next(layout for layout in OFFICIAL_LAYOUTS if layout.model is type(flow))
            own = flow.state_dict()
            state = {official: own[key] for official, key in layout.key_pairs(flow.config)}
            for old in (False, True):
                torch.save(state, path := Path(folder) / "a.pth", _use_new_zipfile_serialization=not old)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    files[name + "-old" * old] = (path.read_bytes(), flowsr.load(path))
    return files


# --------------------------------------------------------------------------------------------------- damaged files


def members(content: bytes) -> dict[str, bytes]:
    """The members of a zip file by name."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(parts: dict[str, bytes], *, packed: str | None = None, twice: str | None = None) -> bytes:
    """A zip file of members, with right checksums; one of them compressed, or there twice, as asked for."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the member that is there twice
        for name, body in parts.items():
            how = zipfile.ZIP_DEFLATED if name == packed else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name), body, compress_type=how)
            if name == twice:
                archive.writestr(zipfile.ZipInfo(name), bytes(len(body)), compress_type=how)
    return file.getvalue()


def _change_members(content: bytes, rng: random.Random, canary: Path) -> bytes:
    """The zip file with a member changed, missing, renamed, packed, enlarged or there twice, its checksums right."""
    parts = members(content)
    name = rng.choice(list(parts))
    pickled = next(part for part in parts if part.endswith("data.pkl"))
    match rng.randrange(9):
        case 0:
            parts[name] = change_bytes(parts[name], rng) if parts[name] else b"x"
        case 1:
            del parts[name]
        case 2:
            parts[rng.choice(("../evil", "archive/data/999", "x" * 60_000))] = parts.pop(name)
        case 3:
            return pack(parts, packed=name)
        case 4:
            return pack({**parts, name: bytes(2**24)}, packed=name)
        case 5:
            return pack(parts, twice=name)
        case _:
            parts[pickled] = change_pickle(parts[pickled], rng, canary)
    return pack(parts)


def change_pickle(content: bytes, rng: random.Random, canary: Path) -> bytes:
    """The pickle with a byte or a number changed, or with opcodes put into it that would write a file if they ran."""
    place = rng.randrange(2, len(content))
    match rng.randrange(4):
        case 0:
            return change_bytes(content, rng)
        case 1:  # a number of one byte becomes one of four, or another one
            places = [i for i in range(len(content) - 1) if content[i : i + 1] == b"K"]
            place = rng.choice(places or [2])
            return content[:place] + b"J" + struct.pack("<i", rng.choice(_NUMBERS)) + content[place + 2 :]
        case 2:
            return content[:place] + rng.choice(_hostile(canary)) + content[place:]
        case _:
            return content[:2] + rng.choice(_hostile(canary)) + rng.choice((b".", b"0" + content[2:]))


def _hostile(canary: Path) -> list[bytes]:
    """Opcodes that call something."""
    calls = [
        (b"os", b"system", f"touch {canary}"),
        (b"posix", b"system", f"touch {canary}"),
        (b"builtins", b"exec", f"open({str(canary)!r}, 'w')"),
        (b"builtins", b"open", str(canary)),
        (b"torch", b"load", str(canary)),
        (b"torch.jit._script", b"load", str(canary)),
        (b"pathlib", b"Path", str(canary)),
        (b"torch.utils.data", b"open", str(canary)),
    ]
    made = [
        b"c" + module + b"\n" + name + b"\n(X" + struct.pack("<I", len(text.encode())) + text.encode() + b"tR"
        for module, name, text in calls
    ]
    return [*made, b"(" * 5000, b"]" + b"2\x86" * 30, b"cbuiltins\nbytearray\n(J\xff\xff\xff\x0ftR", b"}" * 100]


def _change_checksum(content: bytes, rng: random.Random) -> bytes:
    """A checksum or length in the directory of a zip file, or in the head of a member, becomes another number."""
    mark, offset = rng.choice(((b"PK\1\2", rng.choice((10, 16, 20, 24, 42))), (b"PK\3\4", rng.choice((8, 14, 26, 28)))))
    places = [i for i in range(len(content) - 46) if content.startswith(mark, i)]
    place = rng.choice(places or [0]) + offset
    return content[:place] + struct.pack("<H", rng.choice(_NUMBERS) % 2**16) + content[place + 2 :]


def hostile_pickle(canary: Path) -> bytes:
    """A pickle, and nothing else, that writes a file when it is read by ``pickle.load``."""
    return pickle.dumps(_Writes(canary))


class _Writes:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.canary,)


def damage(content: bytes, rng: random.Random, canary: Path) -> tuple[bytes, bool]:
    """The file with a change, and whether it is one that leaves the checksums right."""
    kind = rng.random()
    if kind < 0.02:
        return hostile_pickle(canary), True
    if not content.startswith(b"PK"):
        return (change_bytes if kind < 0.6 else partial(change_pickle, canary=canary))(content, rng), True
    if kind < 0.4:
        return change_bytes(content, rng), False
    if kind < 0.55:
        return _change_checksum(content, rng), False
    return _change_members(content, rng, canary), True


# ------------------------------------------------------------------------------------------------------- the trial


def try_file(trial: Trial, path: Path, content: bytes, flow: ImageModel, canary: Path, *, forged: bool = False) -> None:
    """Load one file; note what came of it. A forged one has checksums that fit, so another model may be in it."""
    path.write_bytes(content)
    end = outcome(lambda: what_loads(path, flow, forged=forged))
    if canary.exists():
        canary.unlink()
        end = "ran code"
    trial.note(end, path.name, content, fine=end in _FINE)


def run(*, seconds: float, seed: int) -> Trial:
    """Damage and load files for a time."""
    files = originals()

    def attempt(trial: Trial, rng: random.Random, folder: Path) -> None:
        name, canary = rng.choice(list(files)), folder / "canary"
        content, flow = files[name]
        content, forged = damage(content, rng, canary)
        try_file(trial, folder / f"{name}.pth", content, flow, canary, forged=forged)

    return attempts(attempt, seconds=seconds, seed=seed)
