"""The conformance test of image transforms, for this package and for anybody's own transform.

    from flowsr.testing import check_transform, randomize

    transform = randomize(MyTransform(channels=4))
    check_transform(transform, torch.randn(4, 6, 4))

Checks are plain functions that raise AssertionError with what differs, so they run under any test framework.
"""

import copy
import io
import itertools
import math
import pickle
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import transform_to

from flowsr._support.shapes import place_of
from flowsr.transforms import ImageTransform, per_pixel

ModuleType = TypeVar("ModuleType", bound=nn.Module)

TOLERANCES = {
    "float64 leaf": 1e-9,
    "float64 model": 1e-6,
    "float32 leaf": 1e-4,
    "float32 model": 1e-3,
}
"""Largest accepted differences; "leaf" is one bijection, "model" a whole flow of many."""


@torch.no_grad()
def randomize(module: ModuleType, *, strength: float = 0.2, generator: torch.Generator | None = None) -> ModuleType:
    """Add noise to every parameter, in place, so that properties are not tested on the identity.

    Zero-initialized heads make a fresh flow the identity, for which every property holds.

    Args:
        module: a transform or a model.
        strength: standard deviation of the noise, divided by the square root of the fan-in for matrices.
        generator: source of randomness; the global one by default.

    Example:
        >>> from flowsr.nn import ZeroConv2d
        >>> bool(randomize(ZeroConv2d(3, 4)).weight.abs().max() > 0)
        True
    """
    for parameter in module.parameters():
        fan_in = max(1, parameter.numel() // parameter.shape[0]) if parameter.dim() > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device=place_of(generator))
        parameter.add_(strength / math.sqrt(fan_in) * noise.to(parameter))
    return module


def check_transform(
    transform: ImageTransform, z: Tensor, context: Any = None, *, model: bool = False, jacobian: bool = True
) -> None:
    """Check that a transform keeps the contract of :class:`flowsr.transforms.ImageTransform`.

    In float64: inverse from both ends; log-determinants against the autograd Jacobian in both directions; one pass
    equals two; shapes for batch shapes (), (2,) and (3, 2); a batch equals its images one by one; log-determinants per
    pixel that sum to the whole; calls leave no trace; gradients reach every parameter; pickle, deepcopy, hash, repr
    and state dict; refusal of a wrong rank;
    broadcasting of the context. In float32 and under bfloat16 autocast: agreement and dtypes.

    Cost: the Jacobian takes one pass per dimension; keep C·H·W under a few hundred.

    Args:
        transform: the transform, with random parameters (see :func:`randomize`).
        z: one latent, ``(C, H, W)``, without batch dimensions.
        context: tensor without batch dimensions, if the transform takes one.
        model: use the tolerances for whole models.
        jacobian: compare log-determinants with autograd.

    Raises:
        AssertionError: naming the property that fails.

    Example:
        >>> from flowsr.transforms import Haar
        >>> check_transform(Haar(), torch.randn(8, 2, 3))
    """
    kind = "model" if model else "leaf"
    tolerance = TOLERANCES[f"float64 {kind}"]
    transform = copy.deepcopy(transform).double()
    z = z.double()
    context = context.double() if isinstance(context, Tensor) else context
    before = {key: value.clone() for key, value in transform.state_dict().items()}

    check_returns(transform, z, context)
    check_inverse(transform, z, context, tolerance=tolerance)
    if jacobian:
        check_log_det(transform, z, context, tolerance=tolerance)
    check_batches(transform, z, context, tolerance=tolerance)
    check_per_pixel(transform, z, context, tolerance=tolerance)
    check_pyro_interface(transform, z, context, tolerance=tolerance)
    check_gradients(transform, z, context)
    check_precision(transform, z, context, tolerance=TOLERANCES[f"float32 {kind}"])
    check_module(transform, z, context)

    after = transform.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "calls changed parameters or buffers"


def check_returns(transform: ImageTransform, z: Tensor, context: Any = None) -> None:
    """Both passes return two tensors: the value and its log-determinant, of the batch's shape."""
    value = z
    for call in (transform.call_and_ladj, transform.inv_call_and_ladj):
        got = call(value, context)
        what = f"{len(got)} values" if isinstance(got, tuple) else f"a {type(got).__name__}"
        assert isinstance(got, tuple) and len(got) == 2 and all(isinstance(part, Tensor) for part in got), (
            f"{call.__name__} of {type(transform).__name__}: expected two tensors, the value and its log-determinant; "
            f"got {what}: return (value, ladj)"
        )
        value, ladj = got
        assert ladj.shape == (), (
            f"{call.__name__} of {type(transform).__name__}: expected one log-determinant per image, shape () here; "
            f"got shape {tuple(ladj.shape)}: sum over channels and pixels"
        )


def check_inverse(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """``inv(call(z)) = z``, ``call(inv(x)) = x`` and opposite log-determinants."""
    x, ladj = transform.call_and_ladj(z, context)
    back, inv_ladj = transform.inv_call_and_ladj(x, context)
    _close(back, z, tolerance, "inverse of the image of z")
    _close(inv_ladj, -ladj, tolerance * z[0].numel(), "log-determinants of the two directions, up to sign,")
    image = _random_image(transform, x.shape, like=x)
    latent, _ = transform.inv_call_and_ladj(image, context)
    _close(transform.call_and_ladj(latent, context)[0], image, tolerance, "image of the latent of x")


def check_log_det(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """Both log-determinants equal those of the autograd Jacobian."""
    x, ladj = transform.call_and_ladj(z, context)
    inv_ladj = transform.inv_call_and_ladj(x, context)[1]
    for name, function, point, value in (
        ("generating", transform.call_and_ladj, z, ladj),
        ("encoding", transform.inv_call_and_ladj, x, inv_ladj),
    ):
        # Bound as defaults: the closure must not see the loop's next values.
        def flat(v: Tensor, function: Any = function, shape: torch.Size = point.shape) -> Tensor:
            return function(v.reshape(shape), context)[0].flatten()

        jacobian = torch.autograd.functional.jacobian(flat, point.flatten())
        reference = torch.linalg.slogdet(jacobian)[1]
        _close(value, reference, tolerance * point.numel(), f"log-determinant ({name}) and that of the Jacobian")


def check_batches(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """Shapes for several batch shapes; a batch equals its images one by one; a context may broadcast."""
    for batch in ((), (2,), (3, 2)):
        latents = torch.randn(*batch, *z.shape, dtype=z.dtype, device=z.device)
        contexts = _repeat(context, batch)
        x, ladj = transform.call_and_ladj(latents, contexts)
        assert x.shape == transform.forward_shape(latents.shape), f"forward_shape is wrong for batch {batch}"
        assert latents.shape == transform.inverse_shape(x.shape), f"inverse_shape is wrong for batch {batch}"
        assert ladj.shape == batch, f"expected a log-determinant of shape {batch}; got {tuple(ladj.shape)}"
        back, inv_ladj = transform.inv_call_and_ladj(x, contexts)
        assert inv_ladj.shape == batch, f"expected a log-determinant of shape {batch}; got {tuple(inv_ladj.shape)}"
        for index in _indices(batch):
            single = contexts[index] if isinstance(contexts, Tensor) else contexts
            alone, alone_ladj = transform.call_and_ladj(latents[index], single)
            _close(alone, x[index], tolerance, f"image alone and in a batch of shape {batch}")
            _close(alone_ladj, ladj[index], tolerance * z.numel(), f"log-determinant alone and in batch {batch}")
            _close(back[index], latents[index], tolerance, f"inverse in a batch of shape {batch}")
        if isinstance(context, Tensor) and len(batch) == 2:
            few = _repeat(context, batch[1:])
            shared = transform.call_and_ladj(latents, few)[0]
            full = transform.call_and_ladj(latents, few.expand(*batch, *context.shape))[0]
            _close(shared, full, tolerance, "shared and expanded context")
    try:
        transform.call_and_ladj(z[0], context)
    except ValueError as error:
        assert "expected" in str(error), f"the error for a 2-D input does not say what was expected: {error}"
    else:
        raise AssertionError("expected a ValueError for an input without a channel dimension; got none")


def check_per_pixel(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """Within :func:`flowsr.transforms.per_pixel` both log-determinants are maps that sum to the whole."""
    for batch in ((), (2,)):
        latents = torch.randn(*batch, *z.shape, dtype=z.dtype, device=z.device)
        contexts = _repeat(context, batch)
        x, _ = transform.call_and_ladj(latents, contexts)
        for name, function, point in (
            ("generating", transform.call_and_ladj, latents),
            ("encoding", transform.inv_call_and_ladj, x),
        ):
            value, whole = function(point, contexts)
            with per_pixel():
                same, local = function(point, contexts)
            shape = tuple(local.shape)
            assert len(shape) == len(batch) + 2, f"expected a map (*batch, h, w) per pixel, {name}; got shape {shape}"
            _close(local.sum((-2, -1)), whole, tolerance * z.numel(), f"sum of the map and log-determinant, {name},")
            _close(same, value, tolerance, f"value with and without maps, {name},")


def check_pyro_interface(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """The transform, its inverse and its conditioned form behave as Pyro expects."""
    conditioned = transform if context is None else transform.condition(context)
    x, ladj = transform.call_and_ladj(z, context)
    _close(conditioned(z), x, tolerance, "transform(z) and call_and_ladj(z)")
    _close(conditioned.inv(x), z, tolerance, "transform.inv(x)")
    _close(conditioned.log_abs_det_jacobian(z, x), ladj, tolerance * z.numel(), "log_abs_det_jacobian")
    _close(conditioned.inv.log_abs_det_jacobian(x, z), -ladj, tolerance * z.numel(), "inv.log_abs_det_jacobian")
    _close(conditioned.inv.inv(z), x, tolerance, "the inverse of the inverse and the transform")
    assert conditioned.with_cache(1) is conditioned, "with_cache must not copy parameters"
    assert conditioned.event_dim == 3 and conditioned.bijective, "expected event_dim 3 and bijective"
    own, inverse = dict(transform.named_parameters()), list(transform.inv.parameters())
    assert {id(p) for p in own.values()} == {id(p) for p in inverse}, "parameters of the inverse are not the same"


def check_gradients(transform: ImageTransform, z: Tensor, context: Any = None) -> None:
    """Finite gradients reach the input and every parameter, generating and encoding."""
    for name, function in (("generating", transform.call_and_ladj), ("encoding", transform.inv_call_and_ladj)):
        transform.zero_grad()
        if name == "generating":
            point = torch.randn_like(z)
        else:
            point = _random_image(transform, transform.forward_shape(z.shape), like=z)
        point.requires_grad_()
        value, ladj = function(point, context)
        (value.square().sum() + ladj).backward()
        assert point.grad is not None and torch.isfinite(point.grad).all(), f"no finite gradient of the input, {name}"
        for key, parameter in transform.named_parameters():
            assert parameter.grad is not None, f"no gradient for {key}, {name}"
            assert torch.isfinite(parameter.grad).all(), f"gradient of {key} is not finite, {name}"
    # Deep copies and pickles of a used transform must not carry graphs.
    copy.deepcopy(transform)
    transform.zero_grad()


def check_precision(transform: ImageTransform, z: Tensor, context: Any = None, *, tolerance: float) -> None:
    """float32 agrees with float64; under bfloat16 autocast the bijection itself stays in float32."""
    x, ladj = transform.call_and_ladj(z, context)
    single = copy.deepcopy(transform).float()
    z32, context32 = z.float(), context.float() if isinstance(context, Tensor) else context
    x32, ladj32 = single.call_and_ladj(z32, context32)
    assert x32.dtype == ladj32.dtype == torch.float32, f"expected float32; got {x32.dtype} and {ladj32.dtype}"
    scale = max(1.0, float(x.detach().abs().max()))
    _close(x32.double(), x, tolerance * scale, "float32 and float64 image")
    _close(ladj32.double(), ladj, tolerance * z.numel(), "float32 and float64 log-determinant")
    with torch.autocast("cpu", torch.bfloat16):
        mixed, mixed_ladj = single.call_and_ladj(z32, context32)
        back, _ = single.inv_call_and_ladj(mixed, context32)
    assert mixed.dtype == mixed_ladj.dtype == torch.float32, f"autocast reached the bijection: {mixed.dtype}"
    # Both directions run the same conditioner on nearly the same input, so inversion survives its bfloat16.
    _close(back.double(), z, max(0.05, 50 * tolerance) * scale, "inverse under bfloat16 autocast")


def check_module(transform: ImageTransform, z: Tensor, context: Any = None) -> None:
    """State dict, pickle, deepcopy, hash, repr; and the same result in training and evaluation mode."""
    x = transform.call_and_ladj(z, context)[0].detach()
    clone = pickle.loads(pickle.dumps(transform))
    assert torch.equal(clone.call_and_ladj(z, context)[0], x), "a pickled transform gives another image"
    buffer = io.BytesIO()
    torch.save(transform.state_dict(), buffer)
    buffer.seek(0)
    randomize(clone)
    clone.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(clone.call_and_ladj(z, context)[0], x), "a state dict does not restore the transform"
    assert hash(transform) == hash(transform) and transform == transform, "not hashable or not equal to itself"
    assert type(transform).__name__ in repr(transform), f"repr does not name the class: {transform!r}"
    training = transform.training
    assert torch.equal(transform.eval().call_and_ladj(z, context)[0], x), "evaluation mode changes the image"
    assert torch.equal(transform.train().call_and_ladj(z, context)[0], x), "training mode changes the image"
    transform.train(training)


def _random_image(transform: ImageTransform, shape: torch.Size, *, like: Tensor) -> Tensor:
    # Of unbounded values, unless the transform gives bounded ones only.
    noise = torch.randn(shape, dtype=like.dtype, device=like.device)
    return transform_to(transform.codomain)(noise)  # type: ignore[no-any-return]


def _close(got: Any, expected: Tensor, tolerance: float, what: str) -> None:
    assert got.shape == expected.shape, f"{what}: shapes {tuple(got.shape)} and {tuple(expected.shape)} differ"
    difference = float((got - expected).detach().abs().max()) if got.numel() else 0.0
    assert difference <= tolerance, f"{what}: differ by {difference:.3g}, more than {tolerance:.3g}"


def _repeat(context: Any, batch: tuple[int, ...]) -> Any:
    if not isinstance(context, Tensor):
        return context
    return context + 0.1 * torch.randn(*batch, *context.shape, dtype=context.dtype, device=context.device)


def _indices(batch: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, batch)))
