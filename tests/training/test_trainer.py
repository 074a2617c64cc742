"""One step at a time: which passes step, what is clipped, skipped, averaged."""

import copy
import math

import pytest
import torch
from cases import TINY, tiny
from lightning.fabric import Fabric

from flowsr.errors import NonFiniteError
from flowsr.images import bicubic_down
from flowsr.models import HCFlow
from flowsr.nn import BatchStatistics
from flowsr.testing import randomize
from flowsr.training import Batch, Discriminator, Objective, Run, WeightAverage, recipe
from flowsr.training.recipes import default_recipe
from flowsr.training.trainer import NonFiniteGuard, Trainer, _tensors, clip_gradients, gradient_norm


@pytest.fixture(scope="module")
def fabric():
    return Fabric(accelerator="cpu", devices=1)


def batch_of(number=0, count=4, size=32):
    generator = torch.Generator().manual_seed(number)
    hr = torch.rand(count, 3, size, size, generator=generator).mul(255).round().div(255)
    return Batch(hr, bicubic_down(hr, 4).clamp(0, 1), torch.arange(count) + 100 * number)


def halves(batch):
    return [Batch(batch.hr[i : i + 2], batch.lr[i : i + 2], batch.seeds[i : i + 2]) for i in (0, 2)]


def build(fabric, name="nll", *, preset="sr-x4-small", objective=Objective, patience=50, critic=None, **changes):
    torch.manual_seed(5)
    flow = randomize(HCFlow.from_preset(preset, **TINY), strength=0.05)
    chosen = recipe(name, **{"steps": 100, "crop": 32, **changes})
    made = objective(flow, chosen, features=torch.nn.AvgPool2d(4), critic=critic)
    return Trainer(fabric, made, Run(patience=patience, accumulate=1), critic=critic)


def weights(trainer):
    return torch.cat([p.detach().flatten().clone() for p in trainer.objective.parameters()])


