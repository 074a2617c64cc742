r"""
Super-resolution with a known posterior: is the flow right, and would calibration notice if not?
================================================================================================

No one knows the posterior of a photograph given its LR image. For a linear-Gaussian model it is a formula. Here such a
model is written as a flow of the same parts as HCFlow: a hierarchy of levels, Haar transforms as main flows, and
Gaussian heads whose mean is linear in the coarser image,

.. math:: x = M y + c + G z, \qquad z \sim \mathcal{N}(0, I), \qquad y \sim \mathcal{N}(y^*, \sigma^2),

so that :math:`p(x \mid y^*) = \mathcal{N}(M y^* + c,\; \sigma^2 M M^\top + G G^\top)`. Everything the flow says can
be compared with the matrices: mean, covariance, log-likelihood. Then the formula is put aside, and the model is judged
as one would judge any model, from held-out pairs alone. That test must pass for this model and fail for a broken one.
"""

# %%
# The flow and the formula
# ------------------------
# The moments come from dense matrices that share no code with the transforms.

import math
import sys

import matplotlib.pyplot as plt
import torch

from flowsr.calibration import calibrate, faulty_samplers, flow_sampler, model_pairs
from flowsr.plots import Panel, image_grid
from flowsr.posterior import GaussianLR, LinearGaussianFlow

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)

flow = LinearGaussianFlow(detail_std=(0.08, 0.04)).double()
lr_log_scale = math.log(0.05)  # σ of the LR image
prior = GaussianLR(
    torch.full((1, 4, 4), 0.5, dtype=torch.float64), std=0.2, correlation=1.0
)
hr, lr = model_pairs(flow, prior, 1, lr_log_scale=lr_log_scale, seed=1)
hr, lr = hr[0], lr[0]
exact = flow.posterior(lr, lr_log_scale=lr_log_scale)

num_samples = 400 if SMOKE else 20_000
draws = flow.sample(
    lr, num_samples=num_samples, lr_log_scale=lr_log_scale, generator=generator
).flatten(1)
mean_error = ((draws.mean(0) - exact.mean) / exact.std).abs().max() * math.sqrt(
    num_samples
)
scale = (
    exact.covariance.square() + exact.std.square().outer(exact.std.square())
).sqrt()
covariance_error = (
    (torch.cov(draws.T) - exact.covariance) / scale
).abs().max() * math.sqrt(num_samples)
formula = torch.distributions.MultivariateNormal(exact.mean, exact.covariance)
log_prob = float(flow.condition(lr, lr_log_scale=lr_log_scale).log_prob(hr))
expected = float(formula.log_prob(hr.flatten()))
print(
    f"mean of {num_samples} draws: largest error {mean_error:.1f} standard errors,"
    f" of {exact.mean.numel()} pixels"
)
print(
    f"covariance: largest error {covariance_error:.1f} standard errors,"
    f" of {exact.covariance.numel()} entries"
)
print(f"log p(hr | lr): {log_prob:.6f} nats by the flow, {expected:.6f} by the formula")

# %%
# Calibration
# -----------
# A held-out pair is a joint draw, so among draws given its LR image the true image must be one of many: the rank of any
# of its features is uniform. :func:`flowsr.calibration.calibrate` tests ranks of random projections, band energies and
# patch means, of inner products with the LR image, of distances to reference images (TARP), and the coverage of
# intervals, and shares one probability of a false alarm among them.
#
# Five deliberate errors show what it can see. *LR ignored* is the subtle one: its draws have the right distribution of
# images, only not of this one. Features of the image alone cannot tell; features that know the LR image can.

pairs = 60 if SMOKE else 300
small = GaussianLR(
    torch.full((1, 2, 2), 0.5, dtype=torch.float64), std=0.2, correlation=0.5
)
images, conditions = model_pairs(flow, small, pairs, lr_log_scale=lr_log_scale, seed=2)
samplers = {
    "right": flow_sampler(flow, lr_log_scale=lr_log_scale),
    **faulty_samplers(flow, conditions, lr_log_scale=lr_log_scale),
}
if SMOKE:
    samplers = {name: samplers[name] for name in ("right", "mode collapse")}
reports = {
    name: calibrate(sampler, images, conditions, num_samples=19 if SMOKE else 99)
    for name, sampler in samplers.items()
}
for name, report in reports.items():
    verdict = "passes" if report.passed else "fails " + ", ".join(report.failures)
    worst = f"{report.sbc.worst} is {report.sbc.shape(report.sbc.worst)}"
    print(f"{name:>18}: {verdict}; CRPS {report.scores.mean_crps:.3f}")
    if not report.passed:
        print(f"{'':20}{worst}")

# %%
# The picture
# -----------
# Above, one posterior: what is known, the mean, and the standard deviation by formula and by draws, whose checks are
# those of the Haar blocks. Below, ranks as the difference of their distribution function from that of uniform ones:
# within the grey band for the right model.

broken = "mode collapse" if SMOKE else "temperature 0.8"
heat = (0.9 * float(exact.std.min()), 1.05 * float(exact.std.max()))
panels = [
    Panel(lr, "LR image"),
    Panel(hr, "truth"),
    Panel(draws[0].reshape(hr.shape), "one draw"),
    Panel(exact.mean.reshape(hr.shape), "mean by formula"),
    Panel(exact.std.reshape(hr.shape), "std by formula", heat=heat),
    Panel(draws.std(0).reshape(hr.shape), f"std of {num_samples} draws", heat=heat),
]

figure = plt.figure(figsize=(7, 11), layout="constrained")
above, *below = figure.subfigures(3, 1, height_ratios=(2.1, 1, 1))
image_grid(panels, columns=3, into=above)
for part, name in zip(below, ("right", broken), strict=True):
    reports[name].sbc.plot(part.subplots())
    verdict = "pass" if reports[name].sbc.passed else "fail"
    part.axes[0].set_title(f"{name}: ranks {verdict}", loc="left", fontsize=9)
plt.show()

assert (
    abs(log_prob - expected) < 1e-6 * abs(expected)
    and mean_error < 5
    and covariance_error < 6
)
assert reports["right"].passed and not any(
    report.passed for name, report in reports.items() if name != "right"
)
