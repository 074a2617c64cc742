"""How much memory a pass and a training step take, measured and estimated: ``python -m benchmarks.memory``.

The figure is the growth of a process's peak resident memory over one encoding, one drawing, or one step of the
likelihood in each memory mode, on random crops, in fp32 on one CPU thread. Gradients and Adam's moments are part of a
step. Each gets a process of its own, as a peak never falls. Beside it stands what the model's memory estimate says.
"""

import argparse
import subprocess
import sys
from typing import Any, cast

import torch
from torch import Tensor

from flowsr.models import ImageModel, presets
from flowsr.models.conditional import as_conditional
from flowsr.models.memory import Task, memory_estimate
from flowsr.training.objectives import likelihood_loss
from flowsr.training.preparation import build_model
from flowsr.training.wrapper import set_memory
from flowsr.transforms.reversible import MEMORY_MODES, Memory

PASSES = ("encode", "draw")


def measure_pass(model: str, task: Task, *, batch: int = 2, crop: int = 160) -> float:
    """The growth of this process's peak resident memory over one pass without a way back, in MiB, weights made ready.

    Args:
        model: a preset's name.
        task: encode or draw.
        batch: how many images.
        crop: their side in pixels, a multiple of the upscale factor.

    Example:
        >>> measure_pass("sr-x4-small", "encode", batch=1, crop=16) >= 0
        True
    """
    flow = build_model(model)[0].eval()
    _pass(flow, task, batch=1, crop=2 * flow.multiple)  # makes weights ready, which are there from then on
    before = _peak()
    _pass(flow, task, batch=batch, crop=crop)
    return _peak() - before


@torch.no_grad()
def _pass(flow: ImageModel, task: Task, *, batch: int, crop: int) -> None:
    hr, lr = _images(flow, batch, crop)
    conditional = as_conditional(flow)
    if task == "draw" and conditional is not None and lr is not None:
        conditional.decode_unchecked(lr, conditional.draw_latents(lr, temperature=0.0))
    else:
        flow.log_likelihood_terms(hr, lr)


def _images(flow: ImageModel, batch: int, crop: int) -> tuple[Tensor, Tensor | None]:
    channels, conditional = flow.config.image_channels, as_conditional(flow)
    hr = torch.rand(batch, channels, crop, crop)
    low = crop if conditional is None else crop // conditional.upscale
    return hr, None if conditional is None else torch.rand(batch, channels, low, low)


def estimate(model: str, task: str, *, batch: int, crop: int) -> float:
    """What the model's estimate says of a pass, or of a step in a memory mode, in MiB."""
    flow = build_model(model)[0]
    if task not in PASSES:
        set_memory(flow, cast(Memory, task))
    pass_of: Task = cast(Task, task) if task in PASSES else "train"
    return memory_estimate(flow, (crop, crop), batch=batch, task=pass_of) / 2**20


def measure_step(model: str, mode: Memory, *, batch: int = 2, crop: int = 160) -> float:
    """The growth of this process's peak resident memory over one training step, in MiB; 0 if it was higher before.

    Cost: one step: an encoding pass and its backward pass.

    Args:
        model: a preset's name.
        mode: full, checkpoint or reversible, see :func:`flowsr.training.set_memory`.
        batch: how many crops.
        crop: their side in pixels, a multiple of the upscale factor.

    Raises:
        ValueError: for an unknown preset or mode, or a crop that does not fit.

    Example:
        >>> measure_step("sr-x4-small", "reversible", batch=1, crop=16) >= 0
        True
    """
    flow = build_model(model)[0]
    set_memory(flow, mode)
    optimizer = torch.optim.Adam(flow.parameters())
    hr, lr = _images(flow, batch, crop)
    before = _peak()
    loss, _ = likelihood_loss(flow, hr, lr)
    loss.backward()
    optimizer.step()
    return _peak() - before


def _peak() -> float:
    import resource  # not on Windows, where the rest of the package works

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def main(arguments: list[str] | None = None) -> int:
    """Measure all in processes of their own, or the one asked for in this; print MiB; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model", default="sr-x4", choices=list(presets()))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--mode", choices=(*PASSES, *MEMORY_MODES), help="only this one, in this process")
    options = parser.parse_args(arguments)
    if options.mode:
        torch.set_num_threads(1)
        size = {"batch": options.batch, "crop": options.crop}
        measure: Any = measure_pass if options.mode in PASSES else measure_step
        growth = measure(options.model, options.mode, **size)
        print(f"{options.mode:<12}{growth:8.0f}{estimate(options.model, options.mode, **size):12.0f}")
        return 0
    crops = f"{options.batch} crops of {options.crop}x{options.crop}"
    print(f"{'mode':<12}{'MiB':>8}{'estimate':>12}  {options.model}, {crops}, fp32", flush=True)
    size = ["--model", options.model, "--batch", str(options.batch), "--crop", str(options.crop)]
    for mode in (*PASSES, *MEMORY_MODES):
        subprocess.run([sys.executable, "-m", "benchmarks.memory", *size, "--mode", mode], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
