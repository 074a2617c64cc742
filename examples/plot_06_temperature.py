r"""
Temperature: what a draw gains and what it loses
================================================

HCFlow draws images by drawing latents from :math:`\mathcal{N}(0, \tau^2)`. The temperature :math:`\tau` is the one
setting that everybody turns, and papers choose it by eye, usually 0.8 or 0.9. Here we measure what it does to three
things that cannot all be best at once:

* **distortion**: how far a draw is from the true image, as PSNR;
* **perception**: how much draws, taken together, look like true images;
* **likelihood**: how probable the true image is at that temperature.

That distortion and perception are at odds is a theorem (Blau and Michaeli, *The Perception-Distortion Tradeoff*,
CVPR 2018). The image with the smallest expected error is an average over all that might be true, and an average is
smoother than any true image. An image with true texture has it in the wrong places, and pays for that in PSNR.
"""

# %%
# Draws at several temperatures
# -----------------------------
# The images are crops of 128x128 of photographs from scikit-image, which the model was not trained on. LR images are
# made by MATLAB's bicubic kernel, rounded to 8 bits. A draw starts from noise scaled by :math:`\tau`; with the same
# seed, draws at two temperatures are made of the same noise.

import sys

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

import flowsr
from flowsr.images import bicubic_up, crop_to, make_lr, round_to_8bit
from flowsr.likelihood import temperature_sweep
from flowsr.plots import Curves, Line, curve_grid, image_grid
from flowsr.transforms import Haar

