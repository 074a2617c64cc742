"""Transforms of zuko and nflows keep the contract here, and transforms from here are right in their flows."""

import copy
import pickle

import pytest
import torch
from cases import CASES, tiny_flow
from libraries import optional

from flowsr.distributions import FlowDistribution
from flowsr.interop import NflowsTransform, ZukoTransform, to_nflows, to_zuko
from flowsr.interop.libraries import library
from flowsr.testing import check_transform, randomize
from flowsr.transforms import Compose, Haar, InvertibleConv1x1

zuko, needs_zuko = optional("zuko")
nflows, needs_nflows = optional("nflows.transforms")

SHAPE = (2, 2, 3)
DIMS = 12


def zuko_transform(kind):
    flow = getattr(zuko.flows, kind)(DIMS, 8, transforms=2, hidden_features=(9,))
    return randomize(ZukoTransform(flow.transform, image_shape=SHAPE, context_shape=(2, 2, 2)))


@needs_zuko
@pytest.mark.parametrize("kind", ["MAF", "NICE", "NSF"])
def test_lazy_transforms_of_zuko_keep_the_contract(kind):
    check_transform(zuko_transform(kind), 0.5 * torch.randn(SHAPE), torch.rand(2, 2, 2), model=True)


@needs_zuko
def test_a_zuko_transform_is_what_zuko_says():
    flow = zuko.flows.MAF(DIMS, 8, transforms=2, hidden_features=(9,)).double()
    wrapped = ZukoTransform(flow.transform, image_shape=SHAPE, context_shape=(2, 2, 2))
    x, context = torch.randn(4, *SHAPE).double(), torch.rand(4, 2, 2, 2).double()
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(SHAPE).double(), 1.0), 3)
    here = FlowDistribution(base, [wrapped.condition(context)]).log_prob(x)
    torch.testing.assert_close(here, flow(context.flatten(1)).log_prob(x.flatten(1)), rtol=1e-10, atol=1e-10)


def nflows_cases():
    made = library("nflows.transforms.autoregressive")
    resnet = library("nflows.nn.nets").ConvResidualNet

    def network(channels, out):
        return resnet(channels, out, hidden_channels=4, context_channels=2, num_blocks=1)

    vector = {"image_shape": SHAPE, "context_shape": (2, 2, 2), "flat": True}
    image = {"image_shape": SHAPE, "context_shape": (2, 2, 3)}
    autoregressive = made.MaskedAffineAutoregressiveTransform(DIMS, 13, context_features=8, num_blocks=1)
    coupling = nflows.AffineCouplingTransform(torch.tensor([1, 0]), network)
    mixing = nflows.CompositeTransform([nflows.OneByOneConvolution(2, identity_init=False), coupling])
    return {"autoregressive": (autoregressive, vector), "coupling": (coupling, image), "mixing": (mixing, image)}


@needs_nflows
@pytest.mark.filterwarnings("ignore:torch.triangular_solve")  # which nflows calls
@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "mixing"])
def test_transforms_of_nflows_keep_the_contract(kind):
    transform, shapes = nflows_cases()[kind]
    wrapped = randomize(NflowsTransform(transform, **shapes))
    check_transform(wrapped, torch.randn(SHAPE), torch.rand(shapes["context_shape"]), model=True)


@needs_nflows
def test_an_nflows_transform_may_change_the_shape():
    squeeze = NflowsTransform(nflows.SqueezeTransform(), image_shape=(2, 4, 6), latent_shape=(8, 2, 3))
    check_transform(squeeze, torch.randn(8, 2, 3))


