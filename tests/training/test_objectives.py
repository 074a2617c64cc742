"""Each loss against its formula, computed another way."""

import hashlib
import math
import os
import urllib.error

import pyro
import pytest
import torch
from torch.nn import functional as F

import flowsr
from flowsr._support.backbones import cached_backbone
from flowsr.errors import CheckpointError
from flowsr.models import HCFlow, HCFlowConfig
from flowsr.training import (
    Batch,
    Discriminator,
    Objective,
    VGGFeatures,
    critic_loss,
    generator_loss,
    l1_loss,
    likelihood_loss,
    likelihood_svi,
    recipe,
    rescaling_loss,
)
from flowsr.training.wrapper import dequantize

TINY = {"steps": 3, "conditional_steps": 1, "hidden_channels": 8, "conditional_hidden_channels": 8, "features": 4}
TINY |= {"growth": 4, "dense_growth": 4, "rrdbs": (1, 1)}


def tiny(task="super-resolution", dtype=torch.float64):
    flow = HCFlow(HCFlowConfig(task=task, **TINY)).to(dtype)
    # Fresh couplings are the identity: move everything away from it.
    for parameter in flow.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return flow


def number(value):
    return value.detach().item()


def batch_of(size=16, count=3, dtype=torch.float64):
    hr = torch.rand(count, 3, size, size).mul(255).round().div(255).to(dtype)
    return Batch(hr, flowsr.images.bicubic_down(hr, 4).clamp(0, 1), torch.arange(count) + 11)


def test_likelihood_is_minus_log_density_per_pixel_in_bits():
    flow, batch = tiny(), batch_of()
    loss, seen = likelihood_loss(flow, batch.hr, batch.lr)
    nats = flow.condition(batch.lr).log_prob(batch.hr).mean()
    assert number(loss) == pytest.approx(number(-nats / (256 * math.log(2)) + 3 * 8), rel=1e-9)
    assert number(seen["bits_per_dim"]) == pytest.approx(number(loss) / 3, rel=1e-9)
    mse = (flow.encode(batch.hr).lr - batch.lr).square().mean((1, 2, 3))
    assert number(seen["encoded_lr_psnr"]) == pytest.approx(number((-10 * mse.log10()).mean()), rel=1e-6)


def test_dequantization_is_uniform_of_one_bin_and_belongs_to_the_sample():
    batch = batch_of(size=32, dtype=torch.float32)
    noise = (dequantize(batch, bins=256) - batch.hr) * 256
    assert -1e-4 < number(noise.min()) < 0.01
    assert 0.99 < number(noise.max()) < 1.0001
    # Kolmogorov-Smirnov against the uniform distribution.
    ordered = noise.flatten().double().sort().values
    assert number((ordered - torch.linspace(0, 1, len(ordered), dtype=torch.float64)).abs().max()) < 0.03
    alone = Batch(batch.hr[1:2], batch.lr[1:2], batch.seeds[1:2])
    assert torch.equal(dequantize(alone, bins=256)[0], dequantize(batch, bins=256)[1])
    other = Batch(batch.hr, batch.lr, batch.seeds + 1)
    assert not torch.equal(dequantize(other, bins=256)[0], dequantize(batch, bins=256)[0])


def test_l1_is_of_the_decoding_at_temperature_zero():
    flow, batch = tiny(), batch_of()
    assert number(l1_loss(flow, batch.hr, batch.lr)[0]) == pytest.approx(
        number((flow.sample(batch.lr, temperature=0.0)[0] - batch.hr).abs().mean())
    )


def test_rescaling_adds_its_three_terms():
    flow, batch = tiny("rescaling"), batch_of()
    noise = [torch.randn(3, *shape, dtype=torch.float64) for shape in flow.transform.latent_shapes(4, 4)]
    latents = flow.encode(batch.hr)
    sr = flow.decode(flowsr.images.round_to_8bit(latents.lr), noise)
    numbers = torch.cat([z.flatten() for z in latents.z])
    expected = F.l1_loss(sr, batch.hr) + 0.3 * F.mse_loss(latents.lr, batch.lr) + 0.2 * numbers.square().mean()
    loss, _ = rescaling_loss(flow, batch.hr, batch.lr, noise, lr_mse=0.3, z_square=0.2)
    assert number(loss) == pytest.approx(number(expected), rel=1e-9)


def test_rounding_passes_gradients_straight_through():
    flow, batch = tiny("rescaling"), batch_of()
    noise = [torch.randn(3, *shape, dtype=torch.float64) for shape in flow.transform.latent_shapes(4, 4)]
    hr = batch.hr.clone().requires_grad_()
    lr = flow.transform.encode(hr).lr
    through = flowsr.images.round_to_8bit(lr, straight_through=True)
    (gradient,) = torch.autograd.grad(F.l1_loss(flow.transform.decode(through, noise)[0], batch.hr), through)
    (expected,) = torch.autograd.grad(lr, hr, gradient)
    loss, _ = rescaling_loss(flow, hr, batch.lr, noise, lr_mse=0.0, z_square=0.0)
    # The HR image also stands on the other side of the L1 loss.
    direct = torch.sign(batch.hr - flow.decode(flowsr.images.round_to_8bit(lr.detach()), noise).detach()) / hr.numel()
    (found,) = torch.autograd.grad(loss, hr)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected + direct, rtol=1e-9, atol=1e-12)


