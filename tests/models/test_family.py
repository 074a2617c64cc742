"""The family under one interface: what holds for HCFlow holds for SRFlow, IRN, Glow and RealNVP."""

import copy
import math
import pickle
import re

import pyro
import pytest
import torch
from cases import VARIANTS, tiny, tiny_flow
from torch.distributions import Distribution

import flowsr
from flowsr.images import bicubic_down, make_lr, round_to_8bit
from flowsr.models import REGISTRY, Capability, from_preset, presets, require
from flowsr.models.official import OFFICIAL_LAYOUTS, from_official
from flowsr.nn import BatchStatistics, batch_statistics
from flowsr.testing import randomize
from flowsr.transforms import Compose, ConditionalAffine, Coupling, FlowStep

CONDITIONAL = ("sr-x4", "rescaling-x4", "srflow-x4", "irn-x2", "irn-x3", "irn-x4", "irn-x8")
UNCONDITIONAL = ("glow", "realnvp", "realnvp-small")


def images(count=8, size=16, channels=3):
    """Smooth pictures with a little grain: something to learn in a few steps."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return 0.1 + 0.8 * smooth + 0.01 * torch.randn(smooth.shape, generator=generator)


def log_prob(model, hr):
    if Capability.DENSITY in model.capabilities:
        return model.log_prob(hr)
    return model.condition(bicubic_down(hr, model.upscale).clamp(0, 1)).log_prob(hr)


# -- one interface


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("srflow-x4", 39_541_811 - 276_576),  # the convolution that the released code never applies
        ("srflow-x8", 40_030_531 - 276_576),
        ("srflow-x8-df2k", 50_821_891 - 276_576),
        ("irn-x2", 1_667_952),
        ("irn-x4", 4_355_136),
        ("irn-x8", 11_119_248),
        ("glow", 44_052_720),
    ],
)
def test_parameter_counts(name, count):
    with torch.device("meta"):
        model = from_preset(name)
    assert sum(p.numel() for p in model.parameters()) == count


def test_parameter_count_of_the_released_glow():
    """The figure that is usually quoted, about 44 million, has the options of the released code in it."""
    with torch.device("meta"):
        model = from_preset("glow", mark_border=True, learned_top=True)
    assert sum(p.numel() for p in model.parameters()) == 44_603_604


def test_every_preset_belongs_to_one_model_and_has_a_small_sister():
    names = [name for model in REGISTRY.values() for name in model.presets]
    assert len(names) == len(set(names)) == len(presets())
    for model in REGISTRY.values():
        full = [name for name in model.presets if not name.endswith("-small")]
        assert full
        assert len(full) < len(model.presets), f"{model.__name__} has no small preset"


@pytest.mark.parametrize("name", presets())
def test_configurations_go_into_a_file_and_back(name):
    model = presets()[name]
    config = model.presets[name]
    assert model.config_class.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_files_serve_every_model(name, tmp_path):
    model = tiny(name).double()
    for part in model.modules():
        if isinstance(part, BatchStatistics):
            part.mean.normal_()
    flowsr.save(model, tmp_path / "a.safetensors")
    again = flowsr.load(tmp_path / "a.safetensors")
    assert type(again) is type(model)
    assert again.config == model.config
    own, other = model.state_dict(), again.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)


def test_only_registered_models_are_saved(tmp_path):
    class Mine(flowsr.HCFlow):
        pass

    with pytest.raises(ValueError, match=r"a model of flowsr.models.REGISTRY, HCFlow.*got Mine"):
        flowsr.save(Mine(tiny_flow().config), tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["irn-x2", "irn-x3", "irn-x8", "srflow-x8"])
def test_official_layouts_translate_every_weight(name):
    """What no recorded file covers: a state dict in the authors' keys gives back the model it was written from."""
    model = tiny(name)
    layout = next(layout for layout in OFFICIAL_LAYOUTS if layout.model is type(model))
    if name == "srflow-x8":
        # Which blocks are stacked is known for the released sizes, or if all of them are.
        model = tiny(name, stacked=(0, 1))
    state = model.state_dict()
    official = {theirs: state[own] for theirs, own in layout.key_pairs(model.config)}
    weights = {key for key in state if not key.endswith(".initialized")}
    assert set(dict(layout.key_pairs(model.config)).values()) == weights
    back = from_official(official, layout)
    assert back.config == model.config
    assert all(torch.equal(state[key], back.state_dict()[key]) for key in weights)


def test_official_srflow_with_unknown_blocks_is_refused():
    model = tiny("srflow-x4")
    layout = next(layout for layout in OFFICIAL_LAYOUTS if layout.model is flowsr.SRFlow)
    state = model.state_dict()
    official = {theirs: state[own] for theirs, own in layout.key_pairs(model.config)}
    with pytest.raises(flowsr.CheckpointError, match="which 1 of 2 RRDBs' outputs are stacked is not known"):
        from_official(official, layout)


