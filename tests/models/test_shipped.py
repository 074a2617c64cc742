"""The weights that come with the package do what their cards say, on a photograph that is in every installation."""

import pytest
import skimage.data
import torch

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.images import bicubic_up, make_lr, round_to_8bit
from flowsr.likelihood import decompose
from flowsr.metrics import psnr
from flowsr.models.weights import shipped_path


@pytest.fixture(scope="module")
def photograph():
    return torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0)[:, :288, :384].float() / 255


@pytest.mark.parametrize("name", ["sr-x4-small", "rescaling-x4-small"])
def test_file(name):
    path = shipped_path(name)
    assert path is not None
    assert path.stat().st_size <= 5_000_000
    assert path.with_suffix(".md").read_text().startswith(f"# {name}")
    flow = flowsr.load(name)
    assert flow.config == flowsr.HCFlow.preset(name)
    assert "BSDS500" in str(flow.provenance["data"])


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


def test_rescaling(photograph):
    flow = flowsr.load("rescaling-x4-small")
    with torch.no_grad():
        lr = round_to_8bit(flow.encode(photograph).lr)
        back = round_to_8bit(flow.sample(lr, generator=torch.Generator().manual_seed(0))[0])
    bicubic = round_to_8bit(bicubic_up(make_lr(photograph, 4), 4))
    assert psnr(lr, make_lr(photograph, 4), border=0) > 30
    assert psnr(back, photograph, border=4) > psnr(bicubic, photograph, border=4) + 2.5
