r"""
Train on a folder of photographs, then evaluate
===============================================

:func:`flowsr.training.train` takes a folder of HR images and a recipe, and leaves a folder that holds the trained
model, its logs and its checkpoints. Here it trains a small x4 model for little more than a minute on one core of a CPU,
and the model is then measured on a photograph that it has not seen, beside the weights that ship with flowsr.

Three photographs are far too few for a good model. What can be learnt from them is how a run is set up and what its
numbers mean.
"""

# %%
# A folder of images
# ------------------
# Training needs HR images only, in any common format; the LR image of each crop is made by MATLAB's bicubic kernel and
# rounded to 8 bits. We write three photographs that come with scikit-image, and keep a fourth one for the evaluation.

import json
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
import torch

import flowsr
from flowsr.images import bicubic_up, make_lr, round_to_8bit, write_image
from flowsr.plots import curve_grid, image_grid
from flowsr.training import Data, Run, recipe, run_curves, score_images, train

SMOKE = "--smoke" in sys.argv
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)


def photograph(name: str) -> torch.Tensor:
    return torch.from_numpy(getattr(skimage.data, name)()).movedim(-1, 0).float() / 255


for name in ("astronaut", "coffee", "rocket"):
    (folder / "photographs").mkdir(exist_ok=True)
    write_image(folder / "photographs" / f"{name}.png", photograph(name))

side = 64 if SMOKE else 192
unseen = photograph("chelsea")[:, 40 : 40 + side, 110 : 110 + side]
write_image(folder / "unseen.png", unseen)

# %%
# A recipe
# --------
# A recipe says what is minimized and how. ``nll`` is the published one of HCFlow: the negative log-likelihood, Adam,
# 300 000 steps on crops of 160x160. A run of a minute needs fewer steps, smaller crops, a larger learning rate that
# falls along a cosine, and a shorter memory of the moving average of the weights. It also needs some help with the
# mean, which the likelihood alone learns last: the error of the image at :math:`\tau = 0` is added to the loss.

steps = 12 if SMOKE else 100
chosen = recipe(
    "nll",
    l1=100.0,
    # One step for the sum of both losses, where the published HCFlow+ makes two.
    separate=False,
    steps=steps,
    batch_size=8,
    crop=32 if SMOKE else 48,
    learning_rate=1e-4 if SMOKE else 1e-3,
    warmup=steps // 10,
    halve_at=(),
    cosine_to=1e-5,
    ema=0.0 if SMOKE else 0.95,
)
run = Run(
    accelerator="cpu",
    progress=False,
    log_every=2 if SMOKE else 10,
    validate_every=steps // 4 if SMOKE else steps // 10,
    checkpoint_every=steps // 2,
)

# %%
# The run
# -------
# ``start="haar"`` is the default: at the first step the flow's own LR image is the average of each block of 4x4 pixels,
# which is already close to the bicubic one. With ``start="rotation"``, as published, it is a random mixture of pixels,
# and a short run would be spent on finding the average.
#
# The folder of the run must not hold checkpoints of another one. The same call with ``resume=True`` goes on after a
# run that was stopped.

trained = train(
    "sr-x4-small",
    Data(folders=folder / "photographs", validation=folder / "unseen.png"),
    out=folder / "run",
    recipe=chosen,
    run=run,
    start="haar",
)
print(
    f"{trained.step} steps, {trained.skipped} of them skipped"
    " because a number was not finite"
)
for path in sorted((folder / "run").rglob("*")):
    if path.is_file():
        print(
            f"{path.relative_to(folder / 'run')!s:36}"
            f" {path.stat().st_size / 2**10:8.1f} KiB"
        )

facts = json.loads((folder / "run" / "run.json").read_text())
print(
    f"{facts['parameters']:,} parameters,"
    f" {facts['images']['training']} images to train on"
)

# %%
# Evaluation
# ----------
# ``model.safetensors`` is what :func:`flowsr.load` reads. :func:`flowsr.training.score_images` crops each image to
# multiples of 16, makes its LR image, and scores the model on the pair. We compare with the same model before training,
# and with the one that ships with flowsr.

flow = flowsr.load(folder / "run" / "model.safetensors")
torch.manual_seed(0)
before = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
shipped = flowsr.load("sr-x4-small")
models = {"before": before, "after": flow, "shipped": shipped}
scores = {}
for label, model in models.items():
    (scores[label],) = score_images(model, [("unseen", unseen)], temperature=0.8)

lr = make_lr(unseen, flow.upscale)
enlarged = round_to_8bit(bicubic_up(lr, flow.upscale))
bicubic_psnr = float(flowsr.metrics.psnr(enlarged, unseen, border=flow.upscale))
rows = (
    ("bits/dim (8-bit image, uniform noise)", "bits_per_dim"),
    ("PSNR of the flow's own LR image, dB", "encoded_lr_psnr"),
    ("PSNR, τ = 0 (RGB, border 4), dB", "psnr_mean"),
    ("PSNR, one draw at τ = 0.8, dB", "psnr_draw"),
)
print(f"{'':40}" + "".join(f"{label:>10}" for label in models))
for label, name in rows:
    values = (getattr(scores[model], name) for model in models)
    print(f"{label:40}" + "".join(f"{value:10.2f}" for value in values))
print(f"{'PSNR of bicubic upscaling, dB':40}{bicubic_psnr:10.2f}")

# %%
# Read them together. Bits per dimension are what was minimized: fewer are better. The PSNR of the flow's own LR image
# says how close that is to the bicubic one. The PSNR of a draw is below that at :math:`\tau = 0`, and must be: a draw
# is one possible image with details of its own, not the mean of all. The likelihood improves within tens of steps; the
# image at :math:`\tau = 0` takes longer. It starts as blocks of 4x4 pixels, the averages of ``start="haar"``, and a run
# as short as this leaves it near bicubic upscaling. The weights that ship with flowsr are of the same architecture: what
# hours of training on more photographs are worth stands in the last column.
#
# The logs
# --------
# ``train.csv`` has a row of averages every few steps and ``validation.csv`` a row per validation. ``curve.png`` in the
# folder of the run, and :func:`flowsr.training.run_curves` here, show the same.

levels = {
    "bits_per_dim": {"weights as shipped": scores["shipped"].bits_per_dim},
    "psnr_mean": {
        "weights as shipped": scores["shipped"].psnr_mean,
        "bicubic": bicubic_psnr,
    },
}
curves = run_curves(folder / "run", levels=levels)
torch.manual_seed(1)
with torch.no_grad():
    pictures = {
        "LR, enlarged by bicubic": enlarged,
        "trained here, τ = 0": flow.sample(lr, temperature=0.0)[0],
        "trained here, a draw at τ = 0.8": flow.sample(lr, temperature=0.8)[0],
        "HR, not seen in training": unseen,
        "as shipped, τ = 0": shipped.sample(lr, temperature=0.0)[0],
        "as shipped, a draw at τ = 0.8": shipped.sample(lr, temperature=0.8)[0],
    }

figure = plt.figure(figsize=(7, 10.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
curve_grid(curves, columns=2, into=above)
image_grid(pictures, columns=3, into=below)
temporary.cleanup()
plt.show()

assert scores["after"].bits_per_dim < scores["before"].bits_per_dim, scores
