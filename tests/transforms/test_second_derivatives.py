"""Laplace approximations need the Hessian of a log-density: second derivatives are there wherever first ones are."""

import pytest
import torch
from cases import CASES, tiny
from torch.autograd import gradgradcheck

from flowsr.transforms import SplineMap


def _objective(case, transform, context, *, encode):
    method = transform.inv_call_and_ladj if encode else transform.call_and_ladj
    weights = None

    def objective(value):
        nonlocal weights
        out, ladj = method(value, context)
        if weights is None:
            weights = torch.randn_like(out.detach())
        return (weights * out).sum() + 0.5 * out.square().sum() + ladj

    return objective


@pytest.mark.parametrize("encode", [True, False], ids=["encode", "decode"])
@pytest.mark.parametrize("name", CASES)
def test_hessian_times_a_vector_is_a_difference_of_gradients(name, encode):
    """With respect to what is transformed and to all parameters, along one direction of both."""
    case = CASES[name]
    transform = case.transform().double()
    context = None if case.context() is None else case.context().double()
    value = case.latent().double()
    if encode:
        value = transform.call_and_ladj(value, context)[0].detach()
    objective = _objective(case, transform, context, encode=encode)
    parameters = [p for p in transform.parameters() if p.requires_grad]
    value.requires_grad_()
    inputs = [value, *parameters]
    direction = [torch.randn_like(x) for x in inputs]

    def gradients(create_graph=False):
        found = torch.autograd.grad(objective(value), inputs, create_graph=create_graph, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]

    slopes = gradients(create_graph=True)
    along = sum((g * d).sum() for g, d in zip(slopes, direction, strict=True))
    product = torch.autograd.grad(along, inputs, allow_unused=True)
    product = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, product, strict=True)]
    assert all(torch.isfinite(p).all() for p in product)

    def difference(step):
        sides = []
        for shift in (step, -step):
            with torch.no_grad():
                moved = [x + shift * d for x, d in zip(inputs, direction, strict=True)]
                before = [x.clone() for x in inputs]
                for x, new in zip(inputs, moved, strict=True):
                    x.copy_(new)
            sides.append([g.detach() for g in gradients()])
            with torch.no_grad():
                for x, old in zip(inputs, before, strict=True):
                    x.copy_(old)
        return [(up - down) / (2 * step) for up, down in zip(*sides, strict=True)]

    # The smallest error of three steps: larger ones have the third derivative in them, smaller ones rounding.
    errors = []
    for step in (1e-6, 1e-7, 1e-8):
        expected = difference(step)
        scale = max(float(e.abs().max()) for e in expected)
        errors.append(max(float((p - e).abs().max()) for p, e in zip(product, expected, strict=True)) / scale)
        assert scale > 0.1
    assert min(errors) < 1e-4


@pytest.mark.parametrize("inverse", [False, True], ids=["encode", "decode"])
@pytest.mark.parametrize("x", [-7.0, -2.0, 2.0, 7.0, -1.3, 0.4])
def test_splines_inside_at_and_outside_their_bound(x, inverse):
    spline = SplineMap(bins=4, bound=2.0)
    x = torch.full((1, 1, 1), x, dtype=torch.float64, requires_grad=True)
    h = torch.randn(11, 1, 1, dtype=torch.float64, requires_grad=True)
    method = spline.decode if inverse else spline.encode
    y, ladj = method(x, h)
    slopes = torch.autograd.grad(y.sum() + ladj.sum(), (x, h), create_graph=True)
    second = torch.autograd.grad(sum(s.sum() for s in slopes if s.requires_grad), (x, h), allow_unused=True)
    assert all(torch.isfinite(s).all() for s in second if s is not None)
    if abs(float(x.detach())) > 2.0:
        assert torch.equal(y, x)
        assert ladj.item() == 0.0
    if abs(float(x.detach())) != 2.0:
        assert gradgradcheck(lambda x, h: torch.stack([part.sum() for part in method(x, h)]), (x, h))


@pytest.mark.parametrize("name", ["sr-x4", "irn-x4", "srflow-x4"])
def test_the_hessian_of_a_posterior(name):
    """Of the image, by autograd in one go, as a Laplace approximation computes it."""
    flow = tiny(name, strength=0.1, image_channels=1).double().requires_grad_(False)
    lr = torch.rand(1, 2, 2, dtype=torch.float64)
    posterior = flow.condition(lr, lr_log_scale=-1.0) if name != "srflow-x4" else flow.condition(lr)
    hr = posterior.sample().flatten()
    log_prob = lambda x: posterior.log_prob(x.reshape(1, 8, 8))  # noqa: E731
    hessian = torch.autograd.functional.hessian(log_prob, hr)
    assert torch.allclose(hessian, hessian.T, atol=1e-8 * hessian.abs().max())
    x, unit = hr.clone().requires_grad_(), torch.zeros_like(hr)
    unit[5] = 1e-6
    up, down = (torch.autograd.grad(log_prob(x + d), x)[0] for d in (unit, -unit))
    assert torch.allclose(hessian[5], (up - down) / 2e-6, atol=1e-5 * float(hessian.abs().max()))
