r"""
Where information goes: Haar and the split
==========================================

HCFlow rests on one observation: a photograph is mostly its small version. A change of resolution makes that precise.
It is a bijection that turns an image of size :math:`H \times W` into a small image and its details, and loses nothing.
The *split* then treats the two differently: the small image goes on to the next level, the details become a latent.

The simplest such change of resolution is the Haar transform. Here it is taken apart on a real photograph.
"""

# %%
# One Haar transform
# ------------------
# For each block of 2x2 pixels ``a b / c d`` encoding computes the average ``(a+b+c+d)/4`` and three differences. An
# image of shape ``(3, H, W)`` becomes one of shape ``(12, H/2, W/2)``: same number of values, averages first.

import math

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from torch.nn import functional as F

import flowsr
from flowsr.metrics import psnr
from flowsr.plots import PALETTE, Panel, image_grid, plain_axes
from flowsr.transforms import Haar

photograph = (
    torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0).double() / 255
)  # (3, 300, 451)
image = flowsr.images.crop_to(photograph, (288, 448))
haar = Haar()
bands, ladj = haar.inv_call_and_ladj(image)
average, horizontal, vertical, diagonal = bands.chunk(4, -3)
print("image", tuple(image.shape), "-> bands", tuple(bands.shape))
print("largest error of the inverse", float((haar(bands) - image).abs().max()))

# %%
# The log-determinant
# -------------------
# The four rows of signs are orthogonal and have length 2; divided by 4 they have length 1/2. So the transform rotates
# each block and halves it: every dimension adds :math:`-\ln 2` to the log-determinant, whatever the image is.

dims = image.numel()
print(f"ladj / D = {ladj / dims:.6f}, -ln 2 = {-math.log(2):.6f}")

# %%
# Variance per band
# -----------------
# Because Haar is a rotation up to that factor 1/2, variance is shared out among the bands: four times the sum of their
# squares equals the sum of squares of the image. The same transform applied to the average again gives a pyramid; two
# transforms make an upscale factor of 4, three one of 8.

levels = 3
centred = image - image.mean((-2, -1), keepdim=True)
total = float(centred.square().sum())
shares: dict[
    str, tuple[float, float]
] = {}  # band -> share of the dimensions, share of the variance
rest = centred
for level in range(1, levels + 1):
    rest, *details = haar.inv(rest).chunk(4, -3)
    energy = 4.0**level * sum(float(band.square().sum()) for band in details)
    shares[f"details {level}"] = (
        sum(band.numel() for band in details) / dims,
        energy / total,
    )
shares[f"average {levels}"] = (
    rest.numel() / dims,
    4.0**levels * float(rest.square().sum()) / total,
)
for name, (of_dims, of_variance) in shares.items():
    print(
        f"{name}: {of_dims:7.2%} of the dimensions, {of_variance:7.2%} of the variance"
    )

# %%
# The finest details are three quarters of all dimensions and hold almost none of the variance. White noise has no such
# order: there each band has the share of variance that it has of the dimensions. What makes super-resolution possible
# is what makes a photograph unlike noise.

noise = torch.randn(
    image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype
)
noise_details = haar.inv(noise)[3:]
noise_share = float(4 * noise_details.square().sum() / noise.square().sum())
print(f"white noise: details 1 hold {noise_share:.2%} of the variance")

# %%
# What this is worth in bits
# --------------------------
# Suppose we describe each band by its own normal distribution, and compare with one normal distribution per colour
# channel for the pixels themselves. The densities are of different variables, bands and pixels; the change of
# variables makes them comparable, as the bands' density becomes one of pixels by adding the log-determinant.


def gaussian_bits(channels: torch.Tensor) -> float:
    """Minus the log-density in bits, each channel being normal."""
    nats = (
        0.5
        * (2 * math.pi * math.e * channels.var((-2, -1), correction=0)).log()
        * channels[0].numel()
    )
    return float(nats.sum()) / math.log(2)


bits_pixels = gaussian_bits(image) / dims
bits_bands = (gaussian_bits(bands) - float(ladj) / math.log(2)) / dims
print(
    f"normal pixels: {bits_pixels:.3f} bits/dim;"
    f" normal Haar bands: {bits_bands:.3f} bits/dim"
)
print(
    "bands without the log-determinant (wrong):"
    f" {gaussian_bits(bands) / dims:.3f} bits/dim"
)

# %%
# (Negative bits are no mistake: a density is not a probability. With 256 grey levels add 8 bits per dimension.)
#
# What the LR image keeps
# -----------------------
# Setting the details to zero and decoding gives the image that the averages alone describe.

coarse = haar(torch.cat([average, torch.zeros_like(bands[3:])]))
print(
    f"without details: PSNR {psnr(coarse, image, border=0).item():.2f} dB"
    " (RGB, no border, not rounded)"
)

# %%
# HCFlow learns its change of resolution: a pixel shuffle and 1x1 convolutions, which contain Haar as one choice. With
# ``start="haar"`` training begins there, so the flow's own LR image is the average of 4x4 pixels from the first step.

flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar").double()
with torch.no_grad():
    own_lr = flow.encode(image).lr
print(
    "difference of the flow's LR image from 4x4 averages",
    float((own_lr - F.avg_pool2d(image, 4)).abs().max()),
)

# %%
# What a conditional flow has to learn is now visible: the details are small nearly everywhere, and large exactly where
# the LR image has edges and texture. Given the LR image their place and size can be predicted, their sign hardly.

differences = {"heat": (-0.1, 0.1), "unit": "difference, 1 = full range", "scale": 1}
panels = [
    Panel(image, "Image, 448 x 288"),
    Panel(average, "Average = LR image, 224 x 144"),
    Panel(horizontal, "Left minus right, mean of RGB", **differences),
    Panel(vertical, "Top minus bottom, mean of RGB", **differences),
]
names = [f"details {level}\nwithin {2**level} x {2**level}" for level in (1, 2, 3)]
names.append("average 3\nof 8 x 8 pixels")

figure = plt.figure(figsize=(7, 8.6), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(2, 1))
image_grid(panels, columns=2, into=above)
axis = below.subplots()
of_dims, of_variance = 100 * np.array(list(shares.values())).T
grey = axis.bar(np.arange(4) - 0.2, of_dims, 0.38, color=PALETTE["grey"])
blue = axis.bar(np.arange(4) + 0.2, of_variance, 0.38, color=PALETTE["blue"])
for bars in (grey, blue):
    axis.bar_label(bars, fmt="%.1f %%", fontsize=8)
axis.set_xticks(np.arange(4), names)
axis.set(ylabel="share of the image, %", ylim=(0, 112))
axis.legend([grey, blue], ["of the dimensions", "of the variance"], loc="upper center")
plain_axes(axis, keep=("left", "bottom"))
plt.show()

assert abs(float(ladj) / dims + math.log(2)) < 1e-12
assert abs(sum(variance for _, variance in shares.values()) - 1) < 1e-12
