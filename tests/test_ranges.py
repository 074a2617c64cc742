"""The ends of ranges and the defaults: the last value that is promised is taken, the next one is refused by name."""

import importlib
import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import tiny_flow

from flowsr.calibration import (
    calibrate_intervals,
    calibrate_mask,
    conformal_quantile,
    coverage_range,
    flow_sampler,
    hold_out,
    interval_coverage,
    latent_pit,
    local_c2st,
    local_calibration,
    model_pairs,
    pixel_test,
    risk_quantile,
    simulation_based_calibration,
    simultaneous_band,
    summarize_pairs,
    tarp,
    uniformity_p_value,
)
from flowsr.distributions import (
    DiscretizedNormal,
    PackedNormal,
    VariationalDequantizer,
    level_temperatures,
    monte_carlo_kl,
    uniform_dequantize,
)
from flowsr.images import round_to_8bit
from flowsr.likelihood import decompose, latent_diagnostics, perturbed
from flowsr.metrics import pixel_std, psnr, ssim
from flowsr.posterior import (
    Blur,
    Downscale,
    GaussianLR,
    GaussianNoise,
    Identity,
    InverseProblem,
    LinearGaussianFlow,
    PoissonNoise,
    StreamingSummary,
    interpolate,
    lr_consistency,
    sample_with_temperature_map,
    summarize_draws,
    uncertainty_quality,
)
from flowsr.posterior.linear_gaussian import LinearGaussianConfig
from flowsr.transforms import LearnedDownsampling, LogisticMixtureMap, Logit, PixelShuffle, SplineMap
from flowsr.transforms.compose import check_kept

FLOW = LinearGaussianFlow(detail_std=(0.1,))
LR = torch.full((1, 2, 2), 0.5)
HR = round_to_8bit(torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)))
PAIRS = (HR.expand(12, 1, 4, 4).contiguous(), LR.expand(12, 1, 2, 2).contiguous())


def _held_out(num_samples=99):
    generator = torch.Generator().manual_seed(1)
    return hold_out(lambda lr, n, g: torch.rand(n, 1, 4, 4, generator=generator), *PAIRS, num_samples=num_samples)


def _known():
    return summarize_pairs(flow_sampler(FLOW), PAIRS[0][:3], PAIRS[1][:3], num_samples=4)


def _problem(**changes):
    return InverseProblem(FLOW, LR, Identity(), HR, GaussianNoise(0.1), **changes)


def _summary(count=4):
    return summarize_draws(FLOW, LR, num_samples=count)


def _image(side):
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(side))


def _above(value):
    return math.nextafter(value, math.inf)


