"""PSNR and SSIM against their formulas and the golden figures; diversity; LPIPS with and without weights."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from flowsr.images import bicubic_down, bicubic_up, crop_to, make_lr, read_image, rgb_to_y, round_to_8bit
from flowsr.metrics import PerceptualDistance, lpips_distance, lr_psnr, ntire_diversity, pixel_std, psnr, ssim
from flowsr.metrics.lpips import _TORCHVISION_FILES

SHARED = Path(os.environ.get("FLOWSR_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason=f"no golden data in {SHARED}")


@pytest.fixture(scope="module")
def pair():
    """A photograph and its bicubic x4 round trip, both of 8 bits."""
    hr = torch.from_numpy(data.astronaut()[:96, 180:300] / 255).movedim(-1, 0)
    return round_to_8bit(bicubic_up(make_lr(hr, 4), 4)), hr


def direct_ssim(a, b):
    """SSIM of two (H, W) arrays from equation 13 of the paper, one window at a time."""
    x = np.arange(11) - 5
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    a, b = (np.lib.stride_tricks.sliding_window_view(image, (11, 11)) for image in (a, b))
    mean_a, mean_b = (a * window).sum((-1, -2)), (b * window).sum((-1, -2))
    var_a, var_b = (a**2 * window).sum((-1, -2)) - mean_a**2, (b**2 * window).sum((-1, -2)) - mean_b**2
    covariance = (a * b * window).sum((-1, -2)) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (values / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


# ------------------------------------------------------------------------------------------------------- fidelity


def test_psnr_and_ssim_follow_their_formulas(pair):
    inside = [x[:, 4:-4, 4:-4].numpy() for x in pair]
    assert psnr(*pair, border=4).item() == pytest.approx(
        -10 * np.log10(np.mean((inside[0] - inside[1]) ** 2)), abs=1e-12
    )
    channels = [direct_ssim(a, b) for a, b in zip(*inside, strict=True)]
    assert ssim(*pair, border=4).item() == pytest.approx(np.mean(channels), abs=1e-12)
    luma = [(16 + np.tensordot([65.481, 128.553, 24.966], x, 1)) / 255 for x in inside]
    assert psnr(*pair, border=4, colour="y").item() == pytest.approx(-10 * np.log10(np.mean((luma[0] - luma[1]) ** 2)))
    assert ssim(*pair, border=4, colour="y").item() == pytest.approx(direct_ssim(*luma), abs=1e-12)


def test_figures_of_a_photograph_are_frozen(pair):
    # Recorded once with the formulas above; a change here is a change of convention.
    figures = [f(*pair, border=4, colour=colour).item() for f in (psnr, ssim) for colour in ("rgb", "y")]
    assert figures == pytest.approx([25.467453035842, 27.011148957224, 0.652714836336, 0.680294683473], abs=1e-6)


@needs_shared
@pytest.mark.parametrize("image", ["img_001", "img_003"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_golden_figures_of_set5(image, scale):
    golden = json.loads((SHARED / "golden" / "metrics_expected.json").read_text())
    golden = golden[f"{image}_x{scale}_bicubic_up_vs_hr_border_{scale}"]
    hr = read_image(SHARED / f"data/set5_x4/{image}_SRF_4_HR.png", dtype=torch.float64)
    hr = crop_to(hr, (hr.shape[-2] // 8 * 8, hr.shape[-1] // 8 * 8))
    sr = round_to_8bit(bicubic_up(make_lr(hr, scale), scale))
    # At x2 the kernel's weights are dyadic and 8-bit images give exact halves, whose rounding hangs on the last bit.
    tolerance = 2e-5 if scale == 2 else 1e-9
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        for colour in ("rgb", "y"):
            value = metric(sr, hr, border=scale, colour=colour).item()
            assert value == pytest.approx(golden[f"{name}_{colour}"], abs=tolerance), (name, colour)


def test_identical_images(pair):
    assert psnr(pair[1], pair[1], border=0).item() == math.inf
    assert ssim(pair[1], pair[1], border=0).item() == pytest.approx(1.0, abs=1e-12)


@given(st.floats(0.01, 0.9), st.integers(0, 5), st.sampled_from(["rgb", "y"]))
@settings(max_examples=30, deadline=None)
def test_psnr_of_a_constant_difference(difference, border, colour):
    a = torch.zeros(3, 11, 12, dtype=torch.float64)
    gain = 219 / 255 if colour == "y" else 1.0  # studio range
    expected = -20 * math.log10(difference * gain)
    assert psnr(a, a + difference, border=border, colour=colour).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_batches_broadcast_and_equal_singles(metric):
    draws, hr = torch.rand(3, 2, 3, 14, 16), torch.rand(2, 3, 14, 16)
    values = metric(draws, hr, border=1)
    assert values.dtype == torch.float64
    assert values.shape == (3, 2)
    for s in range(3):
        for b in range(2):
            single = metric(draws[s, b], hr[b], border=1)
            assert single.shape == ()
            assert single.item() == pytest.approx(values[s, b].item(), abs=1e-12)


def test_border_is_ignored(pair):
    spoiled = pair[0].clone()
    spoiled[:, :4], spoiled[:, -4:], spoiled[..., :4], spoiled[..., -4:] = 0, 1, 0, 1
    for metric in (psnr, ssim):
        assert metric(spoiled, pair[1], border=4) == metric(pair[0], pair[1], border=4)
        assert metric(spoiled, pair[1], border=3) < metric(pair[0], pair[1], border=3)


def test_gray_images_compare_as_they_are():
    a, b = torch.rand(1, 12, 12), torch.rand(1, 12, 12)
    assert torch.allclose(psnr(a, b, border=0), psnr(a.expand(3, -1, -1), b.expand(3, -1, -1), border=0))
    with pytest.raises(ValueError, match="a: expected 3 channels; got 1"):
        psnr(a, b, border=0, colour="y")


def test_psnr_is_differentiable():
    a, b = torch.rand(3, 6, 6, dtype=torch.float64, requires_grad=True), torch.rand(3, 6, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: psnr(x, b, border=1, colour="y"), a)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: psnr(a, a[..., :-1], border=0),
            r"same channels, height and width; got \(2, 3, 12, 12\) and \(2, 3, 12, 11\)",
        ),
        (
            lambda a: psnr(a, torch.zeros(5, 3, 12, 12), border=0),
            "batch shapes that broadcast",
        ),
        (
            lambda a: psnr(a, a, border=6),
            "border: expected 0 or more, and pixels left inside it; got 6 for 12 × 12",
        ),
        (lambda a: psnr(a, a, border=-1), "border: expected 0 or more"),
        (lambda a: psnr(a, a, border=0, colour="Y"), 'colour: expected "rgb" or "y"; got \'Y\''),
        (lambda a: psnr(a, a / 0, border=0), "b: expected finite pixels"),
        (lambda a: psnr(a.mul(255).byte(), a, border=0), "a: expected a floating point tensor"),
        (lambda a: ssim(a, a, border=1), "expected at least 11 × 11 pixels inside the border for SSIM; got 10 × 10"),
        (
            lambda a: lr_psnr(a, a, upscale=2),
            r"same channels, height and width; got \(2, 3, 6, 6\) and \(2, 3, 12, 12\)",
        ),
        (lambda a: lr_psnr(a, a, upscale=5), "divisible by 5; got 12 × 12"),
    ],
)
def test_fidelity_refuses_what_it_cannot_compare(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2, 3, 12, 12) + 0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lr_psnr_of_consistent_images(pair, dtype):
    hr = pair[1].to(dtype)
    lr = bicubic_down(pair[1], 4)
    assert lr_psnr(hr, round_to_8bit(lr).to(dtype), upscale=4).item() == math.inf
    assert lr_psnr(hr, lr, upscale=4, rounded=False).item() > 150  # equal up to the dtype
    assert 55 < lr_psnr(hr, round_to_8bit(lr), upscale=4, rounded=False).item() < 62  # only rounding is left
    shifted = round_to_8bit(lr * 0.8 + 0.1)
    expected = psnr(round_to_8bit(lr), shifted, border=0).item()
    assert lr_psnr(hr, shifted, upscale=4).item() == pytest.approx(expected, abs=1e-4)
    assert lr_psnr(torch.stack([hr, hr * 0.5]), round_to_8bit(lr), upscale=4).shape == (2,)


# ------------------------------------------------------------------------------------------------------ diversity


def test_pixel_std_is_in_grey_levels_and_unbiased():
    samples = torch.rand(5, 2, 3, 6, 7)
    expected = [255 * np.std(samples[:, b].double().numpy(), axis=0, ddof=1).mean() for b in range(2)]
    assert pixel_std(samples).tolist() == pytest.approx(expected)
    assert pixel_std(samples[:1].expand(4, -1, -1, -1, -1)).abs().max() < 1e-12
    for wrong in (samples[:1], samples[0, 0]):
        with pytest.raises(ValueError, match="samples: expected at least two draws"):
            pixel_std(wrong)


def test_ntire_diversity_is_the_gain_of_choosing_per_pixel():
    distances = torch.rand(4, 2, 6, 7)
    score = ntire_diversity(distances)
    for b in range(2):
        maps = distances[:, b].numpy().astype(np.float64)
        best = maps.mean((1, 2)).min()
        assert score[b].item() == pytest.approx(100 * (best - maps.min(0).mean()) / best)
    assert ntire_diversity(distances[:1]).abs().max() < 1e-9  # one draw leaves nothing to choose
    perfect = torch.cat([distances, torch.zeros(1, 2, 6, 7)])
    assert ntire_diversity(perfect).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"distances: expected values of at least 0; got -1"):
        ntire_diversity(torch.tensor([[[0.5, -1.0]]]))


# ----------------------------------------------------------------------------------------------------- perceptual


@pytest.fixture(scope="module")
def backbone():
    """A randomly initialized alexnet: not a metric, but enough to see that the given weights are the ones used."""
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return alexnet(weights=None).features.eval()


def save_as_torchvision(backbone, path):
    torch.save({f"features.{key}": value for key, value in backbone.state_dict().items()}, path)


def test_lpips_uses_the_weights_it_is_given(tmp_path, backbone):
    import lpips

    save_as_torchvision(backbone, tmp_path / "alexnet.pth")
    a, b = torch.rand(2, 3, 64, 48), torch.rand(3, 64, 48)
    state = torch.random.get_rng_state()
    result = lpips_distance(a, b, weights=tmp_path / "alexnet.pth")
    assert torch.equal(state, torch.random.get_rng_state())
    assert result.available
    assert result.reason == ""
    assert result.value.shape == (2,)

    # The paper's formula by hand: unit-normalized features after each ReLU, weighted squared differences.
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    linear = torch.load(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True)
    x = torch.cat([a, b[None]])
    x, expected, level = (2 * x - 1 - shift) / scale, 0.0, 0
    with torch.no_grad():
        for layer in backbone[:12]:
            x = layer(x)
            if isinstance(layer, torch.nn.ReLU):
                unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
                difference = (unit[:2] - unit[2:]).square()
                expected = expected + (difference * linear[f"lin{level}.model.1.weight"]).sum(1).mean((1, 2))
                level += 1
    assert level == 5
    assert torch.allclose(result.value, expected, rtol=1e-4, atol=1e-7)
    assert lpips_distance(b, b, weights=tmp_path / "alexnet.pth").value.item() == 0


def test_lpips_without_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("socket.socket", None)  # a download would fail loudly
    for net, name in (
        ("alex", "alexnet-owt-7be5be79"),
        ("vgg", "vgg16-397923af"),
        ("squeeze", "squeezenet1_1-b8a52dc0"),
    ):
        result = lpips_distance(torch.rand(3, 32, 32), torch.rand(3, 32, 32), net=net)
        assert result == PerceptualDistance(None, False, result.reason)
        assert f"https://download.pytorch.org/models/{name}.pth" in result.reason
        assert "$TORCH_HOME/hub/checkpoints" in result.reason
        assert str(tmp_path) not in result.reason  # whose machine it is, is nobody's business


def test_lpips_of_other_weights_under_the_published_name_is_no_number(tmp_path, monkeypatch, backbone):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    place.parent.mkdir()
    save_as_torchvision(backbone, place)
    result = lpips_distance(torch.rand(3, 32, 32), torch.rand(3, 32, 32))
    assert result.value is None and "SHA-256 begins with 7be5be79" in result.reason
    with pytest.raises(ValueError, match="SHA-256 begins with 7be5be79"):
        lpips_distance(torch.rand(3, 32, 32), torch.rand(3, 32, 32), weights=place)


def test_lpips_names_the_files_torchvision_downloads():
    from torchvision import models

    from flowsr.metrics.lpips import _TORCHVISION_FILES

    enums = {
        "alex": models.AlexNet_Weights,
        "vgg": models.VGG16_Weights,
        "squeeze": models.SqueezeNet1_1_Weights,
    }
    for net, name in _TORCHVISION_FILES.items():
        assert enums[net].IMAGENET1K_V1.url == f"https://download.pytorch.org/models/{name}"


def test_lpips_finds_torchvisions_cache(tmp_path, monkeypatch, backbone):
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "alexnet.pth"
    save_as_torchvision(backbone, path)
    named = path.rename(path.with_name(f"alexnet-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(_TORCHVISION_FILES, "alex", named.name)  # as if these were the published weights
    assert lpips_distance(torch.rand(3, 32, 32), torch.rand(3, 32, 32)).available


def test_lpips_without_the_package_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = lpips_distance(torch.rand(3, 32, 32), torch.rand(3, 32, 32))
    assert (result.value, result.available) == (None, False)
    assert "pip install lpips" in result.reason


def test_lpips_refuses_what_it_cannot_use(tmp_path, backbone):
    a = torch.rand(3, 32, 32)
    save_as_torchvision(backbone, tmp_path / "alexnet.pth")
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(torch.nn.ReLU(), tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("not weights")
    cases = [
        ({"net": "resnet"}, "net: expected one of alex, vgg, squeeze; got 'resnet'"),
        ({"weights": tmp_path / "no.pth"}, r"weights: expected a file; got .*no\.pth, no such file"),
        ({"weights": tmp_path / "other.pth"}, "expected a torchvision state dict of the backbone 'alex'"),
        ({"weights": tmp_path / "alexnet.pth", "net": "squeeze"}, "state dict of the backbone 'squeeze'"),
        ({"weights": tmp_path / "pickle.pth"}, r"weights: expected torchvision.*pickle\.pth .*more than tensors"),
        ({"weights": tmp_path / "text.pth"}, r"text\.pth is damaged"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            lpips_distance(a, a, **options)
    with pytest.raises(ValueError, match="expected 3 channels; got 1"):
        lpips_distance(a[:1], a[:1])
    with pytest.raises(ValueError, match="at least 32 × 32 pixels for LPIPS; got 32 × 31"):
        lpips_distance(a[:, :31], a[:, :31])


def test_luma_enters_psnr_unrounded(pair):
    lumas = [rgb_to_y(x) for x in pair]
    assert psnr(*lumas, border=4).item() == pytest.approx(psnr(*pair, border=4, colour="y").item(), abs=1e-12)
