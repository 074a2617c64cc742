r"""
Change of variables: one coupling, then two moons
=================================================

A normalizing flow turns a density that we know into one that we want. Let :math:`z` have the density :math:`p_z`, and
let :math:`x = f(z)` with an invertible :math:`f`. Then

.. math:: \log p_x(x) = \log p_z(f^{-1}(x)) + \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|.

Everything in flowsr rests on this line. Here it is checked on a single coupling layer against automatic
differentiation, and then used to learn the density of points in the plane.

flowsr works on images. A point :math:`(x_1, x_2)` is an image too: one pixel with two channels, of shape
``(2, 1, 1)``. So the same layers that model photographs can be watched in two dimensions.
"""

# %%
# One coupling layer
# ------------------
# A coupling keeps some channels and moves the others by a shift and a scale that a network, the *conditioner*, computes
# from the kept ones. It is invertible whatever the conditioner is, because the kept channels are there in both
# directions. The conditioner here is the one of Glow and HCFlow, :class:`flowsr.nn.FCN`. On an image of a single pixel
# its 3x3 convolutions see nothing but zero padding around the centre, so that it is an ordinary network with two
# hidden layers.
#
# Conditioners start at zero, hence couplings start as the identity. Random weights make this one interesting.

import sys

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch

import flowsr
from flowsr.distributions import FlowDistribution
from flowsr.nn import FCN
from flowsr.transforms import AffineMap, Compose, Coupling, FlowStep

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)

coupling = Coupling(
    2, FCN(1, 2, hidden_channels=16), map=AffineMap(log_scale="tanh"), kept_channels=1
).double()
with torch.no_grad():
    for parameter in coupling.parameters():
        parameter.normal_(std=0.5)

point = torch.randn(2, 1, 1, dtype=torch.float64)
z, ladj = coupling.inv_call_and_ladj(point)

# %%
# ``transform(z) = x`` generates and ``transform.inv(x) = z`` encodes. ``inv_call_and_ladj`` returns the code together
# with its log-determinant :math:`\log|\det \partial z/\partial x|`, abbreviated *ladj*. Automatic differentiation
# gives the whole Jacobian, at the price of one backward pass per dimension:

jacobian = torch.autograd.functional.jacobian(coupling.inv, point).reshape(2, 2)
print("Jacobian ∂z/∂x of the coupling:\n", jacobian.numpy().round(4))
print(f"log|det| by autograd {torch.linalg.slogdet(jacobian)[1]:.12f}")
print(f"ladj of the coupling {ladj:.12f}")

# %%
# The Jacobian is triangular: the first row is (1, 0) because the first channel is kept. The determinant is then the
# product of the diagonal, and the coupling knows it without computing any derivative. That is the whole trick.
#
# A flow
# ------
# One coupling changes only half of the coordinates. A flow stacks many and swaps the halves; log-determinants add up.
# Each :class:`flowsr.transforms.FlowStep` also normalizes its channels first. The base is a standard normal, and base
# and transforms together are an ordinary Pyro distribution.


def make_flow(steps: int) -> Compose:
    couplings = [
        Coupling(
            2,
            FCN(1, 2, hidden_channels=32),
            map=AffineMap(log_scale="tanh"),
            kept_channels=1,
            keep="first" if step % 2 == 0 else "last",
        )
        for step in range(steps)
    ]
    return Compose([FlowStep(2, coupling=coupling) for coupling in couplings])


def two_moons(n: int, generator: torch.Generator) -> torch.Tensor:
    """Two half circles with noise of 0.08, as images of shape (n, 2, 1, 1)."""
    angle = torch.pi * torch.rand(n, generator=generator)
    lower = torch.rand(n, generator=generator) < 0.5
    x = torch.where(lower, 1 - angle.cos(), angle.cos())
    y = torch.where(lower, 0.5 - angle.sin(), angle.sin())
    points = torch.stack([x, y], -1) + 0.08 * torch.randn(n, 2, generator=generator)
    return points[:, :, None, None]


generator = torch.Generator().manual_seed(1)
flow = make_flow(steps=8)
base = dist.Normal(torch.zeros(2, 1, 1), 1.0).to_event(3)
density = FlowDistribution(base, [flow])

# %%
# Training maximizes the mean of :math:`\log p_x` over data: change of variables is the loss. The normalizations take
# their start from a first batch of data, inside a context that says so; scoring alone never changes a layer.

with flowsr.nn.initialize_from_data(flow), torch.no_grad():
    density.log_prob(two_moons(1024, generator))

steps = 60 if SMOKE else 1000
optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1
)
for step in range(steps):
    loss = -density.log_prob(two_moons(512, generator)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % (steps // 5) == 0 or step == steps - 1:
        print(f"step {step:4d}: {loss.item():.3f} nats per point")

# %%
# What came out
# -------------
# Left: draws :math:`z` of the base, coloured by their first coordinate. Right: the same draws after the flow, in the
# same colours; the flow bends the normal into two arcs without tearing it, which is why a thin bridge between them
# remains. Below: the density, with held-out data on top.
#
# A density must integrate to one. Nothing in training enforces that: the log-determinant does. We sum the density over
# a fine grid, and also compare the log-determinant of all layers together with automatic differentiation.

with torch.no_grad():
    z = base.sample((2000,))
    x = flow(z)
    side = torch.linspace(-5.0, 6.0, 551)
    grid = torch.cartesian_prod(side, side)[:, :, None, None]
    log_p = torch.cat([density.log_prob(part) for part in grid.split(50_000)]).reshape(
        551, 551
    )
mass = float(log_p.double().exp().sum() * (side[1] - side[0]) ** 2)

flow.double()
held_out = two_moons(50, generator).double()
by_layers = flow.inv_call_and_ladj(held_out)[1]
jacobians = torch.func.vmap(torch.func.jacrev(lambda point: flow.inv(point).flatten()))(
    held_out
).reshape(-1, 2, 2)
error = float((by_layers - torch.linalg.slogdet(jacobians)[1]).detach().abs().max())
print(
    f"integral of the density {mass:.4f};"
    f" largest difference of log-determinants {error:.1e} nats"
)

dots = {"c": z[:, 0].flatten().numpy(), "s": 4, "vmin": -2.5, "vmax": 2.5}
colours = {"cmap": "cividis", "vmin": -8, "extent": (-5, 6, -5, 6), "origin": "lower"}
points = two_moons(300, generator).flatten(1).T.numpy()
titles = {"base": "Base: z ~ N(0, I)", "draws": "Draws: x = f(z)"}
titles["density"] = "Learned density; white: held-out data"
labels = {"xlabel": "first coordinate", "ylabel": "second coordinate"}

figure = plt.figure(figsize=(7, 6.6), layout="constrained")
axes = figure.subplot_mosaic([["base", "draws"], ["density", "density"]])
axes["base"].scatter(*z.flatten(1).T.numpy(), **dots)
axes["draws"].scatter(*x.flatten(1).T.numpy(), **dots)
shown = axes["density"].imshow(log_p.T.numpy(), **colours)
figure.colorbar(shown, ax=axes["density"], label="log p(x), nats", extend="min")
axes["density"].scatter(*points, s=3, c="white", alpha=0.7)
for name, title in titles.items():
    axes[name].set(title=title, aspect="equal", **labels)
    plane = (-3.5, 3.5, -3.5, 3.5) if name == "base" else (-1.6, 2.6, -1.5, 2.0)
    axes[name].axis(plane)
plt.show()

assert error < 1e-9, error
assert abs(mass - 1) < 0.01, mass
