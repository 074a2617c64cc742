"""Diagnostics of latents, temperatures, outliers and stability: right models pass, models broken on purpose do not."""

import copy
import json
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from cases import tiny, tiny_flow
from scipy import stats
from skimage import data

import flowsr
from flowsr.images import make_lr, round_to_8bit
from flowsr.likelihood import (
    PERTURBATIONS,
    auroc,
    inverse_stability,
    latent_diagnostics,
    out_of_distribution,
    perturbed,
    temperature_sweep,
)
from flowsr.likelihood.inverse import _round_trip
from flowsr.likelihood.outliers import _mahalanobis
from flowsr.transforms import Call

BLACK = (torch.zeros(3, 16, 16), torch.zeros(3, 4, 4))


@pytest.fixture(scope="module")
def draws():
    """A randomized flow, and draws of itself with their LR images."""
    with torch.random.fork_rng(), torch.no_grad():
        flow = tiny_flow("sr-x4").double()
        lr = torch.rand(24, 3, 6, 6, dtype=torch.float64)
        return flow, list(zip(flow.condition(lr).sample(), lr, strict=True))


@pytest.fixture(scope="module")
def shipped():
    return flowsr.load("sr-x4-small")


def _photographs(side=64):
    """Crops of scikit-image's photographs with their LR images."""
    images = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    crops = []
    for image in images:
        pixels = torch.from_numpy(image.copy()).movedim(-1, 0).float() / 255
        for top in range(0, pixels.shape[-2] - side, 2 * side):
            for left in range(0, pixels.shape[-1] - side, 2 * side):
                crops.append(pixels[:, top : top + side, left : left + side].contiguous())
    return [(crop, make_lr(crop, 4)) for crop in crops]


def test_the_model_passes_on_its_own_draws(draws):
    flow, pairs = draws
    found = latent_diagnostics(flow, pairs)
    assert found.passed, found.to_text()
    assert found.log_det_error < 1e-9
    assert [s.name for s in found.latents] == ["LR residual", "z_2", "z_1"]
    assert found.latents[2].count == 24 * 6 * 12 * 12
    json.dumps(found.to_dict(), allow_nan=False)
    assert "nothing" in found.to_text()
    assert len(found.plot().axes) == 3


def test_of_one_image_the_energy_stands_on_its_range_and_failures_stand_by_latent(draws):
    flow, pairs = draws
    (hr, lr), *_ = pairs
    found = latent_diagnostics(flow, [(hr + 0.05, lr)])
    assert len(found.failures) > 2
    lines = found.to_text().splitlines()
    for s in found.latents:
        failed = [name.split(": ")[1] for name in found.failures if name.startswith(f"{s.name}: ")]
        assert not failed or f"  {s.name}: {', '.join(failed)}" in lines
    panel = found.plot().axes[1]
    assert "|z|²/D" in panel.get_xlabel()
    s = found.latents[0]
    low, high = (float(bound) / s.count for bound in stats.chi2.ppf((0.025, 0.975), s.count))
    assert panel.texts[0].get_text() == f"{s.energies[0]:.3f}; under the model {low:.3f} to {high:.3f}"
    assert "P(|Z|²" in latent_diagnostics(flow, pairs).plot().axes[1].get_xlabel()


def test_false_alarms_are_as_frequent_as_said(draws, monkeypatch):
    """Over many draws of the model itself, at a significance where alarms can be counted."""
    monkeypatch.setattr("flowsr.likelihood.latent_normality._log_det_error", lambda *_: None)  # is no test of chance
    flow, _ = draws
    flow, alarms, seeds = copy.deepcopy(flow).requires_grad_(False), 0, 120
    for seed in range(seeds):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lr = torch.rand(2, 3, 6, 6, dtype=torch.float64)
            pairs = list(zip(flow.condition(lr).sample(), lr, strict=True))
        alarms += not latent_diagnostics(flow, pairs, significance=0.05).passed
    assert 0 < alarms < 0.05 * seeds + 4 * math.sqrt(0.05 * 0.95 * seeds)


def test_a_wrong_width_of_the_lr_image_is_seen(draws):
    flow, pairs = draws
    failures = latent_diagnostics(flow, pairs, lr_log_scale=-5.8).failures
    assert "LR residual: std" in failures and not any(name.startswith("z_") for name in failures)


