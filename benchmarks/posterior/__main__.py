"""How well chains mix on the shipped model's posterior: ``python -m benchmarks.posterior [PROBLEM ...]``.

Each row is a problem by a method from a start: R-hat, effective draws, the images that were decoded for it, and time.
Inpainting hides the right half of a crop of a photograph, deblurring blurs it by 1.5 pixels; the noise is 0.02.
"""

import argparse
import sys
import time
from typing import Any

import skimage.data
import torch

import flowsr
from flowsr.images import make_lr
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, Solution, solve

PROBLEMS = ("inpainting", "deblurring")
STARTS = ("draw", "mode", "laplace", "svi", "map")


def photograph_problem(name: str, size: int, *, noise: float = 0.02) -> InverseProblem:
    """A crop of a photograph whose right half is hidden, or which is blurred, given its LR image."""
    flow = flowsr.load("sr-x4-small")
    cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
    hr = cat[:, 92 : 92 + size, 156 : 156 + size]
    left = torch.arange(size).expand(size, size) < size // 2
    operator = Mask(left) if name == "inpainting" else Blur.gaussian(1.5)
    generator = torch.Generator().manual_seed(0)
    observation = GaussianNoise(noise).simulate(operator(hr[None])[0], generator=generator)
    return InverseProblem(flow, make_lr(hr, flow.upscale), operator, observation, GaussianNoise(noise))


def measure(problem: InverseProblem, method: str, start: str, options: dict[str, Any]) -> tuple[Solution, int, float]:
    """The solution, the images decoded for it and the seconds of the process, its start included."""
    decode, asked = problem.flow.decode, [0]

    def counting(lr: Any, z: Any = None) -> torch.Tensor:
        asked[0] += z[0].shape[:-3].numel()
        return decode(lr, z)

    problem.flow.decode = counting  # type: ignore[method-assign]
    begin = time.process_time()
    given: Any = start
    if start in ("svi", "map"):
        given = solve(problem, start, guide="lowrank", steps=400, learning_rate=0.05, num_samples=50)
    found = solve(problem, method, start=given, steps=200, learning_rate=0.05, **options)  # type: ignore[arg-type]
    problem.flow.decode = decode  # type: ignore[method-assign]
    return found, asked[0], time.process_time() - begin


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for and print a row for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posterior", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=f"of {', '.join(PROBLEMS)}; both by default")
    parser.add_argument("--size", type=int, default=32, help="side of the crop")
    parser.add_argument("--method", choices=["hmc", "langevin", "pcn"], default="hmc")
    parser.add_argument("--start", choices=STARTS, nargs="+", default=["draw", "laplace"])
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--num-steps", type=int, help="proposals per draw of langevin and pcn")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.problems) - set(PROBLEMS):
        parser.error(f"expected problems of {', '.join(PROBLEMS)}; got {', '.join(sorted(unknown))}")
    options = {
        "num_chains": asked.chains,
        "num_warmup": asked.warmup,
        "num_samples": asked.samples,
        "num_steps": asked.num_steps,
    }
    print(
        f"{'problem':12}{'start':9}{'R-hat':>7}{'ESS':>7}{'of':>7}{'images':>9}{'ESS/1000':>10}{'CPU s':>8}", flush=True
    )
    for name in asked.problems or PROBLEMS:
        for start in asked.start:
            found, images, seconds = measure(photograph_problem(name, asked.size), asked.method, start, options)
            rhat, ess = found.diagnostics.worst_rhat, found.diagnostics.least_ess
            draws = found.latents[..., 0].numel()
            numbers = f"{rhat:7.3f}{ess:7.0f}{draws:7}{images:9}{1000 * ess / images:10.2f}{seconds:8.0f}"
            print(f"{name:12}{start:9}{numbers}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
