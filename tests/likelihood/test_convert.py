"""Conventions of likelihoods: each definition run as its code states it, and figures converted against them."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import tiny
from commands import refused, run
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import AffineTransform, Normal, TransformedDistribution

import flowsr
from flowsr.cli.complete import convention_names
from flowsr.images import make_lr, write_image
from flowsr.likelihood import (
    CONVENTIONS,
    NO_LIKELIHOOD,
    conversions,
    convert,
    find_convention,
    official_nll,
    score_as,
)

LN2 = math.log(2)
GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CODES = ("hcflow-x4", "hcflow-x8", "srflow", "srflow-noise", "glow", "glow-pytorch")


def _density(model, lr):
    return model.distribution((32, 32)) if lr is None else model.condition(lr)


def _per_pixel(objective):
    """Division by H·W, as HCFlow, SRFlow and chaiyujin's Glow have it, of 32x32 pixels."""
    return -objective / (LN2 * 32 * 32)


def _hcflow(model, x, lr, quant):
    encoded = model.encode(x)
    rounded = (encoded.lr.clamp(0, 1) * 255).round() / 255
    objective = encoded.ladj - math.log(quant) * 32 * 32
    objective = objective + sum(Normal(0.0, 1.0).log_prob(z).sum((-3, -2, -1)) for z in encoded.z)
    return _per_pixel(objective + Normal(lr, math.exp(-6)).log_prob(rounded).sum((-3, -2, -1)))


def _glow(model, x, lr):
    """A model of images in [−½, ½) of steps of 1/256, as Glow's is; figures of those, per dimension."""
    shifted = TransformedDistribution(_density(model, lr), [AffineTransform(-0.5, 255 / 256, event_dim=3)])
    objective = shifted.log_prob(x * 255 / 256 - 0.5) - math.log(256) * 3 * 32 * 32
    return -objective / (LN2 * 3 * 32 * 32)


DEFINITIONS = {
    "flowsr": lambda m, x, lr: -(_density(m, lr).log_prob(x) - 3072 * math.log(256)) / (3072 * LN2),
    "flowsr-density": lambda m, x, lr: -_density(m, lr).log_prob(x) / (3072 * LN2),
    "log-prob": lambda m, x, lr: _density(m, lr).log_prob(x),
    "hcflow-x4": lambda m, x, lr: _hcflow(m, x, lr, 64),
    "hcflow-x8": lambda m, x, lr: _hcflow(m, x, lr, 256),
    "srflow": lambda m, x, lr: _per_pixel(_density(m, lr).log_prob(x)),
    "srflow-noise": lambda m, x, lr: _per_pixel(_density(m, lr).log_prob(x) - math.log(32) * 32 * 32),
    "glow": _glow,
    "glow-pytorch": lambda m, x, lr: _per_pixel(_density(m, lr).log_prob(x) - math.log(256) * 32 * 32),
}
"""What each code computes of the image with its noise, written after the code, without a :class:`Convention`."""

NOISES = {
    "flowsr": lambda hr: hr + _uniform(hr) / 256,
    "hcflow-x4": lambda hr: hr + _uniform(hr) / 64,
    "hcflow-x8": lambda hr: hr + _uniform(hr) / 256,
    "srflow-noise": lambda hr: hr + (_uniform(hr) - 0.5) / 32,
    # Of integers k, Glow's are k/256 + u/256.
    "glow": lambda hr: ((hr * 255).round() / 256 + _uniform(hr) / 256) * 256 / 255,
    "glow-pytorch": lambda hr: hr + torch.randn(hr.shape, dtype=hr.dtype, generator=_seeded()) / 256,
}


def _seeded():
    return torch.Generator().manual_seed(3)


def _uniform(hr):
    return torch.rand(hr.shape, dtype=hr.dtype, generator=_seeded())


def _case(name):
    torch.manual_seed(0)
    model = tiny(name, strength=0.05).double()
    hr = (torch.rand(2, 3, 32, 32, dtype=torch.float64) * 255).round() / 255
    lr = None if name == "glow" else make_lr(hr, model.upscale)
    return model, hr, lr


@pytest.fixture(scope="module", params=["sr-x4", "srflow-x4", "glow"])
def case(request):
    return _case(request.param)


def _runs(model):
    return [name for name in CONVENTIONS if "hcflow" not in name or isinstance(model, flowsr.HCFlow)]


def test_a_definition_runs_as_its_code_states_it(case):
    model, hr, lr = case
    with torch.no_grad():
        for name in _runs(model):
            expected = DEFINITIONS[name](model, NOISES.get(name, lambda hr: hr)(hr), lr)
            got = score_as(model, hr, lr, convention=name, generator=_seeded())
            assert torch.allclose(got, expected, rtol=1e-10, atol=1e-10), name