def _broken(flow, breaking):
    flow = copy.deepcopy(flow)
    with torch.no_grad():
        breaking(flow)
    return flow


def test_a_wrong_scale_of_one_level_is_seen(draws):
    flow, pairs = draws

    def widen(broken):
        broken.transform.conditionals[0].steps.parts[0].actnorm.affine.logs.add_(0.1)

    failures = latent_diagnostics(_broken(flow, widen), pairs).failures
    assert "z_1: std" in failures and not any(name.startswith(("z_2", "LR")) for name in failures)


def test_dependence_is_seen(draws):
    """Latents with the right variance that are blurred: only their correlation is wrong."""
    flow, pairs = draws
    found = []
    for _, lr in pairs:
        noise = torch.randn(1, 3, 7, 7, dtype=torch.float64)
        blurred = (noise[..., 1:, 1:] + noise[..., :-1, :-1]) / math.sqrt(2)
        shapes = flow.transform.latent_shapes(6, 6)
        z = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        y = lr + math.exp(-6) * blurred[0]
        with torch.no_grad():
            found.append((flow.transform.decode(y, z)[0], lr))
    failures = latent_diagnostics(flow, found).failures
    assert "LR residual: autocorrelation diagonal" in failures
    assert not any(name.startswith("z_") for name in failures)


def test_autocorrelation_is_a_correlation_whatever_the_scale(draws):
    """Of an image that is nothing like the model's the latents are huge, their correlation is not."""
    flow, pairs = draws
    hr, lr = pairs[0]
    statistics = latent_diagnostics(flow, [(torch.ones_like(hr), torch.zeros_like(lr))]).latents[0]
    assert statistics.std > 2 or abs(statistics.mean) > 2
    assert all(abs(r) < 1.5 for r in statistics.autocorrelation)
    noise = flow.noise(torch.ones_like(hr), torch.zeros_like(lr))["LR residual"]
    expected = (noise[..., :-1] * noise[..., 1:]).mean() / noise.square().mean()
    assert statistics.autocorrelation[0] == pytest.approx(float(expected.detach()))


def test_draws_that_ran_away_and_inference_mode_do_not_disturb(draws):
    """A verdict is about latents, whatever the image looks like, and needs gradients of its own."""
    flow, pairs = draws
    wild = _broken(flow, lambda broken: broken.transform.mains[0].parts[0].actnorm.affine.logs.sub_(5.0))
    with torch.no_grad():
        far = [(wild.condition(lr).sample(), lr) for _, lr in pairs]
    assert max(float(hr.abs().max()) for hr, _ in far) > 17
    assert latent_diagnostics(wild, far).passed
    with torch.inference_mode():
        assert latent_diagnostics(flow, pairs).passed


def test_a_wrong_log_determinant_is_seen(draws):
    flow, pairs = draws

    def forget(broken):
        step = broken.transform.mains[0].parts[0]
        right = step.inv_call_and_ladj
        step.inv_call_and_ladj = lambda x, context=None: (right(x, context)[0], 1.001 * right(x, context)[1])

    assert latent_diagnostics(_broken(flow, forget), pairs).failures == ("log-determinant",)


def test_a_temperature_sweep_is_about_the_tempered_model(shipped):
    pairs = _photographs()[:4]
    sweep = temperature_sweep(shipped, pairs, temperatures=(1.0, 0.0, 0.5), num_samples=2)
    assert sweep.temperatures == (0.0, 0.5, 1.0)
    assert sweep.figures["NLL"][0] is None
    # The reference: Pyro's score of the distribution at that temperature, by hand.
    hr, lr = pairs[0]
    alone = temperature_sweep(shipped, [pairs[0]], temperatures=(0.5,), num_samples=2).figures["NLL"][0]
    noise = torch.rand(hr.shape, generator=torch.Generator().manual_seed(0)) / 256
    expected = -shipped.condition(lr, temperature=0.5).log_prob(hr + noise) / (hr.numel() * math.log(2)) + 8
    assert alone.value == pytest.approx(float(expected.detach()), rel=1e-5) and math.isnan(alone.low)
    # The model is best at its own temperature, and the truth loses to the mean in PSNR.
    nll, psnr, diversity = (sweep.figures[name] for name in ("NLL", "PSNR", "diversity"))
    assert nll[2].value < nll[1].value
    assert min(psnr[0].value, psnr[1].value) > psnr[2].value
    assert 0 == diversity[0].value < diversity[1].value < diversity[2].value
    assert "τ ≠ 1 is not the model" in sweep.to_text()
    json.dumps(sweep.to_dict(), allow_nan=False)
    sweep.plot()


