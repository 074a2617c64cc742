r"""
Compare two checkpoints: paired differences, and how many images they need
==========================================================================

Which of two checkpoints is better? The habit is to average each over a test set and to
compare the averages. But images differ far more from each other than two checkpoints
do on one of them, so two averages with an error bar each say little. Both have seen the
*same* images, though. So take the difference image by image,

.. math:: d_i = b_i - a_i, \qquad
          \bar d = \frac{1}{n} \sum_i d_i \pm t_{n-1} \frac{s_d}{\sqrt{n}},

and what is hard about an image, for both, drops out:
:math:`s_d^2 = s_a^2 + s_b^2 - 2 \varrho\, s_a s_b` is small where the two agree on what
is hard, :math:`\varrho \approx 1`.

Here A is the small model that ships with flowsr, trained on photographs, and B is A
after a few seconds of further training on tissue under a microscope.
"""

# %%
# Two checkpoints
# ---------------
# One slide is cut in two: B is trained on crops of its left half, and the right half is
# kept for the test. The learning rate rises and falls within the sixty steps.

import copy
import sys
import tempfile
from pathlib import Path
from statistics import stdev

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from torch import Tensor

import flowsr
from flowsr.distributions import uniform_dequantize
from flowsr.evaluation import EvaluationPlan
from flowsr.images import make_lr, write_image
from flowsr.plots import PALETTE
from flowsr.statistics import bootstrap_interval
from flowsr.training import likelihood_loss
from flowsr.workflows.compare import compare_files

SMOKE = "--smoke" in sys.argv
SIZE, MOST, STEPS = (32, 3, 2) if SMOKE else (64, 32, 60)
generator = torch.Generator().manual_seed(0)


def picture(name: str) -> Tensor:
    pixels = getattr(skimage.data, name)()
    pixels = pixels[0] if isinstance(pixels, tuple) else pixels  # of a stereo pair
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255


def random_crops(image: Tensor, n: int, size: int = 48) -> Tensor:
    crops = []
    for _ in range(n):
        top, left = (
            int(torch.randint(length - size + 1, (), generator=generator))
            for length in image.shape[-2:]
        )
        crops.append(image[:, top : top + size, left : left + size])
    return torch.stack(crops)


slide = picture("immunohistochemistry")
a = flowsr.load("sr-x4-small").eval()
b = copy.deepcopy(a)
optimizer = torch.optim.Adam(b.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, total_steps=STEPS)
for step in range(STEPS):
    hr = random_crops(slide[..., :256], 8)
    noisy = uniform_dequantize(hr, generator=generator)
    loss, seen = likelihood_loss(b, noisy, make_lr(hr, b.upscale))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(b.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 15 == 0 or step == STEPS - 1:
        print(f"step {step:2d}: {float(seen['bits_per_dim']):.2f} bits/dim")

# %%
# The same images for both
# ------------------------
# :func:`flowsr.workflows.compare.compare_files` is what ``flowsr compare`` does: both
# models see the same crops, LR images and seeds, and each figure is paired only if both
# measured it under the same convention. Here are crops of the right half of the slide.
# ``tissue.to_text()`` and ``.to_csv()`` have every convention and every image; this is
# the short of it.


def tiles(image: Tensor, most: int) -> list[Tensor]:
    """At most so many crops that do not overlap, evenly chosen."""
    tops, lefts = (range(0, n - SIZE + 1, SIZE) for n in image.shape[-2:])
    places = [(top, left) for top in tops for left in lefts]
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)
    cut = [places[i] for i in chosen]
    return [image[:, top : top + SIZE, left : left + SIZE] for top, left in cut]


def compare(images: dict[str, Tensor]) -> flowsr.evaluation.Comparison:
    plan = EvaluationPlan(temperatures=(0.0, 0.8), num_samples=2)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.png" for name in images]
        for file, image in zip(files, images.values(), strict=True):
            write_image(file, image)
        return compare_files(a, b, files, plan=plan, models=("shipped", "tuned"))


cut = tiles(slide[..., 256:], MOST)
tissue = compare({f"tissue-{i:02}": tile for i, tile in enumerate(cut)})
print(f"{tissue.title.split(',')[0]}; A shipped, B tuned")
print(f"{'':36}{'A':>7}{'B':>8}{'B − A':>9}  95% interval")
for figure in tissue.figures:
    (mean_a, mean_b), d = figure.means, figure.difference
    print(f"{figure.label:36}{mean_a:7.2f}{mean_b:8.2f}{d.value:+9.3f}", end="  ")
    print(f"[{d.low:+.3f}, {d.high:+.3f}]")

# %%
# Why paired
# ----------
# The bits per dimension of both models, once as two independent samples, as if each
# model had been given images of its own, and once in pairs.

