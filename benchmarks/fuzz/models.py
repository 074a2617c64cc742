"""Damaged model files by the thousand: each is refused in a few words, or loads to exactly what was saved.

The originals are what ``flowsr.save`` writes of a tiny model of every kind. Damage is to bytes, to the length of the
file, to the JSON of its header (names, dtypes, shapes, places), and to the configuration and the other facts in it.
"""

import copy
import hashlib
import json
import random
import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import flowsr
from benchmarks.fuzz.trial import Trial, attempts, outcome
from flowsr.models import ImageModel
from flowsr.testing import randomize

Header = dict[str, Any]

_TINY: dict[str, dict[str, Any]] = {
    "sr-x4-small": {
        "steps": 2,
        "conditional_steps": 1,
        "hidden_channels": 3,
        "conditional_hidden_channels": 3,
        "features": 3,
        "growth": 2,
    },
    "rescaling-x4-small": {"steps": 2, "conditional_steps": 1, "dense_growth": 2, "features": 3, "growth": 2},
    "srflow-x4-small": {
        "steps": 1,
        "transition_steps": 1,
        "hidden_channels": 3,
        "features": 3,
        "growth": 2,
        "rrdbs": 1,
        "stacked": (0,),
    },
    "irn-x4-small": {"blocks": (1, 1), "growth": 2},
    "glow-small": {"levels": 2, "steps": 1, "hidden_channels": 3},
    "realnvp-small": {"scales": 2, "checkerboard_couplings": 1, "channel_couplings": 2, "features": 3, "blocks": 1},
}
_DIGEST = "content_sha256"
_DTYPES = {"F32": "torch.float32", "F64": "torch.float64", "F16": "torch.float16", "BOOL": "torch.bool"}
_TELLING: tuple[Any, ...] = (0, 1, -1, 2, 3, 12, 64, 999, 10_000, 100_000, 2**31, 2**63, 10**30, 0.5, 1e308, True, None)
_STRANGE: tuple[Any, ...] = ("", "dense", "x" * 100_000, [], [0], [7, 7], [10**9, 10**9], {}, {"a": [[[]]]})


def originals() -> dict[str, tuple[bytes, ImageModel]]:
    """A file of every kind of model, and the model in it, by the name of a preset."""
    files = {}
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, changes in _TINY.items():
            flow = randomize(flowsr.from_preset(name, **changes)).eval()
            flow.provenance = {"trained on": "noise", "steps": 3}
            flowsr.save(flow, path := Path(folder) / "a.safetensors")
            files[name] = (path.read_bytes(), flow)
    return files


# --------------------------------------------------------------------------------------------------- damaged files


def damage(content: bytes, rng: random.Random) -> bytes:
    """The file with one or two changes that a disk, a transfer or an adversary may make."""
    for _ in range(rng.choice((1, 1, 2))):
        content = rng.choice((change_bytes, change_bytes, _change_header, _change_header, _change_facts))(content, rng)
    return content


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """The file with a bit or byte changed, cut off, or with bytes taken out, put twice or appended."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    bit = bytes([content[start] ^ 1 << rng.randrange(8)]) if start < len(content) else b""
    return rng.choice(
        (
            content[:start] + bit + content[start + 1 :],
            content[:start] + bit + content[start + 1 :],
            content[:start] + bytes([rng.choice((0, 255, rng.randrange(256)))]) + content[start + 1 :],
            content[:end],
            content[:start] + content[end:],
            content[:end] + content[start:],
            content + bytes(rng.choice((1, 64))),
        )
    )


def _split(content: bytes) -> tuple[Header, bytes] | None:
    """The header of a safetensors file and its body, where an earlier change has left them."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        return json.loads(content[8 : 8 + length]), content[8 + length :]
    except (struct.error, ValueError, RecursionError):
        return None


