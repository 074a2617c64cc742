r"""
Exercise 4: calibration
=======================

A posterior claims how sure it is. On one image nobody can tell whether it is right; on
many it shows. If the truth is one more draw of the posterior, then its *rank* among
draws is uniform, whatever the posterior looks like. Draws that are too narrow leave the
truth outside too often, and the histogram of ranks is a U.

You write the ranks and the verdict, test a posterior that is known, and then a flow.

The exercise: :ref:`sphx_glr_auto_examples_exercises_exercise_04_calibration.py`.
Its solution: :ref:`sphx_glr_auto_examples_exercises_plot_solution_04_calibration.py`.
"""

# %%
# Run this first. ``check`` tells whether what you have written is right.

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from flowsr.calibration import model_pairs, uniformity_p_value
from flowsr.posterior import GaussianLR, LinearGaussianFlow

torch.manual_seed(0)
done = []


def check(what: str, passes, hint: str) -> None:
    """Say whether your code does what it should, and if not, what may be missing."""
    try:
        passed = bool(passes())
    except Exception as error:  # what is not written yet returns None
        passed, hint = False, f"{hint} ({type(error).__name__}: {error})"
    print(f"{'passed ' if passed else 'NOT YET'}  {what}")
    if not passed:
        print(f"         {hint}")
    done.append(passed)


# %%
# a) The probability integral transform
# -------------------------------------
# If :math:`x` has the distribution function :math:`F`, then :math:`F(x)` is uniform.


