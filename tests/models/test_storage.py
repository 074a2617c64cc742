"""Weights come back bit for bit, and a file that is not what it should be is refused with a reason."""

import hashlib
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from cases import tiny_flow
from safetensors import safe_open
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
        (lambda p: p.write_bytes(b""), "a.pth is empty"),
        (lambda p: p.write_bytes((GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()[:9000]), "expected"),
        (lambda p: p.write_bytes(pickle.dumps(Malicious())), "was not unpickled"),
        (lambda p: torch.save({"a": Malicious()}, p), "was not unpickled"),
        (lambda p: torch.save([torch.zeros(1)], p), "plain state dict"),
        (lambda p: torch.save({1: torch.zeros(1)}, p), "plain state dict"),
        (lambda p: p.write_bytes(b"hello world"), "that is complete; .* cannot be read"),
        (lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>"), "a page .HTML or XML., not weights"),
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
        (lambda p, s: save_file(s, p), "bare weights of one of flowsr's: load them with load_state_dict"),
        (lambda p, s: save_file({"conv": torch.zeros(1)}, p), "written by flowsr.save"),
        (lambda p, s: save_file(s, p, _metadata(model="PixelCNN")), "model PixelCNN"),
        (lambda p, s: save_file(s, p, _metadata(config="{}")), "valid configuration"),
        (lambda p, s: save_file(s, p, _metadata(config="{")), "valid configuration"),
        (
            lambda p, s: save_file(s, p, _metadata(config=json.dumps(tiny_flow(features=4).config.to_dict()))),
            r"expected 'transform.\S+' in \S+ of shape|of shape \(4, ",
        ),
        (
            lambda p, s: save_file(dict(list(s.items())[1:]), p, _metadata()),
            "missing transform.conditionals.0.*; surplus none",
        ),
        (
            lambda p, s: save_file({k: v * torch.nan for k, v in s.items()}, p, _metadata()),
            "one floating|finite weights",
        ),
        (lambda p, s: save_file({k: v.int() for k, v in s.items()}, p, _metadata()), "one floating dtype .*int32"),
        (lambda p, s: save_file(s, p, _metadata(provenance="3")), "valid configuration"),
        (lambda p, s: save_file({**s, "extra": torch.zeros(1)}, p, _metadata()), "missing none; surplus extra"),
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


# ------------------------------------------------------------------------------------- whole, and no larger than said


@pytest.fixture
def saved(tmp_path):
    flow = tiny_flow()
    flow.provenance = {"trained on": "noise"}
    flowsr.save(flow, path := tmp_path / "a.safetensors")
    return path


def _without_digest(path):
    with safe_open(path, "pt") as file:
        facts = {key: text for key, text in file.metadata().items() if key != "content_sha256"}
    save_file(load_file(path), path, facts)


def _with_config(path, **changes):
    """The file with other numbers in its configuration, its header otherwise as it was."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    config = json.loads(header["__metadata__"]["config"])
    header["__metadata__"]["config"] = json.dumps({**config, **changes})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_the_digest_is_that_of_the_bytes(saved):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    facts = header.pop("__metadata__")
    said = facts.pop("content_sha256")
    digest = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
    names = {"F32": "torch.float32", "BOOL": "torch.bool"}
    for name, entry in sorted(header.items()):
        start, end = (8 + length + place for place in entry["data_offsets"])
        digest.update(json.dumps([name, names[entry["dtype"]], entry["shape"]]).encode() + content[start:end])
    assert said == digest.hexdigest()


def test_every_flipped_bit_is_noticed(saved):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = content.index(b"trained on")
    for place in (*range(8 + length, len(content), len(content) // 20), len(content) - 3, text):
        flipped = bytearray(content)
        flipped[place] ^= 1
        saved.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"damaged or was altered since|a\.safetensors"):
            flowsr.load(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_dtype_has_a_digest(tmp_path, dtype):
    flow = tiny_flow().to(dtype)
    flowsr.save(flow, path := tmp_path / "a.safetensors")
    assert flowsr.load(path).dtype == dtype
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="take another copy"):
        flowsr.load(path)


def test_a_file_without_a_digest_is_read_with_a_remark(saved):
    whole = flowsr.load(saved)
    _without_digest(saved)
    with pytest.warns(UserWarning, match=r"a\.safetensors was written without a digest.*save it again"):
        again = flowsr.load(saved)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 12}, "hold all weights of HCFlowConfig.*got 224 tensors"),
        ({"levels": 10**9}, "hold all weights of"),
        ({"steps": 100_000}, "hold all weights of HCFlowConfig.*steps=100000"),
        ({"rrdbs": [10**9, 1]}, "hold all weights of"),
        ({"features": 10**4}, "of shape|hold all weights of"),
        ({"hidden_channels": 10**6, "growth": 10**6}, "of shape|hold all weights of"),
        ({"image_channels": 10**15}, "hold all weights of"),
        ({"steps": 2}, "hold exactly the weights of .*; missing none; surplus transform"),
        ({"steps": [[[]]]}, "valid configuration"),
        ({"spline_bound": 5.5}, "damaged or was altered since"),
        ({"task": "x" * 10**6}, "valid configuration"),
    ],
)
def test_no_network_is_built_that_the_file_does_not_hold(saved, changes, message):
    _with_config(saved, **changes)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=message) as refusal:
        flowsr.load(saved)
    assert time.process_time() - start < 5
    assert len(str(refusal.value)) <= 1000


def test_other_threads_build_models_meanwhile():
    import threading

    from flowsr.models.integrity import outline

    failed = []

    def build():
        try:
            tiny_flow()
        except Exception as error:
            failed.append(error)

    def meanwhile(config):
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        return flowsr.HCFlow(config)

    with pytest.raises(CheckpointError, match="hold all weights of"):
        outline(meanwhile, flowsr.HCFlow.preset("sr-x4"), 1, name="a file")
    assert not failed


def test_an_official_file_is_whole_by_its_checksums(tmp_path):
    content = (GOLDEN / "sr_x4_official_state_dict.pth").read_bytes()
    with zipfile.ZipFile(GOLDEN / "sr_x4_official_state_dict.pth") as archive:
        member = next(part for part in archive.infolist() if part.filename.endswith("/data/5"))
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    flipped = bytearray(content)
    flipped[content.index(parts[member.filename], member.header_offset)] ^= 1
    path = tmp_path / "a.pth"
    path.write_bytes(flipped)
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged.*(data/5|CRC)"):
        flowsr.load(path)
    path.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="is damaged or cut off"):
        flowsr.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(CheckpointError, match=r"a zip file that torch\.save has not written"):
        flowsr.load(path)


def test_an_official_file_of_before_checksums_is_read_with_a_remark(tmp_path):
    torch.save(_official(), path := tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match=r"a\.pth is in the format of torch before 1\.6, which has no checksums"):
        flow = flowsr.load(path)
    reference = flowsr.load(GOLDEN / "sr_x4_official_state_dict.pth")
    assert all(torch.equal(a, b) for a, b in zip(flow.parameters(), reference.parameters(), strict=True))


def test_few_numbers_that_stand_for_many_are_refused(tmp_path):
    state = {key: torch.zeros(1).expand(value.shape) for key, value in _official().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="all values of all tensors"):
        flowsr.load(tmp_path / "a.pth")
    state = {"operations.999999999999.F.conv1.weight": torch.zeros(1), "operations.1.F.conv1.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="its configuration cannot be read: operation 999999999999"):
        flowsr.load(tmp_path / "b.pth")
    key = f"flow.level{10**12}_condFlow."
    state = {
        key + "conv_first.weight": torch.zeros(3, 3, 3, 3),
        key + "RRDB_trunk0.0.RDB1.conv1.weight": torch.zeros(3),
    }
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"hold all weights of|cannot be read"):
        flowsr.load(tmp_path / "c.pth")


# ------------------------------------------------------------------------------------------- what it is, what to do


def test_tied_weights_are_not_saved(tmp_path):
    flow = tiny_flow()
    one, other = (level.encoder.conv_last for level in flow.transform.conditionals)
    other.bias = one.bias
    with pytest.raises(ValueError, match=r"got \S+bias and \S+bias, which share it \(tied weights\): give one"):
        flowsr.save(flow, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_bare_weights_of_flowsr_are_named_as_such(tmp_path):
    flow = tiny_flow()
    torch.save(flow.state_dict(), tmp_path / "a.pth")
    torch.save(flow, tmp_path / "b.pth")
    for name, message in (("a.pth", "bare weights of one of flowsr's"), ("b.pth", "save a plain state dict")):
        with pytest.raises(CheckpointError, match=message):
            flowsr.load(tmp_path / name)


@pytest.mark.parametrize("source", [None, 3, b"a", []])
def test_what_is_no_path_is_named(source):
    with pytest.raises(TypeError, match="expected a path or the name of a preset; got"):
        flowsr.load(source)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_pipes_and_devices_are_never_opened(tmp_path, suffix):
    os.mkfifo(pipe := tmp_path / f"pipe{suffix}")
    (device := tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    (nowhere := tmp_path / f"link{suffix}").symlink_to("nothing")
    for path, message in ((pipe, "is a pipe"), (device, "is a device"), (nowhere, "is a link that leads nowhere")):
        with pytest.raises(FileNotFoundError, match=message):
            flowsr.load(path)
    for path in (tmp_path / "pipe.safetensors", tmp_path / "device.safetensors"):
        if path.exists():
            with pytest.raises(FileExistsError, match=r"which is a (pipe|device): choose another name"):
                flowsr.save(tiny_flow(), path)


def test_no_message_is_longer_than_a_few_lines(tmp_path):
    torch.save({"\x1b[31m" + "x" * 10**6: torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as refusal:
        flowsr.load(tmp_path / "a.pth")
    assert len(str(refusal.value)) <= 1000
    assert "\x1b" not in str(refusal.value)
    assert len(str(CheckpointError("line\n" * 10**6))) <= 1000