def _join(header: Any, body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _changed(content: bytes, change: Callable[[Header], None]) -> bytes:
    found = _split(content)
    if found is None or not isinstance(found[0], dict) or "__metadata__" not in found[0]:
        return content
    header = copy.deepcopy(found[0])
    change(header)
    return _join(header, found[1])


def _change_header(content: bytes, rng: random.Random) -> bytes:
    """Something of a tensor in the header becomes another thing, or two tensors change places."""

    def change(header: Header) -> None:
        names = [name for name in header if name != "__metadata__"]
        one, other = rng.choice(names), rng.choice(names)
        match rng.randrange(7):
            case 0:
                header[one], header[other] = header[other], header[one]
            case 1:
                del header[one]
            case 2:
                header[one + rng.choice(("x", ".weight", "\n\x1b[31m", "x" * 100_000))] = header.pop(one)
            case 3:
                header[one]["dtype"] = rng.choice(
                    ("F64", "F16", "I32", "BOOL", "U8", "F8_E4M3", "C64", "F4", "nothing")
                )
            case 4:
                header[one]["shape"] = list(reversed(header[one]["shape"])) + rng.choice(([], [1], [0], [2**40]))
            case 5:
                header[one]["data_offsets"] = list(header[other]["data_offsets"])
            case _:
                header[one][rng.choice(("shape", "data_offsets"))] = [
                    rng.choice((0, 1, 2**31, 2**63)) for _ in range(2)
                ]

    return _changed(content, change)


def _change_facts(content: bytes, rng: random.Random) -> bytes:
    """A field of the configuration, or a text of the metadata, becomes another one."""

    def change(header: Header) -> None:
        facts = header["__metadata__"]
        key = rng.choice(list(facts))
        if key == "config":
            fields = json.loads(facts["config"])
            name = rng.choice(list(fields))
            value = rng.choice((*_TELLING, *_STRANGE))
            if isinstance(fields[name], int) and rng.random() < 0.5:
                value = fields[name] + rng.choice((1, -1))
            fields[name] = value
            facts["config"] = json.dumps(fields)
        elif rng.random() < 0.2:
            del facts[key]
        else:
            facts[key] = rng.choice(
                ("", "2", "Glow", "RealNVP", "{}", "[" * 100_000, "3", "null", "\x00", "y" * 100_000)
            )

    try:
        return _changed(content, change)
    except (ValueError, TypeError, AttributeError, IndexError):  # of what an earlier change has left
        return content


def seal(content: bytes) -> bytes:
    """The file with the digest of what is in it now, computed from its bytes alone; as it is if it cannot be."""
    try:
        header, body = _split(content) or ({}, b"")
        facts = {key: text for key, text in header["__metadata__"].items() if key != _DIGEST}
        digest = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
        for name in sorted(set(header) - {"__metadata__"}):
            start, end = header[name]["data_offsets"]
            digest.update(json.dumps([name, _DTYPES[header[name]["dtype"]], header[name]["shape"]]).encode())
            digest.update(body[start:end])
        header["__metadata__"] = {**facts, _DIGEST: digest.hexdigest()}
        return _join(header, body)
    except (KeyError, TypeError, ValueError, AttributeError):
        return content


# ------------------------------------------------------------------------------------------------------- the trial


_FINE = ("refused", "same", "remarked", "forged")


def try_file(trial: Trial, path: Path, content: bytes, flow: ImageModel, *, forged: bool = False) -> None:
    """Load one file; note what came of it. A forged one has a digest that fits, so another model may be in it."""
    path.write_bytes(content)
    end = outcome(lambda: what_loads(path, flow, forged=forged))
    trial.note(end, path.name, content, fine=end in _FINE)


def what_loads(path: Path, flow: ImageModel, *, forged: bool) -> str:
    """Whether a file loads as the same model, as another that was put there on purpose, or with a remark."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        found = flowsr.load(path)
    if same(found, flow):
        return "same"
    return "remarked" if remarks else "forged" if forged else "different"


def same(found: ImageModel, saved: ImageModel) -> bool:
    """Whether two models are the same, to the last bit of their weights."""
    own, other = found.state_dict(), saved.state_dict()
    facts = type(found) is type(saved) and found.config == saved.config and own.keys() == other.keys()
    return facts and all(torch.equal(own[key], other[key]) for key in own)


def run(*, seconds: float, seed: int) -> Trial:
    """Damage and load files for a time."""
    files = originals()

    def attempt(trial: Trial, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(files))
        content, flow = files[name]
        content, forged = damage(content, rng), rng.random() < 0.4
        # Most damage stops at the digest; what is behind it is met only with a right one.
        content = seal(content) if forged else content
        try_file(trial, folder / f"{name}.safetensors", content, flow, forged=forged)

    return attempts(attempt, seconds=seconds, seed=seed)