def test_every_pair_agrees_with_both_definitions_run_on_the_same_image(case):
    """Of one and the same image, without noise, where they count the LR image alike."""
    model, hr, lr = case
    bare = {name: replace(CONVENTIONS[name], noise=None) for name in _runs(model)}
    with torch.no_grad():
        figures = {name: float(DEFINITIONS[name](model, hr, lr)[0]) for name in bare}
    for source, target in itertools.permutations(bare, 2):
        if bare[source].lr_term != bare[target].lr_term:
            continue
        found = convert(figures[source], bare[source], bare[target], size=(32, 32)).number
        assert found == pytest.approx(figures[target], rel=1e-10, abs=1e-10), (source, target)
        back = convert(found, bare[target], bare[source], size=(32, 32)).number
        assert back == pytest.approx(figures[source], rel=1e-12, abs=1e-10), (source, target)


def test_pairs_as_they_are_convert_where_the_noise_is_the_same_and_are_refused_where_figures_do_differ(case):
    model, hr, lr = case
    with torch.no_grad():
        noisy = {name: NOISES.get(name, lambda hr: hr)(hr) for name in _runs(model)}
        figures = {name: float(DEFINITIONS[name](model, noisy[name], lr)[0]) for name in noisy}
    for source, target in itertools.permutations(noisy, 2):
        old, new = CONVENTIONS[source], CONVENTIONS[target]
        if old.noise == new.noise and old.lr_term == new.lr_term:
            assert torch.equal(noisy[source], noisy[target])
            found = convert(figures[source], source, target, size=(32, 32)).number
            assert found == pytest.approx(figures[target], rel=1e-10)
            continue
        with pytest.raises(ValueError, match=f"follows from {source}; got {target}: "):
            convert(figures[source], source, target, size=(32, 32))
        # What the same conversion of units makes of it is another number: the refusal is for a reason.
        wrong = new.report(old.log_prob(figures[source], pixels=1024), pixels=1024)
        assert abs(wrong - figures[target]) > 1e-7, (source, target)


def _psnr(rounded, lr):
    return float(-10 * (rounded - lr).square().mean().log10())


def test_the_term_of_the_lr_image_comes_off_and_on_by_its_psnr():
    model, hr, lr = _case("sr-x4")
    with torch.no_grad():
        nll = float(DEFINITIONS["hcflow-x8"](model, hr[0], lr[0]))
        encoded = model.encode(hr[0])
    psnr = _psnr((encoded.lr.clamp(0, 1) * 255).round() / 255, lr[0])
    rest = float(encoded.ladj + sum(Normal(0.0, 1.0).log_prob(z).sum() for z in encoded.z))
    theirs = replace(CONVENTIONS["hcflow-x8"], noise=None)
    without = replace(CONVENTIONS["log-prob"], lr_term="none")
    given_psnr = {"lr_psnr": psnr, "upscale": 4, "size": (32, 32)}
    assert convert(nll, theirs, without, **given_psnr).number == pytest.approx(rest, rel=1e-9)
    assert convert(rest, without, theirs, **given_psnr).number == pytest.approx(nll, rel=1e-9)
    # Counted twice as large an upscale factor, a quarter of the LR values have the term.
    assert convert(nll, theirs, without, lr_psnr=psnr, size=(32, 32)).number != pytest.approx(rest, rel=1e-3)


@given(seed=st.integers(0, 2**32), spread=st.floats(0.05, 20.0))
def test_the_bounds_of_rounding_hold_the_truth(seed, spread):
    generator = np.random.default_rng(seed)
    lr = generator.integers(20, 235, 300) / 255
    raw = lr + spread / 255 * generator.normal(size=300) * generator.integers(0, 2, 300)
    raw = raw.clip(0, 1)
    squares = {"density": np.mean((raw - lr) ** 2), "rounded": np.mean(((raw * 255).round() / 255 - lr) ** 2)}
    truth = {
        term: -100 * 3 / 16 * (0.5 * math.log(2 * math.pi) - 6 + mse * math.exp(12) / 2)
        for term, mse in squares.items()
    }
    for term, mse in squares.items():
        if mse == 0:
            continue
        (other,) = truth.keys() - {term}
        old, new = (replace(CONVENTIONS["log-prob"], lr_term=name) for name in (term, other))
        found = convert(truth[term], old, new, lr_psnr=-10 * math.log10(mse), size=(10, 10)).interval
        assert found is not None and found.low <= found.value <= found.high
        assert found.low - 1e-9 <= truth[other] <= found.high + 1e-9


def test_the_authors_numbers_of_hcflow_convert_into_one_another():
    """Their NLL with the term of the LR image, and what their code has before that term, at full precision."""
    with np.load(GOLDEN / "sr_x4_expected.npz") as arrays:
        expected = {key: torch.from_numpy(value) for key, value in arrays.items()}
    pixels = expected["hr"].shape[-2:]
    psnr = _psnr((expected["lr_raw"].clamp(0, 1) * 255).round() / 255, expected["lr"])
    theirs = replace(CONVENTIONS["hcflow-x4"], noise=None)
    rest = replace(CONVENTIONS["log-prob"], lr_term="none")
    found = convert(float(expected["official_nll_no_noise"]), theirs, rest, size=tuple(pixels), lr_psnr=psnr)
    assert found.number == pytest.approx(float(expected["log_det_plus_log_pz"].mean()), rel=1e-10)


