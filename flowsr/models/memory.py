"""How much memory a model's pass takes, before it is run: an estimate, and a refusal in words of what does not fit.

What a convolutional network keeps at once grows with the pixels and little else. So the tensors alive are counted in
two small runs of the pass itself, and the line through the two counts is followed to the size asked for.
"""

import gc
import weakref
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowsr._support.free_memory import free_memory, memory_text, used_memory
from flowsr.errors import OutOfMemoryError
from flowsr.images import size_text
from flowsr.models.conditional import ConditionalModel, as_conditional
from flowsr.models.image_model import ImageModel

Task = Literal["encode", "draw", "train", "infer"]

_FIRST = 40 * 2**20
"""What the first pass of a process takes whatever its size: code, and what kernels set up."""
_ALLOCATOR = 1.2
"""What a process grows by for each byte of tensors; ``python -m benchmarks.memory`` shows how near that comes."""
_SURELY = {"encode": 2**15, "draw": 2**15, "train": 2**20, "infer": 2**20}
"""Bytes per pixel that no model here needs, ten times over: what fits so is not looked at."""
_ADAM = 4
"""Copies of the weights that training holds besides: gradients, two moments, and averaged weights."""


class _Line(NamedTuple):
    """Bytes of a pass: once, and for each pixel of the HR images together."""

    once: float
    each: float


_LINES: "weakref.WeakKeyDictionary[ImageModel, dict[Any, _Line]]" = weakref.WeakKeyDictionary()


def memory_estimate(model: ImageModel, size: tuple[int, int], *, batch: int = 1, task: Task = "encode") -> int:
    """The bytes that a pass of a model takes besides its weights, within a quarter of what is measured on a CPU.

    Cost: three passes over images of 32 and 64 pixels the first time, or of the least size that suits the model.

    Args:
        model: the model, on its device and in its dtype, with its memory mode.
        size: height and width of the HR images.
        batch: how many at once.
        task: "encode", which likelihoods take too, "draw", "train": an encoding with its way back, and what Adam and
            averaged weights hold, or "infer": a decoding with its way back to the latents, as chains of a posterior.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> small, large = (memory_estimate(flow, (side, side), task="draw") for side in (1000, 2000))
        >>> 3.5 < large / small < 4
        True
    """
    line = _line(model, task)
    weights = _ADAM * sum(p.numel() * p.element_size() for p in model.parameters()) if task == "train" else 0
    return _FIRST + int(_ALLOCATOR * (line.once + line.each * batch * size[0] * size[1])) + weights


def pixels_within(model: ImageModel, memory: float, *, task: Task) -> int:
    """How many HR pixels a pass of a model may have at most to take this many bytes, by :func:`memory_estimate`.

    Example:
        >>> import flowsr
        >>> flow = flowsr.load("sr-x4-small")
        >>> pixels = pixels_within(flow, 1e9, task="draw")
        >>> abs(memory_estimate(flow, (1, pixels), task="draw") - 1e9) < 1e4
        True
    """
    least, more = (memory_estimate(model, (1, side), task=task) for side in (0, 10**6))
    return max(0, int((memory - least) / (more - least) * 1e6)) if more > least else 2**62


def memory_budget(device: torch.device, limit: int | None = None) -> int | None:
    """The bytes that work may still take: what the process has left of a limit, or three quarters of what is free.

    Args:
        device: where.
        limit: bytes for the process in all, what it holds already included; it counts no more than what is free.

    Returns:
        Bytes, or None without a limit where nothing tells how much is free.

    Example:
        >>> memory_budget(torch.device("cpu"), limit=1_000_000)
        0
    """
    free = free_memory(device)
    if limit is None:
        return None if free is None else free * 3 // 4
    left = max(0, limit - used_memory(device))
    return left if free is None else min(left, free)


def surely_fits(size: tuple[int, int], memory: float, *, task: Task) -> bool:
    """Whether a pass over an HR image of this size takes less than so many bytes, whatever the model."""
    return size[0] * size[1] * _SURELY[task] < memory


def require_memory(
    model: ImageModel, size: tuple[int, int], *, batch: int = 1, task: Task, what: str, instead: str, passes: int = 1
) -> None:
    """Raise OutOfMemoryError, before anything is allocated, for a pass that does not fit into the memory there is.

    Cost: none for what surely fits; that of :func:`memory_estimate` for the rest.

    Args:
        model: the model.
        size: height and width of the HR images.
        batch: how many at once.
        task: see :func:`memory_estimate`.
        what: shall be done, for the message: "sampling cat.png".
        instead: what to do in place of it.
        passes: how many are held at once, two for a loss of an encoding and a decoding.

    Raises:
        OutOfMemoryError: saying what, how much it takes, how much there is, and what to do.
    """
    free = free_memory(model.device)
    if free is None or surely_fits((passes * batch * size[0], size[1]), free, task=task):
        return
    needed = memory_estimate(model, size, batch=passes * batch, task=task)
    if needed > free:
        images = f"{batch} images of " if batch > 1 else ""
        raise OutOfMemoryError(
            f"expected work that fits into memory; {what}, {images}{size_text(size)}, takes about "
            f"{memory_text(needed)}, and {memory_text(free)} are free: {instead}"
        )