def pit(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Task a: Φ((x − mean)/std) of numbers (n,), Φ being that of a standard normal.

    Hint: torch.special.ndtr is Φ.
    """
    raise NotImplementedError("write this function")


mean, std = torch.randn(5000), torch.rand(5000) / 2 + 0.1
x = mean + std * torch.randn(5000)


def uneven(u: Tensor) -> float:
    """How far the distribution function of u is from that of uniform numbers."""
    steps = torch.arange(1, len(u) + 1) / len(u)
    return float((u.sort().values - steps).abs().max())


check(
    "at the mean it is one half",
    lambda: torch.allclose(pit(mean, mean, std), torch.tensor(0.5)),
    "half of a normal lies below its mean: Φ(0) = ½",
)
check(
    "of draws it is uniform, though each has its own mean and width",
    lambda: uneven(pit(x, mean, std)) < 0.03,
    "standardize by the mean and the standard deviation of each number",
)

# %%
# b) Ranks
# --------
# Of a posterior that can only be drawn from there is no :math:`F`. The number of draws
# below the truth does the same work: with L draws it is one of 0, 1, …, L, all equally
# likely if truth and draws are alike.


def rank(truth: Tensor, draws: Tensor) -> Tensor:
    """Task b: how many of the draws (n, L) are below the truth (n,), integers (n,)."""
    raise NotImplementedError("write this function")


check(
    "three numbers by hand",
    lambda: (
        rank(
            torch.tensor([0.0, 5.0, 2.5]),
            torch.tensor([[1.0, 2.0, 3.0]] * 3),
        ).tolist()
        == [0, 3, 2]
    ),
    "count draws < truth, for each row",
)
check(
    "ranks among draws that are alike are uniform",
    lambda: (
        uniformity_p_value(
            rank(torch.randn(2000), torch.randn(2000, 19)).numpy(), cells=20
        )
        > 0.001
    ),
    "with 19 draws there are 20 ranks, 0 to 19",
)

# %%
# c) Simulation-based calibration
# -------------------------------
# Draw a parameter from the prior, data given it, and posterior draws given the data;
# the rank of the parameter must be uniform. Here :math:`\theta \sim \mathcal{N}(0, 1)`
# and :math:`y \mid \theta \sim \mathcal{N}(\theta, 0.5^2)`.


def posterior_of(y: Tensor) -> tuple[Tensor, float]:
    """Task c: mean (n,) and standard deviation of θ given y (n,).

    Hint: precisions add up, 1 of the prior and 1/0.5² of the datum.
    """
    raise NotImplementedError("write this function")


def simulate(narrower: float, pairs: int = 3000, samples: int = 19) -> Tensor:
    """Ranks (pairs,) with posterior draws whose width is off by a factor."""
    theta = torch.randn(pairs)
    y = theta + 0.5 * torch.randn(pairs)
    mean, std = posterior_of(y)
    noise = torch.randn(pairs, samples)
    return rank(theta, mean[:, None] + narrower * std * noise)


check(
    "the posterior is right",
    lambda: uniformity_p_value(simulate(1.0).numpy(), cells=20) > 0.001,
    "precision 1 + 4 = 5: variance 0.2, mean 0.2·4·y",
)
check(
    "one that is too narrow by a fifth is found out",
    lambda: uniformity_p_value(simulate(0.8).numpy(), cells=20) < 0.001,
    "nothing to compute here: if b and c are right, so is this",
)

# %%
# d) The verdict
# --------------
# Put the ranks on (0, 1), :math:`u = (r + \tfrac12)/(L + 1)`. Uniform ones have
# variance :math:`\tfrac1{12}`. Posterior draws too narrow push ranks to the ends: the
# variance grows. Too wide, it shrinks. The variance of :math:`(u - \tfrac12)^2` is
# :math:`\tfrac1{180}`, so the mean of n of them is known to :math:`\pm
# 1/\sqrt{180\,n}`.


def verdict(ranks: Tensor, cells: int) -> str:
    """Task d: "too narrow", "too wide" or "right", by more than 4 standard errors."""
    raise NotImplementedError("write this function")


check(
    "the posterior is right",
    lambda: verdict(simulate(1.0), 20) == "right",
    "the mean of (u − ½)² within four standard errors, 4/√(180·n), of 1/12",
)
check(
    "draws of 0.7 of its width are too narrow",
    lambda: verdict(simulate(0.7), 20) == "too narrow",
    "the truth is often outside the draws: ranks at both ends, larger variance",
)
check(
    "draws of 1.4 times its width are too wide",
    lambda: verdict(simulate(1.4), 20) == "too wide",
    "the truth is always in the middle of the draws: smaller variance",
)

# %%
# e) A flow
# ---------
# A super-resolution flow is a posterior of images given LR images. This one has linear
# layers, so pairs of images can be drawn for which it is exactly right. Rank one pixel
# of the true images among the same pixel of draws. Then lower the temperature, which
# makes draws look better: is it still a posterior?

flow = LinearGaussianFlow(detail_std=(0.08, 0.04))
lr_prior = GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2)
truths, conditions = model_pairs(flow, lr_prior, 1000, seed=1)


def pixel_ranks(temperature: float) -> Tensor:
    """Task e: the rank (1000,) of pixel [0, 3, 3] of the truths among 19 draws each.

    flow.sample(conditions, num_samples=19, temperature=…) is (19, 1000, 1, 8, 8);
    truths is (1000, 1, 8, 8).
    """
    raise NotImplementedError("write this function")


check(
    "at temperature 1 the flow is calibrated",
    lambda: verdict(pixel_ranks(1.0), 20) == "right",
    "draws come first in the shape of flow.sample: transpose to (1000, 19)",
)
check(
    "at temperature 0.7 its draws are too narrow",
    lambda: verdict(pixel_ranks(0.7), 20) == "too narrow",
    "give the temperature to flow.sample",
)

# %%
# Three histograms
# ----------------
# Flat, a U, and a hill. The same tests for every image model, with a correction for
# testing many features at once, are in :func:`flowsr.calibration.calibrate`; see
# :ref:`sphx_glr_auto_examples_plot_07_known_posterior.py`. A warning: ranks of one
# pixel are necessary, not sufficient. Draws that ignore the LR image pass too. Why?

if all(done):
    figure, panels = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for axes, temperature in zip(panels, (1.0, 0.7, 1.4), strict=True):
        ranks = pixel_ranks(temperature)
        axes.hist(ranks.numpy(), torch.arange(21).numpy() - 0.5, color="#0072B2")
        axes.axhline(len(ranks) / 20, color="#222222", linewidth=0.8)
        word = verdict(ranks, 20)
        axes.set_title(
            f"temperature {temperature}: draws {word}", loc="left", fontsize=10
        )
        axes.set(xlabel="rank of the truth among 19 draws")
    panels[0].set_ylabel("images")
    plt.show()

print(f"{sum(done)} of {len(done)} checks passed")
assert all(done), "what is missing is said beside NOT YET above"
