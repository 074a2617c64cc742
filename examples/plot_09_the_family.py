r"""
The family: Glow, SRFlow, HCFlow and IRN side by side
=====================================================

Four flows of the same blocks, trained on the same photographs for the same time, in one table. They answer different
questions:

* **Glow** is a density of images alone, :math:`p(x)`.
* **SRFlow** is a density of HR images given an LR image, :math:`p(x \mid y)`, with y as a condition at every step.
* **HCFlow** is such a density too, but one bijection between x and (y, z): it makes the LR image as well.
* **IRN** is such a bijection that is trained to shrink and enlarge, not to be a density.

A few minutes on a few photographs rank nothing. What the table shows is which number each model has at all.
"""

# %%
# Four models, one interface
# --------------------------
# Any preset of any model is made by :func:`flowsr.models.from_preset`. What a model can do is asked of its
# ``capabilities``, never of its class.

import math
import statistics
import sys
import time
from functools import partial

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.images import bicubic_up, make_lr, round_to_8bit
from flowsr.metrics import psnr
from flowsr.models import Capability
from flowsr.training.objectives import rescaling_loss

SMOKE = "--smoke" in sys.argv
SECONDS = 2.0 if SMOKE else 70.0
SIDE = 16 if SMOKE else 48
RATE = 3e-4 if SMOKE else 1e-3

torch.manual_seed(0)
models = {
    "Glow": flowsr.from_preset("glow-small"),
    "SRFlow": flowsr.from_preset("srflow-x4-small"),
    "HCFlow": flowsr.from_preset("sr-x4-small", start="haar"),
    "IRN": flowsr.from_preset("irn-x4-small"),
}
for name, model in models.items():
    print(f"{name:8}{', '.join(sorted(model.capabilities))}")

# %%
# The same images
# ---------------
# Random crops of three photographs; every model sees the same sequence of them. LR images are bicubic, rounded to
# 8 bits. Densities are of 8-bit images with the noise of one bin.


def photograph(name: str) -> Tensor:
    return torch.from_numpy(getattr(skimage.data, name)()).movedim(-1, 0).float() / 255


photographs = [photograph(name) for name in ("astronaut", "coffee", "rocket")]
unseen = photograph("chelsea")[:, 80 : 80 + 2 * SIDE, 130 : 130 + 2 * SIDE]


def crops(generator: torch.Generator, count: int = 8) -> Tensor:
    chosen = []
    for _ in range(count):
        image = photographs[int(torch.randint(len(photographs), (), generator=generator))]
        top, left = (int(torch.randint(side - SIDE + 1, (), generator=generator)) for side in image.shape[-2:])
        chosen.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(chosen)


def shrink(hr: Tensor) -> Tensor:
    return make_lr(hr, 4)


# %%
# The same time
# -------------
# A density is fitted by its log-likelihood. A model that can downscale is fitted by what it is for: the image must come
# back from an LR image that looks like the bicubic one. Time is that of the thread, so that what else the machine does
# takes nothing from one of them.


def bits_per_dim(model, hr: Tensor) -> Tensor:
    noisy = uniform_dequantize(hr, generator=torch.Generator().manual_seed(0))
    if Capability.DENSITY in model.capabilities:
        log_prob = model.log_prob(noisy)
    else:
        log_prob = model.condition(shrink(hr)).log_prob(noisy)
    return (8.0 - log_prob / (hr[0].numel() * math.log(2.0))).mean()


def loss_of(model, hr: Tensor) -> Tensor:
    if Capability.DOWNSCALE in model.capabilities:
        lr = shrink(hr)
        # The weights published for IRN, of means rather than sums over pixels. Published is also noise of τ = 1, which
        # takes thousands of steps to be tamed.
        noise = list(model.draw_latents(lr, temperature=0.1))
        return rescaling_loss(model, hr, lr, noise, lr_mse=1.0, z_square=1.0)[0]
    return bits_per_dim(model, hr)


def train(model) -> int:
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    end, steps = time.thread_time() + SECONDS, 0
    while time.thread_time() < end or steps < 15:
        loss = loss_of(model, crops(generator))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        # The first steps are short: Adam does not know the size of the gradients yet.
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (steps + 1) / 20)
        optimizer.step()
        steps += 1
    return steps


held = crops(torch.Generator().manual_seed(2))
progress = {}
for name, model in models.items():
    model.initialize(crops(torch.Generator().manual_seed(1), 16))
    torch.manual_seed(0)
    with torch.no_grad():
        before = loss_of(model, held).item()
    steps = train(model)
    torch.manual_seed(0)
    with torch.no_grad():
        progress[name] = (before, loss_of(model.eval(), held).item(), steps)
    print(f"{name:8}{steps:5} steps, loss on other crops {progress[name][0]:8.2f} -> {progress[name][1]:8.2f}")

# %%
# One table
# ---------
# Each model is measured on a photograph that it has not seen. PSNR is that of the image at :math:`\tau = 0`; for IRN it
# is enlarged from the LR image that IRN made, which holds more of the original than a bicubic one does: the two kinds
# of PSNR are not of one task. LR-PSNR says how closely the LR image of what comes out (for IRN: the one it made) agrees
# with the bicubic one. A dash is a number that the model does not have.

lr = shrink(unseen)
pictures = {"HR, not seen": unseen, "bicubic": bicubic_up(lr, 4)}
header = f"{'':8}{'parameters':>12}{'bits/dim':>10}{'PSNR':>8}{'LR-PSNR':>9}{'s/draw':>8}"
print(header)
for name, model in models.items():
    with torch.no_grad():
        if Capability.DENSITY in model.capabilities:
            draw_one = partial(model.sample, tuple(unseen.shape[-2:]), temperature=0.7)
        else:
            given = model.downscale(unseen) if Capability.DOWNSCALE in model.capabilities else lr
            draw_one = partial(model.sample, given, temperature=0.8)
        times = []
        for _ in range(6):  # the first is to warm up
            torch.manual_seed(1)
            begin = time.thread_time()
            draw = draw_one()[0]
            times.append(time.thread_time() - begin)
        seconds = statistics.median(times[1:])
        bits = fidelity = consistency = "-"
        if Capability.DOWNSCALE not in model.capabilities:
            bits = f"{bits_per_dim(model, unseen[None]).item():.2f}"
        if Capability.CONDITION in model.capabilities:
            sharp = model.sample(given, temperature=0.0)[0]
            fidelity = f"{psnr(round_to_8bit(sharp), unseen, border=4).item():.2f}"
            small = given if Capability.DOWNSCALE in model.capabilities else shrink(sharp.clamp(0, 1))
            consistency = f"{psnr(small, lr, border=0).item():.2f}"
            if Capability.DOWNSCALE in model.capabilities:
                draw = sharp
    title = f"{name}, τ = 0" if Capability.DOWNSCALE in model.capabilities else f"{name}, a draw"
    pictures[title] = draw
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{name:8}{parameters:12,}{bits:>10}{fidelity:>8}{consistency:>9}{seconds:8.3f}")
print(f"{'bicubic':8}{'':12}{'-':>10}{psnr(round_to_8bit(pictures['bicubic']), unseen, border=4).item():8.2f}")

# %%
# Bits per dimension of Glow and of the two others are not of one question either: Glow does not know the LR image, so
# it must pay for it. :func:`flowsr.cite` prints whom to cite for a model.

flowsr.cite(models["IRN"])

figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for axis, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    axis.imshow(picture.clamp(0, 1).movedim(0, -1).numpy(), interpolation="nearest")
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
plt.show()

assert all(after < before for before, after, _ in progress.values()), progress
