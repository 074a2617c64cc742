"""Large images in tiles: the numbers of the whole image, of one field of noise, in a stated memory."""

import copy
import math
import os
import re
import subprocess
import sys
from itertools import product

import pytest
import torch
from cases import VARIANTS, tiny, tiny_flow

import flowsr
from flowsr._support.free_memory import memory_text, parse_memory
from flowsr.distributions import NoiseField, draw_noise
from flowsr.errors import NonFiniteError, OutOfMemoryError
from flowsr.evaluation.encoded import encoded_lr
from flowsr.images import make_lr, round_to_8bit
from flowsr.likelihood import bits_per_dim, decompose
from flowsr.models import Capability, Tiling, measured_halo, plan_tiles, presets, tile_plan
from flowsr.models.conditional import as_conditional
from flowsr.models.memory import memory_estimate
from flowsr.models.tile_plan import _fewest

DENSITIES = ("glow", "realnvp", "realnvp-small")
ONE_OF_EACH = ("sr-x4", "sr-x8", "rescaling-x4", "irn-x2", "irn-x3", "irn-x4", "irn-x8", "srflow-x4", "srflow-x8")
MODELS = {
    **{name: lambda name=name: tiny(name, strength=0.1) for name in ONE_OF_EACH},
    **{f"sr-x4-{name}": lambda more=more: tiny_flow("sr-x4", strength=0.1, **more) for name, more in VARIANTS.items()},
}


QUICK = ("sr-x4", "rescaling-x4", "irn-x2", "irn-x3", "srflow-x4", "sr-x4-not-hierarchical", *DENSITIES)


