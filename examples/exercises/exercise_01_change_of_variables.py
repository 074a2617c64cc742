r"""
Exercise 1: change of variables
===============================

Let :math:`z` have the density :math:`p_z`, and let :math:`x = f(z)` with an invertible
:math:`f`. Then

.. math:: \log p_x(x) = \log p_z(f^{-1}(x))
          + \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|.

You compute the log-determinant twice, once by automatic differentiation and once by
hand, build a coupling layer that makes the second way cheap, and stack couplings into a
density that you can look at.

The exercise:
:ref:`sphx_glr_auto_examples_exercises_exercise_01_change_of_variables.py`. Its
solution:
:ref:`sphx_glr_auto_examples_exercises_plot_solution_01_change_of_variables.py`.
"""

# %%
# Run this first. ``check`` tells whether what you have written is right.

import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
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
# a) The determinant by brute force
# ---------------------------------
# The Jacobian of a function of :math:`n` numbers has :math:`n^2` entries. Automatic
# differentiation gives all of them: ``torch.autograd.functional.jacobian(f, x)``.


def log_det_by_autograd(f, x: Tensor) -> Tensor:
    """Task a: log|det ∂f(x)/∂x| of a function of vectors (n,), at one vector x.

    Hint: torch.linalg.slogdet returns the sign and the logarithm.
    """
    raise NotImplementedError("write this function")


matrix = torch.tensor([[0.0, 3.0], [2.0, 1.0]])  # of determinant -6
point = torch.randn(2)
check(
    "a linear map",
    lambda: abs(log_det_by_autograd(lambda x: matrix @ x, point) - math.log(6)) < 1e-9,
    "the Jacobian of x → A x is A; a negative determinant counts by its absolute value",
)
check(
    "the exponential",
    lambda: abs(log_det_by_autograd(torch.exp, point) - point.sum()) < 1e-9,
    "the Jacobian of exp is diagonal, with exp(x) on the diagonal",
)

# %%
# b) A coupling layer
# -------------------
# Brute force takes :math:`O(n^3)`. A *coupling* keeps the first coordinate and moves
# the second by a scale and a shift that depend on the first one in any way:
#
# .. math:: y_1 = x_1, \qquad y_2 = x_2\, e^{s(x_1)} + t(x_1).
#
# Write its Jacobian on paper. It is triangular: what is its determinant?


def coupling(x: Tensor, s, t) -> tuple[Tensor, Tensor]:
    """Task b: y (batch, 2) and log|det ∂y/∂x| (batch,) of points (batch, 2).

    The functions s and t take x_1 of shape (batch,). No autograd here!
    """
    raise NotImplementedError("write this function")


def bend(a: Tensor) -> Tensor:
    return 0.8 * torch.sin(2 * a)


points = torch.randn(5, 2)
check(
    "the first coordinate is kept, the second is moved",
    lambda: torch.allclose(
        coupling(points, bend, torch.cos)[0],
        torch.stack(
            [
                points[:, 0],
                points[:, 1] * bend(points[:, 0]).exp() + points[:, 0].cos(),
            ],
            1,
        ),
    ),
    "y_1 = x_1, and y_2 = x_2·exp(s(x_1)) + t(x_1)",
)


def by_brute_force(of) -> Tensor:
    return torch.stack(
        [log_det_by_autograd(lambda x: of(x[None])[0][0], x) for x in points]
    )


check(
    "its log-determinant is that of autograd, for each point",
    lambda: torch.allclose(
        coupling(points, bend, torch.cos)[1],
        by_brute_force(lambda x: coupling(x, bend, torch.cos)),
    ),
    "the determinant of a triangular matrix is the product of its diagonal: 1·exp(s)",
)

# %%
# c) And back
# -----------
# The inverse needs no inverse of s or t: :math:`y_1` is :math:`x_1`.


def inverse_coupling(y: Tensor, s, t) -> tuple[Tensor, Tensor]:
    """Task c: x and log|det ∂x/∂y| of points y, of shapes (batch, 2) and (batch,)."""
    raise NotImplementedError("write this function")


check(
    "the inverse undoes the coupling",
    lambda: torch.allclose(
        inverse_coupling(coupling(points, bend, torch.cos)[0], bend, torch.cos)[0],
        points,
    ),
    "take the shift off first, then divide by the scale",
)
check(
    "log-determinants there and back sum to zero",
    lambda: torch.allclose(
        inverse_coupling(coupling(points, bend, torch.cos)[0], bend, torch.cos)[1],
        -coupling(points, bend, torch.cos)[1],
    ),
    "the Jacobian of the inverse is the inverse of the Jacobian",
)

# %%
# d) A density
# ------------
# A flow takes :math:`z \sim \mathcal{N}(0, I)` through couplings, and swaps the
# coordinates after each. The log-density of a point goes the way back: undo the swap,
# undo the coupling, from the last layer to the first, and sum up.
#
# Nothing forces your answer to integrate to one but the log-determinant. Forget it, or
# take its sign wrong, and the integral says so.

layers = [(bend, torch.cos), (torch.tanh, torch.sin), (torch.sin, bend)]


def log_prob(x: Tensor) -> Tensor:
    """Task d: log p(x) in nats of points (batch, 2), of shape (batch,)."""
    raise NotImplementedError("write this function")


def draw(n: int) -> Tensor:
    x = torch.randn(n, 2)
    for s, t in layers:
        x = coupling(x, s, t)[0].flip(1)
    return x


side = torch.linspace(-12, 12, 961)
grid = torch.cartesian_prod(side, side)
cell = float(side[1] - side[0]) ** 2
check(
    "the density integrates to one",
    lambda: abs(float(log_prob(grid).exp().sum()) * cell - 1) < 0.01,
    "log p = log N(z; 0, I) + the log-determinants of the way from x to z",
)
check(
    "as much of it lies right of zero as of draws",
    lambda: (
        abs(
            float(log_prob(grid)[grid[:, 0] > 0].exp().sum()) * cell
            - float((draw(40_000)[:, 0] > 0).double().mean())
        )
        < 0.02
    ),
    "undo the last layer first, each swap before its coupling",
)

# %%
# What you have made
# ------------------
# The density, and draws of it on top: they must agree, as both are the same flow in two
# directions. HCFlow is this idea at the size of photographs, see
# :ref:`sphx_glr_auto_examples_plot_01_change_of_variables.py`.

if all(done):
    figure, axes = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    log_p = log_prob(grid).reshape(len(side), -1).T.numpy()
    ends = (-12, 12, -12, 12)
    shown = axes.imshow(log_p, origin="lower", extent=ends, vmin=-8, cmap="cividis")
    figure.colorbar(shown, ax=axes, label="log p(x), nats", extend="min")
    axes.plot(*draw(400).T.numpy(), ".", color="white", markersize=3)
    axes.set(xlim=(-5, 5), ylim=(-5, 5), xlabel="$x_1$", ylabel="$x_2$")
    axes.set_title("your density, and draws of it", loc="left")
    plt.show()

torch.set_default_dtype(torch.float32)  # as it was, for what runs after this page
print(f"{sum(done)} of {len(done)} checks passed")
assert all(done), "what is missing is said beside NOT YET above"
