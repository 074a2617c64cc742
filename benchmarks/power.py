"""How often tests of calibration see one wrong pixel of 64: the table and figure of the page on local calibration.

``python -m benchmarks.power --out power.png`` prints, for each fault at one pixel, how many of some data sets of 200
pairs and 99 draws fail each test, and whether the pixel that is named is the wrong one. All tests have the same chance
of a false alarm, 1 %, all pixels or functions of a test together.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from flowsr.calibration import HeldOut, PixelTest, hold_out, interval_coverage, pixel_test, simulation_based_calibration
from flowsr.calibration import tarp as tarp_test
from flowsr.plots import save_figure
from flowsr.results import text_table

PLACE = (0, 3, 4)
PAIRS, DRAWS, ALPHA = 200, 99, 0.01

FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda draws: draws,
    "1.5 times too wide": lambda draws: 1.5 * draws,
    "1.3 times too wide": lambda draws: 1.3 * draws,
    "1.5 times too narrow": lambda draws: draws / 1.5,
    "too low by 0.5 std": lambda draws: draws - 0.5,
}


def images(fault: Callable[[Tensor], Tensor], *, seed: int) -> Tensor:
    """Truths and draws of 8x8 pixels of standard deviation 1, correlated by 0.36, draws with a fault at one pixel."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(PAIRS, DRAWS + 1, 1, 8, 8, generator=generator)
    common = torch.randn(PAIRS, DRAWS + 1, 1, 1, 1, generator=generator)
    found = 0.8 * noise + 0.6 * common
    found[:, 1:, *PLACE] = fault(found[:, 1:, *PLACE])
    return found


def verdicts(values: Tensor, *, seed: int) -> tuple[dict[str, bool], PixelTest]:
    """Which tests fail, and the test of single pixels."""
    drawn = iter(values[:, 1:])
    lr = torch.rand(PAIRS, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    held_out = hold_out(lambda *_: next(drawn), values[:, 0], lr, num_samples=DRAWS, seed=seed)
    found = pixel_test(held_out, alpha=ALPHA, seed=seed)
    tests = {
        "SBC, default functions": simulation_based_calibration(held_out, alpha=ALPHA, seed=seed),
        "TARP": tarp_test(held_out, alpha=ALPHA, seed=seed),
        "coverage": interval_coverage(held_out, alpha=ALPHA, seed=seed),
        "every single pixel": found,
    }
    failed = {name: not test.passed for name, test in tests.items()}
    return {**failed, "Kolmogorov-Smirnov per pixel": kolmogorov_smirnov(held_out)}, found


def kolmogorov_smirnov(held_out: HeldOut) -> bool:
    """Whether any pixel fails sbi's test of uniform ranks, corrected by Bonferroni for their number."""
    ranks = held_out.pixel_ranks.ranks[:, 0].flatten(1).double().numpy()
    jitter = np.random.default_rng(0).random(ranks.shape)
    p = [stats.kstest(column, "uniform").pvalue for column in ((ranks + jitter) / (DRAWS + 1)).T]
    return bool(np.min(p) <= ALPHA / ranks.shape[1])


def main() -> None:
    """Print the table, and draw the map of the first data set with a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", type=int, default=10, help="data sets of each fault")
    parser.add_argument("--out", type=Path, help="figure of the maps of a pixel 1.5 times too wide")
    given = parser.parse_args()
    rows, head = [], []
    for fault, change in FAULTS.items():
        counts: dict[str, int] = {}
        right = 0
        for seed in range(given.sets):
            failed, test = verdicts(images(change, seed=seed), seed=seed)
            counts = {name: counts.get(name, 0) + wrong for name, wrong in failed.items()}
            right += test.rejected[:1] == [PLACE]
            if given.out and seed == 0 and fault == "1.5 times too wide":
                save_figure(test.plot(), given.out, overwrite=True, dpi=110)
        head = ["fault at one pixel of 64", *counts, "pixel named"]
        rows.append([fault, *map(str, counts.values()), str(right)])
    note = (
        f"failures of {given.sets} data sets, seeds 0 to {given.sets - 1}; {PAIRS} pairs, {DRAWS} draws, alpha {ALPHA}"
    )
    print(text_table(head, rows, title="Who sees it", notes=[note]))


if __name__ == "__main__":
    main()
