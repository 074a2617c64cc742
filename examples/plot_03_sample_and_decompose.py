r"""
HCFlow: sample an image, decompose its likelihood
=================================================

HCFlow models an HR image :math:`x` given its LR image :math:`y^*`. One bijection takes :math:`x` to an LR image
:math:`y` of its own and to latents :math:`z_L, \dots, z_1`, from coarse to fine, and

.. math:: p(x \mid y^*) = \mathcal{N}(y; y^*, \sigma^2) \prod_l \mathcal{N}(z_l; 0, 1)
          \left|\det \frac{\partial (y, z)}{\partial x}\right|, \qquad \sigma = e^{-6}.

Both uses of such a model are shown: drawing images, and saying exactly how probable a given image is, and why.
"""

# %%
# A model
# -------
# Shipped weights are used where this version of flowsr has them. Otherwise (or with ``--train``) a small x4 model is
# trained on crops of the photographs that come with scikit-image: enough to see how everything works, far too little
# data and time for good images. LR images are made as in the literature: MATLAB's bicubic kernel, rounded to 8 bits.

import math
import sys

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.images import bicubic_up, crop_to, make_lr, round_to_8bit
from flowsr.plots import Panel, heat_limit, image_grid, zoom_window

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)


def photograph(name: str) -> Tensor:
    return torch.from_numpy(getattr(skimage.data, name)()).movedim(-1, 0).float() / 255


def random_crops(images: list[Tensor], n: int, size: int) -> Tensor:
    crops = []
    for _ in range(n):
        image = images[int(torch.randint(len(images), (), generator=generator))]
        top, left = (
            int(torch.randint(length - size + 1, (), generator=generator))
            for length in image.shape[-2:]
        )
        crop = image[:, top : top + size, left : left + size]
        crops.append(
            crop.flip(-1) if torch.rand((), generator=generator) < 0.5 else crop
        )
    return torch.stack(crops)


def train() -> flowsr.HCFlow:
    images = [photograph(name) for name in ("astronaut", "coffee", "rocket")]
    flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
    flow.initialize(random_crops(images, 16, 32))
    steps, size = (12, 32) if SMOKE else (250, 48)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.2
    )
    for step in range(steps):
        hr = random_crops(images, 8, size)
        lr = make_lr(hr, flow.upscale)
        hr = uniform_dequantize(hr, generator=generator)
        loss = (
            -flow.condition(lr).log_prob(hr).mean() / (hr[0].numel() * math.log(2)) + 8
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 8) == 0 or step == steps - 1:
            print(f"step {step:3d}: {loss.item():.3f} bits/dim")
    return flow.eval()


try:
    flow = train() if "--train" in sys.argv else flowsr.load("sr-x4-small")
except FileNotFoundError:  # this version comes without weights
    flow = train()

# %%
# Draws
# -----
# The test image is another photograph. ``flow.sample`` puts :math:`y = y^*` exactly, the limit :math:`\sigma \to 0` or
# *Dirac limit*, and scales the latents by the temperature :math:`\tau`. At :math:`\tau = 0` all draws are the same
# image; at :math:`\tau = 1` they are draws of the model (up to the Dirac limit); in between one trades variety for a
# smaller error, and the result is no longer a posterior. PSNR is of RGB, without a border of 4, rounded to 8 bits.

size = 64 if SMOKE else 128
hr = photograph("chelsea")[:, 88 : 88 + size, 130 : 130 + size]
lr = make_lr(hr, flow.upscale)
temperatures = (0.0, 0.5, 0.8, 1.0)
draws = {}
with torch.no_grad():
    for tau in temperatures:
        draws[tau] = round_to_8bit(
            flow.sample(lr, num_samples=4, temperature=tau, generator=generator)
        )
        error = flowsr.metrics.psnr(draws[tau], hr, border=flow.upscale).mean()
        consistency = flowsr.metrics.lr_psnr(
            draws[tau], lr, upscale=flow.upscale
        ).mean()
        spread = flowsr.metrics.pixel_std(draws[tau])
        print(
            f"τ = {tau}: PSNR {error:.2f} dB, LR-PSNR {consistency:.2f} dB, "
            f"std between draws {spread:.2f} grey levels"
        )

# %%
# The likelihood, term by term
# ----------------------------
# ``flow.condition(lr)`` is a Pyro distribution over HR images; its ``log_prob`` is exact. The decomposition says where
# it comes from: how well the flow's own LR image agrees with the given one, how usual the latents are, and how much
# each part of the flow stretches space. The image has 8 bits, so uniform noise of one grey level is added first, and
# the 8 bits per dimension that this costs are counted.

hr_noisy = uniform_dequantize(hr, generator=generator).double()
flow.double()
with torch.no_grad():
    log_prob = flow.condition(lr.double()).log_prob(hr_noisy)
    density = flowsr.likelihood.decompose(flow, hr_noisy, lr.double())
terms = density.dequantized()
print(terms.to_text())

# %%
# Latents cost about :math:`\frac12 \log_2(2\pi e) = 2.05` bits per latent dimension whatever the image is. What tells
# images apart are the log-determinants: where the details are small and predictable, the flow must stretch space to
# turn them into standard normals, and every doubling saves one bit per dimension.
#
# In the pictures the part where the draws at :math:`\tau = 1` differ most is enlarged: two of them agree on what the LR
# image says, and have details of their own.

spread = draws[1.0].std(0)
enlarged = crop_to(bicubic_up(lr, flow.upscale), (size, size))
panels = [
    Panel(enlarged, "LR, enlarged x4"),
    *(Panel(draws[tau][0], f"a draw, τ = {tau:g}") for tau in temperatures),
    Panel(draws[1.0][1], "another draw, τ = 1"),
    Panel(hr, "HR: the truth"),
    Panel(spread, "std of 4 draws, τ = 1", heat=heat_limit(spread)),
]

figure = plt.figure(figsize=(7, 8), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
image_grid(panels, zoom=zoom_window(spread, side=size // 5), into=above)
terms.plot(below.subplots())
plt.show()

assert torch.allclose(density.total, log_prob, rtol=1e-9), (density.total, log_prob)
assert (
    abs(sum(bar.bits for bar in terms.bars()[:-1]) - float(terms.bits_per_dim)) < 1e-9
)