def test_a_step_is_adam_on_clipped_gradients(fabric):
    trainer = build(fabric)
    reference = build(fabric).objective
    adam = torch.optim.Adam(reference.parameters(), lr=2.5e-4, betas=(0.9, 0.99))
    for number in range(3):
        numbers = trainer.make_step([batch_of(number)])
        adam.zero_grad()
        loss, _, _ = reference(batch_of(number), ("likelihood",), lr_log_scale=-6.0)
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in reference.parameters()]).norm()
        for p in reference.parameters():
            p.grad.clamp_(-5, 5)
        clipped = torch.cat([p.grad.flatten() for p in reference.parameters()]).norm()
        assert norm > clipped > 100  # both bounds matter here
        for p in reference.parameters():
            p.grad.mul_(100 / (clipped + 1e-6))
        adam.step()
        assert numbers["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert numbers["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    expected = torch.cat([p.detach().flatten() for p in reference.parameters()])
    torch.testing.assert_close(weights(trainer), expected, rtol=1e-4, atol=1e-6)
    assert trainer.step == 3


def test_accumulated_micro_batches_are_one_batch(fabric):
    one, two = build(fabric, clip_norm=None), build(fabric, clip_norm=None)
    for number in range(2):
        first = one.make_step([batch_of(number)])
        second = two.make_step(halves(batch_of(number)))
        assert second["bits_per_dim"] == pytest.approx(first["bits_per_dim"], rel=1e-5)
        assert second["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=1e-4)
    torch.testing.assert_close(weights(one), weights(two), rtol=1e-3, atol=2e-5)


def count_steps(monkeypatch, trainer):
    counts = {"generator": 0, "critic": 0}
    for name, optimizer in (("generator", trainer.optimizer), ("critic", getattr(trainer, "critic_optimizer", None))):
        if optimizer is not None:
            optimizer.register_step_post_hook(lambda *_, name=name: counts.update({name: counts[name] + 1}))
    return counts


@pytest.mark.parametrize(("separate", "steps"), [(True, 3), (False, 1)])
def test_passes_step_separately_or_jointly(fabric, monkeypatch, separate, steps):
    critic = Discriminator(32, width=2)
    trainer = build(fabric, "nll+l1+perceptual+gan", critic=critic, critic_warmup=0, separate=separate)
    counts = count_steps(monkeypatch, trainer)
    before = weights(trainer)
    numbers = trainer.make_step([batch_of()])
    assert counts == {"generator": steps, "critic": 1}
    assert {"bits_per_dim", "l1", "perceptual", "adversarial", "critic"} <= set(numbers)
    assert not torch.equal(weights(trainer), before)


def test_the_generators_steps_leave_the_critic_alone(fabric):
    critic = Discriminator(32, width=2)
    trainer = build(fabric, "nll+l1+perceptual+gan", critic=critic, critic_warmup=0)
    before = [p.detach().clone() for p in critic.parameters()]
    trainer._generator_step(("perceptual",), [batch_of()])
    assert all(torch.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))
    assert all(p.grad is None for p in critic.parameters())
    assert all(p.requires_grad for p in critic.parameters())


def test_the_critic_trains_alone_at_first_and_learns(fabric):
    critic = Discriminator(32, width=2)
    changes = {"critic_warmup": 12, "critic_learning_rate": 1e-2, "adversary": "least-squares"}
    trainer = build(fabric, "nll+l1+perceptual+gan", critic=critic, **changes)
    before = weights(trainer)
    seen = [trainer.make_step([batch_of(i)]) for i in range(12)]
    assert torch.equal(weights(trainer), before)
    assert set(seen[0]) == {"learning_rate", "gradient_norm", "critic", "loss"}
    assert seen[-1]["critic"] < 0.7 * seen[0]["critic"]
    trainer.make_step([batch_of(12)])
    assert not torch.equal(weights(trainer), before)


def test_rescaling_trains(fabric):
    trainer = build(fabric, "rescaling", preset="rescaling-x4-small", learning_rate=2e-3, halve_at=())
    losses = [trainer.make_step([batch_of()])["loss"] for _ in range(15)]
    assert losses[-1] < 0.9 * losses[0]


class Broken(Objective):
    """Not finite on the second step of three: in the loss, or in the gradient alone."""

    calls = 0
    gradient = False

    def forward(self, *args, **kwargs):
        loss, seen, draw = super().forward(*args, **kwargs)
        type(self).calls += 1
        if self.calls % 3 == 2:
            loss = loss + Spike.apply(loss) if self.gradient else loss * float("nan")
        return loss, seen, draw


class BrokenGradient(Broken):
    gradient = True


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, float("inf"))


@pytest.mark.parametrize("broken", [Broken, BrokenGradient])
def test_steps_that_are_not_finite_are_skipped_and_counted(fabric, broken):
    broken.calls = 0
    trainer = build(fabric, objective=broken)
    trainer.make_step([batch_of(0)])
    before, average = weights(trainer), trainer.average.updates
    state = trainer.optimizer.state_dict()["state"][0]["step"].clone()
    trainer.make_step([batch_of(1)])
    assert torch.equal(weights(trainer), before)
    assert trainer.optimizer.state_dict()["state"][0]["step"] == state
    assert (trainer.guard.total, trainer.guard.in_a_row, trainer.step) == (1, 1, 2)
    assert trainer.average.updates == average
    trainer.make_step([batch_of(2)])
    assert not torch.equal(weights(trainer), before)
    assert (trainer.guard.total, trainer.guard.in_a_row) == (1, 0)


@pytest.mark.parametrize("name", ["sr-x4", "rescaling-x4", "srflow-x4", "irn-x4", "glow", "realnvp"])
@pytest.mark.parametrize("lost", ["weights", "average", "moments"])
def test_a_look_at_the_weights_tells_those_past_help_and_changes_nothing(fabric, name, lost):
    """Of each model in its own recipe; running statistics and the global random state included."""
    flow = tiny(name, strength=0.05)
    trainer = Trainer(fabric, Objective(flow, recipe(default_recipe(flow), flow=flow, crop=32)), Run())
    whole = batch_of()
    batch = trainer.place(Batch(whole.hr, whole.lr if hasattr(flow, "upscale") else None, whole.seeds))
    trainer.make_step([batch])
    before = copy.deepcopy(trainer.state())
    assert trainer.is_sound([batch])
    for ours, theirs in zip(_tensors(trainer.state()), _tensors(before), strict=True):
        assert torch.equal(ours, theirs)
    assert all(p.grad is None for p in flow.parameters())
    moments = trainer.optimizer.state[next(flow.parameters())]["exp_avg_sq"]
    places = {
        "weights": next(flow.parameters()),
        "average": next(_tensors(trainer.average.average)),
        "moments": moments,
    }
    with torch.no_grad():
        places[lost].fill_(float("inf"))
    assert not trainer.is_sound([batch])


