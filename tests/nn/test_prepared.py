"""Weights made ready once: the same results as with weights made at each call, and never those of weights gone by."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pyro
import pytest
import torch
from cases import CASES, tiny
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import flowsr
from flowsr.images import make_lr
from flowsr.nn import FCN, Conv2d, DenseBlock, Prepared, channels_last
from flowsr.nn.prepared import rectified
from flowsr.testing import randomize
from flowsr.transforms import InvertibleConv1x1, InvertibleConv1x1Orthogonal, InvertibleConv1x1PLU


def passes(transform, z, context):
    """Image and latent with their log-determinants, without gradients or with those of the parameters."""
    x, ladj = transform.call_and_ladj(z, context)
    return [x, ladj, *transform.inv_call_and_ladj(x.detach(), context)]


def unkept(transform, z, context):
    """The same of a copy whose parameters are asked for their gradients, and so are not kept."""
    fresh = copy.deepcopy(transform).requires_grad_(True)
    return [value.detach() for value in passes(fresh, z, context)]


def error(found, right):
    """The largest difference of any result, relative to the largest value of it."""
    pairs = zip(found, right, strict=True)
    return max(float((a.double() - b.double()).abs().max()) / max(1.0, float(b.abs().max())) for a, b in pairs)


def assert_current(transform, z, context):
    with torch.no_grad():
        kept = passes(transform, z, context)
    assert all(bool(value.isfinite().all()) for value in kept)
    assert error(kept, unkept(transform, z, context)) <= 1e-12


def shaped(case, batch, dtype):
    z = torch.randn(*batch, *case.shape, dtype=dtype)
    return z, None if case.context_shape is None else torch.rand(*batch, *case.context_shape, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_weights_made_at_each_call(name):
    case = CASES[name]
    transform = case.transform().double()
    single = copy.deepcopy(transform).float()
    for batch in ((), (2,), (3, 2)):
        z, context = shaped(case, batch, torch.float64)
        if context is not None and batch == (3, 2):
            context = context[0]  # shared by three draws
        assert_current(transform, z, context)
        assert_current(transform, z, context)
        exact, given = unkept(transform, z, context), (z.float(), None if context is None else context.float())
        with torch.no_grad():
            kept = passes(single, *given)
        # A random flow may be ill-conditioned: rounding may do to one what it does to the other.
        assert error(kept, exact) <= max(1e-5, 10 * error(unkept(single, *given), exact))


@pytest.mark.parametrize("name", ["sr-x4-small", "rescaling-x4-small"])
def test_trained_models_give_what_they_gave(name):
    flow = flowsr.load(name)
    hr = torch.rand(2, 3, 32, 24).cumsum(-1) / 24
    lr = make_lr(hr, 4)
    z = flow.draw_latents(lr, temperature=0.8)
    with torch.no_grad():
        kept = [flow.decode(lr, z), flow.encode(hr).lr, *flow.encode(hr).z, flow.condition(lr).log_prob(hr)]
    flow.requires_grad_(True)
    made = [flow.decode(lr, z), flow.encode(hr).lr, *flow.encode(hr).z, flow.condition(lr).log_prob(hr)]
    assert error(kept, [value.detach() for value in made]) <= 1e-5


def change_in_place(transform):
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.mul_(1.01)


def load(transform):
    state = transform.state_dict()
    for name, parameter in transform.named_parameters():
        state[name] = 1.01 * parameter.detach()
    transform.load_state_dict(state)


def load_assigned(transform):
    state = {name: value.clone() for name, value in transform.state_dict().items()}
    for name in dict(transform.named_parameters()):
        state[name] *= 1.01
    transform.load_state_dict(state, assign=True)


def there_and_back(transform):
    transform.float()
    change_in_place(transform)
    transform.double()


def exchange_memory(transform):
    for parameter in transform.parameters():
        parameter.data = 1.01 * parameter.data


def step(transform):
    optimizer = torch.optim.SGD(transform.parameters(), lr=1e-3)
    _loss(transform).backward()
    optimizer.step()
    transform.zero_grad()


def step_of_pyro(transform):
    """Pyro's optimizers write into ``parameter.data``, which autograd does not count."""
    optimizer = pyro.optim.ClippedAdam({"lr": 1e-2})
    _loss(transform).backward()
    optimizer(list(transform.parameters()))
    transform.zero_grad()


def exchange_data(transform):
    """Averages of weights are put in the place of weights by ``parameter.data`` too, with no step in between."""
    for parameter in transform.parameters():
        parameter.data.copy_(1.01 * parameter.data)


def exchange_data_at_once(transform):
    torch._foreach_mul_([parameter.data for parameter in transform.parameters()], 1.01)


def new_parameters(transform):
    for module in transform.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                setattr(module, name, nn.Parameter(1.01 * value.detach()))


def _loss(transform):
    z = torch.randn(2, 48, 2, 2, dtype=torch.float64)
    x, ladj = transform.call_and_ladj(z)
    return x.square().mean() + ladj.mean()