def _damaged(state, kind):
    key = next(key for key, value in state.items() if value.dim() == 4 and value.shape[0] != value.shape[1])
    names, weight = list(state), state[key]
    changes = {
        "missing": {key: None},
        "surplus": {"operations.99.H.extra": torch.zeros(2)},
        "shape": {key: weight.transpose(0, 1).contiguous()},
        "no shape": {key: torch.tensor(1.0)},
        "empty": {key: weight[:0]},
        "nan": {key: torch.full_like(weight, math.nan)},
        "integers": {name: state[name].long() for name in names},
        "two dtypes": {key: weight.double()},
        "sparse": {key: weight.to_sparse()},
        "meta": {key: weight.to("meta")},
    }[kind]
    return {name: value for name, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize("name", ["irn-x3", "irn-x4", "srflow-x4", "sr-x4"])
@pytest.mark.parametrize(
    "kind", ["missing", "surplus", "shape", "no shape", "empty", "nan", "integers", "two dtypes", "sparse", "meta"]
)
def test_damaged_official_files_are_refused_in_words(name, kind, tmp_path):
    model = tiny(name, stacked=(0, 1)) if name.startswith("srflow") else tiny(name)
    layout = next(layout for layout in OFFICIAL_LAYOUTS if layout.model is type(model))
    state = model.state_dict()
    official = {theirs: state[own] for theirs, own in layout.key_pairs(model.config)}
    torch.save(official, tmp_path / "good.pth")
    assert flowsr.load(tmp_path / "good.pth").config.to_dict().keys() == model.config.to_dict().keys()
    torch.save(_damaged(official, kind), tmp_path / "bad.pth")
    with pytest.raises(flowsr.CheckpointError, match=r"^expected .*(bad\.pth)"):
        flowsr.load(tmp_path / "bad.pth")


def test_capabilities():
    able = {name: set(tiny(name).capabilities) for name in [*CONDITIONAL, *UNCONDITIONAL]}
    assert able["srflow-x4"] == {"condition"}
    assert able["sr-x4"] == {"condition", "lr-latent"}
    assert able["rescaling-x4"] == able["irn-x4"] == {"condition", "downscale", "lr-latent"}
    assert able["glow"] == able["realnvp"] == {"density"}
    require(tiny("irn-x2"), "downscale")
    for name, capability in (("sr-x4", "downscale"), ("glow", "condition"), ("irn-x2", "density")):
        with pytest.raises(ValueError, match=f"expected a model with the capability {capability}; got"):
            require(tiny(name), capability)
    with pytest.raises(ValueError, match="capability downscale; got HCFlow, which has condition, lr-latent"):
        tiny("sr-x4").downscale(torch.rand(3, 8, 8))


def test_every_model_says_whom_to_cite_and_what_it_can_do():
    """A new model brings both in its own module: nothing else lists models but the registry."""
    for model in REGISTRY.values():
        assert vars(model)["citations"], model
        assert all(flow.capabilities for flow in map(tiny, list(model.presets)[:1])), model


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_citations_name_the_model_first_and_each_part_once(name, capsys):
    model = tiny(name)
    flowsr.cite(model)
    printed = capsys.readouterr().out
    keys = re.findall(r"@\w+\{(\w+),", printed)
    assert len(keys) == len(set(keys))
    first = {
        "HCFlow": "liang2021hierarchical",
        "SRFlow": "lugmayr2020srflow",
        "IRN": "xiao2020invertible",
        "Glow": "kingma2018glow",
        "RealNVP": "dinh2017density",
    }
    assert keys[0] == first[type(model).__name__]
    assert printed.count("{") == printed.count("}")
    assert ("wang2018esrgan" in keys) == (type(model).__name__ in ("HCFlow", "SRFlow"))
    assert ("ardizzone2019guided" in keys) == (name in ("rescaling-x4", "irn-x2", "irn-x4", "irn-x8"))


# -- the same conformance for every model


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("batch", [(), (2,), (2, 1)])
def test_conditional_models(name, batch):
    model = tiny(name, strength=0.1).double()
    s = model.upscale
    lr = torch.rand(*batch, 3, 2, 4, dtype=torch.float64)
    post = model.condition(lr)
    assert post.batch_shape == batch
    assert post.event_shape == (3, 2 * s, 4 * s)
    x, score = post.rsample_and_log_prob((3,))
    assert x.shape == (3, *batch, 3, 2 * s, 4 * s)
    assert torch.allclose(post.log_prob(x), score, rtol=1e-8)
    z = model.draw_latents(lr, sample_shape=(3,), temperature=0.3)
    assert [latent.shape[-3:] for latent in z] == list(model.latent_shapes(2, 4))
    images = model.decode(lr, z)
    encoded = model.encode(images, lr)
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(encoded.z, z, strict=True))
    assert torch.allclose(model.decode(encoded), images, atol=1e-9)
    generator = torch.Generator().manual_seed(1)
    draws = model.sample(lr, num_samples=3, temperature=0.8, generator=generator)
    again = model.draw_latents(lr, sample_shape=(3,), temperature=0.8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draws, model.decode(lr, again))
    assert torch.allclose(model.sample(lr, temperature=0.0)[0], model.decode(lr))
    assert torch.allclose(model.condition(lr, temperature=0.0).sample(), model.decode(lr))


