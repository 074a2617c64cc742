"""HCFlow's public methods: counts, round trips, batch shapes, sampling, padding, devices, and every message."""

import math

import pytest
import torch
from cases import TINY, tiny_flow
from hypothesis import given, settings
from hypothesis import strategies as st

import flowsr
from flowsr.testing import randomize
from flowsr.transforms import ImageTransform


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("sr-x4", 23_232_539),
        ("sr-x8", 27_017_723),
        ("rescaling-x4", 4_396_350 - 144),  # the frozen Haar weights are not stored
        ("sr-x4-small-v1", 1_071_928),
        ("rescaling-x4-small", 1_166_997 - 144),
    ],
)
def test_parameter_counts(name, count):
    assert sum(p.numel() for p in flowsr.HCFlow.from_preset(name).parameters()) == count


@pytest.mark.parametrize("name", flowsr.HCFlow.presets)
def test_round_trip_of_the_presets(name):
    """Random weights of realistic size: couplings away from the identity, as after training."""
    flow = randomize(flowsr.HCFlow.from_preset(name), strength=0.05)
    hr = torch.rand(3, 32, 24)
    flow.initialize(hr)
    with torch.no_grad():
        single = flow.decode(flow.encode(hr))
        assert (single - hr).abs().max() < 1e-4
        flow.double()
        latents = flow.encode(hr.double())
        assert (flow.decode(latents) - hr.double()).abs().max() < 1e-9
        assert latents.ladj.abs() > 1e-3


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 4]),
    levels=st.sampled_from([1, 2, 3]),
    task=st.sampled_from(["sr-x4", "rescaling-x4"]),
    batch=st.sampled_from([(), (2,), (2, 1)]),
)
def test_any_size_channels_levels_and_batch(height, width, channels, levels, task, batch):
    flow = tiny_flow(task, image_channels=channels, levels=levels).double()
    scale = 2**levels
    hr = torch.rand(*batch, channels, scale * height, scale * width, dtype=torch.float64)
    latents = flow.encode(hr)
    assert latents.lr.shape == (*batch, channels, height, width)
    assert sum(z[0].numel() if batch else z.numel() for z in latents.z) > 0
    assert (flow.decode(latents) - hr).abs().max() < 1e-9
    packed = flow.pack(latents.lr, latents.z)
    assert torch.equal(packed, flow.transform.inv(hr))
    lr, z = flow.unpack(packed)
    assert torch.equal(lr, latents.lr)
    assert all(torch.equal(a, b) for a, b in zip(z, latents.z, strict=True))


def test_packed_layout():
    """[y | coarse latent | fine latent by space-to-depth], channel c·4 + dy·2 + dx."""
    flow = tiny_flow()
    lr = torch.zeros(3, 2, 2)
    coarse = torch.ones(21, 2, 2)
    fine = torch.arange(6.0)[:, None, None] * 4 + torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(2, 2)
    packed = flow.pack(lr, [coarse, fine])
    assert packed.shape == (48, 2, 2)
    assert torch.equal(packed[:24, 0, 0], torch.tensor([0.0] * 3 + [1.0] * 21))
    assert torch.equal(packed[24:, 0, 0], torch.arange(24.0))


def test_condition_is_the_models_posterior():
    flow = tiny_flow().double()
    lr = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    post = flow.condition(lr)
    assert post.batch_shape == (2,)
    assert post.event_shape == (3, 8, 12)
    hr = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    latents = flow.encode(hr)
    normal = torch.distributions.Normal
    expected = normal(lr, math.exp(-6)).log_prob(latents.lr).sum((-3, -2, -1)) + latents.ladj
    for z in latents.z:
        expected = expected + normal(0.0, 1.0).log_prob(z).sum((-3, -2, -1))
    assert torch.allclose(post.log_prob(hr), expected)
    assert post.log_prob(post.sample((4,))).shape == (4, 2)