# What is called with a value; values that are taken, and values beyond them.
RANGES = {
    "kept channels": (lambda v: check_kept(4, v, keep="first"), (1, 3), (0, 4)),
    "bins of a spline": (lambda v: SplineMap(bins=v), (2, 999), (1, 1000)),
    "bound of a spline": (lambda v: SplineMap(bound=v), (1e-3, 1e3), (0.0, math.inf)),
    "components of a mixture": (lambda v: LogisticMixtureMap(components=v), (1, 100), (0, 101)),
    "factor of a learned downsampling": (lambda v: LearnedDownsampling(v), (2, 3), (1, 0)),
    "alpha of a logit": (lambda v: Logit(v), (0.0, 0.4999), (-1e-9, 0.5)),
    "factor of a pixel shuffle": (lambda v: PixelShuffle(v), (1, 2), (0,)),
    "bins of uniform noise": (lambda v: uniform_dequantize(HR, bins=v), (2, 256), (1, 2.0)),
    "bins of variational noise": (lambda v: VariationalDequantizer(1, steps=1, bins=v), (2,), (1,)),
    "levels of a discretized normal": (lambda v: DiscretizedNormal(0.5, 0.1, levels=v), (2, 256), (1,)),
    "scale of a discretized normal": (lambda v: DiscretizedNormal(0.5, v), (1e-9, 1e9), (0.0, math.inf)),
    "draws of a divergence": (
        lambda v: monte_carlo_kl(
            FLOW.condition(LR, lr_log_scale=-1.0), FLOW.condition(LR, lr_log_scale=-1.0), num_samples=v
        ),
        (2,),
        (1,),
    ),
    "temperature": (lambda v: level_temperatures(v, 2), (0.0, 3.0), (-1e-9, math.inf)),
    "log width of a packed normal": (
        lambda v: PackedNormal(LR, latent_channels=(3,), lr_log_scale=v),
        (-40.0, 40.0, -math.inf),
        (-40.1, 40.1, math.inf),
    ),
    "log width of a decomposition": (
        lambda v: decompose(FLOW, HR, LR, lr_log_scale=v),
        (-40.0, 40.0),
        (-40.1, 40.1, -math.inf),
    ),
    "significance": (
        lambda v: latent_diagnostics(FLOW, [(HR, LR)] * 3, lr_log_scale=-1.0, significance=v),
        (0.001, 0.999),
        (0.0, 1.0),
    ),
    "strength of a perturbation": (lambda v: perturbed(_image(16), "noisy", strength=v), (0.0,), (-1e-9, math.nan)),
    "side of shuffled blocks": (lambda v: perturbed(torch.rand(3, 8, v), "shuffled"), (16,), (15, 8)),
    "channels, images of a diversity": (
        lambda v: pixel_std(torch.rand(*v)),
        ((2, 3, 4, 4),),
        ((1, 3, 4, 4), (3, 4, 4)),
    ),
    "side of SSIM": (lambda v: ssim(_image(v), _image(v), border=0), (11,), (10,)),
    "border": (lambda v: psnr(_image(9), _image(9) / 2, border=v), (0, 4), (-1, 5)),
    "border of an even side": (lambda v: psnr(_image(8), _image(8) / 2, border=v), (3,), (4,)),
    "std of an LR prior": (lambda v: GaussianLR(LR, std=v), (1e-6, 1.0), (0.0, _above(1.0))),
    "correlation of an LR prior": (lambda v: GaussianLR(LR, std=0.1, correlation=v), (0.0, 1.0), (-1e-9, _above(1.0))),
    "log width of a problem": (lambda v: _problem(lr_log_scale=v), (-40.0, 0.0, -math.inf), (-40.1, 1e-9)),
    "temperature of a problem": (lambda v: _problem(temperature=v), (1e-6, 2.0), (0.0,)),
    "std of details": (lambda v: LinearGaussianConfig(detail_std=(v,), image_channels=1), (1e-9,), (0.0, math.inf)),
    "std of noise": (lambda v: GaussianNoise(v), (1e-9,), (0.0, math.inf, -1.0)),
    "peak of counts": (lambda v: PoissonNoise(v), (1e-9,), (0.0, math.nan)),
    "std of a blur": (lambda v: Blur.gaussian(v), (1e-3,), (0.0, math.inf)),
    "factor of an operator": (lambda v: Downscale(v), (2, 4), (1, 2.0)),
    "quantile levels": (lambda v: StreamingSummary(levels=(v,)), (1e-9, 1 - 1e-9), (0.0, 1.0)),
    "draws of a summary": (lambda v: _summary(v), (2,), (1,)),
    "memory of a summary": (lambda v: summarize_draws(FLOW, LR, num_samples=2, memory=v), (1e-9,), (0.0, math.nan)),
    "draws between checkpoints": (
        lambda v: summarize_draws(FLOW, LR, num_samples=2, checkpoint_every=v),
        (1,),
        (0,),
    ),
    "bins of uncertainty": (lambda v: uncertainty_quality([_summary()], [HR], bins=v), (1, 16), (0, 17)),
    "steps of a path": (lambda v: interpolate(FLOW, HR, 1 - HR, steps=v), (2,), (1,)),
    "temperature of a map": (
        lambda v: sample_with_temperature_map(FLOW, LR, torch.full((4, 4), v)),
        (0.0,),
        (-1e-9, math.nan),
    ),
    "draws, and cycles, of a consistency": (
        lambda v: lr_consistency(FLOW, LR, num_samples=v[0], cycles=v[1]),
        ((1, 1),),
        ((0, 1), (1, 0)),
    ),
    "pairs": (
        lambda v: hold_out(flow_sampler(FLOW), PAIRS[0][:v], PAIRS[1][:v], num_samples=9),
        (10,),
        (9,),
    ),
    "draws of a pair": (lambda v: _held_out(v), (9,), (8,)),
    "levels of coverage": (lambda v: interval_coverage(_held_out(), levels=(v,)), (0.02, 0.98), (0.0, 1.0)),
    "alpha of coverage": (lambda v: interval_coverage(_held_out(), alpha=v), (1e-6, 0.99), (0.0, 1.0)),
    "alpha of SBC": (lambda v: simulation_based_calibration(_held_out(), alpha=v), (1e-6, 0.99), (0.0, 1.0)),
    "alpha of TARP": (lambda v: tarp(_held_out(), alpha=v), (1e-6, 0.99), (0.0, 1.0)),
    "alpha of pixels": (lambda v: pixel_test(_held_out(), alpha=v), (1e-4, 0.99), (9e-5, 1.0)),
    "alpha of bins": (lambda v: local_calibration(_held_out(), alpha=v), (1e-3, 0.99), (9e-5, 1.0)),
    "bins of content": (lambda v: local_calibration(_held_out(), bins=v), (2,), (1,)),
    "level of bins": (lambda v: local_calibration(_held_out(), level=v), (0.8,), (0.0, 1.0)),
    "alpha of a classifier": (lambda v: local_c2st(_held_out(), alpha=v), (1e-3, 0.99), (9e-5, 1.0)),
    "level of a band": (lambda v: simultaneous_band(20, cells=4, level=v), (0.01, 0.99), (0.0, 1.0)),
    "cells of ranks": (lambda v: uniformity_p_value(np.array([0, 0]), cells=v), (2,), (1,)),
    "ranks": (lambda v: uniformity_p_value(np.array([v]), cells=4), (0, 3), (-1, 4)),
    "pairs of a PIT": (lambda v: latent_pit(FLOW, PAIRS[0][:v], PAIRS[1][:v]), (10,), (9,)),
    "alpha of a PIT": (lambda v: latent_pit(FLOW, *PAIRS, alpha=v), (1e-6, 0.99), (0.0, 1.0)),
    "cells of a PIT": (lambda v: latent_pit(FLOW, *PAIRS, cells=v), (2,), (1,)),
    "log width of a PIT": (lambda v: latent_pit(FLOW, *PAIRS, lr_log_scale=v), (-math.inf, 0.0), (math.inf,)),
    "projections of a PIT": (lambda v: latent_pit(FLOW, *PAIRS, projections=v), (0, 1), (-1,)),
    "alpha of a conformal quantile": (lambda v: conformal_quantile(range(9), v), (0.1, 0.999), (0.0999, 0.0, 1.0)),
    "images of a risk": (lambda v: risk_quantile(range(v), 0.1), (22,), (21, 0)),
    "confidence of a risk": (lambda v: risk_quantile(range(22), 0.1, confidence=v), (0.001, 0.9), (0.91, 0.0, 1.0)),
    "confidence by image": (
        lambda v: calibrate_intervals(_known(), guarantee="images", confidence=v),
        (0.001, 0.75),
        (0.76, 0.0, 1.0),
    ),
    "level of a range of coverages": (lambda v: coverage_range(9, 0.1, level=v), (0.001, 0.999), (0.0, 1.0)),
    "bound of a mask": (lambda v: calibrate_mask(_known(), bound=v, alpha=0.3), (1e-9, math.inf), (0.0, math.nan)),
    "wrong of a mask": (
        lambda v: calibrate_mask(_known(), bound=0.1, wrong=v, alpha=0.3),
        (0.0, 0.999),
        (-1e-9, 1.0),
    ),
    "draws of a summarized pair": (
        lambda v: summarize_pairs(flow_sampler(FLOW), PAIRS[0][:1], PAIRS[1][:1], num_samples=v),
        (4,),
        (3,),
    ),
    "pairs of a model": (lambda v: model_pairs(FLOW, GaussianLR(LR, std=0.1), v), (1,), (0,)),
}


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_ranges(name):
    function, taken, refused = RANGES[name]
    for value in taken:
        function(value)
    for value in refused:
        with pytest.raises(ValueError, match=r"(?s)expected .*got|at least|needs"):
            function(value)