CHANGES = [
    change_in_place,
    load,
    load_assigned,
    there_and_back,
    exchange_memory,
    step,
    step_of_pyro,
    exchange_data,
    exchange_data_at_once,
    new_parameters,
]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_parameters_is_seen(change, mode):
    transform = getattr(
        tiny("sr-x4", strength=0.1, mixing="plu" if mode == "eval" else "dense").double(), mode
    )().transform
    z = torch.randn(2, 48, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        before = passes(transform, z, None)
    change(transform)
    assert_current(transform, z, None)
    with torch.no_grad():
        after = passes(transform, z, None)
    assert float((after[0] - before[0]).abs().max()) > 1e-6, "the change changes something"


@pytest.mark.parametrize("memory", ["full", "checkpoint", "reversible"])
def test_training_sees_its_own_steps_in_every_memory_mode(memory):
    transform = tiny("sr-x4").double().transform
    for module in transform.modules():
        if hasattr(module, "memory"):
            module.memory = memory
    z = torch.randn(2, 48, 2, 2, dtype=torch.float64)
    for _ in range(2):
        step_of_pyro(transform)
        assert_current(transform, z, None)


def test_copies_pickles_and_states_carry_nothing_of_it():
    transform = tiny("sr-x4").double().transform
    keys, size = list(transform.state_dict()), len(pickle.dumps(transform))
    z = torch.randn(2, 48, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        passes(transform, z, None)
    assert list(transform.state_dict()) == keys
    assert len(pickle.dumps(transform)) == size
    for copied in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        change_in_place(copied)
        assert_current(copied, z, None)
        assert_current(transform, z, None)


def test_values_are_kept_while_frozen_and_gradients_of_the_input_are_right():
    transform = tiny("sr-x4").double().transform
    z = torch.randn(48, 2, 2, dtype=torch.float64)

    def slope():
        point = z.clone().requires_grad_()
        x, ladj = transform.call_and_ladj(point)
        return torch.autograd.grad(x.square().sum() + ladj, point)[0]

    expected = slope()
    transform.requires_grad_(False)
    made = []
    convs = [module for module in transform.modules() if isinstance(module, Conv2d)]
    kernel = type(convs[0]).kernel
    for conv in convs:
        conv.kernel = lambda *sources, conv=conv: made.append(conv) or kernel(conv, *sources)
    for _ in range(3):
        torch.testing.assert_close(slope(), expected, rtol=1e-10, atol=1e-10)
    assert made == list(dict.fromkeys(made)) and len(made) == len(convs), "each kernel once"


def test_what_inference_mode_made_ready_serves_gradients_too():
    transform = tiny("sr-x4").double().transform.requires_grad_(False)
    z = torch.randn(48, 2, 2, dtype=torch.float64)
    with torch.inference_mode():
        transform.call_and_ladj(z)
    point = z.clone().requires_grad_()
    x, _ = transform.call_and_ladj(point)
    (slope,) = torch.autograd.grad(x.sum(), point)
    assert torch.isfinite(slope).all()


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # of torch's own forward derivatives
@pytest.mark.parametrize("build", [lambda: FCN(3, 4, hidden_channels=5), lambda: DenseBlock(3, 4, growth=2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transforms_of_functions_see_the_parameters_they_put_in(build, dtype):
    torch.manual_seed(0)
    net = randomize(build()).to(dtype).requires_grad_(False)
    x = torch.randn(2, 3, 4, 5, dtype=dtype)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    with torch.no_grad():
        plain = net(x)
        several = {name: torch.stack([p, 2 * p]) for name, p in parameters.items()}
        both = vmap(lambda p: functional_call(net, p, (x,)))(several)
        change = {name: torch.ones_like(p) for name, p in parameters.items()}
        value, tangent = jvp(lambda p: functional_call(net, p, (x,)), (parameters,), (change,))
        each = vmap(net)(x)
    torch.testing.assert_close(both[0], plain, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[1], plain)
    torch.testing.assert_close(value, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(each, plain, rtol=1e-4, atol=1e-5)
    assert tangent.abs().max() > 0
    eps = 1e-6
    if dtype == torch.float64:
        moved = functional_call(net, {name: p + eps for name, p in parameters.items()}, (x,))
        torch.testing.assert_close((moved - plain) / eps, tangent, rtol=1e-3, atol=1e-3)
        with forward_ad.dual_level():
            dual = {name: forward_ad.make_dual(p, change[name]) for name, p in parameters.items()}
            torch.testing.assert_close(forward_ad.unpack_dual(functional_call(net, dual, (x,))).tangent, tangent)
        jacobian = jacrev(lambda v: net(v).sum())(x)
        point = x.clone().requires_grad_()
        torch.testing.assert_close(jacobian, torch.autograd.grad(net(point).sum(), point)[0])
        assert torch.autograd.gradgradcheck(net, point[:1, :, :2, :2].detach().requires_grad_(), atol=1e-4)


@pytest.mark.parametrize("kind", [InvertibleConv1x1, InvertibleConv1x1PLU, InvertibleConv1x1Orthogonal])
def test_buffers_count_where_a_matrix_is_made_of_them(kind):
    mixing, other = (randomize(kind(4)).double() for _ in range(2))
    z = torch.randn(4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        mixing.call_and_ladj(z), mixing.inv_call_and_ladj(z)
        for name, buffer in mixing.named_buffers():
            buffer.copy_(dict(other.named_buffers())[name])
    assert_current(mixing, z, None)


def test_nothing_is_kept_where_gradients_of_the_parameters_are_wanted():
    weight, prepared = nn.Parameter(torch.ones(2)), Prepared()
    assert prepared("a", [weight], lambda: 2 * weight).requires_grad
    with torch.no_grad():
        kept = prepared("a", [weight], lambda: 2 * weight)
        assert prepared("a", [weight], lambda: 2 * weight) is kept
        assert prepared("b", [weight], lambda: 3 * weight) is not kept, "keys tell values apart"
    prepared("a", [weight], lambda: 2 * weight)
    with torch.no_grad():
        assert prepared("a", [weight], lambda: 2 * weight) is not kept


def test_autocast_casts_a_kernel_once_and_gives_what_it_gave():
    torch.manual_seed(0)
    conv, x = Conv2d(3, 4), torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        expected = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
        with torch.no_grad():
            first, again = conv(x), conv(x)
        trained = conv(x)
    assert first.dtype == torch.bfloat16
    for found in (first, again, trained):
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    with torch.no_grad():
        assert conv(x).dtype == torch.float32, "outside of it the kernel is what it was"


def test_activations_have_their_channels_last_where_that_is_faster():
    x = torch.randn(2, 8, 5, 6)
    assert channels_last(x).is_contiguous(memory_format=torch.channels_last)
    assert channels_last(x.double()) is not None and channels_last(x.double()).is_contiguous()
    torch.testing.assert_close(channels_last(x), x, rtol=0, atol=0)
    with torch.no_grad():
        assert DenseBlock(8, 4, growth=3)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_what_hooks_see_and_put_in_place_stays_as_it_is(slope):
    conv, x = Conv2d(3, 4), torch.randn(2, 3, 4, 4)
    expected = torch.nn.functional.leaky_relu(conv(x), slope).detach()
    seen = []
    with torch.no_grad():
        hook = conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
        assert torch.allclose(rectified(conv, x, slope=slope), expected) and (seen[0] < 0).any()
        hook.remove()
        patch = torch.full((2, 4, 4, 4), -1.0)
        hook = conv.register_forward_hook(lambda module, inputs, output: patch)
        assert (rectified(conv, x, slope=slope) == -slope).all() and (patch == -1).all()
        hook.remove()
        hook = nn.modules.module.register_module_forward_hook(cast(Any, lambda module, inputs, output: patch))
        assert (rectified(conv, x, slope=slope) == -slope).all() and (patch == -1).all()
        hook.remove()
        assert (rectified(nn.Identity(), x, slope=slope) >= x).all() and (x < 0).any(), "other layers may give views"


@pytest.mark.parametrize("build", [lambda: FCN(3, 4, hidden_channels=5), lambda: DenseBlock(3, 4, growth=2)])
def test_hooks_see_what_convolutions_give(build):
    network, x, seen = build(), torch.randn(2, 3, 4, 4), {}
    randomize(network)
    for name, module in network.named_modules():
        if hasattr(module, "convolve"):
            module.register_forward_hook(lambda m, i, output, name=name: seen.setdefault(name, []).append(output))
    network(x)
    with torch.no_grad():
        network(x)
    assert len(seen) >= 3 and all(torch.allclose(*pair, atol=1e-6) for pair in seen.values())


@pytest.mark.parametrize("trained", [False, True])
def test_fake_tensors_and_traces_leave_nothing_behind(trained):
    network, x = FCN(3, 4, hidden_channels=5).requires_grad_(trained), torch.randn(2, 3, 4, 4)
    randomize(network)
    expected = network(x).detach()
    with torch.no_grad():
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert network(torch.randn(2, 3, 4, 4)).shape == expected.shape
        assert torch.allclose(network(x), expected, atol=1e-6)
        traced = make_fx(network)(x)
        assert torch.allclose(traced(x + 1), network(x + 1), atol=1e-6)
        assert torch.allclose(network(x), expected, atol=1e-6)


def test_shapes_are_known_without_numbers():
    network = FCN(3, 4, hidden_channels=5).to("meta")
    with torch.no_grad():
        assert network(torch.empty(2, 3, 4, 4, device="meta")).shape == (2, 4, 4, 4)


def test_threads_that_decode_and_train_beside_each_other_give_what_one_gives():
    transform = tiny("sr-x4", strength=0.1).double().transform
    z = torch.randn(2, 48, 2, 2, dtype=torch.float64)
    expected = unkept(transform, z, None)

    def work(number):
        if number % 2:
            _loss(transform)  # lets go of what is kept
        with torch.no_grad():
            return error(passes(transform, z, None), expected)

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(work, range(24))) <= 1e-12
