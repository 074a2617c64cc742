"""Every transform keeps the contract, none is left out of the registry, and leaves equal their formulas."""

import importlib
import math
import pkgutil
import warnings

import pytest
import torch
from cases import CASES, tiny_flow
from torch.distributions import Distribution

import flowsr.transforms
from flowsr.interop.foreign import ForeignTransform
from flowsr.nn import FCN, ChannelAffine, initialize_from_data
from flowsr.testing import check_transform, randomize
from flowsr.transforms import (
    ActNorm,
    AffineMap,
    Compose,
    Conditioned,
    Coupling,
    Haar,
    ImageTransform,
    InvertibleConv1x1,
    InvertibleConv1x1PLU,
    Partial,
    PixelShuffle,
    affine_coupling,
    log_scale_map,
)
from flowsr.transforms.base import SameShapeTransform


@pytest.mark.parametrize("name", CASES)
def test_contract(name):
    case = CASES[name]
    transform = case.transform()
    check_transform(transform, case.latent(), case.context(), model=case.model)


@pytest.mark.parametrize("name", CASES)
def test_instances_are_not_the_identity(name):
    case = CASES[name]
    transform = case.transform().double()
    context = case.context()
    x, ladj = transform.call_and_ladj(case.latent().double(), None if context is None else context.double())
    assert (ladj.abs() < 1e-12) == case.volume_preserving
    assert x.shape != case.shape or not torch.allclose(x, case.latent().double())


def _subclasses(cls):
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def test_no_transform_without_a_case():
    for module in pkgutil.walk_packages(flowsr.__path__, "flowsr."):
        if ".cli" not in module.name and ".training" not in module.name:
            importlib.import_module(module.name)
    defined = {cls for cls in _subclasses(ImageTransform) if cls.__module__.startswith("flowsr.")}
    tested = set()
    for case in CASES.values():
        tested |= {type(module) for module in case.transform().modules() if isinstance(module, ImageTransform)}
    missing = {cls for cls in defined - tested if cls not in (SameShapeTransform, ForeignTransform)}  # abstract
    assert not missing, f"add a case to tests/cases.py for {sorted(cls.__name__ for cls in missing)}"


def test_incomplete_transform_is_refused():
    class Incomplete(ImageTransform):
        def call_and_ladj(self, z, context=None):
            return z, z.new_zeros(z.shape[:-3])

    with pytest.raises(TypeError, match=r"expected Incomplete to define .*missing inv_call_and_ladj"):
        Incomplete()


class Broken(PixelShuffle):
    """A pixel shuffle with one property broken at a time."""

    def __init__(self, fault):
        super().__init__(2)
        self.fault = fault
        self.register_buffer("calls", torch.zeros(()))
        if fault == "no gradient":
            self.unused = torch.nn.Parameter(torch.zeros(1))

    def call_and_ladj(self, z, context=None):
        x, ladj = super().call_and_ladj(z, context)
        if self.fault == "log-det":
            ladj = ladj + 1.0
        if self.fault == "inverse":
            x = x + 1e-3
        if self.fault == "state":
            self.calls += 1
        if self.fault == "ladj shape":
            ladj = ladj.sum()
        if self.fault == "batch" and z.dim() > 3:
            x = x + x.mean()
        return x, ladj

    def inv_call_and_ladj(self, x, context=None):
        z, ladj = super().inv_call_and_ladj(x, context)
        return z, ladj - 1.0 if self.fault == "log-det" else ladj


@pytest.mark.parametrize("fault", ["log-det", "inverse", "state", "ladj shape", "batch", "no gradient"])
def test_the_conformance_test_can_fail(fault):
    with pytest.raises(AssertionError):
        check_transform(Broken(fault), torch.randn(4, 2, 3))


class OneValue(PixelShuffle):
    def call_and_ladj(self, z, context=None):
        return super().call_and_ladj(z, context)[0]


def test_the_conformance_test_says_what_a_pass_must_return():
    said = r"call_and_ladj of OneValue: expected two tensors, .*; got a Tensor: return \(value, ladj\)"
    with pytest.raises(AssertionError, match=said):
        check_transform(OneValue(2), torch.randn(4, 2, 3))
    one = Broken("per pixel")
    one.inv_call_and_ladj = lambda x, context=None: (x, x, x)
    with pytest.raises(AssertionError, match=r"expected two tensors, .*; got 3 values"):
        check_transform(one, torch.randn(4, 2, 3))


