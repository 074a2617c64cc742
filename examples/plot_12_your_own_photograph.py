r"""
The likelihood of your own photograph, with a scale to read it by
=================================================================

A model says that your photograph takes 3.2 bits per dimension. Is that much? A number
alone says nothing, so this page puts it on a ruler: beside the same pixels stored raw
and as a PNG file, beside what is usual for photographs, and beside the same photograph
after JPEG, noise, blur and shrinking.

Run it on a file of yours: ``python plot_12_your_own_photograph.py cat.jpg``. Without
one it takes a cat that comes with scikit-image.

The unit first. A colour image of 8 bits is :math:`D = C \cdot H \cdot W` numbers, each
one of 256 grey levels. A model that gives it the probability :math:`P(x)` could store
it in :math:`-\log_2 P(x)` bits, hence

.. math:: \text{bits/dim} = \frac{-\log_2 P(x)}{C \cdot H \cdot W},

and raw pixels take 8. HCFlow is a model of an image *given its LR image*
:math:`y^*`, so its number is that of :math:`P(x \mid y^*)`: the bits of the details
that the LR image does not tell.
"""

# %%
# Your photograph
# ---------------
# The middle of it, 256x256 pixels. The LR image is made of it as in training, by
# MATLAB's bicubic kernel and rounding to 8 bits. The model has seen neither this
# photograph nor the others on this page.

import io
import sys

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

import flowsr
from flowsr.images import bicubic_down, encode_png, make_lr, read_image, round_to_8bit
from flowsr.likelihood import bits_per_dim, perturbed
from flowsr.plots import Panel, RulerRow, draw_heat_map, draw_panel, draw_ruler

SMOKE = "--smoke" in sys.argv
SIZE, CROP = (64, 64) if SMOKE else (256, 128)
generator = torch.Generator().manual_seed(0)
flow = flowsr.load("sr-x4-small").requires_grad_(False)


def example(name: str) -> Tensor:
    pixels = getattr(skimage.data, name)()
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels  # of a stereo pair
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255


