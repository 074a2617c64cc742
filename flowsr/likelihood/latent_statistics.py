"""Statistics of one latent over many images, and the tests of each against N(0, 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

QUANTILES = 99
"""How many quantiles of a latent are kept."""


@dataclass(frozen=True)
class LatentStatistics:
    """Statistics of one latent over all pixels and images, and the tests of each against N(0, 1).

    Attributes:
        name: of the latent.
        count: number of values n.
        mean: 0 under the model, with standard error 1/√n.
        std: 1 under the model.
        skewness: 0 under the model.
        kurtosis: of excess, 0 under the model.
        ks: Kolmogorov and Smirnov's distance between the empirical and the normal distribution function.
        autocorrelation: mean product of values next to each other, to the right, below and diagonally, over their mean
            square; 0 under the model.
        quantiles: empirical quantiles at 1/100, …, 99/100, for a quantile-quantile plot.
        energies: mean square ``|z|²/D`` of each image; D times it is chi-square with D degrees of freedom.
        pit: probability integral transform of each image's ``|z|²``, uniform under the model.
        p_values: of the tests, by name; none is smaller than float64 can hold.
    """

    name: str
    count: int
    mean: float
    std: float
    skewness: float
    kurtosis: float
    ks: float
    autocorrelation: tuple[float, float, float]
    quantiles: tuple[float, ...]
    energies: tuple[float, ...]
    pit: tuple[float, ...]
    p_values: Mapping[str, float]


def latent_statistics(name: str, images: Sequence[Tensor]) -> LatentStatistics:
    """Statistics of the values of one latent, and their tests against N(0, 1).

    Cost: a sort of the values, in NumPy.

    Args:
        name: what the latent is called.
        images: its values for each image, ``(C, h, w)``.

    Raises:
        ValueError: for values that are not finite.

    References:
        D'Agostino and Pearson (Biometrika 1973), skewness and kurtosis; Kolmogorov-Smirnov as in ``scipy.stats``.

    Example:
        >>> chessboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 4, 4)
        >>> found = latent_statistics("z", [chessboard])
        >>> found.mean, found.std, found.autocorrelation
        (0.0, 1.0, (-1.0, -1.0, 1.0))
    """
    from scipy import stats

    images = [image.double().cpu() for image in images]
    values = torch.cat([image.flatten() for image in images]).numpy()
    if not np.isfinite(values).all():
        raise ValueError(
            f"expected finite latents; got NaN or infinity in {name}: "
            "flowsr.likelihood.inverse_stability names the layer"
        )
    n = values.size
    energy = float((values**2).sum())
    # A thinned sample: its test stays exact, and a million values would take long to sort.
    ks = stats.kstest(values[:: -(-n // 5000)], "norm")
    correlations = [_neighbours(images, shift) for shift in ((0, 1), (1, 0), (1, 1))]
    pit = [float(stats.chi2.cdf(float(image.square().sum()), image.numel())) for image in images]
    p_values = {
        "mean": 2 * stats.norm.sf(abs(values.mean()) * math.sqrt(n)),
        "std": _two_sided(float(stats.chi2.cdf(energy, n)), float(stats.chi2.sf(energy, n))),
        "distribution": ks.pvalue,
        "energy": stats.kstest(pit, "uniform").pvalue,
    }
    # Of fewer values the approximations to these two are too light in their tails.
    if n >= 300:
        p_values["skewness"] = stats.skewtest(values).pvalue
    if n >= 1000:
        p_values["kurtosis"] = stats.kurtosistest(values).pvalue
    for direction, (r, pairs) in zip(("right", "below", "diagonal"), correlations, strict=True):
        # Of fewer products the normal approximation is too light in its tails.
        if pairs >= 200:
            p_values[f"autocorrelation {direction}"] = 2 * stats.norm.sf(abs(r) * math.sqrt(pairs))
    return LatentStatistics(
        name=name,
        count=n,
        mean=float(values.mean()),
        std=float(values.std()),
        skewness=float(stats.skew(values)),
        kurtosis=float(stats.kurtosis(values)),
        ks=float(ks.statistic),
        autocorrelation=tuple(r * n / energy if energy else 0.0 for r, _ in correlations),  # type: ignore[arg-type]
        quantiles=tuple(np.quantile(values, np.arange(1, QUANTILES + 1) / (QUANTILES + 1)).tolist()),
        energies=tuple(float(image.square().mean()) for image in images),
        pit=tuple(pit),
        p_values={key: float(p) for key, p in p_values.items()},
    )


def _neighbours(images: Sequence[Tensor], shift: tuple[int, int]) -> tuple[float, int]:
    """Mean product of values a shift apart in the same channel, and the number of such pairs.

    The covariance under the model, where the mean is 0; its test is exact, as the scale is known too.
    """
    down, right = shift
    products, count = 0.0, 0
    for image in images:
        height, width = image.shape[-2:]
        product = image[..., : height - down, : width - right] * image[..., down:, right:]
        products += float(product.sum())
        count += product.numel()
    return (products / count if count else 0.0), count


def _two_sided(below: float, above: float) -> float:
    return min(1.0, 2 * min(below, above))
