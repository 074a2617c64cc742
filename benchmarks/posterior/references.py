"""References of the shipped model's posteriors: ``python -m benchmarks.posterior.references [PROBLEM ...]``.

Long chains of HMC, all in one batch, in coordinates fitted while warming up; segment by segment, until R-hat of all
summaries and of all pixels is below 1.005 or the time is over. The file says which.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor

from flowsr._support.atomic import atomic_path
from flowsr.images import make_lr
from flowsr.known_posteriors.model_problems import MODEL, SIZES, TASKS, digest, shipped_model, task_of
from flowsr.posterior import HMC, InverseProblem
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.curvature import laplace_coordinates
from flowsr.posterior.diagnostics import chain_statistics
from flowsr.posterior.inverse_problem import isolated
from flowsr.posterior.modes import antithetic_draws
from flowsr.posterior.samplers import sample_chains
from flowsr.statistics import image_summaries

RHAT = 1.005
WARMUP = 120  # of each chain
KEPT = 100  # thinned draws in the file of a small problem
FOLDER = Path(__file__).parents[2] / "flowsr" / "known_posteriors" / "references"
NAMES = tuple(f"{task}-{size}" for size in SIZES for task in TASKS)


def make_problem(name: str) -> tuple[InverseProblem, Tensor]:
    """The problem of a crop of a photograph, and the crop."""
    task, size = name.rsplit("-", 1)
    side = int(size)
    cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
    hr = cat[:, 92 : 92 + side, 156 : 156 + side]
    operator, noise = task_of(task, side)
    observation = noise.simulate(operator(hr[None])[0], generator=torch.Generator().manual_seed(0))
    return InverseProblem(shipped_model(), make_lr(hr, 4), operator, observation, noise), hr


@dataclass
class LongRun:
    """Chains that go on, segment by segment, from where they are."""

    problem: InverseProblem
    chains: int
    seed: int
    kernel: HMC = field(default_factory=lambda: HMC(trajectory=1.5))
    images: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    gradients: int = 0
    seconds: float = 0.0

    def warm_up(self, num_warmup: int) -> None:
        """From draws of the prior, wider than the posterior, to it; the coordinates are fitted on the way."""
        self._fitted: Coordinates | None = None
        self._go(antithetic_draws(self.problem, self.chains), num_warmup=num_warmup, num_samples=1, refit=self._refit)
        self.images.clear()
        self.norms.clear()

    def extend(self, num_samples: int) -> None:
        """More draws of each chain."""
        self._go(self.places, num_warmup=0, num_samples=num_samples, coordinates=self._fitted)

    def _refit(self, u: Tensor) -> Coordinates:
        self._fitted = laplace_coordinates(self.problem, u.mean(0), u)
        return self._fitted

    def _go(self, places: Tensor, *, num_samples: int, **how: Any) -> None:
        begin = time.perf_counter()
        self.seed += 1
        with isolated(self.problem, self.seed):
            run = sample_chains(
                self.problem.latent_log_likelihood,
                places,
                self.kernel,
                seed=self.seed,
                num_samples=num_samples,
                **how,
            )
            with torch.no_grad():
                parts = [self.problem.decode(part) for part in run.draws.flatten(0, 1).split(64)]
        self.images.append(torch.cat(parts).unflatten(0, run.draws.shape[:2]))
        self.norms.append(run.draws.double().square().sum(-1))
        self.places = run.draws[:, -1]
        self.gradients += run.evaluations
        self.seconds += time.perf_counter() - begin

    def statistics(self) -> tuple[Tensor, dict[str, float], dict[str, float]]:
        """All images ``(chains, draws, C, H, W)``, and R-hat and effective draws of summaries and pixels."""
        images = torch.cat(self.images, 1)
        flat = images.flatten(0, 1)
        values = {**image_summaries(flat), "residual": self.problem.residual_rms(flat)}
        summaries = {name: value.reshape(images.shape[:2]) for name, value in values.items()}
        summaries["latent norm"] = torch.cat(self.norms, 1)
        pixels = images.flatten(2)
        summaries |= {f"pixel {i}": pixels[..., i] for i in range(pixels.shape[-1])}
        return images, *chain_statistics(summaries)


def batch_errors(images: Tensor, batches: int = 6) -> tuple[Tensor, Tensor]:
    """Monte Carlo errors of mean and standard deviation of each pixel, from batches of each chain.

    References:
        Flegal and Jones, Batch means and spectral variance estimators in Markov chain Monte Carlo (Annals of Statistics
        2010), section 3.
    """
    draws = images.shape[1] - images.shape[1] % batches
    parts = images[:, :draws].double().unflatten(1, (batches, -1)).flatten(0, 1)
    centre, std = images.double().mean((0, 1)), images.double().flatten(0, 1).std(0)
    means, squares = parts.mean(1), (parts - centre).square().mean(1)
    root = len(parts) ** 0.5
    return means.std(0) / root, squares.std(0) / root / (2 * std)


def make_reference(name: str, path: Path, *, chains: int, segment: int, minutes: float, seed: int) -> None:
    """Run chains until they agree or the time is over, and write the file after each segment."""
    problem, hr = make_problem(name)
    run = LongRun(problem, chains, seed)
    end = time.perf_counter() + 60 * minutes
    run.warm_up(WARMUP)
    worst = math.inf
    while worst >= RHAT and time.perf_counter() < end:
        run.extend(segment)
        found, worst = reference_of(run, hr, name=name, seed=seed)
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **found)


def reference_of(run: LongRun, hr: Tensor, *, name: str, seed: int) -> tuple[dict[str, Any], float]:
    """The arrays of a file, and the largest R-hat."""
    problem, chains = run.problem, run.chains
    images, rhat, ess = run.statistics()
    worst = max(rhat, key=lambda key: rhat[key])
    told = f"{name}: {images.shape[1]} draws of {chains} chains, R-hat {rhat[worst]:.4f} of {worst}, "
    print(f"{told}ESS {min(ess.values()):.0f}, {run.gradients} gradients, {run.seconds:.0f} s", flush=True)
    mean_error, std_error = batch_errors(images)
    flat = images.flatten(0, 1)
    about = {
        "name": name,
        "model": MODEL,
        "digest": digest(problem.flow),
        "rhat": rhat[worst],
        "rhat_of": worst,
        "ess": min(ess.values()),
        "chains": chains,
        "draws": images.shape[1],
        "warmup": WARMUP,
        "gradients": run.gradients,
        "seconds": run.seconds,
        "step_size": run.kernel.step_size,
        "trajectory": run.kernel.trajectory,
        "seed": seed,
        "torch": torch.__version__,
    }
    kept = KEPT if hr.shape[-1] == SIZES[0] else 0
    some = flat[torch.linspace(0, len(flat) - 1, kept).long()]
    arrays = {
        "hr": hr.numpy(),
        "lr": problem.lr.numpy(),
        "observation": problem.observation.numpy(),
        "mean": flat.double().mean(0).float().numpy(),
        "std": flat.double().std(0).float().numpy(),
        "mean_error": mean_error.float().numpy(),
        "std_error": std_error.float().numpy(),
        "draws": some.half().numpy(),
        "about": np.array(json.dumps(about)),
    }
    return arrays, rhat[worst]


def main(arguments: list[str] | None = None) -> int:
    """Make the references asked for, each in a file of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.posterior.references", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the files")
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--segment", type=int, default=300, help="draws of each chain between looks at R-hat")
    parser.add_argument("--minutes", type=float, default=30.0, help="at most, for each problem")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.problems) - set(NAMES):
        parser.error(f"expected problems of {', '.join(NAMES)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for name in asked.problems or NAMES:
        path = asked.out / f"{name}.npz"
        make_reference(name, path, chains=asked.chains, segment=asked.segment, minutes=asked.minutes, seed=asked.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
