r"""
The posterior of a real photograph: many draws at size, and an inverse problem
==============================================================================

An LR image has many HR images that it may have come from. A flow draws them. From many
draws follow the mean, how sure each pixel is, and in which *patterns* the draws differ:

.. math:: \bar x = \frac1n \sum_k x_k, \qquad
          s = \left(\tfrac{1}{n-1} \sum_k (x_k - \bar x)^2\right)^{1/2}, \qquad
          \text{quantiles, principal components.}

At the size of a photograph the draws do not fit into memory together, and need not:
they are summarized as they are made. Whether the spread of the draws can be believed is
then tested on the photograph itself, which is known here. And something else observed
of the same scene, a noisy photograph with a hole in it, changes the posterior.
"""

# %%
# Draws, summarized as they are made
# ----------------------------------
# 256x256 pixels of a cat, of which the flow sees the LR image of 64x64. ``flow.sample``
# would return all draws; :func:`flowsr.posterior.summarize_draws` makes the same ones
# in batches, adds each to running moments, to a histogram for every pixel, and to a
# sketch of the principal components, and forgets it. With ``checkpoint=`` it could go
# on after an interruption. The temperature is 1: others are not the model's posterior.

import sys
import textwrap

import matplotlib.pyplot as plt
import skimage.data
import torch

import flowsr
from flowsr.images import make_lr
from flowsr.plots import Panel, draw_panel
from flowsr.plots.grid import heat_limit
from flowsr.posterior import (
    GaussianNoise,
    InverseProblem,
    Mask,
    StreamingSummary,
    lr_consistency,
    solve,
    summarize_draws,
    uncertainty_quality,
)

SMOKE = "--smoke" in sys.argv
size, num_samples = (32, 6) if SMOKE else (256, 64)
generator = torch.Generator().manual_seed(0)
flow = flowsr.load("sr-x4-small").requires_grad_(False)

cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
hr = cat[:, 22 : 22 + size, 97 : 97 + size].contiguous()
lr = make_lr(hr, flow.upscale)
levels = (0.05, 0.25, 0.5, 0.75, 0.95)
summary = summarize_draws(
    flow,
    lr,
    num_samples=num_samples,
    summary=StreamingSummary(levels=levels, components=2, truth=hr),
    memory=2e8,
)
print(summary.to_text())

# %%
# The mean of draws is closer to the truth than any draw, as it leaves out what they
# make up; it is what minimizes the squared error, and is blurred for that reason. Its
# PSNR stops rising after a few dozen draws: what is left is the model's.
#
# Can it be believed?
# -------------------
# If the model were right, 90 % of the true values would lie between the draws' 5 % and
# 95 % quantiles, and the error of the mean would be as large as the standard deviation
# says, times :math:`\sqrt{1 + 1/n}`. The quantiles of few draws are themselves noisy,
# so even right draws would miss a little.

quality = uncertainty_quality([summary], [hr])
inside = quality.below[-1] - quality.below[0]
consistency = lr_consistency(flow, lr, num_samples=2, cycles=1, generator=generator)
error = (summary.mean - hr).square().mean().sqrt()
spread = summary.std.square().mean().sqrt()
shares = ", ".join(f"{100 * share:.0f} %" for share in quality.below)
print(f"true values below their quantile of 5, 25, 50, 75, 95 %: {shares}")
print(f"so {100 * inside:.0f} % within the interval that should hold 90 %")
print(f"error of the mean {255 * error:.1f} grey levels,", end=" ")
print(f"standard deviation of draws {255 * spread:.1f}")
print(f"LR-PSNR of draws, shrunk again: {min(consistency.draws):.1f} dB at least")

