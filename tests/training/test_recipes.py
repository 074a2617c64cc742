"""The recipes are the published ones, and their schedules functions of the step."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest

from flowsr.models import HCFlow
from flowsr.training import RECIPES, Data, Recipe, Run, learning_rate, lr_log_scale, recipe
from flowsr.training.settings import parse_field, parse_fields


def rates(chosen, *steps):
    return [learning_rate(chosen, step) for step in steps]


def test_published_settings():
    for published in RECIPES.values():
        assert (published.batch_size, published.crop, published.betas) == (16, 160, (0.9, 0.99))
        assert (published.clip_value, published.clip_norm) == (5.0, 100.0)
        assert published.separate
    nll, plus, plusplus, rescaling = RECIPES.values()
    assert (nll.steps, nll.learning_rate, nll.passes) == (300_000, 2.5e-4, ("likelihood",))
    assert (plus.steps, plus.learning_rate, plus.nll, plus.l1) == (50_000, 5e-5, 2e-3, 1.0)
    assert plus.passes == ("likelihood", "l1")
    assert (plusplus.learning_rate, plusplus.perceptual, plusplus.gan) == (1.25e-5, 5e-2, 0.5)
    assert plusplus.passes == ("likelihood", "l1", "perceptual")
    assert (plusplus.temperature, plusplus.critic_learning_rate, plusplus.critic_warmup) == (0.9, 5e-5, 1500)
    assert (rescaling.steps, rescaling.hr_l1, rescaling.lr_mse, rescaling.z_square) == (500_000, 1.0, 5e-2, 1e-5)
    assert rescaling.passes == ("rescaling",)


def test_rates_are_halved_where_published():
    assert rates(RECIPES["nll"], 0, 149_999, 150_000, 225_000, 270_000, 285_000, 299_999) == [
        2.5e-4 / 2**k for k in (0, 0, 1, 2, 3, 4, 4)
    ]
    assert rates(RECIPES["nll+l1"], 19_999, 20_000, 40_000) == [5e-5, 2.5e-5, 1.25e-5]
    assert rates(RECIPES["rescaling"], 99_999, 100_000, 450_000) == [2.5e-4, 1.25e-4, 2.5e-4 / 32]
    eight = recipe("nll", flow=HCFlow.from_preset("sr-x8-small"))
    assert eight.steps == 350_000
    assert rates(eight, 199_999, 200_000, 250_000, 280_000, 310_000, 340_000) == [2.5e-4 / 2**k for k in range(6)]
    faces = recipe("nll+l1+perceptual+gan", flow=HCFlow.from_preset("sr-x8-small"))
    assert (faces.temperature, faces.rotations, faces.steps) == (0.8, False, 50_000)


def test_cosine_and_warm_up():
    cosine = recipe("nll", steps=1000, halve_at=(), learning_rate=5e-4, cosine_to=1e-5)
    assert learning_rate(cosine, 0) == 5e-4
    assert learning_rate(cosine, 500) == pytest.approx((5e-4 + 1e-5) / 2)
    assert learning_rate(cosine, 1000) == pytest.approx(1e-5)
    assert learning_rate(cosine, 250) == pytest.approx(1e-5 + 0.5 * 4.9e-4 * (1 + math.sqrt(0.5)))
    # The discriminator's rate falls in proportion.
    assert learning_rate(cosine, 1000, base=1e-4) == pytest.approx(2e-6)
    warm = replace(cosine, warmup=10, cosine_to=None)
    assert rates(warm, 0, 4, 9, 10) == pytest.approx([5e-5, 2.5e-4, 5e-4, 5e-4])


def test_the_width_is_annealed_over_half_the_steps():
    annealed = recipe("nll", steps=100, lr_log_scale_start=-1.0)
    assert [lr_log_scale(annealed, s) for s in (0, 10, 50, 99)] == [-1.0, -2.0, -6.0, -6.0]
    assert lr_log_scale(recipe("nll", steps=100), 0) == -6.0


def test_recipes_are_frozen_and_travel_as_json():
    chosen = recipe("rescaling", steps=10, halve_at=(0.5,))
    assert Recipe.from_dict(chosen.to_dict()) == chosen
    with pytest.raises(FrozenInstanceError):
        chosen.steps = 3
    with pytest.raises(ValueError, match=r"got 'stesp': did you mean steps\?"):
        Recipe.from_dict({**chosen.to_dict(), "stesp": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "expected steps >= 1; got 0"),
        ({"halve_at": (1.5,)}, "expected halve_at to be fractions"),
        ({"cosine_to": 1e-5}, "expected either halve_at or cosine_to"),
        ({"ema": 1.0}, r"expected ema in \[0, 1\); got 1.0"),
        ({"adversary": "hinge"}, "expected adversary to be vanilla"),
        ({"nll": 0.0}, "expected at least one loss"),
        ({"learning_rate": 0.0}, "expected learning_rate > 0; got 0.0"),
        ({"learning_rate": float("inf")}, "expected finite learning_rate; got inf"),
        ({"critic_learning_rate": float("nan")}, "expected finite critic_learning_rate; got nan"),
        ({"clip_norm": -1.0}, "expected clip_norm > 0; got -1.0"),
        ({"warmup": -1}, "expected warmup >= 0; got -1"),
        ({"bins": 0}, "expected bins >= 1; got 0"),
        ({"halve_at": (), "cosine_to": -1e-5}, "expected cosine_to >= 0; got -1e-05"),
        ({"l1": -1.0}, "expected l1 >= 0; got -1.0"),
        ({"temperature": -0.1}, "expected temperature >= 0; got -0.1"),
        ({"betas": (0.9,)}, r"expected betas to be two numbers in \[0, 1\); got \(0.9,\)"),
        ({"betas": (0.9, 1.5)}, r"expected betas to be two numbers in \[0, 1\); got \(0.9, 1.5\)"),
        ({"speed": 2}, "got 'speed': the fields are name, task, steps, "),
        ({"task": "rescaling", "l1": 1.0}, "expected rescaling losses"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        recipe("nll", **change)


def test_names_and_tasks_must_fit():
    with pytest.raises(ValueError, match=r"expected a recipe among nll, nll\+l1"):
        recipe("hcflow")
    with pytest.raises(ValueError, match="expected a recipe for rescaling; got 'nll', which is for super-resolution"):
        recipe("nll", flow=HCFlow.from_preset("rescaling-x4-small"))
    with pytest.raises(ValueError, match="expected accelerator auto, cpu, gpu or cuda; got 'mps'"):
        Run(accelerator="mps")
    with pytest.raises(ValueError, match="expected precision fp32 or bf16; got 'fp16'"):
        Run(precision="fp16")
    with pytest.raises(ValueError, match="expected memory full, checkpoint or reversible; got 'little'"):
        Run(memory="little")
    with pytest.raises(ValueError, match="expected checkpoint_every >= 1; got 0"):
        Run(checkpoint_every=0)
    with pytest.raises(ValueError, match="expected workers >= 0; got -1"):
        Data(folders="x", workers=-1)


def test_fields_from_the_command_line():
    found = [parse_field(text) for text in ("12", "1e-5", "none", "true", "()", "0.4,0.8", "relativistic")]
    for text in ("steps", "steps=", "=30"):
        with pytest.raises(ValueError, match=f"expected NAME=VALUE, without blanks around =; got '{text}'"):
            parse_fields([text])
    assert found == [12, 1e-5, None, True, (), (0.4, 0.8), "relativistic"]