bits = next(figure for figure in tissue.figures if figure.key == "bits_per_dim")
one, two = (np.array([*values.values()]) for values in (bits.a, bits.b))


def apart(x: np.ndarray, y: np.ndarray) -> float:
    return float(y.mean() - x.mean())


unpaired = bootstrap_interval(one, two, statistic=apart, num_resamples=500)
print(f"A {bootstrap_interval(one)} bits/dim, B {bootstrap_interval(two)}")
print(f"B − A as two samples   {unpaired:+.3f}")
print(f"B − A in pairs         {bits.difference:+.3f}")
print(f"correlation of the two {np.corrcoef(one, two)[0, 1]:.4f}")

# %%
# How many images are needed
# --------------------------
# For an interval that leaves 0 out in four of five test sets like this one, a mean
# difference :math:`\bar d` takes about :math:`n = (2.8\, s_d / \bar d)^2` images, by
# the normal approximation: 1.96 for the interval, 0.84 for the four of five. Look at
# the figures one by one: what two images decide of one takes thirty of another.

paired_std = stdev(bits.differences.values())
unpaired_std = float(np.hypot(one.std(ddof=1), two.std(ddof=1)))
print(f"{'':26}{'mean B − A':>12}{'std of d':>10}{'n needed':>10}")
for figure in tissue.figures:
    d = list(figure.differences.values())
    needed = (2.8 * stdev(d) / abs(np.mean(d))) ** 2 if any(d) else np.inf
    print(f"{figure.name:26}{np.mean(d):12.4f}{stdev(d):10.4f}{max(2, needed):10.0f}")
needed = (2.8 * unpaired_std / abs(bits.difference.value)) ** 2
print(f"bits/dim, had each model images of its own: n = {needed:.0f} for each")

# %%
# What was the price?
# -------------------
# The same two on photographs, which B has been tuned away from. Several crops of one
# photograph are not several independent images: with ``clusters`` whole photographs are
# resampled, and the interval says that there are only four of them.

names = ("astronaut", "chelsea", "coffee", "stereo_motorcycle")[: 2 if SMOKE else 4]
parts = {}
for name in names:
    parts |= {f"{name}-{i}": crop for i, crop in enumerate(tiles(picture(name), 5))}
photographs = compare(parts)
of_photos = next(f for f in photographs.figures if f.key == "bits_per_dim")
differences = of_photos.differences
sources = [name.split("-")[0] for name in differences]
clustered = bootstrap_interval([*differences.values()], clusters=sources)
print(f"bits/dim on photographs, B − A: {of_photos.difference:+.3f} if crops counted,")
print(f"{clustered:+.3f} by photographs")

# %%
# The picture
# -----------
# Top left: each dot is a crop of the slide. The dots spread along the diagonal, as both
# models agree on which crops are hard, and every one lies below it. Top right: half the
# width of the interval against the number of images; where a line falls below the
# difference (dotted), the interval leaves 0 out. Below: every figure of the comparison,
# better to the right. B's images at τ = 0 are closer to the truth, while they meet the
# LR image less closely, and its draws vary more.
#
# What the intervals do *not* say: they are about crops of this slide, which B has seen
# the other half of. Of other slides they say nothing; for these, one needs several
# slides and ``clusters``. And they take each figure alone: look at twenty, and one of
# them is expected to leave 0 out by chance.

n = np.arange(2, 101)
unpaired_half, paired_half = (1.96 * s / n**0.5 for s in (unpaired_std, paired_std))
mean = abs(bits.difference.value)
sizes = {"xlabel": "number of images n", "ylabel": "half the interval, bits/dim"}
labels = {"xlabel": "A: shipped, bits/dim", "ylabel": "B: tuned, bits/dim"}

figure = plt.figure(figsize=(10, 8), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
left, right = top.subplots(1, 2)
left.plot(one, two, "o", color=PALETTE["blue"], alpha=0.7, markeredgewidth=0)
left.axline((one.mean(), one.mean()), slope=1, color=PALETTE["ink"], linewidth=0.8)
left.set(title="one dot per crop: below the line, B is better", **labels)
right.loglog(n, unpaired_half, color=PALETTE["red"], label="as two samples")
right.loglog(n, paired_half, color=PALETTE["blue"], label="in pairs")
right.axhline(mean, ls=":", color=PALETTE["ink"], label="the difference of means")
right.set(title="how many images it takes", **sizes)
right.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
right.legend(frameon=False, fontsize=8)
tissue.plot(bottom.subplots())
plt.show()

assert SMOKE or bits.difference.high < 0, bits.difference
width, other = (found.high - found.low for found in (bits.difference, unpaired))
assert SMOKE or 3 * width < other, (width, other)