def test_actnorm_formula_and_initialization():
    norm = ActNorm(3)
    x = 2.0 + 3.0 * torch.randn(16, 3, 8, 6)
    before = norm.inv(x)
    assert torch.equal(before, x), "scoring must not initialize"
    with initialize_from_data(norm):
        norm.inv(x)
    z, ladj = norm.inv.call_and_ladj(x)
    assert z.mean((0, 2, 3)).abs().max() < 1e-5
    assert (z.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
    expected = -48 * (x.std((0, 2, 3), correction=0) + 1e-6).log().sum()
    assert torch.allclose(ladj, expected.expand(16), atol=1e-3)
    with initialize_from_data(norm):
        norm.inv(10 * x)
    assert torch.equal(norm.inv(x), z), "a second initialization must change nothing"


def test_initialization_is_sequential_and_reaches_conditioners():
    flow = tiny_flow()
    flow.initialize(torch.rand(4, 3, 16, 16))
    flags = [m.initialized.item() for m in flow.modules() if isinstance(m, ChannelAffine)]
    assert flags and all(flags)
    assert not any(m._forward_pre_hooks for m in flow.modules())


def test_plu_equals_dense():
    plu = randomize(InvertibleConv1x1PLU(6)).double()
    lower, upper = plu._factors()
    dense = InvertibleConv1x1(6).double()
    with torch.no_grad():
        dense.weight.copy_(plu.permutation @ lower @ upper)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    for own, reference in zip(plu.inv.call_and_ladj(x), dense.inv.call_and_ladj(x), strict=True):
        assert torch.allclose(own, reference, atol=1e-12)


def test_conv1x1_starts_as_a_rotation():
    for cls in (InvertibleConv1x1, InvertibleConv1x1PLU):
        assert cls(12).inv.call_and_ladj(torch.zeros(12, 4, 4))[1].abs() < 1e-3
        matrix = cls(12).matrix()
        assert torch.allclose(matrix @ matrix.mT, torch.eye(12, dtype=torch.float64), atol=1e-5)


def test_haar_bands():
    x = torch.arange(16.0).reshape(1, 4, 4)
    z = Haar().inv(x)
    a, b, c, d = 0.0, 1.0, 4.0, 5.0
    expected = torch.tensor([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]) / 4
    assert torch.allclose(z[:, 0, 0], expected)
    colour = torch.rand(3, 4, 6)
    assert torch.allclose(Haar().inv(colour)[:3], torch.nn.functional.avg_pool2d(colour, 2))
    assert math.isclose(Haar().inv.call_and_ladj(colour)[1].item(), -72 * math.log(2), rel_tol=1e-5)


def test_pixel_shuffle_channel_order():
    x = torch.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    z = PixelShuffle(2).inv(x)
    assert all(
        torch.equal(z[c * 4 + dy * 2 + dx], x[c, dy::2, dx::2]) for c in (0, 1) for dy in (0, 1) for dx in (0, 1)
    )


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("exp", lambda h: h),
        ("atan", lambda h: 0.318 * math.atan(2 * h)),
        ("sigmoid", lambda h: math.log(1 / (1 + math.exp(-(h + 2))) + 1e-4)),
        ("symmetric-sigmoid", lambda h: 2 / (1 + math.exp(-h)) - 1),
        ("tanh", math.tanh),
    ],
)
def test_log_scale_maps(name, formula):
    values = torch.tensor([-3.0, -0.2, 0.0, 1.5], dtype=torch.float64)
    got = log_scale_map(name).double()(values)
    assert torch.allclose(got, torch.tensor([formula(h.item()) for h in values], dtype=torch.float64), atol=1e-6)
    assert torch.isfinite(log_scale_map(name)(torch.tensor([-1e4, 1e4]))).all()


@pytest.mark.parametrize("form", ["shift-then-scale", "scale-then-shift", "standardize"])
def test_affine_forms(form):
    x, shift, scale = (torch.randn(2, 3, 3, dtype=torch.float64) for _ in range(3))
    h = torch.stack([shift, scale], 1).flatten(0, 1)
    z = AffineMap(form=form, log_scale="exp").encode(x, h)[0]
    expected = {
        "shift-then-scale": (x + shift) * scale.exp(),
        "scale-then-shift": x * scale.exp() + shift,
        "standardize": (x - shift) / scale.exp(),
    }[form]
    assert torch.allclose(z, expected)


def test_compose_order_is_pyros():
    parts = [CASES["actnorm"].transform(), CASES["coupling-atan"].transform()]
    z = torch.randn(4, 3, 4)
    assert torch.allclose(Compose(parts)(z), parts[1](parts[0](z)))