SMOKE = "--smoke" in sys.argv
size = 64 if SMOKE else 128
shown = (0.0, 0.5, 0.8, 0.9, 1.0)
temperatures = shown if SMOKE else (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
flow = flowsr.load("sr-x4-small").eval()


def crop(name: str, top: int, left: int) -> Tensor:
    pixels = getattr(skimage.data, name)()
    pixels = (
        pixels[0] if isinstance(pixels, tuple) else pixels
    )  # the left one of a stereo pair
    return (
        torch.from_numpy(pixels.copy())
        .movedim(-1, 0)
        .float()[:, top : top + size, left : left + size]
        / 255
    )


places = [
    ("chelsea", 64, 130),
    ("astronaut", 60, 160),
    ("coffee", 180, 240),
    ("stereo_motorcycle", 200, 300),
]
places += (
    []
    if SMOKE
    else [
        ("chelsea", 150, 10),
        ("astronaut", 330, 300),
        ("coffee", 20, 20),
        ("rocket", 280, 250),
    ]
)
images = [crop(*place) for place in places]
pairs = [(hr, make_lr(hr, flow.upscale)) for hr in images]


@torch.no_grad()
def draw(lr: Tensor, temperature: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return round_to_8bit(
        flow.sample(lr, temperature=temperature, generator=generator)[0]
    )


draws = {tau: [draw(lr, tau) for _, lr in pairs] for tau in temperatures}

# %%
# Distortion and likelihood
# -------------------------
# :func:`flowsr.likelihood.temperature_sweep` measures both, and the variety of draws, with intervals over images.
#
# The likelihood at temperature :math:`\tau` is that of *another* distribution, whose latents are narrower:
#
# .. math:: \log p_\tau(x \mid y^*) = \log p(x \mid y^*)
#           + \sum_l \left[\frac{|z_l|^2}{2}\left(1 - \frac{1}{\tau^2}\right) - D_l \ln \tau \right],
#
# with :math:`D_l` the number of values of :math:`z_l`. It is best where :math:`\tau^2 = |z|^2/D`, which is near 1 for
# images like those of the training. At :math:`\tau = 0` there is no density at all.

sweep = temperature_sweep(flow, pairs, temperatures=temperatures, num_samples=2)
psnr, nll, variety = (sweep.figures[name] for name in ("PSNR", "NLL", "diversity"))

# %%
# Perception without a network
# ----------------------------
# In the theorem perception is a distance between two *distributions*, that of the outputs and that of true images, and
# needs no pairs. The distribution of whole images is out of reach; that of their finest details is not. We pool the
# Haar details of all draws at one temperature, the differences within blocks of 2x2 pixels, and compare them with
# those of the true images by the Wasserstein distance: how far, in grey levels, values must be moved on average to turn
# one distribution into the other.
#
# LPIPS, a perceptual distance by a network, stands beside it where the weights of its backbone are at hand. It is a
# distance to the one true image, so it is not the perception of the theorem.


def details(pictures: list[Tensor]) -> np.ndarray:
    """The finest Haar details of all pictures, in grey levels of 255."""
    return (
        255
        * torch.cat([Haar().inv(picture)[3:].flatten() for picture in pictures]).numpy()
    )


truth = details(images)
distance = [wasserstein_distance(details(draws[tau]), truth) for tau in temperatures]
lpips = sweep.figures.get("LPIPS")
print(f"{'τ':>4}{'NLL':>9}{'PSNR':>8}{'variety':>9}{'details':>9}{'LPIPS':>8}")
for i, tau in enumerate(temperatures):
    cells = (nll[i], psnr[i], variety[i])
    texts = ["–" if cell is None else f"{cell.value:.2f}" for cell in cells]
    last = "–" if lpips is None else f"{lpips[i].value:.3f}"
    print(
        f"{tau:4.2f}{texts[0]:>9}{texts[1]:>8}{texts[2]:>9}{distance[i]:9.2f}{last:>8}"
    )

# %%
# NLL in bits per dimension of the 8-bit image (uniform noise 1/256, σ = e⁻⁶, D = C·H·W), PSNR in dB of one draw rounded
# to 8 bits (RGB, border 4, mean over two draws), variety as the standard deviation between draws and details as the
# Wasserstein distance, both in grey levels of 255. A dash means that there is no such number: no density at
# :math:`\tau = 0`, or no weights for LPIPS.
#
# What came out
# -------------
# Top: the same noise at several temperatures, between the enlarged LR image and the true image. At :math:`\tau = 0` fur
# is smeared; towards 1 it gets texture, and then grain. Below: each of the three has its optimum at another
# temperature. PSNR is best at :math:`\tau = 0`. The details are most like true ones a little below 1, and beyond that
# they are too strong. This says how strong they are, not whether they have the right shapes: the eye sees that the
# details of this small model are grain more than fur. The likelihood is best at :math:`\tau = 1`, which is the model as
# it was trained.
#
# So there is no right temperature, there are uses. For a single sharp image take what looks best. For statements about
# what might be true (uncertainty, calibration, likelihood) take :math:`\tau = 1`, as a distribution at another
# temperature is not the posterior of the model.

best = int(np.argmin(distance))
pictures = {
    "LR, enlarged x4": crop_to(bicubic_up(pairs[0][1], flow.upscale), (size, size))
}
pictures |= {f"a draw, τ = {tau:g}": draws[tau][0] for tau in shown}
pictures["HR: the truth"] = images[0]
distortion = [cell.value for cell in psnr]
likelihood = [np.nan if cell is None else cell.value for cell in nll]
across, along = (
    "temperature τ",
    ("PSNR of a draw, dB", "distance, grey levels", "bits per dimension"),
)
names = [f"τ = {tau:g}" if tau in shown else "" for tau in temperatures]

pictures = {name: picture[:, -64:, :64] for name, picture in pictures.items()}
lines = [Line(temperatures, values) for values in (distortion, distance, likelihood)]
panels = [
    Curves("Distortion", across, along[0], lines[:1], best="high"),
    Curves("Perception", across, along[1], lines[1:2], best="low"),
    Curves("Likelihood", across, along[2], lines[2:], best="low", log=True),
    Curves("The trade", along[1], along[0], [Line(distance, distortion, names=names)]),
]

figure = plt.figure(figsize=(7, 9.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 1.25))
image_grid(pictures, into=above)
curve_grid(panels, into=below)
plt.show()

assert psnr[0].value > psnr[best].value and distance[best] < distance[0] / 2, (
    psnr,
    distance,
)
