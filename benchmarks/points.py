"""How the shipped ``realnvp-points`` was made: RealNVP learns the density of two moons, whose truth is known.

``python -m benchmarks.points --out realnvp-points.safetensors`` trains, and prints nats per point of fresh points under
the flow and under the truth; their difference is the Kullback-Leibler divergence of the flow from the truth.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

import flowsr

NOISE = 0.08
"""The standard deviation of the points around their half circles."""

_NODES, _FRESH, _BATCH, _RATE = 1000, 20_000, 1024, 2e-3


def two_moons(count: int, *, seed: int) -> Tensor:
    """Points around two interleaved half circles of radius 1, as images of one pixel ``(count, 2, 1, 1)``.

    Example:
        >>> two_moons(5, seed=0).shape
        torch.Size([5, 2, 1, 1])
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(count, generator=generator)
    lower = torch.rand(count, generator=generator) < 0.5
    noise = NOISE * torch.randn(count, 2, generator=generator)
    return (_moon(angle, lower) + noise)[:, :, None, None]


def true_log_density(points: Tensor) -> Tensor:
    """The logarithm of the density of :func:`two_moons`, in nats: a normal, averaged over both half circles.

    Cost: 2000 normals for each point; the midpoint rule, exact to rounding here, as its nodes lie far closer than the
    noise is wide.

    Example:
        >>> float(true_log_density(torch.zeros(1, 2, 1, 1, dtype=torch.float64)))  # between them
        -1.37...
    """
    angle = torch.pi * (torch.arange(_NODES, dtype=torch.float64) + 0.5) / _NODES
    nodes = torch.cat([_moon(angle, torch.full((_NODES,), lower)) for lower in (False, True)])
    squares = ((points.flatten(1).double()[:, None] - nodes) ** 2).sum(-1)
    normals = -squares / (2 * NOISE**2) - math.log(2 * math.pi * NOISE**2)
    return normals.logsumexp(1) - math.log(2 * _NODES)


def _moon(angle: Tensor, lower: Tensor) -> Tensor:
    first = torch.where(lower, 1 - angle.cos(), angle.cos())
    return torch.stack([first, torch.where(lower, 0.5 - angle.sin(), angle.sin())], -1)


def fit(steps: int, *, seed: int = 0) -> flowsr.RealNVP:
    """A ``realnvp-points`` fitted to two moons by maximum likelihood, with fresh points at every step."""
    torch.manual_seed(seed)
    flow = flowsr.RealNVP.from_preset("realnvp-points")
    flow.initialize(two_moons(4 * _BATCH, seed=seed))
    optimizer = torch.optim.Adam(flow.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_RATE, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        loss = -flow.log_prob(two_moons(_BATCH, seed=seed + 1 + step)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    flow.provenance |= {
        "trained by": "python -m benchmarks.points",
        "data": f"two moons of radius 1 with normal noise of {NOISE}, made anew at every step",
        "recipe": f"nll=1 for {steps} steps of {_BATCH} points",
        "commands": "flowsr/weights/realnvp-points.md",
    }
    return flow.eval()


def nats_above_truth(flow: flowsr.RealNVP) -> tuple[float, float, float]:
    """Of fresh points: nats under a flow, under the truth, and the standard error of their difference."""
    points = two_moons(_FRESH, seed=2**31)
    with torch.no_grad():
        flows = -flow.log_prob(points).double()
    truths = torch.cat([-true_log_density(part) for part in points.split(2000)])
    return float(flows.mean()), float(truths.mean()), float((flows - truths).std() / math.sqrt(_FRESH))


def main(arguments: list[str] | None = None) -> int:
    """Train, print how near the truth the flow has come, and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.points", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a file for the flow")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    flow = fit(options.steps, seed=options.seed)
    found, truth, error = nats_above_truth(flow)
    print(f"{found:.3f} nats per point; the truth {truth:.3f}; {found - truth:.3f} ± {error:.3f} above it")
    flowsr.save(flow, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
