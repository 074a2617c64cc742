"""A model's decoder as a graph that runs without this package: ``torch.export`` and ONNX."""

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsr._support.atomic import atomic_path
from flowsr._support.extras import import_extra
from flowsr.distributions import Temperature, level_temperatures
from flowsr.models.conditional import ConditionalModel, require_conditional
from flowsr.nn.prepared import as_constants

_SUFFIXES = (".pt2", ".onnx")


class Decoder(nn.Module):
    """The most likely latents decoded: ``hr = decode(lr, z = 0)``, the image at temperature 0.

    Args:
        flow: a model with the capability ``condition``.

    Example:
        >>> import flowsr
        >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(1, 3, 4, 6)
        >>> torch.equal(Decoder(flow)(lr), flow.decode(lr))
        True
    """

    def __init__(self, flow: ConditionalModel) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, lr: Tensor) -> Tensor:
        """HR images ``(n, C, s·h, s·w)`` of LR images ``(n, C, h, w)``."""
        shapes = self.flow.latent_shapes(*lr.shape[-2:])
        return self.flow.decode_unchecked(lr, [lr.new_zeros(lr.shape[0], *shape) for shape in shapes])


class NoiseDecoder(Decoder):
    """A draw, with its noise as an input: ``hr = decode(lr, τ·z)``, noise standard normal.

    Args:
        flow: a model with the capability ``condition``.
        temperature: τ ≥ 0, or one per level, coarse to fine.

    Example:
        >>> import flowsr
        >>> flow, lr = flowsr.HCFlow.from_preset("sr-x4-small"), torch.rand(1, 3, 4, 6)
        >>> noise = torch.randn(noise_shape(flow, lr))
        >>> noise.shape, NoiseDecoder(flow, temperature=0.8)(lr, noise).shape
        (torch.Size([1, 48, 4, 6]), torch.Size([1, 3, 16, 24]))
    """

    def __init__(self, flow: ConditionalModel, *, temperature: Temperature = 1.0) -> None:
        super().__init__(flow)
        self.temperature = level_temperatures(temperature, len(flow.latent_levels()))

    def forward(self, lr: Tensor, noise: Tensor) -> Tensor:  # type: ignore[override]
        """HR images of LR images and noise of ``noise_shape``."""
        return self.flow.decode_noise(lr, noise, temperature=self.temperature)


def noise_shape(flow: ConditionalModel, lr: Tensor) -> torch.Size:
    """The shape of the noise of one draw for each LR image ``(n, C, h, w)``: that of the packed latent.

    Raises:
        ValueError: for a density of images alone.

    Example:
        >>> import flowsr
        >>> noise_shape(flowsr.SRFlow.from_preset("srflow-x4-small"), torch.rand(2, 3, 4, 6))
        torch.Size([2, 192, 2, 3])
    """
    base = require_conditional(flow, what="a draw")._latents(lr.to(flow.device, flow.dtype), temperature=1.0)
    return torch.Size([*base.batch_shape, *base.event_shape])