def middle(image: Tensor, size: int) -> Tensor:
    top, left = ((length - size) // 2 for length in image.shape[-2:])
    return image[:3, top : top + size, left : left + size].contiguous()


files = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
photograph = read_image(files[0], mode="RGB") if files else example("chelsea")
name = files[0] if files else "skimage.data.chelsea"
hr = round_to_8bit(middle(photograph, min(SIZE, *photograph.shape[-2:]) // 16 * 16))
print(f"{name}: the middle {hr.shape[-1]}x{hr.shape[-2]} pixels, D = {hr.numel()}")

# %%
# Four numbers of the same pixels
# -------------------------------
# :func:`flowsr.likelihood.bits_per_dim` adds the noise of one grey level that makes a
# density into a bound of the probability of an 8-bit image, and counts it.
#
# A PNG file holds the whole image, while the flow is told the LR image. For a fair
# comparison the LR image must be paid for too, say as a PNG file of its own: a receiver
# of both could restore every pixel. This sum is an upper bound of what the flow needs
# for the image alone.


def png_bits(image: Tensor) -> float:
    return 8.0 * len(encode_png(image))


def given_lr(image: Tensor) -> float:
    lr = make_lr(image, flow.upscale)
    return float(bits_per_dim(flow, image, lr, generator=generator).figure.value)


def with_lr(image: Tensor) -> float:
    return given_lr(image) + png_bits(make_lr(image, flow.upscale)) / image.numel()


found = bits_per_dim(
    flow, hr, make_lr(hr, flow.upscale), generator=generator, maps=True
)
own = float(found.figure.value)
whole = own + png_bits(make_lr(hr, flow.upscale)) / hr.numel()
png = png_bits(hr) / hr.numel()
print("raw 8-bit pixels               8.00 bits/dim")
print(f"PNG file                       {png:.2f}")
print(f"flow, the LR image as PNG      {whole:.2f}")
print(f"flow, given the LR image       {own:.2f}")
print(found.figure.convention)

# %%
# What is usual
# -------------
# The same number, of crops of four other photographs. They differ far more among
# themselves than two good models differ on one of them: a night sky takes one bit, fine
# texture and camera noise take nearly five. Nine of ten crops lie in the range called
# usual below.

names = ("astronaut", "coffee", "rocket", "stereo_motorcycle")
crops = []
for photo in map(example, names[: 1 if SMOKE else 4]):
    rows, columns = (range(0, n - CROP + 1, CROP) for n in photo.shape[-2:])
    parts = [photo[:, i : i + CROP, j : j + CROP] for i in rows for j in columns]
    crops += parts[:3] if SMOKE else parts
others = [given_lr(crop.contiguous()) for crop in crops]
low, high = np.quantile(others, (0.05, 0.95))
below = sum(value < own for value in others)
print(f"{len(others)} crops of other photographs: usual is {low:.2f} to {high:.2f}")
print(f"yours takes more bits than {below} of {len(others)}")

# %%
# What it is made of
# ------------------
# The sum, term by term. Noise of one grey level costs 8 bits, latents about 2 for each
# dimension, whatever the image. The log-determinants pay them back: where the details
# are small, the flow stretches space, and each doubling saves one bit.

print(found.terms.to_text())

# %%
# What changes it
# ---------------
# The same photograph, made worse in ways that everybody knows. Each version is scored
# given an LR image of its own. Noise is the dearest: nobody can guess it from the LR
# image. The best code for Gaussian noise of 8 grey levels takes
# :math:`\log_2(8\sqrt{2\pi e}) = 5.0` bits; this model pays more, as it has not seen
# such noise in training, and expects small details.


def jpeg(image: Tensor, quality: int) -> Tensor:
    pixels = (255 * image).round().byte().movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file)).copy()
    return torch.from_numpy(decoded).movedim(-1, 0).float() / 255


versions = {
    "JPEG, quality 90": jpeg(hr, 90),
    "JPEG, quality 30": jpeg(hr, 30),
    "noise of 2 grey levels": perturbed(hr, "noisy", strength=2, generator=generator),
    "noise of 8 grey levels": perturbed(hr, "noisy", strength=8, generator=generator),
    "blurred by 1 pixel": perturbed(hr, "smooth", strength=1, generator=generator),
    "blurred by 3 pixels": perturbed(hr, "smooth", strength=3, generator=generator),
    "half the size": round_to_8bit(bicubic_down(hr, 2)),
}
changed = {label: given_lr(image) for label, image in versions.items()}
for label, value in changed.items():
    print(f"{label:24} {value:5.2f} bits/dim, {value - own:+.2f}")

# %%
# The ruler
# ---------
# On the map, bits are where the image cannot be guessed from its LR image: on the cat,
# sharp fur and whiskers. What is smooth or out of focus takes the fewest. The mean of
# the map over the pixels is the number on the ruler.
#
# **What the number does not mean.** It is no measure of quality: blur makes the
# photograph worse and *cheaper*, and a camera's noise makes it dearer than anything in
# it. It does not say that the image is like those of training, for the same reason
# (:ref:`sphx_glr_auto_examples_plot_05_likelihood_and_outliers.py`). It can be compared
# only between models, or images, under one convention: 8 bits, D = C·H·W, the same
# factor and the same LR images. And a photograph that was a JPEG, or was shrunk, before
# you got it has another number than what the camera saw.
#
# The command ``flowsr score cat.jpg`` prints the number and its terms for a file, and
# ``flowsr report cat.jpg`` writes a page with maps.

ruler = [
    RulerRow("raw 8 bits", [8.0], "ink"),
    RulerRow("PNG file", [png], "ink"),
    RulerRow("flow, LR image as PNG", [whole], "purple"),
    RulerRow("flow, given the LR image", [own], "red"),
    RulerRow("… of other crops", others, "grey"),
    *(RulerRow(label, [value], "blue") for label, value in changed.items()),
]
figure = plt.figure(figsize=(10, 8.2), layout="constrained")
pictures, scale = figure.subfigures(2, 1, height_ratios=(1, 1.05))
left, right = pictures.subplots(1, 2)
draw_panel(left, Panel(hr, f"your photograph: {own:.2f} bits/dim"))
title = "where its bits are, given the LR image"
draw_heat_map(right, found.terms.bits_map, title=title, unit="bits/dim")
of_others = "usual for photographs"
title = "your photograph (red), and the same photograph changed (blue)"
axes = scale.subplots()
usual = (float(low), float(high))
draw_ruler(
    axes, ruler, unit="bits/dim", title=title, usual=usual, usual_label=of_others
)
plt.show()

assert changed["blurred by 3 pixels"] < own < changed["noise of 8 grey levels"]
assert SMOKE or own < whole < png < 8.0, (own, whole, png)
