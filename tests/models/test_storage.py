"""Weights come back bit for bit, and a file that is not what it should be is refused with a reason."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from cases import tiny_flow
from safetensors.torch import load_file, save_file

import flowsr
from flowsr.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


@pytest.mark.parametrize("name", ["sr-x4", "sr-x8", "rescaling-x4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path, name, dtype):
    flow = tiny_flow(name).to(dtype)
    flow.initialize(torch.rand(2, 3, 16, 16))
    flow.provenance = {"trained on": "noise", "steps": 3}
    path = tmp_path / "mine.safetensors"
    flowsr.save(flow, path)
    again = flowsr.load(path)
    assert again.config == flow.config
    assert again.provenance == flow.provenance
    assert again.dtype == dtype
    assert not again.training
    own, other = flow.state_dict(), again.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"], "no temporary file may be left"


def test_overwrite_only_when_asked(tmp_path):
    path = tmp_path / "a.safetensors"
    flowsr.save(tiny_flow(), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="choose another name"):
        flowsr.save(tiny_flow("rescaling-x4"), path, overwrite=False)
    assert path.read_bytes() == before
    flowsr.save(tiny_flow("rescaling-x4"), path)
    assert flowsr.load(path).config.task == "rescaling"


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("flowsr.models.storage.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        flowsr.save(tiny_flow(), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_official_with_module_prefix(tmp_path):
    state = torch.load(GOLDEN / "sr_x4_official_state_dict.pth", weights_only=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    flow = flowsr.load(tmp_path / "a.pth")
    reference = flowsr.load(GOLDEN / "sr_x4_official_state_dict.pth")
    assert all(torch.equal(a, b) for a, b in zip(flow.parameters(), reference.parameters(), strict=True))
    assert flow.config.rrdbs == (2, 1)
    assert (flow.config.steps, flow.config.conditional_steps) == (5, 2)


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/flowsr-was-here"),))


def _official():
    return torch.load(GOLDEN / "sr_x4_official_state_dict.pth", weights_only=True)


def _write(path, change):
    state = _official()
    change(state)
    torch.save(state, path)


def _drop(state):
    del state["flow.level0_condFlow.f.bias"]


def _add(state):
    state["flow.extra"] = torch.zeros(1)


def _reshape(state):
    state["flow.layers.2.permute.weight"] = torch.zeros(5, 5)


def _poison(state):
    state["flow.layers.2.permute.weight"][0, 0] = torch.nan


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "complete .pth file|holds other objects"),
        (lambda p: p.write_bytes((GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()[:9000]), "expected"),
        (lambda p: p.write_bytes(pickle.dumps(Malicious())), "was not unpickled"),
        (lambda p: torch.save({"a": Malicious()}, p), "was not unpickled"),
        (lambda p: torch.save([torch.zeros(1)], p), "plain state dict"),
        (lambda p: torch.save({1: torch.zeros(1)}, p), "plain state dict"),
        (lambda p: p.write_bytes(b"hello world"), "complete .pth file"),
        (lambda p: torch.save({"conv.weight": torch.zeros(1)}, p), "got keys like conv.weight"),
        (lambda p: _write(p, _drop), "missing flow.level0_condFlow.f.bias; surplus none"),
        (lambda p: _write(p, _add), "missing none; surplus flow.extra"),
        (lambda p: _write(p, _reshape), r"flow.layers.2.permute.weight .*\(12, 12\); got \(5, 5\)"),
        (lambda p: _write(p, _poison), "NaN or infinity in flow.layers.2.permute.weight"),
    ],
)
def test_official_refusals(tmp_path, write, message):
    path = tmp_path / "a.pth"
    write(path)
    with pytest.raises(CheckpointError, match=message):
        flowsr.load(path)
    assert not Path("/tmp/flowsr-was-here").exists()


def _poisoned(state):
    return {key: value * torch.nan if value.is_floating_point() else value for key, value in state.items()}


def _metadata(**changes):
    return {
        "flowsr_format": "1",
        "model": "HCFlow",
        "config": json.dumps(tiny_flow().config.to_dict()),
        "provenance": "{}",
        **changes,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, s: p.write_bytes(p.read_bytes()[:-100]), "complete safetensors file"),
        (lambda p, s: p.write_bytes(b"not a file"), "complete safetensors file"),
        (lambda p, s: save_file(s, p), "written by flowsr.save"),
        (lambda p, s: save_file(s, p, _metadata(model="PixelCNN")), "model PixelCNN"),
        (lambda p, s: save_file(s, p, _metadata(config="{}")), "valid configuration"),
        (lambda p, s: save_file(s, p, _metadata(config="{")), "valid configuration"),
        (
            lambda p, s: save_file(s, p, _metadata(config=json.dumps(tiny_flow(features=4).config.to_dict()))),
            "size mismatch",
        ),
        (lambda p, s: save_file(dict(list(s.items())[1:]), p, _metadata()), "Missing key"),
        (
            lambda p, s: save_file({k: v * torch.nan for k, v in s.items()}, p, _metadata()),
            "one floating|finite weights",
        ),
        (lambda p, s: save_file({k: v.int() for k, v in s.items()}, p, _metadata()), "one floating dtype .*int32"),
        (lambda p, s: save_file(s, p, _metadata(provenance="3")), "valid configuration"),
        (lambda p, s: save_file({**s, "extra": torch.zeros(1)}, p, _metadata()), "Unexpected key"),
    ],
)
def test_safetensors_refusals(tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    flowsr.save(tiny_flow(), path)
    change(path, load_file(path))
    with pytest.raises(CheckpointError, match=message):
        flowsr.load(path)


def test_provenance_must_be_json(tmp_path):
    flow = tiny_flow()
    flow.provenance = {"loss": float("nan")}
    with pytest.raises(ValueError, match="JSON's finite values"):
        flowsr.save(flow, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_loading_does_not_move_the_random_state(tmp_path):
    flowsr.save(tiny_flow(), tmp_path / "a.safetensors")
    before = torch.get_rng_state()
    flowsr.load(tmp_path / "a.safetensors")
    flowsr.load(GOLDEN / "sr_x4_official_state_dict.pth")
    assert torch.equal(before, torch.get_rng_state())


def test_other_messages(tmp_path):
    with pytest.raises(ValueError, match=r"ends in .safetensors; got 'a.pth'"):
        flowsr.save(tiny_flow(), tmp_path / "a.pth")
    with pytest.raises(FileNotFoundError, match="there is no file nowhere"):
        flowsr.load("nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no file sr-x4-smal: did you mean sr-x4-small\?"):
        flowsr.load("sr-x4-smal")
    (run := tmp_path / "run").mkdir()
    with pytest.raises(FileNotFoundError, match="run is a folder: give a file in it"):
        flowsr.load(run)
    flowsr.save(tiny_flow(), run / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"run is a folder: give .*run/model\.safetensors"):
        flowsr.load(run)
    with pytest.raises(FileNotFoundError, match=r"folder .* to exist"):
        flowsr.save(tiny_flow(), tmp_path / "no" / "a.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(IsADirectoryError, match="which is a folder"):
        flowsr.save(tiny_flow(), tmp_path / "folder.safetensors")
    (tmp_path / "a.bin").touch()
    with pytest.raises(CheckpointError, match=r"ends in .safetensors, .pth or .pt"):
        flowsr.load(tmp_path / "a.bin")
