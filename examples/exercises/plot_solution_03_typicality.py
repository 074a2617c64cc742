r"""
Solution 3: typicality
======================

Of a standard normal in many dimensions the most probable point is zero, and no draw is
ever near it. Almost all draws have :math:`|z|^2 \approx D`. What is *typical* is not
what is most probable: the single most probable image of a flow looks unlike its draws,
and a blurred photograph is more probable than a photograph.

You compute by how much, write a test of typicality, and use it on temperatures and on
photographs.

The exercise: :ref:`sphx_glr_auto_examples_exercises_exercise_03_typicality.py`.
Its solution: :ref:`sphx_glr_auto_examples_exercises_plot_solution_03_typicality.py`.
"""

# %%
# Run this first. ``check`` tells whether what you have written is right.

import math

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.images import make_lr
from flowsr.likelihood import perturbed

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
# a) How far out draws are
# ------------------------
# :math:`|z|^2` is a sum of :math:`D` independent squares, each of mean 1 and variance
# 2. What are mean and standard deviation of :math:`|z|^2/D`?


def norm_per_dim(z: Tensor) -> Tensor:
    """Task a: |z|²/D of vectors (n, D), of shape (n,)."""
    return z.square().mean(1)


def spread_of_norm(dims: int) -> float:
    """Task a: the standard deviation of |z|²/D of draws of N(0, I) in D dimensions."""
    return math.sqrt(2 / dims)


draws = {dims: torch.randn(4000, dims) for dims in (2, 32, 512)}
check(
    "the norm of a vector of ones is 1 per dimension",
    lambda: torch.allclose(norm_per_dim(torch.ones(3, 8)), torch.ones(3)),
    "the mean over the dimensions of the squares",
)
check(
    "draws scatter around 1 by what you say",
    lambda: all(
        abs(float(norm_per_dim(z).std()) / spread_of_norm(dims) - 1) < 0.06
        for dims, z in draws.items()
    ),
    "the variance of a sum of D independent squares is 2D, that of their mean 2/D",
)

# %%
# b) The price of being typical
# -----------------------------
# :math:`\log p(z) = -\frac12 |z|^2 - \frac{D}{2}\log 2\pi`. So zero beats every draw.


def advantage_of_zero(dims: int) -> float:
    """Task b: log p(0) − E log p(z) in nats, z ~ N(0, I) in D dimensions."""
    return dims / 2


normal = torch.distributions.Normal(0.0, 1.0)
check(
    "it is the mean over draws",
    lambda: all(
        abs(
            float(
                (normal.log_prob(torch.zeros(dims)) - normal.log_prob(z)).sum(1).mean()
            )
            / advantage_of_zero(dims)
            - 1
        )
        < 0.1
        for dims, z in draws.items()
    ),
    "E|z|² = D, and the constants cancel",
)

# %%
# c) A test of typicality
# -----------------------
# A point is typical if its norm is one that draws have, be it small or large.


def is_typical(z: Tensor, width: float = 4.0) -> Tensor:
    """Task c: whether |z|²/D is within ``width`` standard deviations of 1, (n,)."""
    return (norm_per_dim(z) - 1).abs() < width * spread_of_norm(z.shape[1])


z = draws[512]


def share(typical: Tensor) -> float:
    return float(typical.double().mean())


check(
    "nearly all draws are typical",
    lambda: share(is_typical(z)) > 0.999,
    "compare |z|²/D with its mean, 1",
)
check(
    "zero is not, probable as it is",
    lambda: share(is_typical(0 * z)) == 0,
    "too small is as strange as too large: the absolute value of the difference",
)
check(
    "nor are draws at temperature 0.8 or 1.3",
    lambda: share(is_typical(0.8 * z)) < 0.01 and share(is_typical(1.3 * z)) < 0.01,
    "in 512 dimensions 0.64 is far from 1",
)
check(
    "in 2 dimensions the test cannot tell",
    lambda: share(is_typical(0.8 * draws[2])) > 0.95,
    "the spread √(2/D) depends on the dimension",
)

# %%
# d) Temperature
# --------------
# Draws at temperature :math:`\tau` are :math:`z = \tau\varepsilon`,
# :math:`\varepsilon \sim \mathcal{N}(0, I)`. They are draws of another density.


