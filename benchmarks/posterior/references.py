"""References of the shipped model's posteriors: ``python -m benchmarks.posterior.references [PROBLEM ...]``.

Long chains of HMC, all in one batch, in coordinates fitted while warming up; segment by segment, until R-hat of all
summaries and of all pixels is below 1.005 or the time is over. The file says which.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor

from flowsr._support.atomic import atomic_path
from flowsr.images import make_lr
from flowsr.known_posteriors.model_problems import MODEL, SIZES, TASKS, digest, shipped_model, task_of
from flowsr.known_posteriors.truth import RHAT_OF_REFERENCE
from flowsr.posterior import HMC, InverseProblem
from flowsr.posterior.coordinates import Coordinates
from flowsr.posterior.curvature import laplace_coordinates
from flowsr.posterior.diagnostics import chain_statistics
from flowsr.posterior.inverse_problem import isolated
from flowsr.posterior.modes import antithetic_draws
from flowsr.posterior.samplers import sample_chains
from flowsr.statistics import image_summaries

WARMUP = (40, 40, 70)  # draws of each chain before and after the coordinates are fitted
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


class LongRun:
    """Chains of several problems of one crop that go on, segment by segment, from where they are.

    The problems differ in what was observed alone, so that one pass decodes for all of them. Each has coordinates w of
    its own, ``u = m + L·w``, in which its posterior is nearly white noise; steps and trajectories are shared.

    Args:
        problems: of one model and one LR image.
        chains: of each problem.
        seed: of all randomness.
    """

    def __init__(self, problems: Sequence[InverseProblem], chains: int, seed: int) -> None:
        self.problems, self.chains, self.seed = problems, chains, seed
        self.coordinates = [Coordinates.standard(problem.lr.new_zeros(problem.dims)) for problem in problems]
        self.images: list[list[Tensor]] = [[] for _ in problems]
        self.norms: list[list[Tensor]] = [[] for _ in problems]
        self.gradients, self.seconds = 0, 0.0
        torch.manual_seed(seed)
        self.places = torch.cat([antithetic_draws(problem, chains) for problem in problems])

    def warm_up(self, windows: Sequence[int]) -> None:
        """From draws of the prior, wider than the posteriors, to these; coordinates are fitted between the windows."""
        for number, window in enumerate(windows):
            if number:
                self.coordinates = [
                    self._fitted(*pair) for pair in zip(self.problems, self._split(self.places), strict=True)
                ]
            self.kernel = HMC(trajectory=1.5)
            self._go(num_warmup=window, num_samples=1)

    def extend(self, num_samples: int) -> None:
        """More draws of each chain."""
        for number, part in enumerate(self._split(self._go(num_warmup=0, num_samples=num_samples))):
            with torch.no_grad():
                decoded = [self.problems[number].decode(some) for some in part.flatten(0, 1).split(64)]
            self.images[number].append(torch.cat(decoded).unflatten(0, part.shape[:2]))
            self.norms[number].append(part.double().square().sum(-1))

    def statistics(self, number: int) -> tuple[Tensor, dict[str, float], dict[str, float]]:
        """All images of a problem ``(chains, draws, C, H, W)``, R-hat and effective draws of summaries and pixels."""
        images = torch.cat(self.images[number], 1)
        flat = images.flatten(0, 1)
        values = {**image_summaries(flat), "residual": self.problems[number].residual_rms(flat)}
        summaries = {name: value.reshape(images.shape[:2]) for name, value in values.items()}
        summaries["latent norm"] = torch.cat(self.norms[number], 1)
        pixels = images.flatten(2)
        summaries |= {f"pixel {i}": pixels[..., i] for i in range(pixels.shape[-1])}
        return images, *chain_statistics(summaries)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split(self.chains)

    def _fitted(self, problem: InverseProblem, u: Tensor) -> Coordinates:
        with isolated(problem, self.seed):
            return laplace_coordinates(problem, u.mean(0), u)

    def _latents(self, w: Tensor) -> Tensor:
        pairs = zip(self.coordinates, self._split(w), strict=True)
        return torch.cat([coordinates.to_latents(part) for coordinates, part in pairs])

    def _log_likelihood(self, w: Tensor) -> Tensor:
        """Of w under a prior N(0, I), so that the posterior is that of u, but for a constant."""
        u = self._latents(w)
        images = self._split(self.problems[0].decode(u))
        told = [problem.log_likelihood(part) for problem, part in zip(self.problems, images, strict=True)]
        return torch.cat(told).double() + 0.5 * (w.double().square() - u.double().square()).sum(-1)

    def _go(self, *, num_warmup: int, num_samples: int) -> Tensor:
        begin = time.process_time()
        self.seed += 1
        pairs = zip(self.coordinates, self._split(self.places), strict=True)
        starts = torch.cat([coordinates.from_latents(part) for coordinates, part in pairs])
        with isolated(self.problems[0], self.seed):
            run = sample_chains(
                self._log_likelihood,
                starts,
                self.kernel,
                num_samples=num_samples,
                num_warmup=num_warmup,
                seed=self.seed,
                coordinates=Coordinates.standard(starts[0]),
            )
        draws = torch.stack([self._latents(w) for w in run.draws.unbind(1)], 1)
        self.places = draws[:, -1]
        self.gradients += run.evaluations // len(self.problems)
        self.seconds += time.process_time() - begin
        return draws


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
    # Chains that have not yet met differ by more than their own batches do.
    chains, whole = (images.double() - centre).mean(1), (images.double() - centre).square().mean(1)
    errors = [
        torch.maximum(batch.std(0) / len(batch) ** 0.5, chain.std(0) / len(chain) ** 0.5)
        for batch, chain in ((means, chains), (squares, whole))
    ]
    return errors[0], errors[1] / (2 * std)


def make_references(
    names: Sequence[str], folder: Path, *, chains: int, segment: int, minutes: float, seed: int
) -> None:
    """Run chains of problems of one size until they agree or the time is over; write files after each segment."""
    made = [make_problem(name) for name in names]
    run = LongRun([problem for problem, _ in made], chains, seed)
    end = time.perf_counter() + 60 * minutes
    run.warm_up(WARMUP)
    done = False
    while not done:  # one segment at least, so that a warm-up is never for nothing
        run.extend(segment)
        worst = 0.0
        for number, (name, (_, hr)) in enumerate(zip(names, made, strict=True)):
            found, rhat = reference_of(run, number, hr, name=name, seed=seed)
            worst = max(worst, rhat)
            with atomic_path(folder / f"{name}.npz") as path, path.open("wb") as file:
                np.savez_compressed(file, **found)
        done = worst < RHAT_OF_REFERENCE or time.perf_counter() >= end


def reference_of(run: LongRun, number: int, hr: Tensor, *, name: str, seed: int) -> tuple[dict[str, Any], float]:
    """The arrays of the file of a problem of a run, and the largest R-hat."""
    problem, chains = run.problems[number], run.chains
    images, rhat, ess = run.statistics(number)
    worst = max(rhat, key=lambda key: rhat[key])
    summaries = max(value for key, value in rhat.items() if not key.startswith("pixel"))
    told = f"{name}: {images.shape[1]} draws of {chains} chains, R-hat {rhat[worst]:.4f} of {worst} "
    told += f"({summaries:.4f} of summaries), ESS {min(ess.values()):.0f}, {run.gradients} gradients of each problem, "
    print(f"{told}{run.seconds:.0f} s of CPU for all", flush=True)
    mean_error, std_error = batch_errors(images)
    flat = images.flatten(0, 1)
    about = {
        "name": name,
        "model": MODEL,
        "digest": digest(problem.flow),
        "rhat": rhat[worst],
        "rhat_of": worst,
        "rhat_of_summaries": summaries,
        "ess": min(ess.values()),
        "chains": chains,
        "draws": images.shape[1],
        "warmup": list(WARMUP),
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
    parser.add_argument("--segment", type=int, default=200, help="draws of each chain between looks at R-hat")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most, for all problems of a size")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.problems) - set(NAMES):
        parser.error(f"expected problems of {', '.join(NAMES)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for size in SIZES:
        if names := [name for name in asked.problems or NAMES if name.endswith(f"-{size}")]:
            make_references(
                names,
                asked.out,
                chains=asked.chains,
                segment=asked.segment,
                minutes=asked.minutes,
                seed=asked.seed,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