def test_the_authors_number_of_srflow_is_the_density_of_the_imported_model():
    flow = flowsr.load(GOLDEN / "srflow_x4_official_state_dict.pth").double()
    with np.load(GOLDEN / "srflow_x4_expected.npz") as arrays:
        expected = {key: torch.from_numpy(value) for key, value in arrays.items()}
    log_prob = flow.condition(expected["lr"]).log_prob(expected["hr"]).detach()
    for nll, exact in zip(expected["nll_bits_per_pixel_no_noise"].flatten(), log_prob, strict=True):
        found = convert(float(nll), "srflow", "log-prob", size=tuple(expected["hr"].shape[-2:]))
        assert found.number == pytest.approx(float(exact), rel=1e-10)


def test_a_mean_over_images_converts_like_a_figure_of_one(case):
    model, hr, lr = case
    with torch.no_grad():
        mean = float(score_as(model, hr, lr, convention="srflow").mean())
        expected = float(score_as(model, hr, lr, convention="flowsr-density").mean())
    assert convert(mean, "srflow", "flowsr-density").number == pytest.approx(expected, rel=1e-12)


def test_the_official_number_is_that_convention_without_its_noise():
    model, hr, lr = _case("sr-x4")
    noisy = NOISES["hcflow-x4"](hr)
    got = score_as(model, hr, lr, convention="hcflow-x4", generator=_seeded())
    assert torch.equal(official_nll(model, noisy, lr, bins=64), got)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convert(1.0, "irn", "flowsr"), "got irn: the released IRN is trained with pixel losses"),
        (lambda: convert(1.0, "flowsr", "hcflow-rescaling"), "reports no likelihood"),
        (lambda: convert(1.0, "srflo", "flowsr"), "did you mean srflow?"),
        (lambda: convert(math.nan, "srflow", "flowsr"), "finite figure to convert; got nan"),
        (lambda: convert(1.0, "srflow", "log-prob"), "give the size"),
        (lambda: convert(1.0, "srflow", "log-prob", size=(0, 4)), "positive size"),
        (lambda: convert(1.0, "srflow", "srflow", channels=0), "positive size, channels"),
        (lambda: convert(1.0, "hcflow-x8", "flowsr"), "PSNR of the flow's own LR image"),
        (lambda: convert(1.0, "hcflow-x8", "flowsr", lr_psnr=math.inf), "finite, positive lr_psnr in dB; got inf"),
        (lambda: convert(1.0, "hcflow-x4", "glow"), "run flowsr score --convention glow"),
        (lambda: score_as(*_case("glow"), convention="hcflow-x4"), "lr-latent; got Glow"),
    ],
)
def test_what_does_not_follow_is_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        call()


def test_each_code_has_its_file_and_line():
    assert set(convention_names()) == set(CONVENTIONS) == set(DEFINITIONS)
    for name in CODES:
        references = find_convention(name).references
        assert references and all(re.match(r"github\.com/[\w.-]+/[\w.-]+@\w{7} .*#L\d+", text) for text in references)
    page = (Path(__file__).parents[2] / "docs" / "conventions.rst").read_text(encoding="utf-8")
    assert all(f"``{name}``" in page for name in (*CONVENTIONS, *NO_LIKELIHOOD))


def test_the_command_tells_what_the_library_does():
    found = json.loads(run("convert-nll", "srflow", "--value", "-7.5", "--size", "64x32", "--json").stdout)
    card = conversions(-7.5, "srflow", size=(32, 64))
    assert found["card"] == card.to_dict() and found["value"] == -7.5
    told = run("convert-nll", "hcflow-x4", "--value", "-5.1").output
    assert "2.30" in told and "glow: of uniform noise on [0, 1/255)" in told and "HCFlowNet_SR_arch.py#L49" in told
    assert refused(run("convert-nll", "irn", "--value", "3"), "trained with pixel losses")


def test_score_runs_conventions_with_their_noise(tmp_path):
    model, hr, lr = _case("sr-x4")
    flowsr.save(model, tmp_path / "model.safetensors")
    write_image(tmp_path / "a.png", hr[0].float())
    command = ["score", tmp_path / "a.png", "--model", tmp_path / "model.safetensors", "--dtype", "float64", "--json"]
    asked = [word for name in ("srflow", "hcflow-x4") for word in ("--convention", name)]
    figures = json.loads(run(*command, *asked, "--official").stdout)["images"][0]["figures"]
    expected = float(score_as(model, hr[0], lr[0], convention="srflow").detach())
    assert figures["as_srflow"]["value"] == pytest.approx(expected, rel=1e-6)
    assert figures["as_hcflow_x4"]["value"] == figures["official_nll"]["value"]
    assert refused(run(*command, "--convention", "irn"), "expected the convention of a likelihood; got irn")