def test_too_many_in_a_row_stop_the_run_with_advice(fabric):
    trainer = build(fabric, patience=3)
    with torch.no_grad():
        next(trainer.objective.parameters()).fill_(float("nan"))
    trainer.make_step([batch_of()])
    trainer.make_step([batch_of()])
    with pytest.raises(NonFiniteError, match=r"3 steps in a row .* lower learning_rate, a warmup longer than"):
        trainer.make_step([batch_of()])
    with pytest.raises(ValueError, match="expected patience >= 1"):
        NonFiniteGuard(patience=0)


def test_clipping_is_by_value_and_then_by_norm():
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([30.0, -4.0, 0.0])
    assert gradient_norm([parameter]).item() == pytest.approx((900 + 16) ** 0.5)
    clip_gradients([parameter], value=5.0, norm=3.0)
    torch.testing.assert_close(parameter.grad, torch.tensor([5.0, -4.0, 0.0]) * 3 / 41**0.5)
    clip_gradients([parameter], value=None, norm=None)
    assert parameter.grad.norm().item() == pytest.approx(3.0)


def test_the_average_follows_its_formula_and_is_put_back():
    layer = torch.nn.BatchNorm1d(2)
    average = WeightAverage(layer, decay=0.5)
    expected = layer.weight.detach().clone()
    for step in range(8):
        with torch.no_grad():
            layer.weight.fill_(float(step))
            layer.num_batches_tracked.add_(1)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
        assert layer.num_batches_tracked == 8
    assert torch.equal(layer.weight.detach(), torch.full((2,), 7.0))
    copied = WeightAverage(layer, decay=0.5)
    copied.load_state_dict(average.state_dict())
    assert copied.updates == 8
    torch.testing.assert_close(copied.average["weight"], expected)
    with pytest.raises(ValueError, match=r"expected a decay in \[0, 1\); got 1"):
        WeightAverage(layer, decay=1)


def test_constants_are_copied_and_statistics_averaged():
    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.statistics = BatchStatistics(2)
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
            self.register_buffer("scale", torch.tensor(0.1))

    part = Part()
    average = WeightAverage(part, decay=0.5)
    part.scale.fill_(0.3)
    part.statistics.mean.fill_(1.0)
    for _ in range(3):
        average.update()
    assert torch.equal(average.average["mask"], part.mask)
    assert torch.equal(average.average["scale"], part.scale)  # to the last bit, not nearly
    left = math.prod(min(0.5, (1 + t) / (10 + t)) for t in range(3))
    torch.testing.assert_close(average.average["statistics.mean"], torch.full((2, 1, 1), 1 - left))


def test_a_restored_trainer_continues_bit_for_bit(fabric):
    def critic():
        torch.manual_seed(1)
        return Discriminator(32, width=2)

    def make():
        return build(fabric, "nll+l1+perceptual+gan", critic=critic(), critic_warmup=1)

    whole, first = make(), make()
    for number in range(4):
        whole.make_step([batch_of(number)])
    for number in range(2):
        first.make_step([batch_of(number)])
    state = first.state()
    noise = torch.rand(3)
    second = make()
    second.make_step([batch_of(9)])
    second.restore(state)
    assert torch.equal(torch.rand(3), noise)  # the global random state comes back too
    for number in (2, 3):
        second.make_step([batch_of(number)])
    assert torch.equal(weights(whole), weights(second))
    assert all(torch.equal(a, b) for a, b in zip(whole.critic.parameters(), second.critic.parameters(), strict=True))
    assert all(torch.equal(value, second.average.average[name]) for name, value in whole.average.average.items())
