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

SMOKE = "--smoke" in sys.argv
torch.manual_seed(0)

hr = torch.from_numpy(skimage.data.astronaut()[0:192, 144:336]).movedim(-1, 0) / 255
sr = flowsr.load("sr-x4-small")
rescaling = flowsr.load("rescaling-x4-small")

with torch.no_grad():
    small = {"bicubic": make_lr(hr, 4), "rescaling": rescaling.downscale(hr)}
hidden = (small["rescaling"] - small["bicubic"]) * 255
print(f"the model's LR image against the bicubic one: {psnr(small['rescaling'], small['bicubic'], border=0):.2f} dB")
print(f"they differ by {hidden.abs().mean():.2f} grey levels in the mean, {hidden.abs().max():.0f} at the most")

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
print(f"\n{'PSNR [dB] (RGB, border 4, 8 bits)':36}" + "".join(f"{way:>18}" for way in WAYS))
for kind in small:
    print(f"{'LR image by ' + kind:36}" + "".join(f"{fidelity[kind, way]:18.2f}" for way in WAYS))

# %%
# What hiding costs
# -----------------
# Noise on the small image, rounded to 8 bits again, as after another program had saved it with loss. One grey level
# does little harm. As the noise grows to the size of what is hidden, rescaling falls faster than super-resolution,
# which had never relied on it, and its advantage goes.

levels = [0.0, 2.0, 16.0] if SMOKE else [0.0, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0]
noise = torch.randn(hr.shape[0], hr.shape[1] // 4, hr.shape[2] // 4, generator=torch.Generator().manual_seed(0))
pairs = {"rescaling": "rescaling", "super-resolution": "bicubic", "bicubic": "bicubic"}
curves = {
    way: [psnr(enlarge(way, round_to_8bit(small[kind] + std / 255 * noise)), hr, border=4).item() for std in levels]
    for way, kind in pairs.items()
}
for way, curve in curves.items():
    print(f"{way:18}" + "".join(f"{value:7.2f}" for value in curve))
lost = {way: curve[0] - curve[-1] for way, curve in curves.items()}

# %%
# What came out
# -------------
# Above, a part of the photograph and what comes back of it. Below, what the rescaling model hid, and how long it lasts.

figure = plt.figure(figsize=(13, 6.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 1.5))
axes = above.subplot_mosaic([["HR", "bicubic", "super-resolution", "rescaling", "misuse"]])
axes |= below.subplot_mosaic([["hidden", "noise"]], width_ratios=(1, 2))
part = (slice(None), slice(56, 120), slice(64, 144))
shown = {
    "HR": ("HR image", hr),
    **{
        way: (f"{kind} down, {way} up\n{fidelity[kind, way]:.2f} dB", enlarged[kind, way])
        for way, kind in (("bicubic", "bicubic"), ("super-resolution", "bicubic"), ("rescaling", "rescaling"))
    },
    "misuse": (
        f"bicubic down, rescaling up: misuse\n{fidelity['bicubic', 'rescaling']:.2f} dB",
        enlarged["bicubic", "rescaling"],
    ),
}
for name, (title, image) in shown.items():
    axes[name].imshow(image[part].clamp(0, 1).movedim(0, -1).numpy(), interpolation="nearest")
    axes[name].set_title(title, fontsize=10)
    axes[name].set_axis_off()
luma = hidden.mean(0).numpy()
drawn = axes["hidden"].imshow(luma, cmap="PuOr", vmin=-12, vmax=12, interpolation="nearest")
axes["hidden"].set_title("What is hidden: the model's LR image minus the bicubic one", fontsize=10)
axes["hidden"].set_axis_off()
below.colorbar(drawn, ax=axes["hidden"], label="grey levels, mean of RGB", extend="both", shrink=0.9)
colours = {"rescaling": "#d55e00", "super-resolution": "#0072b2", "bicubic": "0.45"}
for way, curve in curves.items():
    axes["noise"].plot(levels, curve, "o-", color=colours[way], markersize=4)
    axes["noise"].annotate(way, (levels[0], curve[0]), (6, 5), textcoords="offset points", color=colours[way])
axes["noise"].set(
    xlabel="noise on the LR image before it is rounded [standard deviation in grey levels]",
    ylabel="PSNR of the enlarged image [dB]\n(RGB, border 4, 8 bits)",
    title="How much harm the LR image bears",
)
axes["noise"].spines[["top", "right"]].set_visible(False)
plt.show()

assert fidelity["rescaling", "rescaling"] > fidelity["bicubic", "super-resolution"] + 1.0, fidelity
assert fidelity["bicubic", "rescaling"] < fidelity["bicubic", "super-resolution"], fidelity
assert lost["rescaling"] > lost["super-resolution"] > lost["bicubic"], lost
