r"""
Rescaling against super-resolution
==================================

Both enlarge a small image by four. In *super-resolution* somebody else made the small image, here by bicubic shrinking,
and what was lost is lost: the model can only draw what it might have been. In *rescaling* one model makes the small
image and enlarges it again. It may then hide in the small image what it will need, in changes too small to see.

The same photograph goes both ways here, through the two HCFlows that come with the package. Then comes the price of
hiding: how much harm does a small image bear?
"""

# %%
# Two small images
# ----------------
# The rescaling model's LR image is the first part of its latent, clamped and rounded to 8 bits, as a file would hold
# it. It is close to the bicubic one, and it is not the same.

import sys

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.images import bicubic_up, make_lr, round_to_8bit
from flowsr.metrics import psnr
from flowsr.plots import Curves, Line, Panel, curve_grid, image_grid

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)

hr = torch.from_numpy(skimage.data.astronaut()[0:192, 144:336]).movedim(-1, 0) / 255
sr = flowsr.load("sr-x4-small")
rescaling = flowsr.load("rescaling-x4-small")

with torch.no_grad():
    small = {"bicubic": make_lr(hr, 4), "rescaling": rescaling.downscale(hr)}
hidden = (small["rescaling"] - small["bicubic"]) * 255
print(
    "the model's LR image against the bicubic one:"
    f" {psnr(small['rescaling'], small['bicubic'], border=0):.2f} dB"
)
print(
    f"they differ by {hidden.abs().mean():.2f} grey levels in the mean,"
    f" {hidden.abs().max():.0f} at the most"
)

# %%
# Three ways up
# -------------
# Each small image, enlarged by a bicubic kernel and by both models at :math:`\tau = 0`. The models know one kind of
# small image each. Given the other kind they are out of their depth: the rescaling model reads details in it that
# nobody hid there.


def enlarge(name: str, lr: Tensor) -> Tensor:
    """The HR image from an LR image, rounded to 8 bits."""
    with torch.no_grad():
        if name == "bicubic":
            return round_to_8bit(bicubic_up(lr, 4))
        model = sr if name == "super-resolution" else rescaling
        return round_to_8bit(model.sample(lr, temperature=0.0)[0])


WAYS = ("bicubic", "super-resolution", "rescaling")
enlarged = {(kind, way): enlarge(way, lr) for kind, lr in small.items() for way in WAYS}
fidelity = {key: psnr(image, hr, border=4).item() for key, image in enlarged.items()}
print(
    f"\n{'PSNR, dB (RGB, border 4, 8 bits)':34}" + "".join(f"{way:>17}" for way in WAYS)
)
for kind in small:
    print(
        f"{'LR image by ' + kind:34}"
        + "".join(f"{fidelity[kind, way]:17.2f}" for way in WAYS)
    )

# %%
# What hiding costs
# -----------------
# Noise on the small image, rounded to 8 bits again, as after another program had saved it with loss. One grey level
# does little harm. As the noise grows to the size of what is hidden, rescaling falls faster than super-resolution,
# which had never relied on it, and its advantage goes.

levels = [0.0, 2.0, 16.0] if SMOKE else [0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0]
noise = torch.randn(
    hr.shape[0],
    hr.shape[1] // 4,
    hr.shape[2] // 4,
    generator=torch.Generator().manual_seed(0),
)
pairs = {"rescaling": "rescaling", "super-resolution": "bicubic", "bicubic": "bicubic"}
curves = {
    way: [
        psnr(
            enlarge(way, round_to_8bit(small[kind] + std / 255 * noise)), hr, border=4
        ).item()
        for std in levels
    ]
    for way, kind in pairs.items()
}
for way, curve in curves.items():
    print(f"{way:18}" + "".join(f"{value:7.2f}" for value in curve))
lost = {way: curve[0] - curve[-1] for way, curve in curves.items()}

# %%
# What came out
# -------------
# Above, a part of the photograph and what comes back of it. Below, what the rescaling model hid, and how long it lasts.

part = (slice(None), slice(56, 120), slice(64, 144))
panels = [Panel(hr[part], "HR image")]
for kind, way in (
    *((pairs[way], way) for way in reversed(WAYS)),
    ("bicubic", "rescaling"),
):
    misuse = "misuse: " if (kind, way) == ("bicubic", "rescaling") else ""
    caption = f"{misuse}{kind} down, {way} up\n{fidelity[kind, way]:.2f} dB"
    panels.append(Panel(enlarged[kind, way][part], caption))
caption = "hidden: the model's LR image minus the bicubic one"
panels.append(Panel(hidden / 255, caption, heat=(-12 / 255, 12 / 255)))
colours = {"rescaling": "red", "super-resolution": "blue", "bicubic": "grey"}
lines = [Line(levels, curve, way, colours[way]) for way, curve in curves.items()]
across = "noise on the LR image before it is rounded, std in grey levels"

figure = plt.figure(figsize=(7, 8.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1.7, 1))
image_grid(panels, columns=3, into=above)
title = "How much harm the LR image bears\nPSNR: RGB, border 4, 8 bits"
curve_grid([Curves(title, across, "PSNR of the enlarged image, dB", lines)], into=below)
plt.show()

assert (
    fidelity["rescaling", "rescaling"] > fidelity["bicubic", "super-resolution"] + 1.0
), fidelity
assert fidelity["bicubic", "rescaling"] < fidelity["bicubic", "super-resolution"], (
    fidelity
)
assert lost["rescaling"] > lost["super-resolution"] > lost["bicubic"], lost
