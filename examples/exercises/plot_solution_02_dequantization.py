r"""
Solution 2: dequantization
==========================

A flow has a density, an 8-bit image has a probability. Trained on 8-bit values as they
are, a density grows without bound, and its number means nothing. Noise within each bin
makes a bound of a probability of it. You watch the first, and derive the second, then a
tighter one, and at the end compute the bits per dimension of a photograph.

All values here are grey levels :math:`v \in \{0, 1/255, \dots, 1\}`; noise
:math:`u \in [0, 1/256)`, and with :math:`h = 1/256`

.. math:: P(v) = \int_0^{h} p(v + u)\, du.

The exercise: :ref:`sphx_glr_auto_examples_exercises_exercise_02_dequantization.py`. Its
solution: :ref:`sphx_glr_auto_examples_exercises_plot_solution_02_dequantization.py`.
"""

# %%
# Run this first. ``check`` tells whether what you have written is right.

import math

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor
from torch.distributions import Normal

import flowsr
from flowsr.images import make_lr

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
# a) Why a density explodes
# -------------------------
# Let the model be a comb: a normal of width :math:`\sigma` on each of the 256 grey
# levels, all of them equally likely. Halve :math:`\sigma`: each tooth doubles its
# height, and the data sit on the teeth.

levels = torch.arange(256).double() / 255


def comb(x: Tensor, sigma: float) -> Tensor:
    """Task a: log p(x) in nats of the comb, x of shape (n,).

    Hint: Normal(levels, sigma).log_prob(x[:, None]) is (n, 256); torch.logsumexp.
    """
    each = Normal(levels, sigma).log_prob(x[:, None])
    return each.logsumexp(1) - math.log(256)


data = levels[torch.randint(256, (2000,))]
check(
    "a wide comb is a mixture of normals",
    lambda: torch.allclose(
        comb(data, 0.1).exp(),
        Normal(levels, 0.1).log_prob(data[:, None]).exp().mean(1),
    ),
    "the density of a mixture is the mean of those of its parts: subtract log 256",
)
check(
    "each halving of a narrow comb gains log 2",
    lambda: torch.allclose(
        comb(data, 1e-5) - comb(data, 2e-5), torch.tensor(math.log(2)).double()
    ),
    "on a tooth the density is that of its own normal, 1/(256·σ·√(2π))",
)

# %%
# b) Uniform noise
# ----------------
# By Jensen's inequality
#
# .. math:: \log P(v) = \log \mathbb{E}_{u \sim U[0, h)} \frac{p(v + u)}{256}
#           \ge \mathbb{E}_u \log p(v + u) - \log 256.
#
# Divided by :math:`-\log 2`, it is an upper bound of the bits of a value.


def uniform_bound(log_p, v: Tensor) -> Tensor:
    """Task b: bits of each value v (n,) by one draw of uniform noise, (n,).

    log_p takes values (n,) and returns nats (n,). Hint: torch.rand_like.
    """
    u = torch.rand_like(v) / 256
    return (math.log(256) - log_p(v + u)) / math.log(2)


def flat(x: Tensor) -> Tensor:
    return torch.zeros_like(x)  # uniform on [0, 1)


check(
    "under a flat density every value takes 8 bits",
    lambda: torch.allclose(uniform_bound(flat, data), torch.tensor(8.0).double()),
    "−(log p − log 256)/log 2: with p = 1 it is log2(256) = 8",
)
check(
    "the comb gains nothing any more",
    lambda: uniform_bound(lambda x: comb(x, 1e-4), data).mean() > 8,
    "score v + u, not v: between the teeth there is no density",
)


def only_in_one_bin(x: Tensor) -> Tensor:
    return -1e3 * ((x < 0.5) | (x >= 0.5 + 1 / 256)).double()


check(
    "the noise stays within the bin",
    lambda: (uniform_bound(only_in_one_bin, 0 * data + 0.5) < 9).all(),
    "u from 0 to 1/256, so that bins of neighbouring values do not overlap",
)

# %%
# c) Noise that knows the density
# -------------------------------
# Uniform noise wastes bits where the density changes within a bin. With any density
# :math:`q(u)` of the noise
#
# .. math:: \log P(v) \ge \mathbb{E}_{u \sim q} [\log p(v + u) - \log q(u)],
#
# and the best q, proportional to :math:`p(v + u)`, makes it an equality. Flow++ learns
# q with a flow. Here p is a steep normal, for which the best q is known.

steep = Normal(torch.tensor(0.5).double(), 0.002)
near = levels[torch.randint(126, 130, (4000,))]
mass = steep.cdf(near + 1 / 256) - steep.cdf(near)
exact = -mass.log2()  # the bits that the bounds are bounds of


def best_noise(v: Tensor) -> tuple[Tensor, Tensor]:
    """Noise u (n,) of the best q, by inverting its distribution function; log q(u)."""
    u = steep.icdf(steep.cdf(v) + torch.rand_like(v) * mass) - v
    return u, steep.log_prob(v + u) - mass.log()


def variational_bound(log_p, v: Tensor, noise) -> Tensor:
    """Task c: bits (n,) of values v (n,) by one draw of (u, log q(u)) = noise(v)."""
    u, log_q = noise(v)
    return -(log_p(v + u) - log_q) / math.log(2)