@torch.no_grad()
def export_decoder(
    flow: ConditionalModel,
    path: str | os.PathLike[str],
    *,
    noise: bool = False,
    temperature: Temperature = 1.0,
    size: Sequence[int] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a model's decoder as a graph, for ``torch.export.load`` (``.pt2``) or ONNX runtimes (``.onnx``).

    Its inputs are ``lr``, ``(n, C, h, w)`` in [0, 1], and with ``noise`` also ``noise``, standard normal of the shape
    of the packed latent (``noise_shape``); its output ``hr`` is not clamped. Without ``noise`` it is the image at
    temperature 0; with it a draw at the temperature given, which is fixed in the graph. ``flow.sample`` draws its noise
    per seed in an order of its own, so that ``torch.randn`` gives other draws of the same distribution.

    Batch, height and width may be any at run time, in both formats; for SRFlow height and width must be even, which
    nothing checks there. Weights are in the graph as they are: what is computed from them, such as inverses of 1x1
    convolutions, is written as numbers. The file appears whole or not at all.

    Cost: tracing, tens of seconds for a small model, and for ONNX as much again.

    Args:
        flow: a model with the capability ``condition``; a copy of it on the CPU is exported.
        path: a name that ends in ``.pt2`` or ``.onnx``, in a folder that exists.
        noise: whether noise is an input.
        temperature: τ ≥ 0 of the draws, or one per level, coarse to fine.
        size: ``(height, width)`` of LR images, for a graph of one size and any batch; by default of any size.
        overwrite: replace an existing file.

    Raises:
        ValueError: for another suffix, a density of images alone, a temperature without noise, or a size that the model
            does not take.
        MissingExtraError: for ``.onnx``, if onnx and onnxscript are not installed.
        FileExistsError: if the file exists and must not be overwritten.

    References:
        PyTorch, torch.export and torch.onnx; ONNX, Open Neural Network Exchange.

    Example:
        >>> import flowsr, tempfile
        >>> flow = flowsr.IRN.from_preset("irn-x2-small", blocks=(1,)).eval()
        >>> path = Path(tempfile.mkdtemp()) / "decoder.pt2"
        >>> flowsr.export_decoder(flow, path)
        >>> lr = torch.rand(3, 3, 5, 7)
        >>> torch.allclose(torch.export.load(path).module()(lr), flow.decode(lr), atol=1e-5)
        True
    """
    path = Path(path)
    _check(flow, path, noise=noise, temperature=temperature, size=size)
    # A copy, as the values that are made ready for the graph are none of the model's, nor is its mode.
    flow = copy.deepcopy(flow).cpu().eval().requires_grad_(False)
    module = NoiseDecoder(flow, temperature=temperature) if noise else Decoder(flow)
    with atomic_path(path, overwrite=overwrite) as temporary, warnings.catch_warnings():
        # Of the exporters' own insides.
        warnings.simplefilter("ignore")
        program = _traced(module, size)
        if path.suffix == ".pt2":
            torch.export.save(program, temporary)
        else:
            names = ["lr", "noise"] if noise else ["lr"]
            options: dict[str, Any] = {"input_names": names, "output_names": ["hr"], "verbose": False}
            written: Any = torch.onnx.export(program, dynamo=True, **options)
            written.save(temporary)


def _check(
    flow: ConditionalModel, path: Path, *, noise: bool, temperature: Temperature, size: Sequence[int] | None
) -> None:
    require_conditional(flow, what="a decoder of LR images")
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"expected a name that ends in .pt2 (torch.export) or .onnx; got {path.name!r}")
    if size is not None:
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"expected size to be (height, width) of an LR image, in pixels; got {size}")
        flow.latent_shapes(*size)
    if not noise and set(level_temperatures(temperature, len(flow.latent_levels()))) != {1.0}:
        raise ValueError("expected no temperature without noise, which is the image at temperature 0; got one")
    if path.suffix == ".onnx":
        for library in ("onnx", "onnxscript"):
            import_extra(library, to="write a graph for ONNX")


def _traced(module: Decoder, size: Sequence[int] | None) -> torch.export.ExportedProgram:
    """The program of a decoder, whose constants are what an ordinary pass made ready."""
    flow, multiple = module.flow, module.flow.multiple // module.flow.upscale
    # Sides that differ, and are no special ones, so that nothing is taken for a constant.
    height, width = (4 * multiple, 6 * multiple) if size is None else size
    lr = torch.rand(2, flow.config.image_channels, height, width, dtype=flow.dtype, device="cpu")
    inputs = (lr, torch.zeros(noise_shape(flow, lr), dtype=flow.dtype, device="cpu"))
    inputs = inputs if isinstance(module, NoiseDecoder) else inputs[:1]
    free = {0: torch.export.Dim.AUTO}
    if size is None:
        free |= {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    shapes = {name: dict(free) for name in ("lr", "noise")[: len(inputs)]}
    module(*inputs)
    with as_constants():
        return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