def bce(p, target):
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def test_adversarial_losses_match_their_formulas():
    fake, real = torch.randn(6, 1, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)

    def critic(x):
        return 0.7 * x + 0.2

    d_real, d_fake = critic(real), critic(fake)
    vanilla = bce(d_real.sigmoid(), 1) + bce(d_fake.sigmoid(), 0)
    torch.testing.assert_close(critic_loss(critic, fake, real), vanilla)
    torch.testing.assert_close(generator_loss(critic, fake, real), bce(d_fake.sigmoid(), 1))
    squares = ((d_real - 1) ** 2).mean() + (d_fake**2).mean()
    torch.testing.assert_close(critic_loss(critic, fake, real, form="least-squares"), squares)
    a, b = (d_real - d_fake.mean()).sigmoid(), (d_fake - d_real.mean()).sigmoid()
    torch.testing.assert_close(critic_loss(critic, fake, real, form="relativistic"), (bce(a, 1) + bce(b, 0)) / 2)
    torch.testing.assert_close(generator_loss(critic, fake, real, form="relativistic"), (bce(a, 0) + bce(b, 1)) / 2)
    with pytest.raises(ValueError, match="expected form to be vanilla"):
        critic_loss(critic, fake, real, form="hinge")


def test_gradients_go_where_they_should():
    critic = Discriminator(32, width=2)
    fake = torch.rand(2, 3, 32, 32, requires_grad=True)
    critic_loss(critic, fake, torch.rand(2, 3, 32, 32)).backward()
    assert fake.grad is None
    assert all(p.grad is not None for p in critic.parameters())
    generator_loss(critic, fake, torch.rand(2, 3, 32, 32)).backward()
    assert fake.grad is not None


def test_the_published_discriminator():
    critic = Discriminator(160)
    convolutions = [layer for layer in critic.features if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in convolutions] == [(3, 1), (4, 2)] * 5
    assert critic.head[0].in_features == 512 * 5 * 5
    assert sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in critic.features) == 9


@pytest.mark.parametrize("crop", [32, 48, 70, 96])
def test_the_discriminator_takes_any_crop(crop):
    critic = Discriminator(crop, width=2, image_channels=1)
    assert critic(torch.rand(2, 1, crop, crop)).shape == (2, 1)
    with pytest.raises(ValueError, match=f"expected images of {crop} × {crop} pixels; got"):
        critic(torch.rand(2, 1, crop + 1, crop))
    with pytest.raises(ValueError, match="at least 32 pixels"):
        Discriminator(31)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    from torchvision.models import vgg19

    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in vgg19(weights=None).state_dict().items():
        wide = name.startswith("classifier") and name.endswith("weight")
        # The classifier is not used: zeros of stride 0 keep the file small.
        scale = (2.0 / max(1, value[0].numel())) ** 0.5 if value.dim() > 1 else 0.0
        state[name] = (
            torch.zeros(1).expand(value.shape) if wide else scale * torch.randn(value.shape, generator=generator)
        )
    torch.save(state, path)
    return path


def test_vgg_features_are_before_the_last_relu_of_normalized_images(vgg_file):
    from torchvision.models import vgg19

    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    features = VGGFeatures(vgg_file)
    reference = vgg19(weights=None)
    reference.load_state_dict(torch.load(vgg_file, weights_only=True))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (image - mean[:, None, None]) / std[:, None, None]
    for layer in reference.features[:34]:
        expected = layer(expected)
    last = reference.features[34]
    assert isinstance(last, torch.nn.Conv2d)
    found = features(image)
    torch.testing.assert_close(found, last(expected))
    assert (found < 0).any()
    assert found.shape == (1, 512, 2, 2)
    found.sum().backward()
    assert image.grad.abs().max() > 0
    assert not any(p.requires_grad for p in features.parameters())


def test_vgg_without_weights_says_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("flowsr._support.downloads._fetch", no_network)
    with pytest.raises(CheckpointError, match=r"no network.*file at \S+/vgg19-\w+\.pth by hand, pass a local"):
        VGGFeatures()
    with pytest.raises(CheckpointError, match=r"nothing\.pth is no such file"):
        VGGFeatures(tmp_path / "nothing.pth")
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="expected the state dict of torchvision's vgg19"):
        VGGFeatures(tmp_path / "other.pth")


