"""Draw k of a seed is the same image whoever asks for it and however many are asked for."""

import math

import pyro
import pytest
import torch
from cases import tiny

from flowsr.calibration import flow_sampler
from flowsr.distributions import draw_noise
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.evaluation.encoded import encoded_lr
from flowsr.images import crop_to, make_lr, pad_to_multiple, read_image, round_to_8bit, write_image
from flowsr.metrics import psnr
from flowsr.models import REGISTRY, Capability, ConditionalModel
from flowsr.posterior import LinearGaussianFlow, StreamingSummary, summarize_draws
from flowsr.programs import super_resolution
from flowsr.training.pictures import validation_grid
from flowsr.workflows.rescale import upscale_file
from flowsr.workflows.sample import DrawPlan, superresolve_file

SEED = 5
KNOWN = "LinearGaussianFlow"
CONDITIONAL = [next(iter(cls.presets)) for cls in REGISTRY.values() if issubclass(cls, ConditionalModel)]
UNCONDITIONAL = [next(iter(cls.presets)) for cls in REGISTRY.values() if not issubclass(cls, ConditionalModel)]
MODELS = [*CONDITIONAL, "rescaling-x4", "srflow-x8", "irn-x3", KNOWN]


def _model(name):
    model = LinearGaussianFlow(image_channels=3) if name == KNOWN else tiny(name, strength=0.1)
    return model.double().eval().requires_grad_(False)


def _seed():
    return torch.Generator().manual_seed(SEED)


