"""`flowsr downscale` and `flowsr upscale`: any size there and back, and what is refused."""

import json
import struct
import zlib

import pytest
import torch
from cases import tiny_flow
from PIL import Image
from typer.testing import CliRunner

import flowsr
from flowsr.cli.app import app
from flowsr.images import pad_to_multiple, read_image, round_to_8bit, write_image
from flowsr.metrics import psnr
from flowsr.workflows.rescale import SIZE_KEY, downscale_file, stored_size, upscale_file


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def models(tmp_path):
    paths = {}
    for name in ("sr-x4", "rescaling-x4"):
        paths[name] = tmp_path / f"{name}.safetensors"
        flowsr.save(flowsr.HCFlow(tiny_flow(name).config, start="haar"), paths[name])
    return paths


@pytest.fixture
def hr(tmp_path):
    path = tmp_path / "hr" / "fly.png"
    path.parent.mkdir()
    small = torch.rand(1, 3, 6, 7)
    write_image(path, torch.nn.functional.interpolate(small, size=(37, 50), mode="bilinear")[0])
    return path


def test_there_and_back_keeps_the_size_and_prints_the_loss(models, hr, tmp_path):
    down = run("downscale", hr, "--model", models["rescaling-x4"], "--out", tmp_path / "lr", "--json")
    assert down.exit_code == 0, down.output
    record = json.loads(down.stdout)["images"][0]
    assert record["size"] == {"height": 10, "width": 13} and record["padded"]
    lr = tmp_path / "lr" / "fly_LR.png"
    with Image.open(lr) as image:  # another reader finds a whole file, and the text
        image.load()
        assert (image.size, image.text) == ((13, 10), {SIZE_KEY: "37x50"})
    flow = flowsr.load(models["rescaling-x4"])
    expected = round_to_8bit(flow.encode(pad_to_multiple(read_image(hr), 4)[0]).lr.detach())
    assert torch.equal(read_image(lr), expected)
    up = run("upscale", lr, "--model", models["rescaling-x4"], "--verify", hr, "--out", tmp_path / "hr2", "--json")
    assert up.exit_code == 0, up.output
    card = json.loads(up.stdout)["images"][0]["card"]
    restored = read_image(tmp_path / "hr2" / "fly_HR.png")
    assert restored.shape == (3, 37, 50)
    found = {figure["name"]: figure["value"] for figure in card["figures"]}
    assert found["PSNR"] == pytest.approx(float(psnr(restored, read_image(hr), border=4)), rel=1e-6)
    assert set(found) == {"PSNR", "PSNR-Y", "SSIM", "SSIM-Y"}
    assert "Note:" not in up.stderr


def test_super_resolution_models_only_upscale(models, hr, tmp_path):
    refused = run("downscale", hr, "--model", models["sr-x4"], "--out", tmp_path / "lr")
    assert refused.exit_code == 2 and "expected a rescaling model" in refused.stderr
    assert not (tmp_path / "lr").exists()
    up = run("upscale", hr, "--model", models["sr-x4"], "--out", tmp_path / "up", "-t", 0.5)
    assert up.exit_code == 0, up.output
    assert read_image(tmp_path / "up" / "fly_HR.png").shape == (3, 148, 200)
    note = run(
        "upscale", hr, "--model", models["rescaling-x4"], "--out", tmp_path / "up", "--force", "--size", "198x147"
    )
    assert "Note: this is a rescaling model" in note.stderr
    assert read_image(tmp_path / "up" / "fly_HR.png").shape == (3, 147, 198)


def test_nothing_is_overwritten_without_force(models, hr, tmp_path):
    for command in ("downscale", "upscale"):
        arguments = (command, hr, "--model", models["rescaling-x4"], "--out", tmp_path / command)
        assert run(*arguments, "--quiet").output == ""
        again = run(*arguments)
        assert again.exit_code == 2 and "--force" in again.stderr
        assert run(*arguments, "--force").exit_code == 0


def test_sizes_that_do_not_fit_are_refused(models, hr, tmp_path):
    flow = flowsr.load(models["rescaling-x4"])
    downscale_file(flow, hr, tmp_path / "a_LR.png")
    with pytest.raises(
        ValueError, match=r"expected an HR image of 52 × 40 pixels less at most 3 on.*got 50 × 36 pixels"
    ):
        upscale_file(flow, tmp_path / "a_LR.png", tmp_path / "b.png", size=(36, 50))
    other = tmp_path / "other.png"
    write_image(other, torch.rand(3, 38, 50))
    with pytest.raises(ValueError, match=r"expected the original of .*, 50 × 37 pixels; got 50 × 38 pixels"):
        upscale_file(flow, tmp_path / "a_LR.png", tmp_path / "b.png", original=other)
    with pytest.raises(ValueError, match="expected a PNG file to write"):
        downscale_file(flow, hr, tmp_path / "a.jpg")
    with pytest.raises(FileExistsError):
        downscale_file(flow, hr, tmp_path / "a_LR.png")
    assert not (tmp_path / "b.png").exists()


def test_a_size_is_found_wherever_another_program_put_it(tmp_path):
    """Files that were made small before, and files that went through an editor that puts texts behind the pixels."""
    write_image(tmp_path / "a.png", torch.rand(3, 4, 4))
    png = (tmp_path / "a.png").read_bytes()
    body = b"tEXt" + SIZE_KEY.encode() + b"\0" + b"13x16"
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    for place in (33, len(png) - 12):  # behind the header, and before the end
        (tmp_path / "a.png").write_bytes(png[:place] + chunk + png[place:])
        assert stored_size(tmp_path / "a.png") == (13, 16)
    write_image(tmp_path / "a.tif", torch.rand(3, 4, 4))
    assert stored_size(tmp_path / "a.tif") is None