# %%
# An inverse problem at size
# --------------------------
# Of a part of the scene a second photograph exists, with noise of 10 grey levels and a
# hole, where a thumb was. The posterior given both lives in the 11 520 latents of 64x64
# pixels. Variational inference with one Gaussian per latent takes half a minute, and
# that is not enough: read the remarks below the table. The objective was still rising,
# the guide is not near the posterior (k-hat should be below 0.7), and its draws do not
# explain the observation as well as the posterior's would. So the *mean* is something
# to look at, and the spread of this guide is not that of the posterior.

part = 16 if SMOKE else 64
top, left = (0, 0) if SMOKE else (72, 32)
scene = hr[:, top : top + part, left : left + part].contiguous()
visible = torch.ones(part, part)
third = part // 3
visible[third : 2 * third, third : 2 * third] = 0
operator, noise = Mask(visible), GaussianNoise(10 / 255)
observation = noise.simulate(operator(scene[None])[0], generator=generator)
problem = InverseProblem(
    flow, make_lr(scene, flow.upscale), operator, observation, noise
)
steps = 4 if SMOKE else 120
solution = solve(
    problem,
    "svi",
    steps=steps,
    num_samples=8 if SMOKE else 32,
    num_particles=1,
    learning_rate=0.05,
)
print(f"{observation.numel()} observations, {problem.dims} latent dimensions")
for line in solution.to_text().splitlines():
    print(textwrap.fill(line, 88))
moments = solution.moments()
prior = summary.std[:, top : top + part, left : left + part]
hidden = visible == 0
stds = {}
for what, std in (("LR image alone", prior), ("both, by the guide", moments.std)):
    stds[what] = [255 * std[:, where].mean() for where in (~hidden, hidden)]
    print(f"std given {what}: {stds[what][0]:.1f} grey levels where seen,", end=" ")
    print(f"{stds[what][1]:.1f} in the hole")

# %%
# For a posterior to quote, take more steps, ``guide="lowrank"``, or chains that start
# from this solution, on a part as small as the question allows:
# :ref:`sphx_glr_auto_examples_plot_08_inpainting_and_deblurring.py`.

# %%
# The picture
# -----------
# First row: the input, the mean, a draw and the truth. A draw has details of its own in
# the fur, and the grain of a small model at temperature 1. Second row: where draws
# differ, and how. They differ in the fur and along edges, and it is there that the mean
# is wrong, by about as much; but at the whiskers it is wrong and the draws do not know,
# as the model has not learned of any. The leading component takes two percent of the
# variance: draws share no pattern, each piece of fur varies by itself.
# Third row: the part with a second photograph. The mean has lost the noise, and fills
# the hole as the LR image says. The last map is that of the guide, too narrow, as said.

width = summary.quantiles[-1] - summary.quantiles[0]
component = summary.components[0]
draw = flow.sample(lr, generator=torch.Generator().manual_seed(1))[0]
observed = problem.observed_picture()
limit = float(prior.mean(0).quantile(0.99))
panels = [
    Panel(lr, "LR image: the input"),
    Panel(summary.mean, f"mean of {num_samples} draws"),
    Panel(draw, "a draw"),
    Panel(hr, "truth"),
    Panel(summary.std, "standard deviation", heat=heat_limit(summary.std)),
    Panel(width, "95 % − 5 % quantile", heat=heat_limit(width)),
    Panel(0.5 + component / (2 * component.abs().max()), "1st principal component"),
    Panel((summary.mean - hr).abs(), "error of the mean", heat=heat_limit(summary.std)),
    Panel(observed, "part, seen again"),
    Panel(moments.mean, "mean given both"),
    Panel(prior, "std given the LR image", heat=limit),
    Panel(moments.std, "std of the guide", heat=limit),
]
figure, grid = plt.subplots(3, 4, figsize=(10, 9.4))
figure.set_layout_engine("constrained", hspace=0.12, h_pad=0.15)
for axes, panel in zip(grid.flat, panels, strict=True):
    draw_panel(axes, panel)
plt.show()

assert SMOKE or abs(inside - 0.9) < 0.05, quality.below
assert SMOKE or solution.diagnostics.remarks, "so short a run does not converge"