def log_prob_at(z: Tensor, temperature: float) -> Tensor:
    """Task d: log density in nats of N(0, τ² I) at vectors (n, D), of shape (n,)."""
    squares = z.square().sum(1) / temperature**2
    constant = z.shape[1] * math.log(2 * math.pi * temperature**2)
    return -0.5 * (squares + constant)


check(
    "it is a normal of standard deviation τ",
    lambda: torch.allclose(
        log_prob_at(z, 0.7),
        torch.distributions.Normal(0.0, 0.7).log_prob(z).sum(1),
        rtol=1e-5,
    ),
    "each dimension pays log τ for its smaller volume",
)
check(
    "a draw at 0.8 is more probable at 0.8 than at 1",
    lambda: share(log_prob_at(0.8 * z, 0.8) > log_prob_at(0.8 * z, 1.0)) > 0.99,
    "the logarithm of a normal density: −½|z|²/τ² − ½D·log(2πτ²)",
)

# %%
# e) Photographs
# --------------
# Under a perfect model, the latents of photographs would be typical. HCFlow encodes a
# photograph, the same blurred, and the same with noise, each given its own LR image.

flow = flowsr.load("sr-x4-small").requires_grad_(False)
cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
hr = cat[:, 88:152, 130:194].contiguous()
seeded = torch.Generator().manual_seed(0)
images = {
    "photograph": hr,
    "blurred": perturbed(hr, "smooth", strength=3, generator=seeded),
    "noisy": perturbed(hr, "noisy", strength=8, generator=seeded),
}


def latents(image: Tensor) -> Tensor:
    """Task e: all latents of an image (C, H, W) as one vector (1, D_z).

    flow.encode(image).z is a tuple of tensors, one per level. The bins of 8-bit values
    are filled with noise first, as in dequantization.
    """
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    parts = flow.encode(image + noise / 256).z
    return torch.cat([z.flatten() for z in parts])[None]


def bits(image: Tensor) -> float:
    found = flowsr.likelihood.bits_per_dim(flow, image, make_lr(image, flow.upscale))
    return float(found.figure.value)


check(
    "latents and LR image have as many values as the image",
    lambda: latents(hr).shape == (1, hr.numel() - hr.numel() // 16),
    "concatenate the flattened latents of all levels; the LR image is none of them",
)
check(
    "a draw of the model has typical latents",
    lambda: is_typical(
        latents(
            flow.sample(make_lr(hr, 4), generator=torch.Generator().manual_seed(1))[0]
        ),
        width=30,
    ).all(),
    "z of flow.encode, unscaled; the noise of the bins moves a draw's latents a little",
)
check(
    "the blurred image is more probable, and its latents are smaller",
    lambda: (
        bits(images["blurred"]) < bits(hr)
        and norm_per_dim(latents(images["blurred"])) < norm_per_dim(latents(hr))
    ),
    "nothing to compute here: if c and e are right, so is this",
)

# %%
# What you found
# --------------
# In two dimensions draws at temperature 0.8 cannot be told from draws; in 512 the two
# do not overlap. The photograph's latents are a little larger than a normal's: it has
# more detail than this small model expects. Those of its blurred version are far too
# small, while it takes *fewer* bits. So likelihood alone finds noise, and typicality
# finds blur too: :ref:`sphx_glr_auto_examples_plot_05_likelihood_and_outliers.py`.

if all(done):
    for name, image in images.items():
        norm = float(norm_per_dim(latents(image)))
        print(f"{name:11} {bits(image):.2f} bits/dim, |z|²/D = {norm:.2f}")
    figure, panels = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axes, (dims, z) in zip(panels, draws.items(), strict=True):
        for temperature, colour in ((1.0, "#0072B2"), (0.8, "#D55E00")):
            norms = norm_per_dim(temperature * z).numpy()
            label = f"draws at τ = {temperature}"
            axes.hist(norms, 60, density=True, color=colour, alpha=0.7, label=label)
        axes.plot(0, 0, "k^", clip_on=False, label="the most probable point")
        axes.set(title=f"D = {dims}", xlabel="|z|²/D", yticks=[], xlim=(-0.05, 3))
    panels[-1].legend(frameon=False, fontsize=8)
    plt.show()

print(f"{sum(done)} of {len(done)} checks passed")
assert all(done), "what is missing is said beside NOT YET above"