def test_a_file_in_the_cache_is_what_its_name_says_and_never_run(monkeypatch, tmp_path, vgg_file):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = cached_backbone("vgg19-dcbb9e9d.pth")
    place.parent.mkdir(parents=True)
    torch.save({"features.0.weight": Evil()}, place)
    with pytest.raises(CheckpointError, match=r"SHA-256 begins with dcbb9e9d; got \w{8}…: .* delete it"):
        VGGFeatures()
    digest = hashlib.sha256(place.read_bytes()).hexdigest()[:8]
    with pytest.raises(CheckpointError, match="more than tensors"):  # nor if somebody names it right
        VGGFeatures(place.rename(place.with_name(f"vgg19-{digest}.pth")))
    assert not (tmp_path / "ran").exists()
    digest = hashlib.sha256(vgg_file.read_bytes()).hexdigest()[:8]
    right = tmp_path / f"vgg19-{digest}.pth"
    right.write_bytes(vgg_file.read_bytes())
    VGGFeatures(right)


class Pool(torch.nn.Module):
    def forward(self, x):
        return F.avg_pool2d(x, 4)


def test_the_objective_weighs_its_passes():
    flow, batch = tiny(), batch_of(size=32)
    plus = recipe("nll+l1+perceptual+gan", crop=32)
    critic = Discriminator(32, width=2).double()
    objective = Objective(flow, plus, features=Pool(), critic=critic)
    likelihood, _, none = objective(batch, ("likelihood",))
    l1, _, _ = objective(batch, ("l1",))
    perceptual, seen, draw = objective(batch, ("perceptual",))
    assert none is None
    hr = dequantize(batch, bins=256)
    assert number(likelihood) == pytest.approx(2e-3 * number(likelihood_loss(flow, hr, batch.lr)[0]))
    assert number(l1) == pytest.approx(number(l1_loss(flow, batch.hr, batch.lr)[0]))
    distance = (Pool()(draw) - Pool()(batch.hr)).abs().mean()
    assert number(perceptual) == pytest.approx(number(0.05 * distance + 0.5 * generator_loss(critic, draw, batch.hr)))
    assert set(seen) == {"perceptual", "adversarial"}
    joint, _, _ = objective(batch, plus.passes)
    assert number(joint) == pytest.approx(number(likelihood + l1 + perceptual))
    # The draw is at τ = 0.9: its latents have that standard deviation.
    z = flow.encode(draw).z
    assert number(torch.cat([part.flatten() for part in z]).std()) == pytest.approx(0.9, abs=0.03)


def test_the_objective_owns_the_flow_only_and_asks_for_what_it_needs():
    flow = tiny()
    plus = recipe("nll+l1+perceptual+gan", crop=32)
    objective = Objective(flow, plus, features=Pool(), critic=Discriminator(32, width=2))
    assert {id(p) for p in objective.parameters()} == {id(p) for p in flow.parameters()}
    with pytest.raises(ValueError, match="expected a feature extractor for the perceptual loss"):
        Objective(flow, plus)
    with pytest.raises(ValueError, match="expected a discriminator for the adversarial loss"):
        Objective(flow, plus, features=Pool())


def test_a_width_given_to_the_objective_is_used():
    flow, batch = tiny(), batch_of()
    objective = Objective(flow, recipe("nll"))
    wide = objective(batch, ("likelihood",), lr_log_scale=-1.0)[0]
    hr = dequantize(batch, bins=256)
    assert number(wide) == pytest.approx(number(likelihood_loss(flow, hr, batch.lr, lr_log_scale=-1.0)[0]))
    assert number(wide) != pytest.approx(number(objective(batch, ("likelihood",))[0]))


def test_svi_is_the_likelihood_recipe():
    flow, batch = tiny(), batch_of()
    loss, _ = likelihood_loss(flow, batch.hr, batch.lr)
    expected = torch.autograd.grad(loss, list(flow.parameters()))
    svi = likelihood_svi(flow, pyro.optim.Adam({"lr": 1e-3}))
    elbo = svi.loss_and_grads(svi.model, svi.guide, batch.hr, batch.lr)
    assert elbo + 3 * 8 == pytest.approx(number(loss), rel=1e-9)
    for parameter, gradient in zip(flow.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)


def test_svi_steps_move_the_flow_itself():
    # Gradient descent, not Adam: where a gradient is rounding noise Adam would make a whole step of its sign.
    flow, batch = tiny(), batch_of()
    expected = {}
    gradients = torch.autograd.grad(likelihood_loss(flow, batch.hr, batch.lr)[0], list(flow.parameters()))
    for (name, parameter), gradient in zip(flow.named_parameters(), gradients, strict=True):
        expected[name] = parameter.detach() - 1e-6 * gradient
    likelihood_svi(flow, pyro.optim.SGD({"lr": 1e-6})).step(batch.hr, batch.lr)
    for name, parameter in flow.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-9)
