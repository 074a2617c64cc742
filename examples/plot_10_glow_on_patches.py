r"""
Glow on patches of photographs: bits, draws, temperature
========================================================

How many bits does a patch of a photograph cost? A density answers: :math:`-\log_2 p(x)` bits, and divided by the number
of its values, bits per dimension. A better density is a lower number, and every density pays in the same coin. Here a
small Glow is trained for a minute or two on patches of 8x8 pixels and set beside densities that need no training: the
uniform one, a normal distribution for each value alone, and a normal distribution of all 192 values with their whole
covariance.

Then the Glow is asked for patches. Draws at a temperature below one look calmer, and are more probable than any
photograph: probable is not the same as typical.
"""

# %%
# Patches
# -------
# Four photographs, cut into patches. The lower third of each is never trained on. 8-bit values become continuous with
# uniform noise of one grey level; the bits of the noisy patch then bound those of the 8-bit patch from above.

import math
import sys

import matplotlib.pyplot as plt
import pyro.distributions as dist
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.plots import Curves, Line, curve_grid, image_grid

SMOKE = "--smoke" in sys.argv
SIDE = 8
STEPS = 30 if SMOKE else 700
torch.manual_seed(0)

photographs = [
    torch.from_numpy(getattr(skimage.data, name)()).movedim(-1, 0).float() / 255
    for name in ("astronaut", "chelsea", "coffee", "rocket")
]
upper = [image[:, : 2 * image.shape[1] // 3] for image in photographs]
lower = [image[:, 2 * image.shape[1] // 3 :] for image in photographs]


def patches(images: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Patches (count, 3, SIDE, SIDE) at random places, of each image as many."""
    chosen = []
    for i in range(count):
        image = images[i % len(images)]
        top, left = (
            int(torch.randint(side - SIDE + 1, (), generator=generator))
            for side in image.shape[1:]
        )
        chosen.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(chosen)


generator = torch.Generator().manual_seed(0)
held_out = uniform_dequantize(patches(lower, 2048, generator), generator=generator)


def bits(log_prob: Tensor) -> float:
    """Bits per dimension of 8-bit patches: a grey level is 1/256 of the values."""
    return 8.0 - float(log_prob.detach().mean()) / (3 * SIDE * SIDE * math.log(2.0))


# %%
# Densities without training
# --------------------------
# Under the uniform density every patch costs 8 bits per dimension. A normal distribution for each value alone knows
# how bright photographs are, which is worth next to nothing. One with all covariances knows that neighbours are alike.
# It has a closed form, so it says whether a flow is worth its trouble.

many = uniform_dequantize(
    patches(upper, 500 if SMOKE else 20_000, generator), generator=generator
)
values = many.flatten(1).double()
mean, covariance = values.mean(0), values.T.cov() + 1e-6 * torch.eye(values.shape[1])
each = dist.Normal(mean, covariance.diagonal().sqrt()).to_event(1)
whole = dist.MultivariateNormal(mean, covariance)
known = {
    "uniform": 8.0,
    "a normal for each value": bits(each.log_prob(held_out.flatten(1).double())),
    "one normal for all": bits(whole.log_prob(held_out.flatten(1).double())),
}
for name, value in known.items():
    print(f"{name:24} {value:.2f} bits/dim")

# %%
# Glow
# ----
# Two levels of eight flow steps. The model is a density of images of any size that is a multiple of four. ActNorms take
# their start from a first batch; after that, training is maximum likelihood and nothing else.

glow = flowsr.from_preset("glow-small", levels=2)
glow.initialize(patches(upper, 256, generator))
print(
    f"{sum(p.numel() for p in glow.parameters()):,} parameters;"
    f" untrained {bits(glow.log_prob(held_out)):.2f} bits/dim"
)

optimizer = torch.optim.Adam(glow.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=1e-3, total_steps=STEPS, pct_start=0.05
)
curve: list[tuple[int, float, float]] = []
for step in range(STEPS):
    batch = uniform_dequantize(patches(upper, 64, generator), generator=generator)
    loss = -glow.log_prob(batch).mean() / (batch[0].numel() * math.log(2.0))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(glow.parameters(), 10.0)
    optimizer.step()
    schedule.step()
    if step % max(STEPS // 15, 1) == 0 or step == STEPS - 1:
        with torch.no_grad():
            curve.append(
                (
                    step + 1,
                    bits(glow.log_prob(many[:512])),
                    bits(glow.log_prob(held_out[:512])),
                )
            )
print(
    f"Glow after {STEPS} steps: {curve[-1][1]:.2f} bits/dim where it was trained,"
    f" {curve[-1][2]:.2f} where it was not"
)

# %%
# Temperature
# -----------
# The latents of a draw are standard normal; at temperature :math:`\tau` they are :math:`\tau` times that. A draw at
# :math:`\tau < 1` has less detail. The model says that it is *more* probable than a photograph, that is, it would cost
# fewer bits. So a density is no measure of how natural an image is: in many dimensions the most probable point is like
# no draw at all.
#
# The inverse of a coupling divides by a scale that a network computed. For latents far from those of data that scale
# may be tiny, and again in the next coupling: a few draws run away, to colours that are none or to no numbers at all.
# They are counted here, and left out of the figure; medians do not mind them.

glow.eval()
draws: dict[float, Tensor] = {}
cost: dict[float, float] = {}
for temperature in (1.0, 0.7, 0.4):
    with torch.no_grad():
        drawn = glow.sample(
            (SIDE, SIDE), num_samples=512, temperature=temperature, generator=generator
        )
        tame = (drawn - 0.5).abs().flatten(1).amax(1) < 1.0  # false for NaN, too
        draws[temperature] = drawn[tame]
        cost[temperature] = bits(glow.log_prob(drawn[tame]).median())
    runaways = len(drawn) - int(tame.sum())
    print(
        f"draws at τ = {temperature:.1f}: {cost[temperature]:.2f} bits/dim;"
        f" {runaways} of {len(drawn)} ran away"
    )

# %%
# What came out
# -------------


def mosaic(images: Tensor, *, rows: int = 3, columns: int = 16) -> Tensor:
    """Patches side by side with a white line between them, as one image."""
    chosen = images[: rows * columns].clamp(0, 1)
    framed = torch.nn.functional.pad(chosen, (1, 1, 1, 1), value=1.0)
    grid = framed.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return grid.flatten(3, 4).flatten(1, 2)


steps, trained, unseen = zip(*curve, strict=True)
lines = [
    Line(steps, trained, "Glow, patches of the parts trained on", "sky"),
    Line(steps, unseen, "Glow, patches of the parts held out", "blue"),
]
price = {"photographs, held out": curve[-1][2]}
rows = {"photographs, held out": patches(lower, 48, torch.Generator().manual_seed(2))}
for temperature, images in draws.items():
    price[f"draws at τ = {temperature:g}"] = cost[temperature]
    rows[f"draws at τ = {temperature:g}"] = images

figure = plt.figure(figsize=(7, 9.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 2))
title = "Patches of 8x8 pixels\n8-bit RGB, uniform noise of 1/256"
axes = ("training step", "bits per dimension")
curve_grid([Curves(title, *axes, lines, levels=known)], into=above)
pictures = {f"{name}: {price[name]:.2f} bits/dim": mosaic(rows[name]) for name in rows}
image_grid(pictures, columns=1, into=below)
plt.show()

assert cost[0.4] < cost[0.7] < cost[1.0], cost
assert SMOKE or curve[-1][2] < known["one normal for all"], (curve[-1], known)
