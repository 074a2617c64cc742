r"""
The family: Glow, SRFlow, HCFlow and IRN side by side
=====================================================

Four kinds of flows of the same blocks, trained on the same photographs, in one table.
They answer different questions:

* **Glow** is a density of images alone, :math:`p(x)`.
* **SRFlow** is a density of HR images given an LR image, :math:`p(x \mid y^*)`, with
  :math:`y^*` as a condition at every step.
* **HCFlow** is such a density too, but one bijection between x and (y, z): it makes the
  LR image as well. Trained for another aim it shrinks and enlarges, as IRN does.
* **IRN** is such a bijection that is trained to shrink and enlarge, and not to be a
  density.

All are small, and were trained on one CPU core for an hour or less each: what the table
shows is which number each model has at all, and what it means, not how good the published
networks are. :doc:`/the_family` says how they differ, and their :doc:`cards
</model_cards>` how they were trained.
"""

# %%
# Five files, one interface
# -------------------------
# The weights come with the package. What a model can do is asked of its ``capabilities``,
# never of its class.

import sys

import matplotlib.pyplot as plt
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.evaluation import EvaluationPlan, score_pair
from flowsr.images import bicubic_up, make_lr
from flowsr.models import Capability
from flowsr.plots import Panel, image_grid

SMOKE = "--smoke" in sys.argv
SIDE = 48 if SMOKE else 160

NAMES = {
    "Glow": "glow-small",
    "SRFlow": "srflow-x4-small",
    "HCFlow": "sr-x4-small",
    "HCFlow, rescaling": "rescaling-x4-small",
    "IRN": "irn-x4-small",
}
models = {name: flowsr.load(preset) for name, preset in NAMES.items()}
for name, model in models.items():
    count = sum(p.numel() for p in model.parameters())
    print(f"{name:18} {count / 1e6:.2f}M  {', '.join(sorted(model.capabilities))}")

# %%
# The same images
# ---------------
# Crops of three photographs that none of the models has seen, each with a bicubic LR
# image, rounded to 8 bits, of a quarter of its width and height.


def crop_of(name: str, top: int, left: int) -> Tensor:
    image = torch.from_numpy(getattr(skimage.data, name)()).movedim(-1, 0) / 255
    return image[:, top : top + SIDE, left : left + SIDE]


images = {
    "astronaut": crop_of("astronaut", 20, 130),
    "chelsea": crop_of("chelsea", 60, 110),
    "coffee": crop_of("coffee", 120, 260),
}

# %%
# One table
# ---------
# :func:`flowsr.evaluation.score_pair` measures what a model has, under conventions that
# stand with each figure; ``flowsr evaluate`` and ``flowsr compare`` do so for files. Means
# of the three images:
#
# * **bits/dim**: of the 8-bit image with uniform noise of one bin. Glow does not know the
#   LR image, so it must pay for it; SRFlow is given it for nothing. HCFlow pays for the
#   LR image's term, a Gaussian of width :math:`e^{-6}`. So the three are not of one
#   question. That SRFlow costs more all the same says that it has fewer flow steps here,
#   and was trained for a sharp image at :math:`\tau = 0` as well. Rescaling models are
#   not trained as densities, and have no such figure.
# * **PSNR**: of the image at :math:`\tau = 0`, and of draws at 0.8 (rescaling: 1), RGB,
#   without a border of 4 pixels. Rescaling models enlarge the LR image that they made
#   themselves, which holds more of the original than a bicubic one: the two kinds of PSNR
#   are not of one task.
# * **LR-PSNR**: how closely the bicubic LR image of what came out agrees with that of the
#   original; **encoded LR**, how closely the model's own LR image does.

COLUMNS = {
    "bits/dim": ("bits_per_dim",),
    "PSNR, tau=0": ("psnr_tau0",),
    "of draws": ("psnr_tau0_8", "psnr_tau1"),
    "LR-PSNR": ("lr_psnr_tau0",),
    "encoded LR": ("encoded_lr_psnr",),
}


def mean_of(scores: list, keys: tuple[str, ...]) -> str:
    found = [row[key].number for row in scores for key in keys if key in row]
    return f"{sum(found) / len(found):.2f}" if found else "-"


plan = EvaluationPlan(num_samples=2)
measured = {
    name: [
        score_pair(model, hr, plan=plan, figures=("psnr",)) for hr in images.values()
    ]
    for name, model in models.items()
}
print(f"{'':18}" + "".join(f"{title:>14}" for title in COLUMNS))
for name, scores in measured.items():
    print(
        f"{name:18}"
        + "".join(f"{mean_of(scores, keys):>14}" for keys in COLUMNS.values())
    )
print(f"{'bicubic':18}{'-':>14}{mean_of(measured['HCFlow'], ('psnr_bicubic',)):>14}")

# %%
# What Glow knows of photographs
# ------------------------------
# Glow was trained on crops of photographs, and it prefers them to noise, also to an image
# of the same grey levels in another order. Bits per dimension:

hr = images["chelsea"]
noisy = uniform_dequantize(hr, generator=torch.Generator().manual_seed(0))
order = torch.randperm(hr[0].numel(), generator=torch.Generator().manual_seed(0))
shuffled = noisy.flatten(1)[:, order].reshape(noisy.shape)
glow, bits = models["Glow"], {}
for name, image in {"the photograph": noisy, "its pixels shuffled": shuffled}.items():
    with torch.no_grad():
        bits[name] = float(
            flowsr.likelihood.decompose(glow, image).dequantized().bits_per_dim
        )
    print(f"{name:20} {bits[name]:.2f}")

# %%
# What SRFlow and HCFlow make of a temperature
# --------------------------------------------
# At :math:`\tau = 0` a super-resolution model gives one sharp compromise; draws differ
# from it and from each other, and the more the larger the temperature is. Of a rescaling
# model draws hardly differ: what its LR image does not say, its latent cannot add.
# :func:`flowsr.cite` prints whom to cite for a model.

lr = make_lr(hr, 4)
panels = [Panel(hr, "HR image"), Panel(bicubic_up(lr, 4), "bicubic")]
for name, model in models.items():
    if Capability.CONDITION not in model.capabilities:
        continue
    made = Capability.DOWNSCALE in model.capabilities
    given = model.downscale(hr) if made else lr
    for temperature in (0.0,) if made else (0.0, 0.8):
        torch.manual_seed(1)
        picture = model.sample(given, temperature=temperature)[0]
        source = "from its own LR image" if made else "from the bicubic LR image"
        panels.append(Panel(picture, f"{name}, τ = {temperature:g}\n{source}"))
figure = plt.figure(figsize=(7, 4.6), layout="constrained")
image_grid(panels, columns=4, into=figure)
plt.show()

assert bits["the photograph"] < bits["its pixels shuffled"], bits
if not SMOKE:
    bicubic = float(mean_of(measured["HCFlow"], ("psnr_bicubic",)))
    sharp = [mean_of(scores, ("psnr_tau0",)) for scores in measured.values()]
    assert all(float(value) > bicubic for value in sharp if value != "-"), sharp
