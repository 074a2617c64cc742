"""The weights that come with the package do what their cards say, on a photograph that is in every installation."""

import re
from typing import get_args

import pytest
import skimage.data
import torch

import flowsr
from benchmarks.points import nats_above_truth
from flowsr._support.torch_files import sha256_of
from flowsr.distributions import uniform_dequantize
from flowsr.images import bicubic_up, make_lr, round_to_8bit
from flowsr.likelihood import decompose
from flowsr.metrics import psnr
from flowsr.models import presets, weights
from flowsr.models.conditional import require_conditional
from flowsr.models.weights import ShippedName, shipped_path


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0)[:, :288, :384].float() / 255


@pytest.mark.parametrize("name", get_args(ShippedName))
def test_file(name):
    path = shipped_path(name)
    assert path is not None
    assert path.stat().st_size <= 6_000_000
    assert path.with_suffix(".md").read_text().startswith(f"# {path.stem}\n")
    model = presets()[name]
    flow = flowsr.load(name, model=model)
    assert flow.config == model.preset(name)
    data = str(flow.provenance["data"])
    assert ("two moons" if name == "realnvp-points" else "BSDS500") in data
    # A file of an earlier version was made when its card had the name without one.
    assert flow.provenance["commands"] == f"flowsr/weights/{re.sub(r'-v[0-9]+$', '', name)}.md"


def test_a_name_stands_for_its_newest_version_and_each_has_its_own(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(weights, "files", lambda _package: tmp_path)

    def found_after_adding(version):
        (tmp_path / "weights" / f"sr-x4-small{version}.safetensors").write_bytes(b"")
        return shipped_path("sr-x4-small").stem

    assert shipped_path("sr-x4-small") is None
    for version in ("-v2", "-v10", ""):
        assert found_after_adding(version) == f"sr-x4-small{version}"
    assert found_after_adding("-v3") == "sr-x4-small"
    assert shipped_path("sr-x4-small-v2").stem == "sr-x4-small-v2"
    assert shipped_path("sr-x4") is None and shipped_path("sr-x4-small-v1") is None


def test_the_first_version_is_the_file_that_it_was():
    """Whoever measured with it can name the file by this digest."""
    digest = sha256_of(shipped_path("sr-x4-small-v1"))
    assert digest == "b4f701b42687ea140ac4b04582ae9c6e3f22a49be4d3330ab19ef4bc447c7b2c"
    assert sum(p.numel() for p in flowsr.load("sr-x4-small-v1").parameters()) == 1_071_928


def test_all_weights_together_leave_the_wheel_small():
    assert sum(path.stat().st_size for path in shipped_path("sr-x4-small").parent.iterdir()) < 25_500_000


def test_super_resolution(photograph):
    flow = flowsr.load("sr-x4-small")
    lr = make_lr(photograph, 4)
    noisy = uniform_dequantize(photograph, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bits = decompose(flow, noisy, lr).dequantized().bits_per_dim
        mean = round_to_8bit(flow.decode(lr))
        own = flow.encode(photograph).lr.clamp(0, 1)
    bicubic = round_to_8bit(bicubic_up(lr, 4))
    assert bits < 3.2
    assert psnr(own, lr, border=0) > 47
    assert psnr(mean, photograph, border=4) > psnr(bicubic, photograph, border=4) + 0.3


def test_srflow(photograph):
    """Its card has 28.5 dB and 3.8 bits/dim for other images."""
    flow = flowsr.load("srflow-x4-small")
    lr = make_lr(photograph, 4)
    noisy = uniform_dequantize(photograph, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bits = decompose(flow, noisy, lr).dequantized().bits_per_dim
        mean = round_to_8bit(flow.sample(lr, temperature=0.0)[0])
    assert bits < 3.5
    bicubic = round_to_8bit(bicubic_up(lr, 4))
    assert psnr(mean, photograph, border=4) > psnr(bicubic, photograph, border=4) + 0.3


def test_glow_prefers_photographs(photograph):
    glow = flowsr.load("glow-small")
    noisy = uniform_dequantize(photograph, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(noisy[0].numel(), generator=torch.Generator().manual_seed(1))
    shuffled = noisy.flatten(1)[:, order].reshape(noisy.shape)
    with torch.no_grad():
        bits = [decompose(glow, image).dequantized().bits_per_dim for image in (noisy, shuffled)]
    assert bits[0] < 4.5 and bits[1] > bits[0] + 2


def test_points_are_those_of_two_moons():
    found, truth, error = nats_above_truth(flowsr.load("realnvp-points"))
    assert -3 * error < found - truth < 0.03


@pytest.mark.parametrize(("name", "gain"), [("rescaling-x4-small", 2.5), ("irn-x4-small", 1.8)])
def test_rescaling(photograph, name, gain):
    flow = require_conditional(flowsr.load(name), what="rescaling")
    with torch.no_grad():
        lr = round_to_8bit(flow.encode(photograph).lr)
        back = round_to_8bit(flow.sample(lr, generator=torch.Generator().manual_seed(0))[0])
    bicubic = round_to_8bit(bicubic_up(make_lr(photograph, 4), 4))
    assert psnr(lr, make_lr(photograph, 4), border=0) > 30
    assert psnr(back, photograph, border=4) > psnr(bicubic, photograph, border=4) + gain
