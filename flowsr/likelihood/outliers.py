"""Out-of-distribution detection: which scores of a model tell images it was made for from others, and which do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from flowsr._support.shapes import place_of, size_text
from flowsr.distributions import UniformDequantizer
from flowsr.images import check_image, encode_png, round_to_8bit
from flowsr.likelihood.decompose import decompose, width_used
from flowsr.likelihood.inputs import Pair, check_8bit, check_pairs
from flowsr.likelihood.latent_normality import HasNoise
from flowsr.plots import PALETTE, WIDTH, new_figure, plain_axes
from flowsr.results import Result, text_table
from flowsr.statistics.intervals import Interval, bootstrap_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PERTURBATIONS = ("smooth", "noisy", "shuffled", "constant")
"""The kinds of :func:`perturbed`."""

SCORES: dict[str, str] = {
    "NLL": "bits/dim of the 8-bit image, higher is taken for stranger",
    "typicality": "|NLL − mean NLL of the reference images|, bits/dim",
    "complexity-corrected NLL": "NLL minus the bits/dim of the image as PNG",
    "latent norm": "||z|²/D − mean of the reference images|",
    "LR features": "Mahalanobis distance of the LR image's features from those of the reference images",
}
"""What each score is; all are larger for what is taken to be stranger."""

_COLOURS = ("ink", "orange", "blue", "green", "purple", "red")


def perturbed(
    hr: Tensor, kind: str, *, strength: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """An 8-bit image that a model of photographs has not seen: smooth, noisy, shuffled, or without any content.

    Args:
        hr: HR image in [0, 1], ``(C, H, W)``.
        kind: "smooth" (Gaussian blur, ``strength`` its σ in pixels, by default 3), "noisy" (Gaussian noise,
            ``strength`` its σ in grey levels of 255, by default 25), "shuffled" (blocks of 8x8 pixels in random
            order, cropped to multiples of 8) or "constant" (the mean colour).
        strength: see ``kind``.
        generator: source of randomness; the global one by default.

    Raises:
        ValueError: for another kind or a negative strength, something that is not one image in [0, 1], or one that is
            too small to be shuffled.

    Example:
        >>> perturbed(torch.rand(3, 16, 16), "constant").std().item() < 0.1
        True
    """
    from skimage.filters import gaussian

    check_image(hr, name="hr")
    if hr.dim() != 3:
        raise ValueError(f"expected one image (C, H, W); got shape {tuple(hr.shape)}")
    hr = hr.detach().to(torch.promote_types(hr.dtype, torch.float32))  # half precision holds no grey levels
    if strength is not None and not strength >= 0:
        raise ValueError(f"expected a strength >= 0; got {strength}")
    if kind == "smooth":
        sigma = 3.0 if strength is None else strength
        blurred = gaussian(hr.cpu().numpy(), sigma=sigma, channel_axis=0, mode="reflect")
        return round_to_8bit(torch.from_numpy(np.ascontiguousarray(blurred)).to(hr))
    if kind == "noisy":
        noise = torch.randn(hr.shape, generator=generator, device=place_of(generator)).to(hr)
        return round_to_8bit(hr + (25.0 if strength is None else strength) / 255 * noise)
    if kind == "shuffled":
        side = 8
        height, width = (size // side * side for size in hr.shape[-2:])
        if height * width < 2 * side**2:
            raise ValueError(
                f"expected at least two blocks of {size_text((side, side))} to shuffle; got {size_text(hr.shape[-2:])}"
            )
        blocks = hr[..., :height, :width].unflatten(-2, (-1, side)).unflatten(-1, (-1, side)).movedim(-2, -3)
        flat = blocks.flatten(-4, -3)
        order = torch.randperm(flat.shape[-3], generator=generator, device=place_of(generator))
        blocks = flat[..., order, :, :].unflatten(-3, (height // side, width // side)).movedim(-3, -2)
        return round_to_8bit(blocks.flatten(-2, -1).flatten(-3, -2))
    if kind == "constant":
        return round_to_8bit(hr.mean((-2, -1), keepdim=True).expand_as(hr))
    raise ValueError(f"expected kind to be smooth, noisy, shuffled or constant; got {kind!r}")


@runtime_checkable
class HasFeatures(HasNoise, Protocol):
    """A model with a likelihood that also tells the noise, and what it sees in an LR image."""

    def lr_features(self, lr: Tensor) -> Tensor:
        """Features ``(*batch, F)`` of an LR image."""
        ...


@dataclass(frozen=True)
class OutOfDistribution(Result):
    """How well scores tell sets of images from images like the reference ones.

    Attributes:
        auroc: by score and by set, the area under the receiver operating curve with its 95 % bootstrap interval: 1
            tells all apart, 0.5 none, below 0.5 the strange images look *less* strange than ordinary ones. Where all
            images are told apart the interval is [1, 1], however few they are: resamples hold no others.
        scores: by score and by set ("inside" among them), one figure per image.
        reference: number of reference images.
        lr_log_scale: log σ of the LR image; None for a model without one.
        conventions: what each score is.
    """

    auroc: Mapping[str, Mapping[str, Interval]]
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    reference: int
    lr_log_scale: float | None
    conventions: Mapping[str, str]

    def to_text(self) -> str:
        """AUROC of each score for each set."""
        sets = list(next(iter(self.auroc.values())))
        rows = [[name, *(f"{by_set[other]:.2f}" for other in sets)] for name, by_set in self.auroc.items()]
        inside = len(next(iter(self.scores.values()))["inside"])
        notes = [
            f"AUROC [95 % bootstrap] against {inside} images held out; {self.reference} reference images; 1 tells all "
            "apart, 0.5 none, below 0.5 the strange look less strange",
            *(f"{name}: {meaning}" for name, meaning in self.conventions.items()),
        ]
        return text_table(["score", *sets], rows, notes=notes)

    def _draw_main(self, ax: Axes) -> None:
        self._draw_score(ax, next(iter(self.scores)), labels=True)

    def _draw_figure(self) -> Figure:
        """Every image's score by set, a panel per score."""
        rows = math.ceil(len(self.scores) / 2)
        figure = new_figure(WIDTH, 2.4 * rows)
        panels = figure.subplots(rows, 2, squeeze=False).flatten().tolist()
        for place, (ax, name) in enumerate(zip(panels, self.scores, strict=False)):
            self._draw_score(ax, name, labels=place % 2 == 0)
        for ax in panels[len(self.scores) :]:
            ax.remove()
        return figure

    def _draw_score(self, ax: Axes, name: str, *, labels: bool) -> None:
        rng = np.random.default_rng(0)
        sets = list(self.scores[name])
        for row, (label, values) in enumerate(self.scores[name].items()):
            heights = -row + rng.uniform(-0.25, 0.25, len(values))
            ax.plot(values, heights, ".", color=PALETTE[_COLOURS[row % len(_COLOURS)]], alpha=0.6, markersize=4)
            if label != "inside":
                text = f"AUROC {self.auroc[name][label].value:.2f}"
                ax.text(1.01, -row, text, transform=ax.get_yaxis_transform(), fontsize=8, va="center")
        ax.set_yticks([-row for row in range(len(sets))], sets if labels else [""] * len(sets), fontsize=8)
        ax.set_ylim(-len(sets) + 0.5, 0.6)
        ax.set_title(name, loc="left", fontsize=9)
        unit = "bits/dim, " if "bits/dim" in self.conventions[name] else ""
        ax.set_xlabel(f"{unit}larger is stranger", fontsize=8)
        plain_axes(ax)
        ax.tick_params(axis="y", length=0)