def test_per_image_gradients_by_vmap():
    flow = tiny_flow().double()
    hr, lr = torch.rand(3, 3, 8, 8).double(), torch.rand(3, 3, 2, 2).double()

    def log_prob(hr, lr):
        return flow.condition(lr).log_prob(hr)

    scores = torch.func.vmap(torch.func.grad(log_prob))(hr, lr)
    one_by_one = torch.stack([torch.func.grad(log_prob)(*pair) for pair in zip(hr, lr, strict=True)])
    torch.testing.assert_close(scores, one_by_one, rtol=1e-9, atol=1e-9)
    assert scores.abs().max() > 0


def test_latents_are_those_of_the_seed_in_any_dtype():
    """Draw after draw, and within it y, z_2, z_1, each as it lies in the packed latent."""
    flow, lr = tiny_flow(), torch.rand(2, 3, 2, 3)
    generator = torch.Generator().manual_seed(3)
    noise = [[torch.randn(2, c, 2, 3, generator=generator, dtype=torch.float64) for c in (3, 21, 24)] for _ in range(5)]
    coarse = torch.stack([draw[1] for draw in noise])
    fine = torch.nn.functional.pixel_shuffle(torch.stack([draw[2] for draw in noise]), 2)
    seeded = {"sample_shape": (5,), "temperature": (0.5, 2.0)}
    double = flow.double().draw_latents(lr, generator=torch.Generator().manual_seed(3), **seeded)
    assert torch.equal(double[0], 0.5 * coarse) and torch.equal(double[1], 2.0 * fine)
    z = flow.float().draw_latents(lr, generator=torch.Generator().manual_seed(3), **seeded)
    assert all(torch.equal(a, b.float()) for a, b in zip(z, double, strict=True))
    torch.manual_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(flow.draw_latents(lr, **seeded), z, strict=True))
    assert not any(latent.any() for latent in flow.draw_latents(lr, temperature=0))
    with pytest.raises(ValueError, match=r"expected .* 3 .*got"):
        flow.draw_latents(torch.rand(1, 2, 3))


def test_sample():
    flow = tiny_flow().double()
    lr = torch.rand(2, 3, 2, 3, dtype=torch.float64)
    draw = lambda seed, **kwargs: flow.sample(lr, generator=torch.Generator().manual_seed(seed), **kwargs)  # noqa: E731
    x = draw(0, num_samples=5, temperature=0.8)
    assert x.shape == (5, 2, 3, 8, 12)
    assert torch.equal(x, draw(0, num_samples=5, temperature=0.8))
    assert not torch.allclose(x, draw(1, num_samples=5, temperature=0.8))
    assert torch.allclose(flow.encode(x).lr, lr.expand(5, 2, 3, 2, 3), atol=1e-9), "y must be the LR image exactly"
    z = flow.encode(x).z
    assert all(abs(latent.std() - 0.8) < 0.1 for latent in z)
    assert torch.allclose(draw(0, temperature=0.0)[0], flow.decode(lr))
    by_level = flow.encode(draw(0, temperature=(0.0, 1.0))).z
    assert by_level[0].abs().max() < 1e-9 < by_level[1].std()


def test_many_draws_share_the_features_of_one_image():
    flow = tiny_flow().double()
    lr = torch.rand(3, 3, 2, dtype=torch.float64)
    z = [torch.randn(4, *shape, dtype=torch.float64) for shape in flow.transform.latent_shapes(3, 2)]
    shared = flow.decode(lr, z)
    expanded = flow.decode(lr.expand(4, 3, 3, 2), z)
    assert torch.allclose(shared, expanded, atol=1e-12)
    batches = []
    flow.transform.conditionals[1].encoder.register_forward_hook(lambda _m, args, _o: batches.append(args[0].dim()))
    flow.decode(lr, z)
    assert batches == [3], "the coarsest features must be computed once"


def test_padding():
    flow = tiny_flow().double()
    hr = torch.rand(3, 9, 14, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"multiples of 4; got 14 × 9 pixels: pad it to 16 × 12.*pad=True"):
        flow.encode(hr)
    latents = flow.encode(hr, pad=True)
    assert latents.lr.shape == (3, 3, 4)
    assert (flow.decode(latents) - hr).abs().max() < 1e-9