def batch_that_fits(model: ImageModel, size: tuple[int, int], *, most: int, task: Task) -> int:
    """How many images at once take three quarters of the free memory, from 1 to a number of them.

    Cost: none for what surely fits; that of :func:`memory_estimate` for the rest.

    Args:
        model: the model.
        size: height and width of the HR images.
        most: there are, at least 1.
        task: see :func:`memory_estimate`.

    Example:
        >>> import flowsr
        >>> batch_that_fits(flowsr.load("sr-x4-small"), (8, 8), most=4, task="infer")
        4
    """
    budget, (height, width) = memory_budget(model.device), size
    if budget is None or surely_fits((most * height, width), budget, task=task):
        return most
    return max(1, min(most, pixels_within(model, budget, task=task) // (height * width)))


def _line(model: ImageModel, task: Task) -> _Line:
    modes = tuple(getattr(module, "memory", None) for module in model.modules())
    known, key = _LINES.setdefault(model, {}), (task, model.dtype, model.device, modes)
    if key not in known:
        side = -(-32 // model.multiple) * model.multiple
        # The first pass makes what models keep, such as weights in another layout, which is there from then on.
        _, small, large = (_counted(grey_pass(model, times * side, task)) for times in (1, 1, 2))
        each = max(0.0, (large - small) / (3 * side**2))
        known[key] = _Line(max(0.0, small - each * side**2), each)
    return known[key]


def grey_pass(model: ImageModel, side: int, task: Task) -> Callable[[], object]:
    """One pass of a model over a grey image of a size, to be counted or timed when it is called.

    Args:
        model: the model.
        side: of the HR image, height and width.
        task: see :func:`memory_estimate`.

    Example:
        >>> import flowsr
        >>> grey_pass(flowsr.load("sr-x4-small"), 16, "draw")().shape
        torch.Size([1, 3, 16, 16])
    """
    conditional = as_conditional(model)
    hr = torch.full((1, model.config.image_channels, side, side), 0.5, dtype=model.dtype, device=model.device)
    if task == "draw" and conditional is not None:
        return lambda: _decoded(conditional, hr)
    if task == "infer" and conditional is not None:
        return lambda: _inferred(conditional, hr)
    return lambda: _encoded(model, hr, train=task == "train")


@torch.no_grad()
def _decoded(model: ConditionalModel, hr: Tensor) -> Tensor:
    lr = hr[..., :: model.upscale, :: model.upscale]
    return model.decode_unchecked(
        lr, [z[None] for z in model.draw_latents(lr[0], temperature=0.0, generator=torch.Generator())]
    )


def _inferred(model: ConditionalModel, hr: Tensor) -> object:
    lr = hr[..., :: model.upscale, :: model.upscale]
    with torch.enable_grad():
        z = [z[None].requires_grad_() for z in model.draw_latents(lr[0], temperature=0.0, generator=torch.Generator())]
        return torch.autograd.grad(model.decode_unchecked(lr, z).sum(), z)


def _encoded(model: ImageModel, hr: Tensor, *, train: bool) -> object:
    conditional = as_conditional(model)
    lr = None if conditional is None else hr[..., :: conditional.upscale, :: conditional.upscale]
    with torch.set_grad_enabled(train):
        terms = model.log_likelihood_terms(hr, lr)
        if not train:
            return terms
        total = torch.stack([term.value.sum() for term in terms]).sum()
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return torch.autograd.grad(total, weights, allow_unused=True)


class _Counting(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and what operations use beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.most = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.alive + _beside(func, args))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def _counted(work: Callable[[], object]) -> int:
    """The most bytes that the tensors made by a computation take at once, those that it returns among them."""
    gc.collect()
    with torch.random.fork_rng(devices=[]), _Counting() as counting:
        work()
    return counting.most


def _beside(func: Any, args: Any) -> int:
    """What a convolution takes beside its result: copies in a layout of its own, or, in float64, unfolded patches."""
    if func is torch.ops.aten.convolution.default:
        image, kernel, times = args[0], args[1], 1
        if image.dtype != torch.float64 and image.is_contiguous(memory_format=torch.channels_last):
            return 0
    elif func is torch.ops.aten.convolution_backward.default:
        image, kernel, times = args[1], args[2], 2
    else:
        return 0
    per_pixel = kernel.shape[1:].numel() if image.dtype == torch.float64 else image.shape[1] + kernel.shape[0]
    return times * image.numel() // image.shape[1] * per_pixel * image.element_size()
