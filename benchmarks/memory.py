"""How much memory a training step takes in each memory mode, measured: ``python -m benchmarks.memory``.

The figure is the growth of a process's peak resident memory over one step of the likelihood on random crops, in fp32 on
one CPU thread. Gradients and Adam's moments are part of it. Each mode gets a process of its own, as a peak never falls.
"""

import argparse
import subprocess
import sys

import torch

from flowsr.models import presets
from flowsr.models.conditional import as_conditional
from flowsr.training.objectives import likelihood_loss
from flowsr.training.preparation import build_model
from flowsr.training.wrapper import set_memory
from flowsr.transforms.reversible import MEMORY_MODES, Memory


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
    channels, conditional = flow.config.image_channels, as_conditional(flow)
    hr = torch.rand(batch, channels, crop, crop)
    low = crop if conditional is None else crop // conditional.upscale
    lr = None if conditional is None else torch.rand(batch, channels, low, low)
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
    """Measure every mode in a process of its own, or the one asked for in this; print MiB; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--model", default="sr-x4", choices=list(presets()))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--mode", choices=MEMORY_MODES, help="only this one, in this process")
    options = parser.parse_args(arguments)
    if options.mode:
        torch.set_num_threads(1)
        growth = measure_step(options.model, options.mode, batch=options.batch, crop=options.crop)
        print(f"{options.mode:<12}{growth:8.0f}")
        return 0
    crops = f"{options.batch} crops of {options.crop}x{options.crop}"
    print(f"{'mode':<12}{'MiB':>8}  one step of {options.model}, {crops}, fp32", flush=True)
    size = ["--model", options.model, "--batch", str(options.batch), "--crop", str(options.crop)]
    for mode in MEMORY_MODES:
        subprocess.run([sys.executable, "-m", "benchmarks.memory", *size, "--mode", mode], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