def test_raw_likelihood_prefers_smooth_images_and_other_scores_repair_it(shipped):
    pairs = _photographs(48)[::2]
    generator = torch.Generator().manual_seed(0)
    reference, inside = pairs[::2], pairs[1::2]
    outside = {}
    for kind in ("smooth", "noisy", "shuffled"):
        images = [perturbed(hr, kind, generator=generator) for hr, _ in inside]
        outside[kind] = [(hr, make_lr(hr, 4)) for hr in images]
    study = out_of_distribution(shipped, reference, inside, outside)
    # The failure: smooth images look *less* strange than photographs.
    assert study.auroc["NLL"]["smooth"].high < 0.5
    assert study.auroc["NLL"]["noisy"].low > 0.9
    # The repair.
    assert study.auroc["latent norm"]["smooth"].low > 0.5
    assert study.auroc["complexity-corrected NLL"]["smooth"].value > study.auroc["NLL"]["smooth"].value
    json.dumps(study.to_dict(), allow_nan=False)
    study.plot()


def test_auroc_counts_pairs():
    positive, negative = [0.1, 0.5, 0.5, 0.9], [0.2, 0.5, 0.3]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_a_distance_of_one_feature_is_its_z_score():
    """Standardized, its covariance is 1, shrunk or not."""
    reference = np.random.default_rng(0).normal(3.0, 20.0, (50, 1))
    found = _mahalanobis(reference)(np.array([63.0]))
    assert found == pytest.approx((63.0 - reference.mean()) / reference.std())


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_perturbed_images_are_8_bit_and_keep_what_they_promise(kind):
    image = round_to_8bit(torch.rand(3, 24, 32))
    other = perturbed(image, kind, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(other, round_to_8bit(other)) and other.shape == image.shape
    assert not torch.equal(other, image)
    if kind == "shuffled":
        assert torch.equal(other.flatten(1).sort().values, image.flatten(1).sort().values)
    if kind == "smooth":
        assert other.std() < 0.5 * image.std()
    usual = {"smooth": 3.0, "noisy": 25.0}.get(kind)  # pixels, and grey levels
    if usual is not None:
        given = perturbed(image, kind, strength=usual, generator=torch.Generator().manual_seed(0))
        assert torch.equal(given, other)
    if kind == "noisy":
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        assert torch.equal(other, round_to_8bit(image + 25 / 255 * noise))


def test_a_healthy_model_is_called_stable(shipped):
    hr, lr = _photographs(32)[0]
    found = inverse_stability(shipped, hr, lr)
    assert found.unstable == () and found.round_trip_float64 < 1e-12 < found.round_trip_float32 < 1e-4
    assert int(found.non_finite.sum()) == 0 and found.non_finite.shape == (32, 32)
    assert {layer.kind for layer in found.layers} >= {"ActNorm", "InvertibleConv1x1", "Coupling", "ConditionalAffine"}
    assert "unstable layers" in found.to_text()
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot()


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_the_error_of_a_round_trip_is_relative_to_what_went_in(size):
    class Sloppy:
        def inv_call_and_ladj(self, x, context=None):
            return 1.01 * x, torch.zeros(())

    z = size * torch.tensor([1.0, -2.0])
    call = Call("layer", cast(Any, Sloppy()), encoding=False, input=z, output=z, context=None)
    assert _round_trip(call) == pytest.approx(0.01, rel=1e-3)


def _singular(flow):
    weight = flow.transform.mains[1].parts[2].mixing.weight
    weight[0] = weight[1] * (1 + 1e-8)


def _exploding(flow):
    flow.transform.conditionals[0].steps.parts[0].actnorm.affine.logs.fill_(-12.0)


def _overflowing(flow):
    flow.transform.conditionals[1].steps.parts[0].actnorm.affine.logs.fill_(-100.0)


def _exactly_singular(flow):
    flow.transform.mains[1].parts[2].mixing.weight[0] = 0


def _nan(flow):
    flow.transform.mains[1].parts[2].mixing.weight[0, 0] = math.nan


def _exploding_on_encoding(flow):
    flow.transform.mains[1].parts[2].actnorm.affine.logs.fill_(8.0)


@pytest.mark.parametrize(
    ("breaking", "name"),
    [
        (_singular, "transform.mains.1.parts.2.mixing"),
        (_exactly_singular, "transform.mains.1.parts.2.mixing"),
        (_nan, "transform.mains.1.parts.2.mixing"),
        (_exploding_on_encoding, "transform.mains.1.parts.2.actnorm"),
        (_exploding, "transform.conditionals.0.steps.parts.0.actnorm"),
        (_overflowing, "transform.conditionals.1.steps.parts.0.actnorm"),
    ],
)
def test_the_broken_layer_is_named(shipped, breaking, name):
    hr, lr = _photographs(32)[0]
    broken = _broken(shipped, breaking)
    found = inverse_stability(broken, hr, lr)
    assert found.unstable[0] == name, found.to_text()
    assert broken.get_submodule(name) is not None
    found.plot()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda flow: latent_diagnostics(flow, []), "at least one pair"),
        (lambda flow: latent_diagnostics(flow, BLACK), r"as a list \[\(hr, lr\), …\]"),
        # Two channels look like two images, an image and its LR image like two pairs.
        (lambda flow: latent_diagnostics(flow, tuple(image[:2] for image in BLACK)), r"as a list \[\(hr, lr\), …\]"),
        (lambda flow: temperature_sweep(flow, []), "at least one pair"),
        (lambda flow: temperature_sweep(flow, [(BLACK[0],)]), r"as a list \[\(hr, lr\), …\]"),
        (lambda flow: temperature_sweep(flow, [("hr.png", BLACK[1])]), r"as a list \[\(hr, lr\), …\]"),
        (
            lambda flow: temperature_sweep(flow, [BLACK], temperatures=()),
            "different finite temperatures >= 0; got none",
        ),
        (lambda flow: temperature_sweep(flow, [BLACK], temperatures=(1.0, 1.0)), "different finite temperatures"),
        (lambda flow: temperature_sweep(flow, [BLACK], num_samples=1), "at least 2 draws"),
        (lambda flow: temperature_sweep(flow, [(torch.rand(3, 16, 16), BLACK[1])]), "expected an 8-bit hr"),
        (lambda flow: temperature_sweep(flow, [(BLACK[0][None], BLACK[1][None])]), "one by one"),
        (lambda flow: temperature_sweep(tiny("glow"), [BLACK]), "for a temperature sweep"),
        (lambda flow: out_of_distribution(flow, [BLACK] * 3, [BLACK], {"a": [(BLACK[0].half(), None)]}), "float32 or"),
        (lambda flow: out_of_distribution(flow, [BLACK] * 3, [BLACK], {"a": BLACK}), "expected a as a list"),
        (lambda flow: auroc([math.nan], [1.0]), "scores that can be compared"),
        (lambda flow: out_of_distribution(flow, [], [], {}), "at least 3 reference"),
        (lambda flow: perturbed(torch.rand(3, 8, 8), "upside down"), "smooth, noisy, shuffled or constant"),
        (lambda flow: perturbed(torch.rand(3, 6, 6), "shuffled"), "at least two blocks"),
        (lambda flow: perturbed(torch.rand(3, 16, 16), "noisy", strength=math.nan), "strength >= 0"),
        (lambda flow: perturbed(255 * torch.rand(3, 16, 16), "smooth"), "divide 8-bit images by 255"),
        (lambda flow: auroc([], [1.0]), "scores of both kinds"),
        (
            lambda flow: inverse_stability(flow, torch.rand(3, 16, 16), torch.rand(3, 5, 4)),
            "expected an lr of [0-9]+ × [0-9]+ pixels",
        ),
        (
            lambda flow: inverse_stability(flow, torch.rand(3, 4, 4), torch.rand(3, 16, 16)),
            "expected an lr of [0-9]+ × [0-9]+ pixels",
        ),
        (
            lambda flow: inverse_stability(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4), temperature=0.0),
            "temperature > 0",
        ),
        (
            lambda flow: latent_diagnostics(flow, [(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 4, 4))]),
            "one by one",
        ),
    ],
)
def test_bad_input_is_refused_in_words(shipped, function, message):
    with pytest.raises(ValueError, match=message):
        function(shipped)
