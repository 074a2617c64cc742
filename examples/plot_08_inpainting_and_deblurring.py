r"""
Inpainting and deblurring in the latent space of a flow
=======================================================

A super-resolution flow knows what HR images are likely given an LR image. Here something else is observed as well: a
part of the HR image, or a blurred version of all of it, with noise,

.. math:: b = A(x) + n, \qquad n \sim \mathcal{N}(0, s^2), \qquad
          p(x \mid y^*, b) \propto p(x \mid y^*)\, p(b \mid A(x)).

In latent space the prior is a standard normal, :math:`u \sim \mathcal{N}(0, I)`, :math:`x = \mathrm{decode}(y^*, u)`,
so the problem is a Pyro program of three lines, and Pyro's engines solve it. Variational inference is quick and
approximate; Hamiltonian Monte Carlo, started from it, says how approximate.
"""

# %%
# A photograph, hidden in part
# ----------------------------
# The weights are those shipped with flowsr; LR images are bicubic and rounded to 8 bits.

import sys

import matplotlib.pyplot as plt
import skimage.data
import torch

import flowsr
from flowsr.images import bicubic_up, crop_to, make_lr
from flowsr.posterior import Blur, GaussianNoise, InverseProblem, Mask, solve

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)

try:
    flow = flowsr.load("sr-x4-small")
except FileNotFoundError:  # this version comes without weights; what follows then shows only that it runs
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
    print(f"{name}: {observation.numel()} observations, {problems[name].dims} latent dimensions")

# %%
# Variational inference
# ---------------------
# A Gaussian of low rank in latent space. The residual, in units of the noise, would be 1 for draws of the posterior.
# For inpainting it is larger, whatever the number of steps: each visible value fixes a direction of its own in latent
# space, hundreds of them, and the guide has 40 beside the variance of each latent. So its draws scatter more than the
# noise allows, while their mean fits.

steps, draws = (5, 8) if SMOKE else (400, 200)
solutions = {
    name: solve(problem, "svi", guide="lowrank", steps=steps, num_samples=draws, learning_rate=0.05)
    for name, problem in problems.items()
}
prior = flow.sample(lr, num_samples=draws, generator=generator).detach()
for name, solution in solutions.items():
    before = problems[name].residual_rms(prior).mean()
    print(f"\n{name}: residual of draws that know the LR image alone {before:.2f} times the noise; by SVI:")
    print(solution.to_text())
    print(f"residual of the mean: {problems[name].residual_rms(solution.moments().mean):.2f}")

# %%
# Hamiltonian Monte Carlo, from there
# -----------------------------------
# Two chains start at draws of the variational Gaussian, which scatter more than the posterior: chains that start at one
# place may agree because none of them has gone far, and would be remarked. Their residual is that of the noise. R-hat
# compares them on projections, bands and patches of the images. So few draws are something to look at, not to quote:
# one is so like the next that in some summaries all of them count as a handful, R-hat stays far above 1.05, and the map
# of their standard deviation is grainy. The remarks say so, and what to do for a result to publish.

starts = solutions["inpainting"].latents[0, :2]
length = {"num_samples": 4, "num_warmup": 2} if SMOKE else {"num_samples": 60, "num_warmup": 30}
chains = solve(problems["inpainting"], "hmc", start=starts, num_chains=2, trajectory=0.7, **length)
print(chains.to_text())
moments = {name: solution.moments() for name, solution in {**solutions, "HMC": chains}.items()}
hidden = visible == 0
stds = {name: moments[name].std for name in ("inpainting", "HMC")}
for name, std in stds.items():
    seen, unseen = 255 * std[:, ~hidden].mean(), 255 * std[:, hidden].mean()
    print(f"{name}: standard deviation {seen:.1f} grey levels where observed, {unseen:.1f} where not")

# %%
# The picture
# -----------
# Where the image was observed, the posterior keeps to it. Where it was not, the LR image and the prior decide, and the
# draws differ. A blurred observation leaves the finest details to the prior everywhere.

heat = {"cmap": "cividis", "vmin": 0, "vmax": 255 * float(prior.std(0).mean(0).quantile(0.99))}
rows = {
    "given": [
        ("truth", hr),
        ("LR, bicubic", crop_to(bicubic_up(lr, flow.upscale), (size, size))),
        ("mean, LR alone", prior.mean(0)),
        ("std, LR alone", prior.std(0)),
    ],
    "inpainting": [
        ("observed", operators["inpainting"].picture(problems["inpainting"].observation, tuple(hr.shape), fill=1.0)),
        ("mean by SVI", moments["inpainting"].mean),
        ("mean by HMC", moments["HMC"].mean),
        ("std by HMC", moments["HMC"].std),
    ],
    "deblurring": [
        ("observed", problems["deblurring"].observation),
        ("mean by SVI", moments["deblurring"].mean),
        ("a draw", next(solutions["deblurring"].image_batches())[0]),
        ("std by SVI", moments["deblurring"].std),
    ],
}
figure, axes = plt.subplots(3, 4, figsize=(8, 6.2), layout="constrained")
for row, (name, pictures) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(name)
    for axis, (title, picture) in zip(row, pictures, strict=True):
        if title.startswith("std"):
            shown = axis.imshow(255 * picture.mean(0).numpy(), interpolation="nearest", **heat)
        else:
            axis.imshow(picture.clamp(0, 1).movedim(0, -1).numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
figure.colorbar(shown, ax=axes[:, -1], label="grey levels", shrink=0.6, extend="max")
plt.show()

assert SMOKE or all(std[:, hidden].mean() > 1.15 * std[:, ~hidden].mean() for std in stds.values()), stds
assert SMOKE or chains.diagnostics.residual_rms < 1.2, chains.to_text()