@pytest.mark.parametrize("start", ["rotation", "haar"])
def test_fresh_model_splits_volume_as_its_start_says(start):
    flow = flowsr.HCFlow.from_preset("sr-x4", start=start, **TINY).double()
    hr = torch.rand(3, 16, 16, dtype=torch.float64)
    lr = flow.encode(hr).lr
    box = torch.nn.functional.avg_pool2d(hr, 4)
    assert torch.allclose(lr, box, atol=1e-6) == (start == "haar")
    assert (flow.decode(flow.encode(hr)) - hr).abs().max() < 1e-9
    ladj = flow.encode(hr).ladj
    # Haar start per 2x2 block and channel: a quarter of the channels ÷4, the rest ÷2, of an orthogonal ±1 matrix of
    # determinant 16; so each level has log-determinant (16/(4·8)) = 1/2 per block and channel.
    blocks = 3 * 8 * 8 + 6 * 4 * 4
    expected = -math.log(2) * blocks if start == "haar" else 0.0
    assert abs(ladj - expected) < 1e-3


def test_haar_start_keeps_main_actnorms_at_the_identity():
    flow = flowsr.HCFlow.from_preset("sr-x4", start="haar", **TINY)
    flow.initialize(torch.rand(4, 3, 16, 16))
    assert flow.transform.mains[0].parts[0].actnorm.affine.logs.abs().max() == 0
    assert flow.transform.conditionals[0].steps.parts[0].actnorm.affine.logs.abs().max() > 0


def test_dtype_device_and_buffers_move_together():
    flow = tiny_flow().double()
    assert {t.dtype for t in flow.state_dict().values()} <= {torch.float64, torch.bool}
    assert flow.dtype == torch.float64
    meta = tiny_flow().to("meta")
    assert meta.device.type == "meta"
    assert all(t.device.type == "meta" for t in [*meta.parameters(), *meta.buffers()])
    assert flow.encode(torch.rand(3, 8, 8)).lr.dtype == torch.float64