def _marked(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


def _seed():
    return torch.Generator().manual_seed(3)


def _tiles(model, size, halo):
    """Several tiles in each direction, with windows smaller than the image."""
    rows, columns = (max(2, (-(-side // model.multiple) - 2 * halo) * 2 // 3) for side in size)
    return Tiling(size=size, cell=model.multiple, core=(rows, columns), halo=halo)


def test_one_of_each_family_is_tested():
    conditional = {type(as_conditional(model)) for name in ONE_OF_EACH if (model := tiny(name))}
    assert conditional == {kind for kind in presets().values() if hasattr(kind, "stream")}


@pytest.mark.parametrize("name", _marked(MODELS))
def test_a_draw_in_tiles_is_the_draw(name):
    model = MODELS[name]().double()
    halo = measured_halo(model, "draw")
    side = (2 * halo + 5) * (model.multiple // model.upscale)
    lr = torch.rand(3, side + 4, side + 9, dtype=torch.float64, generator=_seed())
    whole = next(model.stream(lr, num_samples=1, generator=_seed()))
    assert torch.allclose(whole, model.sample(lr, generator=_seed())[0], atol=1e-9)
    tiling = _tiles(model, whole.shape[-2:], halo)
    seen = []
    tiled = next(model.stream(lr, num_samples=1, generator=_seed(), tiling=tiling, on_tile=lambda: seen.append(1)))
    assert len(seen) == len(tiling) >= 9 and max(tiling.window) < max(whole.shape)
    assert (tiled - whole).abs().max() < 0.25 / 255
    levels = next(model.stream(lr, num_samples=1, generator=_seed(), tiling=tiling, levels=True))
    assert (levels / 255.0 - round_to_8bit(whole)).abs().max() < 1.01 / 255
    assert levels.movedim(0, -1).is_contiguous()


@pytest.mark.parametrize("name", _marked([*MODELS, *DENSITIES]))
def test_an_encoding_in_tiles_is_the_encoding(name):
    model = (tiny(name, strength=0.1) if name in DENSITIES else MODELS[name]()).double()
    halo = measured_halo(model, "encode")
    size = ((2 * halo + 9) * model.multiple, (2 * halo + 12) * model.multiple)
    hr = round_to_8bit(torch.rand(3, *size, dtype=torch.float64, generator=_seed()))
    lr = None if name in DENSITIES else torch.nn.functional.avg_pool2d(hr, model.upscale)
    tiling = _tiles(model, size, halo)
    whole = bits_per_dim(model, hr, lr, generator=_seed(), maps=True)
    seen = []
    options = {"tiling": tiling, "on_tile": lambda: seen.append(1)}
    tiled = bits_per_dim(model, hr, lr, generator=_seed(), **options)
    assert len(seen) == len(tiling) >= 9 and max(tiling.window) < max(size)
    for mine, theirs in zip(tiled.terms.terms, whole.terms.terms, strict=True):
        assert mine.name == theirs.name
        assert torch.allclose(mine.value, theirs.value, rtol=1e-10, atol=1e-10 * abs(float(whole.terms.total)))
    assert torch.allclose(tiled.importance_weighted, whole.importance_weighted, rtol=1e-10)
    maps = decompose(model, hr, lr, maps=True, tiling=tiling)
    assert torch.allclose(maps.total, decompose(model, hr, lr).total, rtol=1e-10)
    assert all(torch.allclose(m.sum(), t.value, rtol=1e-9) for m, t in zip(maps.maps.values(), maps.terms, strict=True))
    if Capability.LR_LATENT in model.capabilities:
        assert torch.allclose(encoded_lr(model, hr, tiling=tiling), encoded_lr(model, hr), atol=1e-9)


@pytest.mark.parametrize("name", ["sr-x4-small", pytest.param("rescaling-x4-small", marks=pytest.mark.slow)])
def test_densities_of_the_shipped_models_agree_in_float32(name):
    flow = flowsr.load(name)
    hr = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 30, generator=_seed()), (292, 200), mode="bicubic")[0]
    hr = round_to_8bit((0.1 + 0.8 * hr + 0.02 * torch.randn(3, 292, 200, generator=_seed())).clamp(0, 1))
    tiling = Tiling(size=(292, 200), cell=4, core=(30, 50), halo=measured_halo(flow, "encode"))
    whole, tiled = (bits_per_dim(flow, hr, make_lr(hr, 4), generator=_seed(), tiling=cut) for cut in (None, tiling))
    assert math.isclose(float(tiled.variational), float(whole.variational), rel_tol=1e-5)
    differs = (encoded_lr(flow, hr, tiling=tiling) - encoded_lr(flow, hr)).abs()
    assert differs.max() < 1.01 / 255


def test_a_field_of_noise_is_the_draw_to_the_bit(monkeypatch):
    monkeypatch.setattr("flowsr.distributions.noise_field._RUN", 64)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for width in (1, 7, 22):
            options = {"parts": (0, 3, 4), "dtype": dtype, "device": torch.device("cpu")}
            generator, other = _seed(), _seed()
            whole = draw_noise((2, 7, 5, width), generator=generator, **options)
            with NoiseField((2, 7, 5, width), generator=other, on_disk=True, **options) as field:
                assert torch.equal(field.window(slice(0, 5), slice(0, width)), whole)
                assert torch.equal(field.window(slice(2, 4), slice(width // 2, width)), whole[..., 2:4, width // 2 :])
            assert torch.equal(generator.get_state(), other.get_state())


def test_a_batch_is_drawn_in_tiles_too():
    model = tiny("sr-x4", strength=0.1)
    lr = torch.rand(2, 3, 70, 9, generator=_seed())
    tiling = Tiling(size=(280, 36), cell=4, core=(20, 9), halo=measured_halo(model, "draw"))
    options = {"num_samples": 2, "temperature": (0.5, 1.0), "lr_log_scale": -3.0}
    for whole, tiled in zip(
        model.stream(lr, generator=_seed(), **options),
        model.stream(lr, generator=_seed(), tiling=tiling, **options),
        strict=True,
    ):
        assert (whole - tiled).abs().max() < 0.25 / 255


@pytest.mark.parametrize("name", ["sr-x4-small", pytest.param("rescaling-x4-small", marks=pytest.mark.slow)])
def test_files_of_the_shipped_models_differ_by_a_grey_level_at_most_whatever_the_tiles(name):
    flow = flowsr.load(name)
    lr = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 14, generator=_seed()), (97, 66), mode="bicubic")
    lr = (lr[0] + 0.02 * torch.randn(3, 97, 66, generator=_seed())).clamp(0, 1)
    draw = {"num_samples": 1, "levels": True}
    whole = next(flow.stream(lr, generator=_seed(), **draw)).int()
    halo = measured_halo(flow, "draw")
    for core in ((50, 66), (23, 40)):
        tiling = Tiling(size=(388, 264), cell=4, core=core, halo=halo)
        differs = (next(flow.stream(lr, generator=_seed(), tiling=tiling, **draw)).int() - whole).abs()
        assert differs.max() <= 1 and (differs > 0).float().mean() < 1e-3


@pytest.mark.parametrize("task", ["draw", "encode"])
def test_tiles_fit_the_memory_they_are_planned_for(task, monkeypatch):
    flow = flowsr.load("sr-x4-small")
    for size, budget in product([(2048, 2048), (3001, 1777), (256, 40_000)], (150e6, 400e6)):
        monkeypatch.setattr("flowsr.models.memory.free_memory", lambda device, budget=budget: int(budget * 4 / 3) + 1)
        tiling = plan_tiles(flow, size, task=task, held=20e6)
        assert len(tiling) > 1 and tiling.halo == measured_halo(flow, task)
        assert 20e6 + memory_estimate(flow, tiling.window, task=task) <= budget * 1.001
        covered = torch.zeros(tiling.cells, dtype=torch.int)
        for tile in tiling:
            covered[tile.place.rows, tile.place.columns] += 1
        assert bool((covered == 1).all())
    assert len(plan_tiles(flow, (64, 64), task=task)) == 1


def test_the_fewest_pixels_are_computed():
    whole = Tiling.whole((400, 400), 4)
    assert _fewest(whole, 100 * 60, 10).core == (100, 34)  # strips as high as the image need a halo on two sides only
    assert _fewest(whole, 20 * 20, 10) is None


def test_what_does_not_fit_in_tiles_either_is_refused():
    flow = flowsr.load("sr-x4-small")
    said = r"drawing for a\.png, 9000 × 8000 pixels, takes about [0-9.]+ MB at least, in tiles, and 0\.0 MB of 64\.0 MB"
    said += r" are left beside the [0-9.]+ .B that the process takes"
    with pytest.raises(OutOfMemoryError, match=said):
        plan_tiles(flow, (8000, 9000), task="draw", max_memory=64_000_000, what="drawing for a.png")


def test_what_tiles_are_said_to_take_at_least_suffices(monkeypatch):
    flow = flowsr.load("sr-x4-small")
    side = flow.multiple * (1 + 2 * measured_halo(flow, "draw"))
    least = memory_estimate(flow, (side, side), task="draw") / tile_plan._SAFE
    monkeypatch.setattr(tile_plan, "memory_budget", lambda *_: 1.001 * least)
    assert plan_tiles(flow, (2048, 2048), task="draw").core == (1, 1)
    monkeypatch.setattr(tile_plan, "memory_budget", lambda *_: 0.999 * least)
    with pytest.raises(OutOfMemoryError, match=f"takes about {memory_text(least)} at least"):
        plan_tiles(flow, (2048, 2048), task="draw")


def test_a_model_that_looks_everywhere_is_refused():
    flow = tiny("sr-x4")
    encoder = flow.transform.conditionals[0].encoder
    narrow = encoder.forward
    encoder.forward = lambda x: narrow(x) + 50 * x.mean((-2, -1), keepdim=True).sum(-3, keepdim=True)
    for task in ("draw", "encode"):
        with pytest.raises(ValueError, match=r"expected a model whose pixels depend on what is near.*384 pixels"):
            measured_halo(flow, task)


@pytest.mark.parametrize("data", [False, True])
def test_halos_are_measured_anew_for_other_weights(data):
    flow = tiny("sr-x4", strength=0.01)
    before = measured_halo(flow, "draw")
    with torch.no_grad():
        for weight in flow.parameters():
            (weight.data if data else weight).mul_(20)
    assert measured_halo(flow, "draw") > before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_hide_how_far_a_model_looks(dtype):
    flow = tiny("sr-x4", strength=0.1)
    halos = [measured_halo(flow, task) for task in ("draw", "encode")]
    half = copy.deepcopy(flow).to(dtype)
    assert [measured_halo(half, task) for task in ("draw", "encode")] == pytest.approx(halos, abs=1) and min(halos) > 2
    assert half.dtype == dtype


def test_a_model_that_gives_no_numbers_has_no_halo():
    flow = tiny("sr-x4")
    torch.nn.init.constant_(next(flow.transform.mains[0].parameters()), math.nan)
    for task in ("draw", "encode"):
        with pytest.raises(NonFiniteError, match=r"finite values of HCFlow for a photograph.*check its weights"):
            measured_halo(flow, task)


def test_a_full_disk_is_said_in_words_and_leaves_nothing_open():
    code = """
import os, resource, torch
from flowsr.distributions import NoiseField
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
options = {"parts": (3, 9), "dtype": torch.float32, "device": torch.device("cpu"), "on_disk": True}
before = len(os.listdir("/proc/self/fd"))
try:
    NoiseField((12, 50, 70), **options)
except OSError as error:
    print(error, len(os.listdir("/proc/self/fd")) - before)
NoiseField((12, 2, 2), **options).close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "TMPDIR": ""}
    )
    assert done.returncode == 0, done.stderr
    said = (
        r"expected room for the noise of a large image, 0\.2 MB, in the temporary folder .+; it cannot be written .*: "
    )
    assert re.match(said + "make room, or name another folder in the environment variable TMPDIR 0", done.stdout)


def test_draws_that_run_away_and_tilings_of_other_images_are_refused():
    flow = tiny("sr-x4")
    lr = torch.rand(3, 6, 6)
    with pytest.raises(ValueError, match="expected a tiling of 24 × 24 pixels in cells of 4; got one of 8 × 24 pixels"):
        next(flow.stream(lr, num_samples=1, tiling=Tiling.whole((24, 8), 4)))
    with pytest.raises(
        ValueError, match="expected a tiling of 24 × 24 pixels in cells of 4; got one of 24 × 24 pixels"
    ):
        decompose(flow, torch.rand(3, 24, 24), lr, tiling=Tiling.whole((24, 24), 8))
    with pytest.raises(ValueError, match="expected sides of at least one"):
        Tiling(size=(24, 8), cell=4, core=(0, 2))
    torch.nn.init.constant_(next(flow.transform.mains[0].parameters()), math.nan)
    with pytest.raises(NonFiniteError, match="expected finite pixels"):
        next(flow.stream(lr, num_samples=1, levels=True))


@pytest.mark.parametrize("text", ["much", "2", "-1GiB", "1e9", "2 XiB", "nan", "", "0GB", "9" * 40 + "GB", "500kB"])
def test_amounts_of_memory_are_read_or_refused(text):
    with pytest.raises(ValueError, match="expected an amount of memory from 1MB on, such as 2GiB or 800MB; got"):
        parse_memory(text)