def _coupling(context=0):
    return affine_coupling(
        4, FCN(2, 4, hidden_channels=4, context_channels=context), kept_channels=2, context_channels=context
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ActNorm(3)(torch.zeros(4, 2, 2)), r"expected the input of ActNorm with 3 channels.*got \(4, 2, 2\)"),
        (lambda: PixelShuffle(2).inv(torch.zeros(3, 5, 4)), r"multiples of 2; got 4 × 5 pixels: pad it to 4 × 6"),
        (lambda: PixelShuffle(2)(torch.zeros(3, 4, 4)), r"multiple of 4 channels; got \(3, 4, 4\)"),
        (lambda: PixelShuffle(0), r"expected factor >= 1; got 0"),
        (lambda: Haar().inv(torch.zeros(3, 4, 5)), r"multiples of 2; got 5 × 4 pixels"),
        (lambda: log_scale_map("cubic"), r"expected a log-scale map among exp, atan.*got 'cubic'"),
        (lambda: AffineMap(form="scale"), r"expected form shift-then-scale.*got 'scale'"),  # type: ignore[arg-type]
        (
            lambda: Coupling(4, FCN(4, 4, hidden_channels=2), map=AffineMap(), kept_channels=4),
            r"between 1 and 3; got 4",
        ),
        (lambda: Partial(4, ActNorm(4), kept_channels=0), r"kept_channels between 1 and 3; got 0"),
        (lambda: Partial(4, ActNorm(2), kept_channels=2, keep="middle"), r"keep to be first or last; got 'middle'"),  # type: ignore[arg-type]
        (lambda: _coupling(3)(torch.zeros(4, 2, 2)), r"context of 3 channels; got none"),
        (
            lambda: _coupling(3).call_and_ladj(torch.zeros(2, 4, 2, 2), torch.zeros(3, 3, 2, 2)),
            r"broadcast to batch \(2,\) at size \(2, 2\); got shape \(3, 3, 2, 2\)",
        ),
        (
            lambda: _coupling(3).call_and_ladj(torch.zeros(4, 2, 2), torch.zeros(2, 3, 2, 2)),
            r"broadcast to batch \(\)",
        ),
        (
            lambda: _coupling(3).condition(torch.zeros(3, 2, 2)).call_and_ladj(torch.zeros(4, 2, 2), torch.zeros(1)),
            r"conditioned already",
        ),
        (lambda: tiny_flow().transform(torch.zeros(47, 2, 2)), r"the packed latent with 48 channels"),
        (
            lambda: tiny_flow().transform.inv(torch.zeros(3, 8, 10)),
            r"multiples of 4; got 10 × 8 pixels: pad it to 12 × 8",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_conditioned_shares_parameters():
    coupling = _coupling(3)
    conditioned = coupling.condition(torch.zeros(3, 2, 2))
    assert isinstance(conditioned, Conditioned)
    assert {id(p) for p in conditioned.parameters()} == {id(p) for p in coupling.parameters()}


def test_conditioner_with_a_wrong_number_of_channels():
    coupling = affine_coupling(4, FCN(2, 6, hidden_channels=4), kept_channels=2)
    with pytest.raises(ValueError, match=r"conditioner to give 4 channels, 2 for each of 2; got 6"):
        coupling(torch.zeros(4, 2, 2))


def test_modules_convert_into_pyro_modules():
    from pyro.nn.module import PyroModule, to_pyro_module_

    step = CASES["flow-step"].transform()
    to_pyro_module_(step)
    assert isinstance(step, PyroModule)


# Before, torch.compile cannot read the context variable that asks for maps, and goes on with a graph in pieces.
WHOLE_GRAPHS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)


@pytest.mark.parametrize("name", ["flow-step", "hcflow-sr-x4", "hcflow-rescaling-x4"])
def test_compiles_and_without_graph_breaks_from_torch_2_14_on(name, monkeypatch):
    # torch.compile switches off the validation of distributions for the whole process; put it back.
    monkeypatch.setattr(Distribution, "_validate_args", Distribution._validate_args)
    case = CASES[name]
    transform = case.transform()
    z = case.latent()
    if not WHOLE_GRAPHS:
        warnings.simplefilter("ignore")  # torch's own, of what it asks tensors between two graphs
    compiled = torch.compile(transform.call_and_ladj, backend="eager", fullgraph=WHOLE_GRAPHS)
    for own, reference in zip(compiled(z), transform.call_and_ladj(z), strict=True):
        assert torch.allclose(own, reference, atol=1e-5)
    torch.compiler.reset()