IMAGE = torch.full((3, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.encode(torch.zeros(1, 8, 8)), r"hr: expected 3 channels; got 1"),
        (lambda f: f.encode(torch.zeros(8, 8)), r"hr: expected a non-empty image of shape"),
        (lambda f: f.encode((IMAGE * 255).to(torch.uint8)), "hr: expected a floating point"),
        (lambda f: f.encode(IMAGE * 255), r"hr: expected values in \[0, 1\]"),
        (lambda f: f.encode(IMAGE * math.nan), "hr: expected finite"),
        (lambda f: f.encode(torch.where(IMAGE > 0.6, IMAGE, math.inf)), "hr: expected finite"),
        (lambda f: f.sample(IMAGE * 4), r"lr: expected values in \[0, 1\]"),
        (lambda f: f.sample(IMAGE, num_samples=0), "num_samples >= 1; got 0"),
        (lambda f: f.sample(IMAGE, num_samples=1.5), r"integer num_samples >= 1; got 1.5"),
        (lambda f: f.sample(IMAGE, temperature="12"), "a temperature, or one for each level; got '12'"),
        (lambda f: f.condition(IMAGE, lr_log_scale=-200.0), "lr_log_scale from -40 to 40"),
        (lambda f: f.condition(IMAGE).log_prob(torch.zeros(3, 32, 32, dtype=torch.uint8)), "got torch.uint8"),
        (lambda f: f.decode(IMAGE, [torch.full((21, 8, 8), math.nan), torch.zeros(6, 16, 16)]), "z: expected finite"),
        (lambda f: flowsr.HCFlow("sr-x4"), "for a preset use HCFlow.from_preset"),
        (lambda f: flowsr.HCFlow.from_preset("sr-x4", depth=3), "fields of HCFlowConfig; got depth"),
        (lambda f: f.sample(IMAGE, temperature=-0.1), "temperatures >= 0"),
        (lambda f: f.condition(IMAGE[:1]), "lr: expected 3 channels"),
        (lambda f: f.decode(IMAGE, [torch.zeros(21, 8, 8)]), r"expected z .*\(21, 8, 8\), \(6, 16, 16\).*got"),
        (lambda f: f.decode(IMAGE, [torch.zeros(2, 21, 8, 8), torch.zeros(3, 6, 16, 16)]), "expected z"),
        (
            lambda f: f.decode(IMAGE.expand(2, 3, 8, 8), [torch.zeros(21, 8, 8), torch.zeros(6, 16, 16)]),
            "in that",
        ),
        (lambda f: f.decode(f.encode(IMAGE), [torch.zeros(1)]), "either Latents or an LR image with z; got both"),
        (lambda f: f.unpack(torch.zeros(47, 2, 2)), "packed latent with 48 channels"),
        (lambda f: flowsr.HCFlow.from_preset("sr-x5"), r"expected a preset among sr-x4.*got 'sr-x5'"),
        (lambda f: flowsr.HCFlow(f.config, start="zero"), "start to be rotation or haar; got 'zero'"),
        (lambda f: flowsr.HCFlowConfig(levels=0), "levels to be an integer >= 1; got 0"),
        (lambda f: flowsr.HCFlowConfig(task="inpainting"), "expected task super-resolution or rescaling"),
        (lambda f: flowsr.HCFlowConfig(steps=3, conditional_steps=4), "conditional_steps <= steps = 3; got 4"),
        (lambda f: flowsr.HCFlowConfig(rrdbs=(1,)), "rrdbs to be two integers"),
        (lambda f: flowsr.HCFlowConfig.from_dict({"levels": 2}), "missing or unknown"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_flow())


@pytest.mark.parametrize("hr", [torch.full((2, 3, 16, 16), 0.5), torch.rand(1, 3, 4, 4)], ids=["flat", "tiny"])
def test_initialization_from_a_poor_batch_is_refused_and_undone(hr):
    flow = tiny_flow()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    with pytest.raises(ValueError, match="every channel varies"):
        flow.initialize(hr)
    assert all(torch.equal(before[name], value) for name, value in flow.state_dict().items())
    flow.initialize(torch.rand(4, 3, 16, 16))
    assert torch.isfinite(flow.encode(torch.rand(3, 16, 16)).ladj)


def test_half_precision_weights_score_in_single():
    flow = tiny_flow().bfloat16()
    log_prob = flow.condition(torch.rand(3, 4, 4)).log_prob(torch.rand(3, 16, 16))
    assert log_prob.dtype == torch.float32
    assert torch.isfinite(log_prob)


def test_images_and_latents_of_another_precision():
    flow = tiny_flow()
    hr, lr = torch.rand(3, 8, 8), torch.rand(3, 2, 2)
    assert torch.equal(flow.condition(lr).log_prob(hr.double()), flow.condition(lr).log_prob(hr))
    z = [torch.randn(shape) for shape in flow.transform.latent_shapes(2, 2)]
    assert torch.equal(flow.decode(lr, [latent.double() for latent in z]), flow.decode(lr, z))


def test_an_empty_batch_passes_through():
    flow = tiny_flow()
    assert flow.condition(torch.rand(3, 2, 2)).log_prob(torch.zeros(0, 3, 8, 8)).shape == (0,)


def test_numbers_of_other_libraries_as_temperature():
    import numpy as np

    for tau in (np.float32(0.5), torch.tensor(0.5), 0.5, [0.5, 0.5]):
        assert tiny_flow().condition(torch.rand(3, 2, 2), temperature=tau).base_dist.temperature == (0.5, 0.5)


def test_config_round_trip():
    for name, config in flowsr.HCFlow.presets.items():
        assert flowsr.HCFlowConfig.from_dict(config.to_dict()) == config, name


def test_transform_is_one_image_transform():
    flow = tiny_flow()
    assert isinstance(flow.transform, ImageTransform)
    assert "InvertibleConv1x1" in repr(flow.transform)
