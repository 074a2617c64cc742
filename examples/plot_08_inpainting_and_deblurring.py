r"""
Inpainting and deblurring in the latent space of a flow
=======================================================

A super-resolution flow knows what HR images are likely given an LR image. Here something else is observed as well: a
part of the HR image, or a blurred version of all of it, with noise,

.. math:: b = A(x) + n, \qquad n \sim \mathcal{N}(0, s^2), \qquad
          p(x \mid y^*, b) \propto p(x \mid y^*)\, p(b \mid A(x)).

In latent space the prior is a standard normal, :math:`u \sim \mathcal{N}(0, I)`, :math:`x = \mathrm{decode}(y^*, u)`,
so the problem is a Pyro program of three lines, and Pyro's engines solve it. Variational inference is quick and
approximate; Hamiltonian Monte Carlo says how approximate.
"""

# %%
# A photograph, hidden in part
# ----------------------------
# The weights are those shipped with flowsr; LR images are bicubic and rounded to 8 bits.

import sys
import textwrap

import matplotlib.pyplot as plt
import skimage.data
import torch

import flowsr
from flowsr.images import bicubic_up, crop_to, make_lr
from flowsr.plots import Panel, heat_limit, image_grid
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, Solution, solve

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)

try:
    flow = flowsr.load("sr-x4-small")
except FileNotFoundError:
    # This version comes without weights; what follows then shows only that it runs.
    flow, SMOKE = flowsr.HCFlow.from_preset("sr-x4-small", start="haar"), True

size = 16 if SMOKE else 24
cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
hr = cat[:, 92 : 92 + size, 156 : 156 + size]
lr = make_lr(hr, flow.upscale)

noise = GaussianNoise(0.02)
visible = torch.ones(size, size)
visible[:, size // 2 :] = 0
operators = {"inpainting": Mask(visible), "deblurring": Blur.gaussian(1.5)}
problems = {}
for name, operator in operators.items():
    observation = noise.simulate(operator(hr[None])[0], generator=generator)
    problems[name] = InverseProblem(flow, lr, operator, observation, noise)
    print(
        f"{name}: {observation.numel()} observations,"
        f" {problems[name].dims} latent dimensions"
    )

# %%
# Variational inference
# ---------------------
# A Gaussian of low rank in latent space. The residual, in units of the noise, would be 1 for draws of the posterior.
# For inpainting it is larger, whatever the number of steps: each visible value fixes a direction of its own in latent
# space, hundreds of them, and the guide has far fewer beside the variance of each latent. So its draws scatter more than
# the noise allows, while their mean fits. The remarks below the table say so.


def show(solution: Solution) -> None:
    """Print its table, remarks broken into lines."""
    for line in solution.to_text().splitlines():
        print(textwrap.fill(line, 88))


steps, draws = (5, 8) if SMOKE else (300, 100)
settings = {"steps": steps, "num_samples": draws, "learning_rate": 0.05}
solutions = {
    name: solve(problem, "svi", guide="lowrank", **settings)
    for name, problem in problems.items()
}
prior = flow.sample(lr, num_samples=draws, generator=generator).detach()
for name, solution in solutions.items():
    before = problems[name].residual_rms(prior).mean()
    print(f"\n{name}: residual of draws that know the LR image alone: {before:.2f}")
    show(solution)
    mean = solution.moments().mean
    print(f"residual of the mean: {problems[name].residual_rms(mean):.2f}")

# %%
# Hamiltonian Monte Carlo
# -----------------------
# Four chains start at draws of the variational Gaussian, which scatter more than the posterior: chains that start at one
# place may agree because none of them has gone far. They move in the Gaussian's coordinates, all four as one batch: a
# step costs one decoding pass with its gradient. Where there is no guide, ``start="laplace"`` finds coordinates by itself.
#
# R-hat compares the chains on projections, bands and patches of the images; 1 is agreement, and above 1.05 they are no
# draws of one distribution yet. Their residual is that of the noise within a minute, so the images are right to look at.
# A run this short leaves R-hat above the limit, and the remarks below the table say what a result to publish needs:
# more draws.

short = {"num_samples": 4, "num_warmup": 2, "trajectory": 0.7}
length = short if SMOKE else {**short, "num_samples": 200, "num_warmup": 120}
chains = solve(problems["inpainting"], "hmc", start=solutions["inpainting"], **length)
show(chains)
for name, value in sorted(chains.diagnostics.rhat.items(), key=lambda item: -item[1])[
    :5
]:
    print(f"R-hat of {name:24} {value:.2f}")

moments = {
    name: solution.moments() for name, solution in {**solutions, "HMC": chains}.items()
}
hidden = visible == 0
stds = {name: moments[name].std for name in ("inpainting", "HMC")}
for name, std in stds.items():
    seen, unseen = 255 * std[:, ~hidden].mean(), 255 * std[:, hidden].mean()
    print(f"{name}: std {seen:.1f} grey levels where observed, {unseen:.1f} where not")

# %%
# The picture
# -----------
# What was not observed is hatched. Where the image was observed, the posterior keeps to it. Where it was not, the LR
# image and the prior decide, and the draws differ. A blurred observation leaves the finest details to the prior
# everywhere. Below, each chain's residual after the warm-up: in the grey band it is that of draws of the posterior.

heat = {"heat": heat_limit(prior.std(0))}
blurred = next(solutions["deblurring"].image_batches())[0]
panels = [
    Panel(hr, "truth"),
    Panel(crop_to(bicubic_up(lr, flow.upscale), (size, size)), "LR, bicubic"),
    Panel(prior.mean(0), "mean\nknows the LR image"),
    Panel(prior.std(0), "std\nknows the LR image", **heat),
    Panel(problems["inpainting"].observed_picture(), "inpainting: observed"),
    Panel(moments["inpainting"].mean, "mean\ninpainting, SVI"),
    Panel(moments["HMC"].mean, "mean\ninpainting, HMC"),
    Panel(moments["HMC"].std, "std\ninpainting, HMC", **heat),
    Panel(problems["deblurring"].observed_picture(), "deblurring: observed"),
    Panel(moments["deblurring"].mean, "mean\ndeblurring, SVI"),
    Panel(blurred, "a draw\ndeblurring, SVI"),
    Panel(moments["deblurring"].std, "std\ndeblurring, SVI", **heat),
]

figure = plt.figure(figsize=(7, 10), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(3.6, 1))
image_grid(panels, columns=4, into=above)
chains.plot(below.subplots())
plt.show()

assert SMOKE or all(
    std[:, hidden].mean() > 1.15 * std[:, ~hidden].mean() for std in stds.values()
), stds
assert SMOKE or chains.diagnostics.residual_rms < 1.2, chains.to_text()
