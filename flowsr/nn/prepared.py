"""What is computed from parameters alone, kept while these stay as they are: the price of a weight is paid once.

The kernels that run are not the parameters that train: they are scaled by an ActNorm, cast by autocast, laid out with
their channels last, and 1x1 convolutions are inverted. Where nobody asks for gradients of the parameters, that work is
the same at every call.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

T = TypeVar("T")

_GLANCED = 81
_AS_CONSTANTS: ContextVar[bool] = ContextVar("as_constants", default=False)
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def as_constants() -> Iterator[None]:
    """Within this context a graph that is written down holds the values that were kept, not how they are made.

    For graphs that leave torch: other runtimes know no inverse of a matrix. A pass without gradients must have gone
    before, on the same path, so that there are values, and the parameters must not change in between.

    Example:
        >>> weight, prepared = nn.Parameter(torch.ones(2)), Prepared()
        >>> with torch.no_grad():
        ...     _ = prepared("double", [weight], lambda: 2 * weight)
        >>> with as_constants():
        ...     print(prepared("double", [weight], lambda: 3 * weight))
        tensor([2., 2.])
    """
    token = _AS_CONSTANTS.set(True)
    try:
        yield
    finally:
        _AS_CONSTANTS.reset(token)


class Prepared:
    """Values made from parameters, made again when these change.

    A value is kept only where no gradient of the parameters is wanted: without gradients, or with parameters that are
    frozen. A parameter has changed if it is another tensor, lies elsewhere, or was written to in place. Writes behind
    autograd's back (``parameter.data``), by which averages of weights are often exchanged, leave no such trace. On CPUs
    they are noticed by some of the numbers, spread over the parameter: which a change of all of it does not miss, and
    one of single numbers may. Elsewhere, where looking at numbers means waiting for them, the next pass that wants
    gradients notices them, as it lets go of everything; ``load_state_dict``, or an operation in place under
    ``torch.no_grad()``, is noticed everywhere. Copies and pickles start empty.

    Cost: a comparison of a few numbers per call; memory for the values.

    Example:
        >>> weight, prepared = nn.Parameter(torch.ones(2)), Prepared()
        >>> with torch.no_grad():
        ...     first = prepared("double", [weight], lambda: 2 * weight)
        ...     again = prepared("double", [weight], lambda: 2 * weight)
        ...     _ = weight.add_(1)
        ...     print(again is first, prepared("double", [weight], lambda: 2 * weight))
        True tensor([4., 4.])
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, _Kept] = {}

    def __call__(
        self, key: Hashable, parameters: Sequence[Tensor], make: Callable[[], T], *, buffers: Sequence[Tensor] = ()
    ) -> T:
        """The value that ``make`` returns, or returned for this key while the parameters were what they are.

        Args:
            key: tells values of the same parameters apart.
            parameters: all that the value depends on, besides the key.
            make: computes it; with gradients of the parameters, where they are wanted.
            buffers: what else it depends on, that nobody differentiates.
        """
        if _AS_CONSTANTS.get() and key in self._kept:
            return self._kept[key].value
        if torch.compiler.is_compiling() or _is_traced():
            return make()
        if not _are_fixed(parameters):
            self._kept.clear()
            return make()
        tensors = (*parameters, *buffers)
        found = self._kept.get(key)
        if found is None or not found.is_of(tensors):
            # Not as tensors of inference mode, which no later pass with gradients could use.
            with torch.inference_mode(False), torch.no_grad():
                found = self._kept[key] = _Kept(tensors, make())
        return found.value

    def __reduce__(self) -> tuple[type["Prepared"], tuple[()]]:
        return Prepared, ()


class _Kept:
    """A value, and what the tensors that it was made from looked like."""

    def __init__(self, tensors: Sequence[Tensor], value: Any) -> None:
        self.value = value
        # Holding on to the memory, so that another tensor cannot come to lie in the same place.
        self._tensors = [x.detach() for x in tensors]
        self._glances = [_glance(x) for x in self._tensors]
        self._looked = self._look(tensors)

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether tensors are these and look as they did."""
        return self._look(tensors) == self._looked

    def _look(self, tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
        return [
            (x.data_ptr(), x._version, x.dtype, None if glance is None else glance.tobytes())
            for x, glance in zip(tensors, self._glances, strict=True)
        ]


def _glance(x: Tensor) -> Any:
    """Bits of some numbers of a tensor, as a view of its memory; None where reading it would make a device wait."""
    if x.device.type != "cpu":
        return None
    each = max(1, int(_GLANCED ** (1 / max(1, x.dim()))))  # along each axis
    every = (slice(None, None, -(-side // each) or 1) for side in x.shape)
    return x.view(_BITS[x.dtype.itemsize]).numpy()[(*every, ...)]


def _is_traced() -> bool:
    """Whether tensors are not what they seem: torch transforms functions, fakes them, or writes down what is done."""
    if peek_interpreter_stack() is not None:
        return True
    if not torch._C._len_torch_dispatch_stack():
        return False
    return any(getattr(mode, "_mode_key", None) is not None for mode in _get_current_dispatch_mode_stack())


def _are_fixed(parameters: Sequence[Tensor]) -> bool:
    """Whether no derivative can be asked for, in any of torch's ways, and changes would be seen."""
    wanted = torch.is_grad_enabled()
    # Transforms of functions (vmap, jvp, functional_call) put plain tensors in the place of parameters.
    return not torch.jit.is_tracing() and not any(
        type(p) is not nn.Parameter or (wanted and p.requires_grad) or p.is_inference() for p in parameters
    )


def runs_with_channels_last(x: Tensor) -> bool:
    """Whether convolutions of such a tensor are faster with the channels of a pixel beside each other: on CPUs."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


def channels_last(x: Tensor) -> Tensor:
    """A tensor ``(*batch, C, H, W)`` laid out with its channels last where that is faster, else as it is."""
    # Not by contiguous(memory_format=...), which vmap does not know.
    return x.movedim(-3, -1).contiguous().movedim(-1, -3) if runs_with_channels_last(x) else x


def convolved_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype that a convolution runs in: autocast's where it is on, which leaves float64 alone."""
    autocast = _is_autocast_on(x.device.type) and torch.float64 not in (x.dtype, weight.dtype)
    return torch.get_autocast_dtype(x.device.type) if autocast else weight.dtype


def _is_autocast_on(device: str) -> bool:
    try:  # is_autocast_available, which asks first, breaks the graph of torch.compile in torch 2.11
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # of a device that has none, such as "meta"
        return False


def rectified(layer: nn.Module, *inputs: Tensor | None, slope: float = 0.0) -> Tensor:
    """ReLU, or LeakyReLU, of what a layer gives: in place where no gradient is wanted and nobody else sees it.

    Memory that is not asked for is the cheapest: large tensors come page by page from the system.

    Args:
        layer: a convolution, whose result is new memory; what others give, or hooks have seen, is left as it is.
        inputs: of the layer.
        slope: of negative values.
    """
    x: Tensor = layer(*inputs)
    # In place on a view, autograd would copy.
    in_place = not x.requires_grad and getattr(layer, "makes_new_memory", False) and not _is_hooked(layer)
    return F.leaky_relu(x, slope, in_place) if slope else F.relu(x, in_place)


def _is_hooked(layer: nn.Module) -> bool:
    """Whether somebody may hold on to what a layer gives, or has put something of his own in its place."""
    return bool(layer._forward_hooks or _global_forward_hooks)