@pytest.mark.parametrize("kind", [pytest.param("zuko", marks=needs_zuko), pytest.param("nflows", marks=needs_nflows)])
def test_foreign_parts_train_in_a_chain_with_ours(kind):
    """A flow of two libraries' parts: its log-density is that of the Jacobian, and every parameter moves."""
    if kind == "zuko":
        foreign = ZukoTransform(zuko.flows.MAF(12, 0, transforms=1).transform, image_shape=(3, 2, 2))
    else:
        made = library("nflows.transforms.autoregressive").MaskedAffineAutoregressiveTransform
        foreign = NflowsTransform(made(12, 13, num_blocks=1), image_shape=(3, 2, 2), flat=True)
    flow = randomize(Compose([Haar(), InvertibleConv1x1(3), foreign])).double()
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(12, 1, 1).double(), 1.0), 3)
    images, x = FlowDistribution(base, [flow]), torch.randn(3, 3, 2, 2).double()

    def encode(v):
        return flow.inv(v.reshape(3, 2, 2)).flatten()

    for image, value in zip(x, images.log_prob(x), strict=True):
        jacobian = torch.autograd.functional.jacobian(encode, image.flatten())
        expected = base.log_prob(encode(image.flatten()).reshape(12, 1, 1)) + torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    before = copy.deepcopy(flow.state_dict())
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append(-images.log_prob(x).mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    moved = dict(flow.named_parameters())
    assert len(moved) > 4 and all(not torch.equal(before[name], value) for name, value in moved.items())


@needs_nflows
@pytest.mark.parametrize("vectors", [False, True])
def test_ours_in_a_flow_of_nflows(vectors):
    case = CASES["coupling-context"]
    transform = case.transform().double()
    image_shape = transform.forward_shape(torch.Size(case.shape))
    shapes = {"image_shape": image_shape, "context_shape": case.context_shape} if vectors else {}
    normal = library("nflows.distributions.normal").StandardNormal
    size = [torch.Size(case.shape).numel()] if vectors else list(case.shape)
    flow = library("nflows.flows").Flow(to_nflows(transform, **shapes), normal(size)).double()
    assert {id(p) for p in flow.parameters()} >= {id(p) for p in transform.parameters()}
    x, context = torch.randn(4, *image_shape).double(), torch.rand(4, *case.context_shape).double()
    z, ladj = transform.inv_call_and_ladj(x, context)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1) + ladj
    given = (x.flatten(1), context.flatten(1)) if vectors else (x, context)
    torch.testing.assert_close(flow.log_prob(*given), expected, rtol=1e-9, atol=1e-9)
    samples, log_prob = flow.sample_and_log_prob(3, context=given[1])
    assert samples.shape == (4, 3, *given[0].shape[1:])
    scored = flow.log_prob(samples.flatten(0, 1), given[1].repeat_interleave(3, 0))
    torch.testing.assert_close(scored, log_prob.flatten(), rtol=1e-8, atol=1e-8)
    flow.log_prob(*given).sum().backward()
    assert all(p.grad is not None for p in transform.parameters())


@needs_zuko
@pytest.mark.parametrize("vectors", [False, True])
def test_ours_in_a_flow_of_zuko(vectors):
    case = CASES["coupling-context" if vectors else "coupling-halves"]
    transform = case.transform().double()
    image_shape = transform.forward_shape(torch.Size(case.shape))
    shapes = {"image_shape": image_shape, "context_shape": case.context_shape} if vectors else {}
    size = (torch.Size(case.shape).numel(),) if vectors else case.shape
    normal = torch.distributions.Independent
    base = zuko.lazy.UnconditionalDistribution(
        lambda loc: normal(torch.distributions.Normal(loc, 1.0), len(size)), torch.zeros(size).double(), buffer=True
    )
    flow = zuko.lazy.Flow(to_zuko(transform, **shapes), base)
    assert {id(p) for p in flow.parameters()} == {id(p) for p in transform.parameters()}
    x = torch.randn(4, *image_shape).double()
    context = torch.rand(4, *case.context_shape).double() if vectors else None
    z, ladj = transform.inv_call_and_ladj(x, context)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1) + ladj
    images = flow(context.flatten(1) if vectors else None)
    value = images.log_prob(x.flatten(1) if vectors else x)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    samples, log_prob = images.rsample_and_log_prob((3,))
    assert samples.shape[-len(size) :] == (x[0].numel(),) if vectors else samples.shape[-3:] == image_shape
    torch.testing.assert_close(images.log_prob(samples), log_prob, rtol=1e-8, atol=1e-8)
    value.sum().backward()
    assert all(p.grad is not None for p in transform.parameters())