def _lr(*batch, height=2, width=4):
    return torch.rand(*batch, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _width(model, lr_log_scale):
    return {"lr_log_scale": lr_log_scale} if Capability.LR_LATENT in model.capabilities else {}


def _one_by_one(model, lr, **options):
    """Three draws from three calls, which share a generator."""
    generator = _seed()
    return torch.stack([model.sample(lr, generator=generator, **options)[0] for _ in range(3)])


def _of_the_distribution(model, lr, **options):
    torch.manual_seed(SEED)
    return model.condition(lr, **_width(model, -math.inf), **options).sample((3,))


def _reparametrized(model, lr, **options):
    torch.manual_seed(SEED)
    return model.condition(lr, **_width(model, -math.inf), **options).rsample((3,))


def _of_the_program(model, lr, **options):
    torch.manual_seed(SEED)
    pyro.clear_param_store()
    width = _width(model, -math.inf)
    return torch.stack([super_resolution(model, lr, **width, **options) for _ in range(3)])


ROUTES = {
    "fewer": lambda m, lr, **o: m.sample(lr, num_samples=2, generator=_seed(), **o),
    "more": lambda m, lr, **o: m.sample(lr, num_samples=5, generator=_seed(), **o)[:3],
    "one by one": _one_by_one,
    "a stream": lambda m, lr, **o: torch.stack(list(m.stream(lr, num_samples=3, generator=_seed(), **o))),
    "latents": lambda m, lr, **o: m.decode(lr, m.draw_latents(lr, sample_shape=(3,), generator=_seed(), **o)),
    "the distribution": _of_the_distribution,
    "rsample": _reparametrized,
    "the program": _of_the_program,
    "calibration": lambda m, lr, **o: flow_sampler(m, **o)(lr, 3, _seed()),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("route", ROUTES)
def test_all_routes_give_the_same_draws(name, batch, route):
    model, lr = _model(name), _lr(*batch)
    expected = model.sample(lr, num_samples=3, temperature=0.8, generator=_seed())
    found = ROUTES[route](model, lr, temperature=0.8)
    assert torch.allclose(found, expected[: len(found)], atol=1e-10)
    assert (expected[0] - expected[1]).abs().mean() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_a_summary_is_of_the_draws(name):
    model, lr = _model(name), _lr()
    draws = model.sample(lr, num_samples=3, generator=_seed())
    for memory in (1.0, 1e9):  # one by one, and together
        summary = StreamingSummary(components=1)
        found = summarize_draws(model, lr, num_samples=3, seed=SEED, memory=memory, summary=summary)
        assert torch.allclose(found.mean.double(), draws.mean(0), atol=1e-6)
        assert torch.allclose(found.std.double(), draws.std(0), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_an_evaluation_is_of_the_draws(name):
    model = _model(name)
    side = 24 if model.upscale == 3 else 32
    hr = round_to_8bit(_lr(height=side, width=side))
    plan = EvaluationPlan(num_samples=3, temperatures=(0.8,), multiple=side, seed=SEED)
    source = encoded_lr(model, hr) if Capability.DOWNSCALE in model.capabilities else make_lr(hr, model.upscale)
    draws = model.sample(source, num_samples=3, temperature=0.8, generator=_seed())
    expected = psnr(round_to_8bit(draws), hr, border=model.upscale).mean()
    found = score_pair(model, hr, plan=plan, figures=("psnr",))["psnr_tau0_8"]
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", MODELS)
def test_files_hold_the_draws(name, tmp_path):
    model = _model(name)
    write_image(tmp_path / "lr.png", _lr(height=5, width=3))
    lr = read_image(tmp_path / "lr.png", dtype=torch.float64)
    draws = round_to_8bit(model.sample(lr, num_samples=2, temperature=0.8, generator=_seed()))
    plan = DrawPlan(num_samples=2, temperatures=(0.8,), seed=SEED)
    superresolve_file(model, tmp_path / "lr.png", tmp_path, plan=plan)
    upscale_file(model, tmp_path / "lr.png", tmp_path / "hr.png", temperature=0.8, seed=SEED)
    for file, draw in (("lr_tau0.8_0", draws[0]), ("lr_tau0.8_1", draws[1]), ("hr", draws[0])):
        assert torch.allclose(read_image(tmp_path / f"{file}.png", dtype=torch.float64), draw), file


def test_every_row_of_a_picture_of_training_shows_the_first_draw(tmp_path):
    model, hr = _model("srflow-x4"), round_to_8bit(_lr(height=32, width=32))
    validation_grid(model, [("a", hr), ("b", hr)], tmp_path / "p.png", temperature=0.8, side=32, seed=SEED)
    picture = read_image(tmp_path / "p.png", dtype=torch.float64)[..., -64:, :]
    draw = model.sample(make_lr(hr, 4), temperature=0.8, generator=_seed())[0]
    for row in picture.split(32, -2):
        assert torch.allclose(row[..., 64:96], round_to_8bit(draw))


@pytest.mark.parametrize("name", [n for n in MODELS if not n.startswith("srflow")])
def test_at_finite_sigma_the_latents_are_the_same(name):
    model, lr = _model(name), _lr(2)
    dirac = model.encode(model.sample(lr, num_samples=3, generator=_seed()))
    draws = model.sample(lr, num_samples=3, lr_log_scale=-2.0, generator=_seed())
    wide = model.encode(draws)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(dirac.z, wide.z, strict=True))
    spread = (wide.lr - lr).std()
    assert 0.7 < spread / math.exp(-2.0) < 1.3 and torch.allclose(dirac.lr, lr.expand(3, *lr.shape), atol=1e-8)
    torch.manual_seed(SEED)
    assert torch.allclose(model.condition(lr, lr_log_scale=-2.0).sample((3,)), draws, atol=1e-10)
    torch.manual_seed(SEED)
    assert torch.allclose(super_resolution(model, lr, lr_log_scale=-2.0), draws[0], atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_the_temperature_scales_the_same_noise(name):
    model, lr = _model(name), _lr(2)
    levels = len(model.latent_levels())
    one = model.draw_latents(lr, sample_shape=(2,), generator=_seed())
    taus = tuple(0.3 + 0.2 * i for i in range(levels))
    scaled = model.draw_latents(lr, sample_shape=(2,), temperature=taus, generator=_seed())
    assert all(torch.allclose(tau * z, w) for tau, z, w in zip(taus, one, scaled, strict=True))
    assert all(0.8 < z.std() < 1.2 for z in one)


@pytest.mark.parametrize("name", MODELS)
def test_draws_are_those_of_the_seed_in_any_dtype(name):
    model, lr = _model(name), _lr(2)
    double = model.sample(lr, num_samples=2, temperature=0.5, generator=_seed())
    single = model.float().sample(lr.float(), num_samples=2, temperature=0.5, generator=_seed())
    assert single.dtype == torch.float32 and torch.allclose(single.double(), double, atol=1e-3)
    half = model.bfloat16().draw_latents(lr, generator=_seed())
    whole = model.double().draw_latents(lr, generator=_seed())
    assert all(torch.equal(h, z.bfloat16()) for h, z in zip(half, whole, strict=True))


@pytest.mark.parametrize("name", ["srflow-x4", "srflow-x8"])
def test_odd_lr_images_are_padded_for_srflow_and_draws_cropped(name):
    model, lr = _model(name), _lr(2, height=3, width=5)
    s = model.upscale
    draws = model.sample(lr, num_samples=3, generator=_seed())
    whole = model.sample(pad_to_multiple(lr, 2)[0], num_samples=3, generator=_seed())
    assert draws.shape == (3, 2, 3, 3 * s, 5 * s) and torch.allclose(draws, crop_to(whole, (3 * s, 5 * s)))
    streamed = torch.stack(list(model.stream(lr, num_samples=3, generator=_seed())))
    assert torch.allclose(streamed, draws, atol=1e-10)
    found = summarize_draws(model, lr[0], num_samples=4, summary=StreamingSummary(components=1))
    assert found.mean.shape == (3, 3 * s, 5 * s)


@pytest.mark.parametrize("name", UNCONDITIONAL)
def test_densities_of_images_alone(name):
    model = _model(name)
    size = (2 * model.multiple, model.multiple)
    three = model.sample(size, num_samples=3, temperature=0.7, generator=_seed())
    assert torch.allclose(model.sample(size, temperature=0.7, generator=_seed())[0], three[0], atol=1e-9)
    generator = _seed()
    later = [model.sample(size, temperature=0.7, generator=generator)[0] for _ in range(3)]
    assert torch.allclose(torch.stack(later), three, atol=1e-9)
    torch.manual_seed(SEED)
    assert torch.allclose(model.distribution(size, temperature=0.7).sample((3,)), three, atol=1e-9)
    z = model.draw_latents(size, sample_shape=(3,), temperature=0.7, generator=_seed())
    assert torch.allclose(model.decode(z), three, atol=1e-9)


def test_draws_keep_the_gradient():
    model, lr = _model("sr-x4"), _lr().requires_grad_()
    (slope,) = torch.autograd.grad(model.condition(lr, lr_log_scale=-2.0).rsample((2,)).sum(), lr)
    assert slope.abs().max() > 0
    log_scale = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model.sample(lr, lr_log_scale=log_scale, generator=_seed()).sum(), log_scale)
    step = 1e-5
    ends = [model.sample(lr, lr_log_scale=-2.0 + d, generator=_seed()).sum() for d in (step, -step)]
    assert torch.allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)
    assert not next(model.stream(lr, num_samples=1)).requires_grad


@pytest.mark.parametrize("name", ["sr-x4", "irn-x4"])
def test_draws_of_several_widths_are_those_of_each(name):
    model, lr = _model(name), _lr(2)
    widths = torch.tensor([-3.0, -math.inf, -2.0], dtype=torch.float64)
    found = model.sample(lr, num_samples=2, lr_log_scale=widths[:, None], generator=_seed())
    torch.manual_seed(SEED)
    same = model.condition(lr, lr_log_scale=widths[:, None]).sample((2,))
    assert found.shape[:3] == (2, 3, 2) and torch.allclose(found, same, atol=1e-9)
    lone = model.sample(lr, lr_log_scale=torch.tensor(-math.inf), generator=_seed())
    assert torch.allclose(lone, model.sample(lr, generator=_seed()), atol=1e-9)


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_nothing_is_drawn_from_what_is_no_temperature(name, value):
    model, lr = _model(name), _lr()
    for tau in (value, torch.tensor(value), torch.tensor([value, 1.0])[:, None]):
        for draw in (model.sample, model.draw_latents):
            with pytest.raises(ValueError, match="temperatures"):
                draw(lr, temperature=tau)


def test_noise_is_of_no_draws_or_of_several_dimensions():
    options = {"parts": (1, 3), "dtype": torch.float64, "device": torch.device("cpu")}
    assert draw_noise((2, 4, 1, 1), sample_shape=(0,), **options).shape == (0, 2, 4, 1, 1)
    flat = draw_noise((2, 4, 1, 1), sample_shape=(6,), generator=_seed(), **options)
    assert torch.equal(draw_noise((2, 4, 1, 1), sample_shape=(2, 3), generator=_seed(), **options).flatten(0, 1), flat)
    lone = draw_noise((4, 3, 3), generator=_seed(), dtype=torch.float64, device=torch.device("cpu"))
    assert torch.equal(lone, torch.randn(4, 3, 3, generator=_seed(), dtype=torch.float64))


def test_messages():
    model, lr = _model("srflow-x4"), _lr()
    for call, message in [
        (lambda: model.sample(lr, lr_log_scale=-3.0), "no lr_log_scale for SRFlow, .*; got -3.0: leave it out"),
        (lambda: next(model.stream(lr, num_samples=1, lr_log_scale=-3.0)), "no lr_log_scale for SRFlow"),
        (lambda: model.stream(lr, num_samples=0), "num_samples >= 1; got 0"),
        (lambda: model.sample(lr, num_samples=True), "num_samples >= 1; got True"),
        (lambda: model.stream(lr, num_samples=True), "num_samples >= 1; got True"),
        (lambda: model.sample(lr, lr_log_scale=torch.tensor([-3.0, -2.0])), "no lr_log_scale for SRFlow"),
        (lambda: _model("sr-x4").sample(lr, lr_log_scale=100.0), "lr_log_scale from -40 to 40"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
