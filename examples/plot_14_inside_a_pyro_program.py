r"""
A flow inside a larger Pyro program: a camera of unknown white balance and noise
================================================================================

A thumbnail :math:`y^*` has the right colours. Of the same scene there is half of a
photograph :math:`b`, the rest is lost, and its camera had a white balance and a noise
level that nobody wrote down. What did the whole scene look like, and what was the
camera? The flow knows scenes given their thumbnails; the rest is a program:

.. math:: x \sim p(x \mid y^*), \quad g_c \sim \mathrm{LogNormal}(0, 0.3^2), \quad
          s \sim \mathrm{LogNormal}(\log 0.03, 0.5^2), \quad
          b_{cij} \sim \mathcal{N}(g_c\, x_{cij}, s^2) \text{ where seen.}

Scene, white balance and noise are inferred together. Such an inference runs through
thousands of latents, and its result looks plausible whether it is right or not. So the
program is first given a flow whose posterior is known, where a grid over :math:`g` and
:math:`s` is exact, and then the flow of photographs.
"""

# %%
# The program
# -----------
# :func:`flowsr.programs.super_resolution` generates the scene. At
# ``lr_log_scale=-math.inf`` its LR image is the thumbnail exactly, and only the latents
# are to be inferred. Everything else is Pyro, and neither knows of the other.

import math
import sys

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import skimage.data
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, init_to_median
from torch import Tensor
from torch.nn import functional as F

import flowsr
from flowsr.images import bicubic_down, bicubic_up, make_lr
from flowsr.plots import PALETTE, Panel, draw_panel
from flowsr.posterior import LinearGaussianFlow
from flowsr.programs import super_resolution

SMOKE = "--smoke" in sys.argv
PRIOR_GAIN, PRIOR_NOISE = (0.0, 0.3), (math.log(0.03), 0.5)  # of the logarithms
pyro.set_rng_seed(0)


def camera(flow, lr: Tensor, columns: int, photo: Tensor | None = None) -> Tensor:
    """A scene, and the photograph of its leftmost columns by a camera."""
    scene = super_resolution(flow, lr, lr_log_scale=-math.inf)
    log_gain = dist.Normal(*PRIOR_GAIN).expand([len(lr)]).to_event(1)
    gain = pyro.sample("log_gain", log_gain).exp()
    noise = pyro.sample("log_noise", dist.Normal(*PRIOR_NOISE)).exp()
    seen = gain[..., None, None] * scene[..., :columns]
    return pyro.sample("photo", dist.Normal(seen, noise).to_event(3), obs=photo)


# %%
# A flow whose answer is known
# ----------------------------
# Of a linear-Gaussian flow the scene is Gaussian given the thumbnail, and its seen half
# is :math:`\mathcal{N}(m, K)`. Given gain and noise so is the photograph,
#
# .. math:: b \mid g, s \sim \mathcal{N}(g\,m,\; g^2 K + s^2 I),
#
# with all latents integrated out. So the posterior of the two numbers is computed on a
# grid, without sampling. NUTS runs through the latents instead, and must agree, up to
# what its draws are worth: successive ones resemble each other.

torch.set_default_dtype(torch.float64)
known = LinearGaussianFlow(detail_std=(0.08, 0.04))
lr = torch.tensor([[[0.3, 0.7]]])  # of a scene of 4x8 pixels
truth = {"log_gain": torch.tensor([0.2]), "log_noise": torch.tensor(math.log(0.04))}
photo = pyro.condition(camera, data=truth)(known, lr, 6)

exact = known.posterior(lr)
seen = (torch.arange(32) % 8 < 6).nonzero().squeeze()
m, K = exact.mean[seen], exact.covariance[seen][:, seen]
values, vectors = torch.linalg.eigh(K)
log_g = torch.linspace(-0.5, 0.9, 401)
log_s = torch.linspace(math.log(0.004), math.log(0.25), 201)
g, s = log_g.exp()[:, None, None], log_s.exp()[None, :, None]
residual = (photo.flatten() @ vectors) - g * (m @ vectors)
log_p = dist.Normal(0.0, (g**2 * values + s**2).sqrt()).log_prob(residual).sum(-1)
log_p += dist.Normal(*PRIOR_GAIN).log_prob(log_g)[:, None]
log_p += dist.Normal(*PRIOR_NOISE).log_prob(log_s)[None, :]
grid = (log_p - log_p.max()).exp()
marginals = {"log_gain": (log_g, grid.sum(1)), "log_noise": (log_s, grid.sum(0))}

warmup, samples = (4, 4) if SMOKE else (100, 300)
kernel = NUTS(camera, max_tree_depth=2 if SMOKE else 4)
mcmc = MCMC(kernel, samples, warmup_steps=warmup, disable_progbar=True)
mcmc.run(known, lr, 6, photo)
found = {name: mcmc.get_samples()[name].flatten() for name in marginals}
facts = mcmc.diagnostics()
errors = {}
for name, (axis, weight) in marginals.items():
    mean = float((axis * weight).sum() / weight.sum())
    std = float(((axis - mean) ** 2 * weight).sum() / weight.sum()) ** 0.5
    own, effective = found[name], max(1.0, float(facts[name]["n_eff"]))
    errors[name] = abs(float(own.mean()) - mean) / (std / effective**0.5)
    print(
        f"{name:9} true {float(truth[name]):+.3f}: grid {mean:+.3f} ± {std:.3f},",
        end=" ",
    )
    print(f"NUTS {own.mean():+.3f} ± {own.std():.3f}, {effective:.0f} effective draws")