@needs_zuko
@needs_nflows
def test_a_whole_model_in_their_flows():
    """A model's transform is one, with its capacity for any size."""
    flow = randomize(tiny_flow()).double()
    hr = torch.rand(2, 3, 8, 8).double()
    z, ladj = flow.transform.inv_call_and_ladj(hr)
    theirs, their_ladj = to_nflows(flow.transform)(hr)
    assert torch.equal(theirs, z) and torch.equal(their_ladj, ladj)
    theirs, their_ladj = to_zuko(flow.transform)().call_and_ladj(hr)
    assert torch.equal(theirs, z) and torch.equal(their_ladj, ladj)


@pytest.mark.parametrize(
    "adapter", [pytest.param(to_nflows, marks=needs_nflows), pytest.param(to_zuko, marks=needs_zuko)]
)
def test_adapters_survive_pickle_and_copies(adapter):
    there = randomize(adapter(InvertibleConv1x1(3), image_shape=(3, 2, 2)))
    for again in (pickle.loads(pickle.dumps(there)), copy.deepcopy(there)):
        x = torch.rand(5, 12)
        got, expected = (a(x)[0] if adapter is to_nflows else a()(x) for a in (again, there))
        assert type(again) is type(there) and torch.equal(got, expected)
        assert next(again.parameters()) is not next(there.parameters())


@needs_zuko
def test_importing_a_library_leaves_validation_on():
    """zuko switches it off for the whole process."""
    with pytest.raises(ValueError, match="Expected parameter scale"):
        torch.distributions.Normal(0.0, -1.0)


class Double(torch.distributions.Transform):
    domain = codomain = torch.distributions.constraints.real
    bijective = True

    def __init__(self, cache_size=0):
        super().__init__(cache_size=cache_size)
        self.factor = 2.0

    def _call(self, x):
        return self.factor * x

    def _inverse(self, y):
        return y / self.factor

    def log_abs_det_jacobian(self, x, y):
        return torch.full_like(x, self.factor).log()

    def with_cache(self, cache_size=1):
        again = Double(cache_size)
        again.factor = self.factor
        return again


def test_caches_of_torch_are_not_used():
    double, x = Double(cache_size=1), torch.ones(1, 2, 2)
    wrapped = ZukoTransform(double, image_shape=(1, 2, 2))
    assert wrapped.inv(x).unique().item() == 2.0
    double.factor = 3.0
    assert wrapped.inv(x).unique().item() == 3.0


def test_what_does_not_fit_is_refused():
    affine = torch.distributions.AffineTransform(0.0, 2.0)
    with pytest.raises(ValueError, match="as many entries"):
        ZukoTransform(affine, image_shape=(1, 2, 2), latent_shape=(1, 2, 3))
    with pytest.raises(ValueError, match=r"expected image_shape to be \(channels, height, width\); got \(4,\)"):
        ZukoTransform(affine, image_shape=(4,))
    with pytest.raises(ValueError, match="only a lazy transform takes a context"):
        ZukoTransform(affine, image_shape=(1, 2, 2), context_shape=(3,))
    with pytest.raises(ValueError, match="lazy transform of zuko"):
        ZukoTransform(lambda x: x, image_shape=(1, 2, 2))
    with pytest.raises(ValueError, match=r"of shape \(\*batch, 1, 2, 2\)"):
        ZukoTransform(affine, image_shape=(1, 2, 2))(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="forward and inverse; got Linear"):
        NflowsTransform(torch.nn.Linear(2, 2), image_shape=(1, 2, 2))
    case = CASES["foreign, as of zuko"].transform()
    with pytest.raises(ValueError, match=r"to be called with a context \(\*batch, 3\)"):
        case(torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match=r"end in shape \(3,\); got \(2,\)"):
        case.call_and_ladj(torch.zeros(1, 2, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="broadcasts"):
        case.call_and_ladj(torch.zeros(5, 1, 2, 2), torch.zeros(4, 3))


@needs_zuko
def test_whole_flows_of_zuko_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"give flow\.transform"):
        ZukoTransform(zuko.flows.MAF(4), image_shape=(1, 2, 2))


@needs_nflows
def test_nflows_caches_and_models_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"call its use_cache\(False\)"):
        NflowsTransform(nflows.OneByOneConvolution(2, using_cache=True), image_shape=SHAPE)
    with pytest.raises(ValueError, match=r"of a model give model\.transform"):
        to_nflows(tiny_flow())
