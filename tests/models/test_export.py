"""Exported decoders give what the models give, at other sizes too, in torch and in ONNX Runtime."""

import pytest
import torch
from cases import tiny_flow
from libraries import optional

import flowsr
from flowsr import IRN, Glow, SRFlow, export_decoder
from flowsr.models import noise_shape
from flowsr.testing import randomize

onnxruntime, needs_onnxruntime = optional("onnxruntime")
_, needs_onnxscript = optional("onnxscript")

TINY_SRFLOW = {"steps": 1, "hidden_channels": 4, "features": 4, "growth": 2, "rrdbs": 1, "stacked": (0,)}

SLOWER = [("irn", False), ("hcflow", True), ("srflow", True)]


def tiny(name):
    torch.manual_seed(7)
    if name == "hcflow":
        flow = tiny_flow(steps=1)
    elif name == "srflow":
        flow = randomize(SRFlow.from_preset("srflow-x4-small", **TINY_SRFLOW))
    else:
        flow = randomize(IRN.from_preset("irn-x2-small", blocks=(2,)))
    return flow.eval().requires_grad_(False)


def images_and_noise(flow, batch=3, size=(6, 10)):
    # Smooth: of white noise the draws of a trained model reach 85, where float32 itself is off by 6e-4.
    ramps = torch.linspace(0.2, 0.4, size[0])[:, None] + torch.linspace(0.0, 0.4, size[1])
    lr = ramps + 0.1 * torch.rand(batch, 3, 1, 1)
    return lr, torch.randn(noise_shape(flow, lr))


def check_program(flow, path):
    """Of other batches and sides than the graph was made from."""
    export_decoder(flow, path, noise=True, temperature=0.8)
    again = torch.export.load(path).module()
    for batch, size in ((3, (6, 10)), (1, (8, 4))):
        lr, noise = images_and_noise(flow, batch, size)
        torch.testing.assert_close(again(lr, noise), flow.decode_noise(lr, noise, temperature=0.8), rtol=0, atol=1e-5)


def check_onnx(flow, folder, *, noise):
    path = folder / "decoder.onnx"
    export_decoder(flow, path, noise=noise, **({"temperature": 0.8} if noise else {}))
    assert [file.name for file in folder.iterdir()] == ["decoder.onnx"]  # weights and all
    session = onnxruntime.InferenceSession(path)
    for batch, size in ((3, (6, 10)), (1, (8, 4))):
        lr, drawn = images_and_noise(flow, batch, size)
        inputs = {"lr": lr.numpy()} | ({"noise": drawn.numpy()} if noise else {})
        (hr,) = session.run(["hr"], inputs)
        with torch.no_grad():
            expected = flow.decode_noise(lr, drawn, temperature=0.8) if noise else flow.decode(lr)
        torch.testing.assert_close(torch.from_numpy(hr), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["hcflow", pytest.param("srflow", marks=pytest.mark.slow), "irn"])
def test_a_program_of_torch_gives_what_the_model_gives(name, tmp_path):
    check_program(tiny(name), tmp_path / "decoder.pt2")


@needs_onnxruntime
@needs_onnxscript
@pytest.mark.parametrize(
    ("name", "noise"),
    [("irn", True), *(pytest.param(name, noise, marks=pytest.mark.slow) for name, noise in SLOWER)],
)
def test_onnx_runtime_gives_what_the_model_gives(name, noise, tmp_path):
    check_onnx(tiny(name), tmp_path, noise=noise)


@needs_onnxruntime
@needs_onnxscript
@pytest.mark.parametrize(
    ("name", "noise"),
    [
        pytest.param(
            name, noise, marks=pytest.mark.slow if (name, noise) == ("sr-x4-small", True) else pytest.mark.long
        )
        for name in ("sr-x4-small", "rescaling-x4-small", "srflow-x4-small", "irn-x4-small")
        for noise in (False, True)
    ],
)
def test_trained_models_run_in_onnx_runtime(name, noise, tmp_path):
    check_onnx(flowsr.load(name), tmp_path, noise=noise)


def test_a_program_of_one_size_at_temperature_zero(tmp_path):
    flow = tiny("irn")
    export_decoder(flow, tmp_path / "decoder.pt2", size=(5, 7))
    again = torch.export.load(tmp_path / "decoder.pt2").module()
    lr = torch.rand(4, 3, 5, 7)
    torch.testing.assert_close(again(lr), flow.decode(lr), rtol=0, atol=1e-5)
    with pytest.raises(AssertionError):
        again(torch.rand(4, 3, 6, 7))


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    """Weights that change afterwards are used: values kept for the graph are none of the model's."""
    flow, lr = tiny("irn").train().requires_grad_(), torch.rand(1, 3, 4, 4)
    export_decoder(flow, tmp_path / "decoder.pt2")
    assert flow.training and all(p.requires_grad for p in flow.parameters())
    before = flow.decode(lr).detach()
    randomize(flow)
    assert not torch.allclose(flow.decode(lr), before, atol=1e-3)
    assert torch.allclose(torch.export.load(tmp_path / "decoder.pt2").module()(lr), before, atol=1e-5)


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    flow = tiny("irn")

    def fails(program, path):
        path.write_bytes(b"half")
        raise RuntimeError("no more")

    monkeypatch.setattr(torch.export, "save", fails)
    with pytest.raises(ValueError, match=r"ends in \.pt2 \(torch\.export\) or \.onnx; got 'a\.pth'"):
        export_decoder(flow, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="expected no temperature without noise"):
        export_decoder(flow, tmp_path / "a.pt2", temperature=0.5)
    with pytest.raises(ValueError, match="a density of images alone"):
        export_decoder(Glow.from_preset("glow-small", levels=2, steps=1, hidden_channels=4), tmp_path / "a.pt2")
    with pytest.raises(ValueError, match=r"size to be \(height, width\) of an LR image"):
        export_decoder(flow, tmp_path / "a.pt2", size=(0, 4))
    with pytest.raises(ValueError, match=r"even|multiple"):
        export_decoder(tiny("srflow"), tmp_path / "a.pt2", size=(3, 4))
    (tmp_path / "a.pt2").write_text("mine")
    with pytest.raises(FileExistsError):
        export_decoder(flow, tmp_path / "a.pt2", overwrite=False)
    with pytest.raises(RuntimeError, match="no more"):
        export_decoder(flow, tmp_path / "a.pt2")
    assert (tmp_path / "a.pt2").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