@torch.no_grad()
def out_of_distribution(
    model: HasNoise,
    reference: Sequence[Pair],
    inside: Sequence[Pair],
    outside: Mapping[str, Sequence[Pair]],
    *,
    lr_log_scale: float | None = None,
    seed: int = 0,
    on_image: Callable[[], None] | None = None,
) -> OutOfDistribution:
    """Score images of several kinds, and measure how well each score tells them from ordinary ones.

    The likelihood of an image says how many bits it takes, and smooth images take few, whatever they show. So raw
    likelihood prefers them to photographs. Scores that know what is usual do not: see :data:`SCORES`.

    Cost: two encoding passes and one PNG compression per image.

    Args:
        model: the model; the score of LR features takes part if it has them (HCFlow, SRFlow).
        reference: 8-bit HR images ``(C, H, W)`` with their LR images, that say what is usual; at least 3, and more
            than a handful for a Mahalanobis distance that means something.
        inside: further images of that kind.
        outside: images of other kinds, by name; see :func:`flowsr.likelihood.perturbed` for some.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        seed: of the dequantization noise.
        on_image: called after each image.

    Raises:
        ValueError: for fewer than 3 reference images, an empty set, a set named "inside", images that are not 8-bit, or
            wrong shapes or values.

    References:
        Nalisnick et al. (arXiv 1906.02994), typicality; Serrà et al., Input Complexity (ICLR 2020); Lee et al.
        (NeurIPS 2018), Mahalanobis; Kirichenko et al., Why Normalizing Flows Fail (arXiv 2006.08545).

    Example:
        >>> import flowsr
        >>> from flowsr.images import round_to_8bit
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> def pairs(n):
        ...     return [(round_to_8bit(torch.rand(3, 16, 16)), torch.rand(3, 4, 4)) for _ in range(n)]
        >>> grey = [(torch.full((3, 16, 16), 128 / 255), torch.full((3, 4, 4), 128 / 255))] * 3
        >>> study = out_of_distribution(flow, pairs(4), pairs(3), {"grey": grey})
        >>> study.auroc["NLL"]["grey"].value  # every grey image takes fewer bits than every noise image
        0.0
    """
    if len(reference) < 3:
        raise ValueError(f"expected at least 3 reference images; got {len(reference)}")
    if not inside or not outside or not all(outside.values()) or "inside" in outside:
        raise ValueError('expected images in "inside" and in each set of "outside", none of which is called "inside"')
    for name, pairs in {"reference": reference, "inside": inside, **outside}.items():
        check_pairs(pairs, name=name)
        for hr, _ in pairs:
            check_8bit(hr)
    generator = torch.Generator().manual_seed(seed)

    def measure(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        rows = []
        for hr, lr in pairs:
            rows.append(_measure(model, hr, lr, lr_log_scale, generator))
            if on_image is not None:
                on_image()
        return rows

    usual = measure(reference)
    measured = {"inside": measure(inside), **{name: measure(pairs) for name, pairs in outside.items()}}
    mean_bits, mean_norm = (float(np.mean([row[key] for row in usual])) for key in ("bits", "norm"))
    compute: dict[str, Callable[[dict[str, Any]], float]] = {
        "NLL": lambda row: row["bits"],
        "typicality": lambda row: abs(row["bits"] - mean_bits),
        "complexity-corrected NLL": lambda row: row["bits"] - row["png"],
        "latent norm": lambda row: abs(row["norm"] - mean_norm),
    }
    if usual[0]["features"] is not None:
        distance = _mahalanobis(np.stack([row["features"] for row in usual]))
        compute["LR features"] = lambda row: distance(row["features"])
    scores = {
        name: {label: tuple(score(row) for row in rows) for label, rows in measured.items()}
        for name, score in compute.items()
    }
    auroc_of = {
        name: {
            label: bootstrap_interval(by_set[label], by_set["inside"], statistic=auroc, num_resamples=500, seed=seed)
            for label in outside
        }
        for name, by_set in scores.items()
    }
    conventions = {name: SCORES[name] for name in scores}
    return OutOfDistribution(auroc_of, scores, len(reference), width_used(model, lr_log_scale), conventions)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Area under the receiver operating curve: the probability that a positive scores higher; ties count half.

    Example:
        >>> auroc([3.0, 4.0], [1.0, 3.0])
        0.875
    """
    if not len(positive) or not len(negative):
        raise ValueError(f"expected scores of both kinds; got {len(positive)} and {len(negative)}")
    if bool(np.isnan(positive).any()) or bool(np.isnan(negative).any()):
        raise ValueError("expected scores that can be compared; got NaN: leave those images out, and say so")
    # Ranks among the sorted negatives: a rank test of scipy's would compute a p-value each time.
    ordered = np.sort(np.asarray(negative))
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float(0.5 * (below + upto).mean() / len(ordered))


def png_bits_per_dim(image: Tensor) -> float:
    """Bits per dimension of an 8-bit image ``(C, H, W)`` as PNG, the complexity that everybody can measure."""
    return 8.0 * len(encode_png(image)) / image.numel()


def _measure(
    model: HasNoise, hr: Tensor, lr: Tensor | None, lr_log_scale: float | None, generator: torch.Generator
) -> dict[str, Any]:
    noisy, _ = UniformDequantizer().dequantize(hr, generator=generator)
    terms = decompose(model, noisy, lr, lr_log_scale=lr_log_scale).dequantized()
    noise = model.noise(noisy, lr, lr_log_scale=lr_log_scale)
    squares = [z.square() for name, z in noise.items() if name != "LR residual"]
    return {
        "bits": float(terms.bits_per_dim),
        "png": png_bits_per_dim(hr),
        "norm": float(sum(s.sum() for s in squares)) / sum(s.numel() for s in squares),
        "features": _features(model, lr),
    }


def _features(model: HasNoise, lr: Tensor | None) -> np.ndarray | None:
    return model.lr_features(lr).double().cpu().numpy() if isinstance(model, HasFeatures) and lr is not None else None


def _mahalanobis(reference: np.ndarray) -> Callable[[np.ndarray], float]:
    """Distance in units of the reference's spread; the covariance is shrunk as there are more features than images."""
    mean, spread = reference.mean(0), reference.std(0)
    # A feature that hardly varies among the reference images would decide alone.
    spread = np.maximum(spread, max(1e-2 * float(np.median(spread)), 1e-12))
    scaled = (reference - mean) / spread
    count, size = scaled.shape
    # Shrinkage towards the identity, in the scale where every feature has variance 1.
    weight = size / (size + count)
    precision = np.linalg.inv((1 - weight) * scaled.T @ scaled / count + weight * np.eye(size))

    def distance(features: np.ndarray) -> float:
        off = (features - mean) / spread
        return math.sqrt(float(off @ precision @ off))

    return distance