# -------------------------------------------------------------------------------------------------------- defaults


def _defaults():
    """Limits, and the default of every argument of public functions and classes, of the rooms of mathematics."""
    found = {}
    for room in (
        "transforms",
        "distributions",
        "likelihood",
        "posterior",
        "calibration",
        "known_posteriors",
        "metrics",
    ):
        module = importlib.import_module(f"flowsr.{room}")
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if isinstance(thing, (int, float)):
                found[f"{room}.{name}"] = repr(thing)
            for label, function in _callables(f"{room}.{name}", thing):
                found |= {
                    f"{label}({argument.name})": repr(argument.default)
                    for argument in inspect.signature(function).parameters.values()
                    if isinstance(argument.default, (bool, int, float, str, tuple))
                }
    return found


def _callables(label, thing):
    if inspect.isfunction(thing):
        yield label, thing
    elif inspect.isclass(thing) and thing.__module__.startswith("flowsr"):
        for name, method in vars(thing).items():
            method = getattr(method, "__func__", method)
            if inspect.isfunction(method) and (name == "__init__" or not name.startswith("_")):
                yield f"{label}.{name}", method


def test_defaults_are_part_of_the_interface():
    """A default is a convention of the number that comes out: whoever changes one says so here, in the table."""
    table = Path(__file__).parent / "data" / "defaults.json"
    expected = json.loads(table.read_text(encoding="utf-8"))
    found = _defaults()
    changed = {key: (expected.get(key), found.get(key)) for key in expected.keys() | found.keys()}
    changed = {key: both for key, both in changed.items() if both[0] != both[1]}
    assert not changed, f"defaults changed, (before, now): {changed}"


def test_a_tiny_flow_takes_what_the_yardstick_takes():
    """The ranges hold for a network as for the linear Gaussian flow that stands for all models above."""
    flow = tiny_flow()
    hr, lr = round_to_8bit(torch.rand(3, 8, 8)), torch.rand(3, 2, 2)
    for value in (-40.0, 40.0):
        assert torch.isfinite(decompose(flow, hr, lr, lr_log_scale=value).total)
    with pytest.raises(ValueError, match="-40 to 40"):
        decompose(flow, hr, lr, lr_log_scale=41.0)