def uniform_noise(v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.rand_like(v) / 256, torch.full_like(v, math.log(256))


check(
    "with uniform noise it is the bound of b",
    lambda: (
        (variational_bound(flat, data, uniform_noise) - uniform_bound(flat, data))
        .abs()
        .max()
        < 1e-9
    ),
    "uniform noise has log q = log 256",
)
check(
    "uniform noise costs something",
    lambda: (
        variational_bound(steep.log_prob, near, uniform_noise).mean()
        > exact.mean() + 0.05
    ),
    "bits are −(log p − log q)/log 2",
)
check(
    "the best noise costs nothing, for any draw",
    lambda: torch.allclose(
        variational_bound(steep.log_prob, near, best_noise), exact, atol=1e-6
    ),
    "call noise(v) once: u and log q belong together",
)

# %%
# d) More draws
# -------------
# Without a q, many draws help: with weights :math:`w_i = p(v + u_i)/256`,
#
# .. math:: \mathbb{E} \log w \le \mathbb{E} \log \frac1k \sum_i w_i \le \log P(v).


def weighted_bound(log_p, v: Tensor, k: int) -> Tensor:
    """Task d: bits of each value v (n,) by k draws of uniform noise, (n,).

    Hint: one (k, n) tensor of log w, and torch.logsumexp against overflow.
    """
    u = torch.rand(k, *v.shape, dtype=v.dtype) / 256
    log_w = log_p(v + u) - math.log(256)
    return -(log_w.logsumexp(0) - math.log(k)) / math.log(2)


counts = (1, 2, 4, 16, 64, 256)


def mean_bounds() -> list[float]:
    return [float(weighted_bound(steep.log_prob, near, k).mean()) for k in counts]


check(
    "more draws, fewer bits",
    lambda: all(a > b for a, b in zip(mean_bounds(), mean_bounds()[1:], strict=False)),
    "the logarithm of the mean of the weights, not the mean of their logarithms",
)
check(
    "and never fewer than the exact ones, in the mean",
    lambda: (
        abs(mean_bounds()[-1] - float(exact.mean())) < 0.02
        and mean_bounds()[1] > float(exact.mean())
    ),
    "divide the sum of the weights by k",
)

# %%
# e) A photograph
# ---------------
# Now with a real flow, HCFlow, and a real image of :math:`D = C \cdot H \cdot W`
# values. Its log-density is of all values together, so the noise costs :math:`D \log
# 256`.

flow = flowsr.load("sr-x4-small").requires_grad_(False)
cat = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).float() / 255
hr = cat[:, 88:152, 130:194].contiguous()
lr = make_lr(hr, flow.upscale)


def bits_per_dim(generator: torch.Generator) -> Tensor:
    """Task e: bits per dimension of hr given lr, by one draw of uniform noise.

    flow.condition(lr).log_prob(x) is log p(x | lr) in nats. Draw the noise by
    torch.rand(hr.shape, generator=generator).
    """
    noisy = hr + torch.rand(hr.shape, generator=generator) / 256
    log_p = flow.condition(lr).log_prob(noisy)
    return (math.log(256) * hr.numel() - log_p) / (hr.numel() * math.log(2))


def of_the_library(generator: torch.Generator) -> float:
    found = flowsr.likelihood.bits_per_dim(flow, hr, lr, generator=generator)
    return float(found.figure.value)


seeded = torch.Generator().manual_seed
check(
    "it is what flowsr computes",
    lambda: abs(float(bits_per_dim(seeded(1))) - of_the_library(seeded(1))) < 1e-4,
    "D = C·H·W = 12288: all channels, not pixels; 8 bits per dimension for the noise",
)

# %%
# The bounds
# ----------
# Left: the density of the comb at the data gains a bit with each halving of its width,
# without end, while the bound with noise gets worse as soon as the teeth are narrower
# than a bin. Right: the weighted bound comes down to the exact bits of the steep
# normal.

if all(done):
    widths = [2.0**-i for i in range(4, 18)]
    without = [-float(comb(data, width).mean()) / math.log(2) + 8 for width in widths]
    noisy = [
        float(uniform_bound(lambda x, w=width: comb(x, w), data).mean())
        for width in widths
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.semilogx(
        widths, noisy, "o-", color="#0072B2", label="with noise: a bound", base=2
    )
    left.plot(widths, without, "o-", color="#D55E00", label="without: −log₂ p + 8")
    left.set(xlabel="width σ of the teeth", ylabel="bits per value", ylim=(-4, 30))
    left.axvline(1 / 256, color="grey", linewidth=0.8, label="width of a bin")
    left.invert_xaxis()
    left.legend(frameon=False)
    right.semilogx(counts, mean_bounds(), "o-", color="#0072B2", base=2)
    right.axhline(float(exact.mean()), color="#222222", ls=":", label="exact")
    right.set(xlabel="draws k", ylabel="bits per value, upper bound")
    right.legend(frameon=False)
    plt.show()

print(f"{sum(done)} of {len(done)} checks passed")
assert all(done), "what is missing is said beside NOT YET above"