# %%
# A photograph
# ------------
# The same function, with the flow that ships. Through the thousands of latents of a
# photograph NUTS would take hours on one core, variational inference takes seconds. Its
# guide is a Gaussian of all sites together, of low rank, so that white balance and
# scene may be correlated.

torch.set_default_dtype(torch.float32)
flow = flowsr.load("sr-x4-small").requires_grad_(False)
size = 16 if SMOKE else 32
columns = size // 2
cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
hr = cat[:, 92 : 92 + size, 156 : 156 + size]
lr = make_lr(hr, flow.upscale)
gain, noise = torch.tensor([1.25, 1.0, 0.8]), 0.04
half = gain[:, None, None] * hr[..., :columns]
photo = half + noise * torch.randn(half.shape)
given = (flow, lr, columns, photo)

pyro.clear_param_store()
start = {"init_loc_fn": init_to_median, "init_scale": 0.1}
guide = AutoLowRankMultivariateNormal(camera, **start)
steps = 4 if SMOKE else 400
decay = {"optimizer": torch.optim.Adam, "gamma": 0.03 ** (1 / steps)}
optimizer = pyro.optim.ExponentialLR({**decay, "optim_args": {"lr": 0.03}})
svi = SVI(camera, guide, optimizer, Trace_ELBO())
for step in range(steps):
    loss = svi.step(*given)
    optimizer.step()
    if step % max(1, steps // 4) == 0 or step == steps - 1:
        print(f"step {step:3d}: −ELBO {loss:.0f} nats")

# %%
# What it found
# -------------
# Draws of the guide, and the scenes that the program makes of them. Beside them stands
# what one would do without a flow: shrink the seen half of the photograph, and regress
# it on the thumbnail. The two must agree on the white balance, as the thumbnail fixes
# it; only the program has a scene as well, and says how sure it is.
#
# The noise comes out larger than it is. No single Gaussian of low rank is as narrow as
# the posterior in the hundreds of directions that the photograph fixes, so the guide's
# own scatter is counted as noise of the camera. The grid above would tell on the known
# flow; here only knowing it helps.

many = 8 if SMOKE else 200
with torch.no_grad():
    sites = Predictive(guide, num_samples=many)(*given)
    scenes = Predictive(camera, sites, return_sites=["hr"])(*given[:3])["hr"]
scenes = scenes.reshape(-1, *hr.shape)
gains, noises = sites["log_gain"].reshape(-1, 3).exp(), sites["log_noise"].exp()
thumbnail = lr[..., : columns // 4]
shrunk = bicubic_down(photo, 4)
regressed = (shrunk * thumbnail).sum((1, 2)) / thumbnail.square().sum((1, 2))
for channel, name in enumerate(("red", "green", "blue")):
    of = gains[:, channel]
    print(
        f"{name:6} gain {gain[channel]:.2f}: found {of.mean():.2f} ± {of.std():.2f},",
        end=" ",
    )
    print(f"by regression {regressed[channel]:.2f}")
print(f"noise {255 * noise:.1f} grey levels: found {255 * noises.mean():.1f}")
error, before = scenes.mean(0) - hr, bicubic_up(lr, 4) - hr
for what, of in (("seen", slice(columns)), ("lost", slice(columns, None))):
    with_flow, without = (e[..., of].square().mean().sqrt() for e in (error, before))
    print(f"{what} half: error {255 * with_flow:.1f} grey levels,", end=" ")
    print(f"{255 * without:.1f} of the enlarged thumbnail")

# %%
# The picture
# -----------
# Above: what was given, and the scene that was found. Its left half has the colours of
# the thumbnail and the details of the photograph; on the right, details are the flow's
# and vary from draw to draw. Below: on the known flow NUTS and the grid agree on the
# gain. Of the noise, a few dozen effective draws have the mean and about the width, but
# miss the tail of little noise: there the latents must fit the photograph so closely
# that NUTS would need smaller steps. R-hat and effective draws hint at that; the grid
# shows it.

spread = scenes.std(0)
panels = [
    Panel(lr, "thumbnail"),
    Panel(F.pad(photo, (0, size - columns), value=1.0), "half a photograph"),
    Panel(scenes.mean(0), "mean of the scenes"),
    Panel(scenes[0], "a draw"),
    Panel(spread, "std of the scenes", heat=float(spread.mean(0).quantile(0.99))),
    Panel(hr, "truth"),
]
curves = {}
for name, (axis, weight) in marginals.items():
    usual = weight > 0.001 * weight.max()
    density = weight / (weight.sum() * (axis[1] - axis[0]))
    curves[name] = axis[usual], density[usual]

figure = plt.figure(figsize=(10, 5.2), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.2))
for axes, panel in zip(top.subplots(1, len(panels)), panels, strict=True):
    draw_panel(axes, panel)
for axes, (name, curve) in zip(bottom.subplots(1, 2), curves.items(), strict=True):
    axes.hist(found[name], 30, density=True, color=PALETTE["sky"], label="NUTS")
    axes.plot(*curve, color=PALETTE["ink"], label="exact, on a grid")
    axes.axvline(float(truth[name]), color=PALETTE["red"], ls=":", label="truth")
    axes.set(xlabel=name.replace("_", " "), yticks=[])
axes.legend(frameon=False, fontsize=8)
plt.show()

assert SMOKE or max(errors.values()) < 4, errors
assert SMOKE or float((gains.mean(0) / regressed - 1).abs().max()) < 0.05, gains.mean(0)