@pytest.mark.parametrize("name", UNCONDITIONAL)
@pytest.mark.parametrize("batch", [(), (2,), (2, 1)])
def test_unconditional_models(name, batch):
    model = tiny(name).double()
    hr = torch.rand(*batch, 3, 8, 12, dtype=torch.float64)
    latents = model.encode(hr)
    assert [z.shape[-3:] for z in latents.z] == list(model.latent_shapes(8, 12))
    assert sum(z.shape[-3:].numel() for z in latents.z) == hr.shape[-3:].numel()
    assert torch.allclose(model.decode(latents), hr, atol=1e-9)
    post = model.distribution((8, 12))
    assert post.batch_shape == ()
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = latents.ladj + sum(normal.log_prob(z).sum((-3, -2, -1)) for z in latents.z)
    assert torch.allclose(model.log_prob(hr), expected)
    x, score = post.rsample_and_log_prob((3,))
    assert torch.allclose(post.log_prob(x), score, rtol=1e-8)
    draws = model.sample((8, 12), num_samples=4, temperature=0.5, generator=torch.Generator().manual_seed(1))
    assert draws.shape == (4, 3, 8, 12)
    assert torch.allclose(
        torch.cat([z.flatten() for z in model.encode(draws).z]).std(), torch.tensor(0.5).double(), 0.1
    )


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_pyro_plate_module_and_copies(name):
    model = tiny(name)
    if Capability.DENSITY in model.capabilities:
        post = model.distribution((8, 8))
    else:
        post = model.condition(torch.rand(3, 2, 2))

    def program():
        pyro.module("model", model)
        with pyro.plate("images", 2):
            return pyro.sample("hr", post)

    trace = pyro.poutine.trace(program).get_trace()
    assert trace.nodes["hr"]["value"].shape == (2, *post.event_shape)
    assert torch.isfinite(trace.log_prob_sum())
    trace.log_prob_sum().backward()
    hr = trace.nodes["hr"]["value"].detach().clamp(0, 1)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(log_prob(again, hr), log_prob(model, hr))


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_precision_and_device_move_together(name):
    model = tiny(name).double()
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float64, torch.bool}
    side = 12 if name == "irn-x3" else 16
    score = log_prob(model, torch.rand(3, side, side))
    assert score.dtype == torch.float64
    meta = model.to("meta")
    assert all(value.device.type == "meta" for value in [*meta.parameters(), *meta.buffers()])


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4", "glow", "realnvp-small"])
@pytest.mark.parametrize("mode", ["checkpoint", "reversible"])
def test_memory_modes_give_the_same_gradients(name, mode):
    from flowsr.training.wrapper import set_memory

    model = tiny(name).double()
    hr = images(2).double()
    gradients = []
    for memory in ("full", mode):
        set_memory(model, memory)
        model.zero_grad()
        log_prob(model, hr).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-8) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_float16_scores_are_finite(name):
    model = tiny(name, strength=0.1)
    side = 12 if name == "irn-x3" else 16
    hr = torch.rand(3, side, side)
    if Capability.DENSITY in model.capabilities:
        score, half = model.log_prob(hr), copy.deepcopy(model).half().log_prob(hr.half())
    else:
        lr = torch.rand(3, side // model.upscale, side // model.upscale)
        score, half = (m.condition(lr.to(m.dtype)).log_prob(hr) for m in (model, copy.deepcopy(model).half()))
    assert half.dtype == torch.float32
    assert torch.allclose(half, score, rtol=0.05)


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_every_model_compiles_without_graph_breaks(name, monkeypatch):
    # torch.compile switches off the validation of distributions for the whole process; put it back.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
    model = tiny(name)
    context = torch.rand(3, 2, 4) if name.startswith("srflow") else None
    shape = model.transform.inverse_shape(torch.Size([3, 24, 24] if context is None else [3, 8, 16]))
    z = torch.randn(shape)
    compiled = torch.compile(model.transform.call_and_ladj, backend="eager", fullgraph=True)
    for own, reference in zip(compiled(z, context), model.transform.call_and_ladj(z, context), strict=True):
        assert torch.allclose(own, reference, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["glow", "irn-x3", "realnvp-small"])  # each kind of conditioner
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it traces
def test_compiled_conditioners_give_what_they_gave(name):
    seen = []

    def backend(graph, _inputs):
        seen.append(graph)
        return graph.forward

    model = tiny(name)
    side = 12 if name == "irn-x3" else 16
    hr = torch.rand(2, 3, side, side)
    lr = None if name in UNCONDITIONAL else make_lr(hr, model.upscale)
    before = model._encode_ladj(hr, lr)
    model.compile_conditioners(backend=backend)
    assert torch.allclose(model._encode_ladj(hr, lr), before, rtol=1e-4, atol=1e-4)
    assert 0 < len(seen) < 40
    assert torch.allclose(copy.deepcopy(model)._encode_ladj(hr, lr), before, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


# -- each trains


def _train(model, loss, *, steps, learning_rate):
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()


SMALL = {
    "sr-x4": {"steps": 3, "conditional_steps": 1, "features": 6, "growth": 4, "rrdbs": (1, 1), "hidden_channels": 12},
    "srflow-x4": {"steps": 2, "features": 6, "growth": 4, "rrdbs": 1, "stacked": (0,), "hidden_channels": 12},
    "glow": {"levels": 2, "steps": 3, "hidden_channels": 16},
    "realnvp": {"scales": 2, "features": 6, "blocks": 1},
    "realnvp-small": {"features": 6},
}


TRAINED = {
    **{name: (name, changes) for name, changes in SMALL.items()},
    **{f"sr-x4 {label}": ("sr-x4", {**SMALL["sr-x4"], **changes}) for label, changes in VARIANTS.items()},
    "glow released": ("glow", {**SMALL["glow"], "mark_border": True, "learned_top": True}),
    "glow additive": ("glow", {**SMALL["glow"], "coupling": "additive"}),
}
"""What is trained for a moment: each model, each variant of HCFlow, each option of Glow."""


@pytest.mark.parametrize("name", TRAINED)
def test_likelihood_improves(name):
    torch.manual_seed(0)
    preset, changes = TRAINED[name]
    model = from_preset(preset, **changes)
    hr = images()
    dims = hr[0].numel()
    bits = lambda: -log_prob(model, hr).mean() / (dims * math.log(2.0))  # noqa: E731
    model.initialize(hr)
    before = bits().item()

    def loss():
        with batch_statistics(model):
            return bits()

    _train(model, loss, steps=25, learning_rate=3e-3)
    assert bits().item() < before - 0.15


def test_rescaling_improves():
    torch.manual_seed(0)
    model = flowsr.IRN.from_preset("irn-x4", blocks=(2, 2), growth=6)
    hr = images()
    noise = torch.Generator().manual_seed(4)

    def loss():
        latents = model.encode(hr)
        y = round_to_8bit(latents.lr, straight_through=True)
        back = model.decode(y, model.draw_latents(y, generator=noise, temperature=0.1))
        return (back - hr).abs().mean() + (latents.lr - bicubic_down(hr, 4)).square().mean()

    error = lambda: (model.enlarge(model.downscale(hr), temperature=0.0) - hr).square().mean().item()  # noqa: E731
    before = error()
    _train(model, loss, steps=60, learning_rate=2e-3)
    assert error() < 0.7 * before


def test_the_regression_of_srflow_improves():
    torch.manual_seed(0)
    model = flowsr.SRFlow.from_preset("srflow-x4", **SMALL["srflow-x4"])
    hr = images()
    lr = bicubic_down(hr, 4)
    error = lambda: (model.regress(lr) - hr).abs().mean()  # noqa: E731
    before = error().item()
    _train(model, error, steps=30, learning_rate=3e-3)
    assert error().item() < 0.7 * before


# -- what is particular


def test_points_of_the_plane_integrate_to_one():
    model = tiny("realnvp-points", scales=1, checkerboard_couplings=0, channel_couplings=4).double()
    grid = torch.linspace(-8, 8, 161, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = model.log_prob(points[:, :, None, None]).exp()
    assert abs(float(density.sum()) * 0.1**2 - 1) < 1e-3
    assert float(density.std()) > 0


def test_points_may_lie_anywhere_from_the_first_batch_on():
    model = flowsr.RealNVP.from_preset("realnvp-points", channel_couplings=2)
    points = 100 + 50 * torch.randn(200, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    model.initialize(points)
    assert 0.5 < float(model.encode(points).z[0].detach().std()) < 2
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        flowsr.from_preset("realnvp-small").initialize(points[:1].expand(3, 2, 8, 8)[:, [0, 1, 1]])


def test_pixels_integrate_to_one_on_their_interval():
    """RealNVP with its logit on one gray pixel pair: the density lives on [−1/18, 19/18]² and has mass one there."""
    model = tiny("realnvp-small", image_channels=1, scales=1, checkerboard_couplings=2).double()
    margin = 0.05 / 0.9
    edges = torch.linspace(-margin, 1 + margin, 401, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    pixels = torch.cartesian_prod(middle, middle).reshape(-1, 1, 1, 2)
    with torch.no_grad():
        z, ladj = model.transform.inv_call_and_ladj(pixels)
        log_density = ladj + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((-3, -2, -1))
    mass = log_density.exp().sum() * (edges[1] - edges[0]) ** 2
    assert abs(float(mass) - 1) < 1e-3


def test_batch_statistics_are_for_training_only():
    model = tiny("realnvp")
    hr = images(4)
    alone, together = model.log_prob(hr[:1]), model.log_prob(hr)[:1]
    assert torch.allclose(alone, together, rtol=1e-5)
    assert torch.equal(model.train().log_prob(hr), model.eval().log_prob(hr)), "the mode must not matter"
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with batch_statistics(model):
        inside = model.log_prob(hr)
        other = model.log_prob(hr[:2])
    assert not torch.allclose(inside[:2], other), "inside, a density depends on the batch"
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed
    assert all(key.endswith((".mean", ".var")) for key in changed)
    assert not any(part.use_batch for part in model.modules() if isinstance(part, BatchStatistics))


def test_batch_norm_starts_from_the_first_batch():
    model = flowsr.RealNVP.from_preset("realnvp", **SMALL["realnvp"])
    hr = images()
    model.initialize(hr)
    norms = [part for part in model.modules() if isinstance(part, BatchStatistics)]
    assert norms and all(bool(norm.initialized) for norm in norms)
    z = torch.cat([latent.flatten() for latent in model.encode(hr).z])
    assert abs(z.mean()) < 0.2
    assert abs(z.std() - 1) < 0.3


def test_srflow_reads_as_hcflow_blocks_injector_sigmoid_and_unconditional_heads():
    """MODELS.md's sentence, on the modules themselves."""
    hcflow, srflow, irn = tiny("sr-x4"), tiny("srflow-x4"), tiny("irn-x4")
    step = next(part for part in srflow.modules() if isinstance(part, FlowStep))
    own = next(part for part in hcflow.modules() if isinstance(part, FlowStep))
    assert type(step.actnorm) is type(own.actnorm)
    assert type(step.mixing) is type(own.mixing)
    assert isinstance(step.coupling, Compose)
    coupling, injector = step.coupling.parts
    assert type(coupling) is type(own.coupling)
    assert isinstance(injector, ConditionalAffine)
    assert {coupling.map.log_scale.name, injector.map.log_scale.name} == {"sigmoid"}
    assert [head.context_channels for head in srflow.transform.transform.heads if isinstance(head, Coupling)] == [0]
    kinds = {type(part).__name__ for part in irn.transform.mains[0].parts}
    assert kinds == {"Haar", "Coupling"}


def test_srflow_needs_even_lr_images():
    model = tiny("srflow-x4").double()
    lr, hr = torch.rand(3, 3, 5, dtype=torch.float64), torch.rand(3, 12, 20, dtype=torch.float64)
    for call in (model.condition, model.draw_latents, model.decode):
        with pytest.raises(ValueError, match="lr with even sides; got 5 × 3 pixels: pad it"):
            call(lr)
    latents = model.encode(hr, lr, pad=True)
    assert latents.lr.shape == (3, 4, 6)
    assert torch.allclose(model.decode(latents), hr, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_preset("glow-x4"), r"expected a preset among sr-x4.*glow.*got 'glow-x4'"),
        (lambda: flowsr.Glow.from_preset("sr-x4"), r"expected a preset among glow, .*got 'sr-x4'"),
        (lambda: flowsr.IRN.from_preset("irn-x4", depth=3), "fields of IRNConfig; got depth"),
        (lambda: flowsr.SRFlow(tiny_flow().config), "for a preset use SRFlow.from_preset"),
        (lambda: flowsr.IRNConfig(upscale=5), "expected upscale 2, 3, 4 or 8; got 5"),
        (lambda: flowsr.IRNConfig(upscale=8), "blocks to be 3 integers >= 1 for x8"),
        (lambda: flowsr.IRNConfig(upscale=4.0), "expected upscale 2, 3, 4 or 8; got 4.0"),
        (lambda: flowsr.IRNConfig(blocks=8), "expected blocks to be a tuple of integers; got 8"),
        (lambda: flowsr.IRNConfig(blocks=(8, True)), "blocks to be 2 integers >= 1 for x4"),
        (lambda: flowsr.SRFlowConfig(stacked=None), "expected stacked to be a tuple of integers; got None"),
        (lambda: flowsr.SRFlowConfig(stacked=(8, 1)), r"stacked in rising order, each once; got \(8, 1\)"),
        (lambda: flowsr.SRFlowConfig(stacked=(1, 1)), r"stacked in rising order, each once; got \(1, 1\)"),
        (lambda: flowsr.HCFlowConfig(rrdbs=3), "expected rrdbs to be a tuple of integers; got 3"),
        (lambda: flowsr.HCFlowConfig(hierarchical=1), "expected hierarchical True or False; got 1"),
        (lambda: flowsr.HCFlowConfig(spline_bins=1000), "at most 999 spline_bins; got 1000"),
        (lambda: tiny("glow").encode(torch.rand(3, 2, 2)), "multiples of 4; got 2 × 2 pixels: pad an image with"),
        (lambda: flowsr.SRFlowConfig(stacked=(23,)), "stacked to be integers from 0 to 22"),
        (lambda: flowsr.GlowConfig(coupling="spline"), "expected coupling affine or additive; got 'spline'"),
        (lambda: flowsr.GlowConfig(mark_border="yes"), "expected mark_border True or False; got 'yes'"),
        (lambda: flowsr.GlowConfig(learned_top=2), "expected learned_top True or False; got 2"),
        (lambda: flowsr.GlowConfig(levels=0), "levels to be an integer >= 1; got 0"),
        (lambda: flowsr.RealNVPConfig(logit=0.5), "logit from 0 to 0.5"),
        (lambda: flowsr.RealNVPConfig(kernel_size=2), "odd kernel_size; got 2"),
        (lambda: flowsr.RealNVPConfig(checkerboard_couplings=0), "as for points; got 4 scales and 3 channels"),
        (lambda: flowsr.HCFlowConfig(coupling="cubic"), "spline or logistic-mixture; got 'cubic'"),
        (lambda: flowsr.HCFlowConfig(head="student"), "sinh-arcsinh or logistic-mixture; got 'student'"),
        (lambda: flowsr.HCFlowConfig(spline_bins=1), "spline_bins to be an integer >= 2"),
        (lambda: flowsr.HCFlow.from_preset("sr-x4-small", start="haar", mixing="plu"), "mixing dense with start haar"),
        (lambda: tiny("glow").sample((8, 6)), "multiples of 4; got 6 × 8 pixels"),
        (lambda: tiny("glow").sample((8, 8), num_samples=0), "num_samples >= 1; got 0"),
        (lambda: tiny("realnvp").log_prob(torch.rand(3, 8, 8) + 0.2), r"hr: expected values in \[0, 1\]"),
        (lambda: tiny("glow").decode([torch.zeros(3, 2, 2)]), "expected z to be latents"),
        (
            lambda: tiny("srflow-x4").encode(torch.rand(3, 16, 16), torch.rand(3, 4, 6)),
            "expected an lr of 4 × 4 pixels for this hr; got 6 × 4 pixels",
        ),
        (
            lambda: tiny("srflow-x4").encode(torch.rand(2, 3, 16, 16), torch.rand(3, 3, 4, 4)),
            r"broadcasts to that of hr, \(2,\); got \(3,\)",
        ),
        (lambda: tiny("srflow-x4").transform(torch.zeros(192, 2, 2)), "an LR image as the context; got none"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- Glow's options


def _marked(x, weight, bias, padding):
    """The released code's way: pad by hand, with a channel that is 1 in the padding and 0 in the image."""
    inside = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    padded = torch.nn.functional.pad(inside, (padding,) * 4)
    padded[:, -1] = 1.0
    padded[:, -1, padding:-padding, padding:-padding] = 0.0
    return torch.nn.functional.conv2d(padded, weight, bias)


def test_a_marked_border_is_the_channel_of_the_released_code():
    from flowsr.nn import NormedConv2d, ZeroConv2d, conv2d

    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weight, bias = torch.randn(6, 4, 3, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    for given in (bias, None):
        assert torch.allclose(conv2d(x, weight, given, mark_border=True), _marked(x, weight, given, 1))
    zero = randomize(ZeroConv2d(3, 6, mark_border=True)).double()
    gain = (3 * zero.logs).exp()
    expected = _marked(x, zero.weight, zero.bias, 1) * gain
    assert torch.allclose(zero(x), expected)
    normed = randomize(NormedConv2d(5, 6, mark_border=True)).double()
    context = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    expected = normed.norm(_marked(torch.cat([x, context], 1), normed.weight, None, 1))
    assert torch.allclose(normed(x, context), expected)
    shared = normed(x, context[0])
    assert torch.allclose(shared[0], normed(x[:1], context[:1])[0])


def test_a_marked_border_tells_pixels_where_they_are():
    """A flat image: without the mark all that a convolution of its border knows is the missing neighbours."""
    plain, marked = tiny("glow", levels=1), tiny("glow", levels=1, mark_border=True)
    flat = torch.zeros(3, 8, 8)
    for model, same in ((plain, True), (marked, False)):
        step = next(part for part in model.modules() if isinstance(part, FlowStep))
        h = step.coupling.conditioner.conv1(torch.zeros(6, 4, 4))
        assert torch.allclose(h[:, 0, 0], h[:, 2, 2]) == same
        assert torch.isfinite(model.log_prob(flat))


def test_a_learned_top_is_a_gaussian_with_learned_mean_and_width():
    from flowsr.transforms import LearnedNormal

    top = randomize(LearnedNormal(2), strength=0.5).double()
    h = (top.conditioner.bias * (3 * top.conditioner.logs).exp().flatten()).detach()
    mean, log_scale = h[:2], h[2:]
    x = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    z, ladj = top.inv.call_and_ladj(x)
    normal = torch.distributions.Normal(mean[:, None, None], log_scale.exp()[:, None, None])
    standard = torch.distributions.Normal(0.0, 1.0)
    expected = normal.log_prob(x).sum((-3, -2, -1))
    assert torch.allclose(standard.log_prob(z).sum((-3, -2, -1)) + ladj, expected)


def test_a_learned_top_learns():
    """Latents that are off are what it is for: it takes them to N(0, 1)."""
    from flowsr.transforms import LearnedNormal

    torch.manual_seed(0)
    x = 2.0 + 0.5 * torch.randn(64, 1, 2, 2)
    top = LearnedNormal(1, mark_border=True)

    def loss():
        z, ladj = top.inv.call_and_ladj(x)
        return (0.5 * z.square().sum((-3, -2, -1)) - ladj).mean()

    _train(top, loss, steps=200, learning_rate=0.02)
    z = top.inv(x)
    assert abs(z.mean()) < 0.1
    assert abs(z.std() - 1) < 0.1


def test_images_of_five_bits_cost_what_their_bins_say():
    """A density that is uniform on [0, 1] costs n bits per dimension of an image of n bits."""
    from flowsr.distributions import UniformDequantizer
    from flowsr.images import reduce_bits

    values = torch.arange(256.0).reshape(1, 16, 16) / 255
    for bits in (1, 5, 8):
        reduced = reduce_bits(values, bits=bits)
        assert torch.equal(reduced.flatten(), (torch.arange(256) // 2 ** (8 - bits)) / 2**bits)
        noisy, log_q = UniformDequantizer(2**bits).dequantize(reduced)
        assert noisy.min() >= 0 and noisy.max() < 1
        assert log_q.item() / (256 * math.log(2)) == pytest.approx(bits)


@pytest.mark.parametrize("wrong", [0, 9, 5.0, True])
def test_messages_of_bits(wrong):
    from flowsr.images import reduce_bits

    with pytest.raises(ValueError, match="expected bits from 1 to 8; got"):
        reduce_bits(torch.zeros(1, 2, 2), bits=wrong)


# -- RealNVP, piece by piece


def test_the_logit_is_the_papers_preprocessing():
    from flowsr.transforms import Logit

    x = torch.rand(4, 3, 2, 5, dtype=torch.float64)
    v, ladj = Logit(0.05).inv.call_and_ladj(x)
    p = ((2 * x - 1) * 0.9 + 1) / 2
    assert p.min() >= 0.05 and p.max() <= 0.95
    assert torch.allclose(v, p.log() - (1 - p).log())
    softplus = torch.nn.functional.softplus
    assert torch.allclose(ladj, (softplus(v) + softplus(-v) + math.log(0.9)).sum((-3, -2, -1)))


def test_the_couplings_of_realnvp_are_in_the_published_order():
    """Three on checkerboards (mask, 1 − mask, mask) and three on channels at each scale; four at the last."""
    from flowsr.transforms import Checkerboard, CheckerboardShuffle, Inverse, Logit, Partial, PixelShuffle

    model = flowsr.RealNVP.from_preset("realnvp", scales=2, features=2, blocks=1)
    names = {
        Coupling: lambda p: f"keep {p.keep}",
        Partial: lambda p: f"normalize all but {p.keep}",
        Logit: lambda _: "logit",
        Checkerboard: lambda _: "split",
        PixelShuffle: lambda _: "squeeze",
        CheckerboardShuffle: lambda _: "ordered squeeze",
        Inverse: lambda p: f"un-{names[type(p.transform)](p.transform)}",
    }
    first, last = ([names[type(part)](part) for part in reversed(main.parts)] for main in model.transform.mains)
    pair = lambda keep: [f"keep {keep}", f"normalize all but {keep}"]  # noqa: E731
    three = [*pair("first"), *pair("last"), *pair("first")]
    assert first == ["logit", "split", *three, "un-split", "squeeze", *three, "un-squeeze", "ordered squeeze"]
    assert last == ["split", *three, *pair("last"), "un-split"]


def test_a_checkerboard_coupling_is_the_masked_formula():
    """``x·m + (1 − m)·((x + shift)·exp(a·tanh(h)))`` with the network run on the masked image in place."""
    from flowsr.transforms import Checkerboard

    model = tiny("realnvp", scales=1, checkerboard_couplings=1, logit=0.0, norm="actnorm").double()
    parts = list(reversed(model.transform.mains[0].parts))
    coupling = parts[1]
    assert coupling.keep == "first"
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[(i + j + 1) % 2 for j in range(6)] for i in range(4)], dtype=torch.float64)[None]
    h = coupling.conditioner.net(x * mask, mask)
    shift, log_scale = h.chunk(2, 1)
    log_scale = coupling.map.log_scale.amplitude * log_scale.tanh()
    expected = x * mask + (1 - mask) * (x + shift) * log_scale.exp()
    z, ladj = coupling.inv.call_and_ladj(Checkerboard().inv(x))
    assert torch.allclose(Checkerboard()(z), expected)
    assert torch.allclose(ladj, ((1 - mask) * log_scale).sum((-3, -2, -1)))


def test_batch_norm_is_the_published_formula():
    from flowsr.transforms import FlowBatchNorm

    norm = FlowBatchNorm(3).double()
    x = 2 + 3 * torch.randn(8, 3, 4, 5, dtype=torch.float64)
    with batch_statistics(norm):
        z, ladj = norm.inv.call_and_ladj(x)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    assert torch.allclose(z, (x - mean) / (var + 1e-4).sqrt())
    assert torch.allclose(ladj, (-0.5 * 20 * (var + 1e-4).log().sum()).expand(8))
    assert torch.allclose(norm.statistics.mean.flatten(), 0.1 * mean.flatten())
    assert torch.allclose(norm.statistics.var.flatten(), 0.9 + 0.1 * var.flatten())


# -- variants of HCFlow


def test_variants_are_off_by_default_and_files_without_them_stay_readable():
    config = tiny_flow().config
    assert not set(config.to_dict()) & set(config.variants)
    for changes in VARIANTS.values():
        changed = tiny_flow(**changes).config
        assert type(config).from_dict(changed.to_dict()) == changed != config


@pytest.mark.parametrize("name", ["sr-x4", "rescaling-x4"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_keep_the_interface(name, variant):
    model = tiny_flow(name, strength=0.1, **VARIANTS[variant]).double()
    hr = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    lr = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    assert torch.allclose(model.decode(model.encode(hr)), hr, atol=1e-8)
    x, score = model.condition(lr).rsample_and_log_prob((3,))
    assert torch.allclose(model.condition(lr).log_prob(x), score, rtol=1e-7)
    model.condition(lr).log_prob(hr).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_splines_are_the_identity_beyond_their_bound_and_nearly_at_the_start():
    fresh = flowsr.transforms.SplineMap(bins=6, bound=3.0)
    x = torch.linspace(-9, 9, 91, dtype=torch.float64).reshape(1, 1, -1)
    zero = torch.zeros(17, 1, 91, dtype=torch.float64)
    assert (fresh.encode(x, zero)[0] - x).abs().max() < 1e-3
    z, _ = fresh.encode(x, torch.randn(17, 1, 1, dtype=torch.float64).expand_as(zero))
    outside = x.abs() > 3
    assert torch.equal(z[outside], x[outside])
    assert (z - x)[~outside].abs().max() > 0.1
    assert (z.flatten().diff() > 0).all(), "monotonic"


def test_a_spline_does_not_let_the_inverse_explode():
    """Where an affine inverse multiplies a value that is far out, a spline leaves it alone."""
    h_affine, h_spline = torch.full((2, 1, 1), -8.0), torch.full((17, 1, 1), -8.0)
    far = torch.full((1, 1, 1), 40.0)
    affine = flowsr.transforms.AffineMap(log_scale="exp").decode(far, h_affine)[0]
    assert affine > 1e4
    assert flowsr.transforms.SplineMap(bins=6).decode(far, h_spline)[0] == far


def test_learned_lr_width_is_learned():
    """Its maximum likelihood estimate is the root mean square of what the flow's LR image is off."""
    model = tiny_flow(learned_lr_width=True).double()
    hr = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    lr = torch.rand(4, 3, 2, 2, dtype=torch.float64)
    rms = (model.encode(hr).lr - lr).detach().square().mean().sqrt()

    def gradient(log_width):
        with torch.no_grad():
            model.log_width.fill_(log_width)
        (grad,) = torch.autograd.grad(model.condition(lr).log_prob(hr).mean(), model.log_width)
        return grad.item()

    assert gradient(-6.0) > 1.0
    assert gradient(5.0) < -1.0
    assert abs(gradient(rms.log().item())) < 1e-9
    assert model.condition(lr, lr_log_scale=-6.0).log_prob(hr).mean() < model.condition(lr).log_prob(hr).mean()
    with torch.no_grad():
        model.log_width.fill_(-3.0)
    y = model.condition(lr[0]).base_dist.sample((500,))[:, :3]
    assert abs((y - lr[0]).std() / math.exp(-3) - 1) < 0.1


def test_a_learned_prior_starts_standard_and_depends_on_the_features():
    torch.manual_seed(1)
    model = flowsr.HCFlow.from_preset("sr-x4-small", prior="learned")
    plain = flowsr.HCFlow.from_preset("sr-x4-small")
    own, missing = model.state_dict(), plain.state_dict().keys()
    plain.load_state_dict({key: own[key] for key in missing})
    hr, lr = torch.rand(3, 16, 16), torch.rand(3, 4, 4)
    assert torch.allclose(model.condition(lr).log_prob(hr), plain.condition(lr).log_prob(hr))
    randomize(model, strength=0.1)
    level = model.transform.conditionals[0]
    details = torch.randn(level.channels, 8, 8)
    u = torch.randn(2, level.encoder.out_channels, 8, 8)
    first, second = level.prior.inv_call_and_ladj(details.expand(2, *details.shape), u)[0]
    assert not torch.allclose(first, second)


def test_without_the_hierarchy_fine_latents_do_not_see_coarse_features():
    for hierarchical in (True, False):
        model = tiny_flow(hierarchical=hierarchical)
        seen = []
        hooks = [
            level.encoder.register_forward_hook(lambda _m, args, _o, seen=seen: seen.append(args[0].shape[-3]))
            for level in model.transform.conditionals
        ]
        model.encode(torch.rand(3, 8, 8))
        for hook in hooks:
            hook.remove()
        features = model.transform.conditionals[1].encoder.out_channels
        assert seen == [3, 6 + (features if hierarchical else 0)]


def test_orthogonal_convolutions_stay_orthogonal():
    model = tiny_flow(mixing="orthogonal").double()
    steps = [part for part in model.modules() if isinstance(part, FlowStep)]
    assert steps
    for step in steps:
        weight = step.mixing.matrix()
        assert torch.allclose(weight @ weight.mT, torch.eye(len(weight), dtype=torch.float64), atol=1e-12)


# -- the Pyro program serves every conditional model


@pytest.mark.parametrize("name", ["sr-x4", "srflow-x4", "irn-x2"])
def test_the_program_scores_and_generates(name):
    from flowsr.programs import super_resolution

    model = tiny(name, strength=0.1).double()
    hr = images(2).double()
    lr = bicubic_down(hr, model.upscale).clamp(0, 1)
    trace = pyro.poutine.trace(super_resolution).get_trace(model, lr, hr)
    assert torch.allclose(trace.log_prob_sum(), model.condition(lr).log_prob(hr).sum())
    sites = [site for site in trace.nodes if site.startswith("z_")]
    assert len(sites) == len(model.latent_shapes(4, 4))
    assert ("lr" in trace.nodes) == (Capability.LR_LATENT in model.capabilities)
    drawn = pyro.poutine.trace(super_resolution).get_trace(model, lr, temperature=0.5)
    z = [drawn.nodes[site]["value"] for site in sites]
    y = drawn.nodes["lr"]["value"] if "lr" in drawn.nodes else lr
    assert torch.allclose(drawn.nodes["_RETURN"]["value"], model.decode(y, z))


def test_messages_of_the_program():
    from flowsr.programs import super_resolution

    with pytest.raises(ValueError, match="capability condition; got Glow, which has density"):
        super_resolution(tiny("glow"), torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="no lr_log_scale for SRFlow, which has no LR image in its latent; got -6"):
        super_resolution(tiny("srflow-x4"), torch.rand(3, 4, 4), lr_log_scale=-6.0)


def test_svi_learns_the_width_of_the_lr_image():
    """The learned σ is a parameter of the program like any other."""
    from flowsr.programs import super_resolution

    model = tiny_flow(learned_lr_width=True, strength=0.1)
    hr, lr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 2, 2)
    optimizer = pyro.optim.Adam({"lr": 0.01})
    svi = pyro.infer.SVI(lambda: super_resolution(model, lr, hr), lambda: None, optimizer, pyro.infer.Trace_ELBO())
    before = model.log_width.item()
    for _ in range(3):
        svi.step()
    assert model.log_width.item() > before + 0.01


# -- the analyses of the likelihood serve every model


@pytest.mark.parametrize("name", [*CONDITIONAL, *UNCONDITIONAL])
def test_the_likelihood_decomposes(name):
    from flowsr.likelihood import decompose

    model = tiny(name, strength=0.1).double()
    hr = images(2, size=24).double()
    lr = None if Capability.DENSITY in model.capabilities else bicubic_down(hr, model.upscale).clamp(0, 1)
    terms = decompose(model, hr, lr, maps=True)
    expected = model.log_prob(hr) if lr is None else model.condition(lr).log_prob(hr)
    assert torch.allclose(terms.total, expected, rtol=1e-9, atol=0)
    whole = decompose(model, hr, lr)
    assert torch.allclose(whole.total, expected, rtol=1e-9, atol=0)
    for term, value in whole.named().items():
        assert terms.maps[term].shape == hr.shape[:1] + hr.shape[-2:]
        assert torch.allclose(terms.maps[term].sum((-2, -1)), value, rtol=1e-9, atol=1e-9), term
        assert (value.abs() > 0).all() or name == "irn-x3", f"{term} is no term"
    assert ("LR image" in terms.named()) == hasattr(model, "lr_log_scale")
    assert ("preprocessing" in terms.named()) == name.startswith("realnvp")
    noise = model.noise(hr, lr)
    normal = torch.distributions.Normal(0.0, 1.0)
    for key, value in noise.items():
        if key.startswith("z_"):
            assert torch.allclose(terms.named()[f"latent {key}"], normal.log_prob(value).sum((-3, -2, -1)))
    if lr is None:
        with pytest.raises(ValueError, match="no LR image, as this model is a density of images alone"):
            decompose(model, hr, torch.rand(2, 3, 6, 6))
    else:
        with pytest.raises(ValueError, match="an LR image, as this model is conditional"):
            decompose(model, hr)


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4", "glow", "realnvp-small"])
def test_diagnostics_serve_every_model(name):
    """Latents of a model's own draws pass, and its layers invert."""
    from flowsr.likelihood import inverse_stability, latent_diagnostics

    model = tiny(name, strength=0.1).double().requires_grad_(False)
    if Capability.DENSITY in model.capabilities:
        pairs = [(model.distribution((16, 16)).sample().clamp(0.001, 0.999), None) for _ in range(3)]
    else:
        lr = torch.rand(8, 3, 4, 4, dtype=torch.float64)
        pairs = list(zip(model.condition(lr).sample(), lr, strict=True))
    found = latent_diagnostics(model, pairs)
    assert found.log_det_error is not None and found.log_det_error < 1e-9
    if name.startswith(("srflow", "irn")):  # draws of images alone leave [0, 1] and are clamped here
        assert found.passed, found.to_text()
    stability = inverse_stability(model, *pairs[0])
    assert stability.round_trip_float64 < 1e-8 and stability.layers


@pytest.mark.parametrize("name", ["srflow-x4", "irn-x4", "glow", "realnvp-small"])
def test_presets_without_weights_are_not_loaded_but_made(name):
    with pytest.raises(FileNotFoundError, match=r"for random weights use flowsr.from_preset"):
        flowsr.load(name)
    with torch.device("meta"):
        assert type(from_preset(name)) is presets()[name]


# -- speed
