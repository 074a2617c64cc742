r"""
Likelihood and outliers: why a probable image need not be a usual one
=====================================================================

A model that says how probable an image is seems made to find images that do not belong: take those of low likelihood.
It fails, and this example shows how. A blurred photograph is *more* probable than the photograph itself, though no
photograph of the training data looked like it.

The reason is no defect of training. Minus the logarithm of the likelihood is the length of a code: the bits that an
image takes given its LR image. Fine details cost bits, and a blurred image has none. So the likelihood measures how
much there is to say about an image first, and how usual it is only second. Scores that know what is usual can repair
that, each in its own way and with its own blind spot.
"""

# %%
# Images that belong, and others
# ------------------------------
# All images are crops of 64x64 from photographs that come with scikit-image; the model was trained on none of them.
# Three photographs say what is usual, the *reference*. Crops of two others belong too, and should score like them. Five
# kinds of images do not belong: the crops of these two photographs blurred (Gaussian, 3 pixels), with noise (Gaussian,
# 25 grey levels), or with their blocks of 8x8 pixels in random order; and two real kinds that are no everyday
# photographs, tissue under a microscope and galaxies. Each image is scored given its own LR image, made by
# MATLAB's bicubic kernel and rounded to 8 bits.

import sys

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.images import make_lr
from flowsr.likelihood import out_of_distribution, perturbed
from flowsr.plots import draw_matrix, image_grid

SMOKE = "--smoke" in sys.argv
SIZE, STEP = 64, 128
generator = torch.Generator().manual_seed(0)
flow = flowsr.load("sr-x4-small").eval()


def photograph(name: str) -> Tensor:
    pixels = getattr(skimage.data, name)()
    pixels = (
        pixels[0] if isinstance(pixels, tuple) else pixels
    )  # the left one of a stereo pair
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255


def crops(*names: str, most: int) -> list[Tensor]:
    """At most so many crops of each photograph, evenly chosen from a grid."""
    chosen = []
    for name in names:
        image = photograph(name)
        tops, lefts = (range(0, length - SIZE + 1, STEP) for length in image.shape[-2:])
        grid = [
            image[:, top : top + SIZE, left : left + SIZE].contiguous()
            for top in tops
            for left in lefts
        ]
        chosen += [
            grid[i]
            for i in np.linspace(0, len(grid) - 1, min(most, len(grid))).astype(int)
        ]
    return chosen


def with_lr(images: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(hr, make_lr(hr, flow.upscale)) for hr in images]


most = 3 if SMOKE else 14
reference = crops("astronaut", "coffee", "rocket", most=most)
inside = crops("chelsea", "stereo_motorcycle", most=most)
outside = {
    "blurred": [
        perturbed(hr, "smooth", strength=3, generator=generator) for hr in inside
    ],
    "noisy": [
        perturbed(hr, "noisy", strength=25, generator=generator) for hr in inside
    ],
    "shuffled": [perturbed(hr, "shuffled", generator=generator) for hr in inside],
    "tissue": crops("immunohistochemistry", most=most),
    "galaxies": crops("hubble_deep_field", most=most),
}
print(f"{len(reference)} reference crops, {len(inside)} that belong")
print(", ".join(f"{len(images)} {kind}" for kind, images in outside.items()))

# %%
# Five scores
# -----------
# :func:`flowsr.likelihood.out_of_distribution` computes five scores of every image. Each is large for what it takes to
# be strange:
#
# * **NLL**: bits per dimension of the 8-bit image given its LR image (uniform noise 1/256, one draw, σ = e⁻⁶,
#   D = C·H·W). The plain idea.
# * **typicality**: how far the NLL is from its mean over the reference images, in *either* direction. Too probable is
#   strange as well.
# * **complexity-corrected NLL**: the NLL minus the bits per dimension of the image as a PNG file. What matters is not
#   how many bits an image takes, but how many more than its complexity explains.
# * **latent norm**: how far :math:`|z|^2/D` is from its mean over the reference images. Under the model latents have
#   variance 1; images without details have latents that are too small.
# * **LR features**: the Mahalanobis distance of what the network sees in the LR image from the reference images.
#
# How well a score tells a kind of images from those that belong is its AUROC, the area under the receiver operating
# curve: the probability that a strange image gets the larger score. 1 is perfect, 0.5 is guessing, and 0 means that
# *every* strange image looks less strange than every ordinary one.

study = out_of_distribution(
    flow,
    with_lr(reference),
    with_lr(inside),
    {kind: with_lr(images) for kind, images in outside.items()},
)
kinds = list(outside)
print(f"{'AUROC':26}" + "".join(f"{kind:>10}" for kind in kinds))
for score, by_kind in study.auroc.items():
    print(f"{score:26}" + "".join(f"{by_kind[kind].value:10.2f}" for kind in kinds))

# %%
# What came out
# -------------
# Top: one example of each kind with its bits per dimension. Middle: the NLL of every crop. Below: the AUROC of each
# score for each kind, purple where the score works, orange where it is worse than guessing.
#
# Read the table by rows. The NLL finds noise, as noise costs bits, and takes blurred images and tissue for *less*
# strange than photographs. Typicality and the latent norm find the blurred images. But no row is good everywhere: the
# latent norm, the best one here, lets some shuffled blocks pass, typicality and the correction by PNG are misled by
# tissue, and the features of the LR image tell little apart here, with a few dozen reference images. No single score detects all that is strange. Say which kind you
# want to find, and test the score on that kind.

samples = {"photograph": inside, **outside}
labels = ["photograph", *kinds]
nll = {
    label: study.scores["NLL"]["inside" if label == "photograph" else label]
    for label in labels
}
of_blurred = {score: by_kind["blurred"].value for score, by_kind in study.auroc.items()}
auroc = {
    score: {kind: interval.value for kind, interval in by_kind.items()}
    for score, by_kind in study.auroc.items()
}

pictures = {}
for label in labels:
    index = len(samples[label]) // 4
    pictures[f"{label}\n{nll[label][index]:.1f} bits/dim"] = samples[label][index]

figure = plt.figure(figsize=(7, 11), layout="constrained")
above, middle, below = figure.subfigures(3, 1, height_ratios=(2, 1, 1))
image_grid(pictures, columns=3, into=above)
axis = middle.subplots()
study.plot(axis)
axis.axvspan(
    min(nll["photograph"]), max(nll["photograph"]), color="#222222", alpha=0.07
)
title = "NLL of each crop; in grey, the range of the photographs, here named inside"
axis.set_title(title, loc="left", fontsize=9)
title, unit = "AUROC of five scores", "0: less strange · 0.5: guess · 1: found"
draw_matrix(below.subplots(), auroc, title=title, unit=unit, limits=(0, 1))
plt.show()

assert of_blurred["NLL"] < 0.5 < of_blurred["typicality"], of_blurred
