"""Whether held-out images have the latents a model claims: their probability integral transforms must be uniform."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from flowsr.calibration.simulation_based import RankTest
from flowsr.calibration.uniformity import uniformity_p_value
from flowsr.models import Capability, ConditionalModel, require


@torch.no_grad()
def latent_pit(
    flow: ConditionalModel,
    hr: Tensor,
    lr: Tensor,
    *,
    lr_log_scale: float = -math.inf,
    projections: int = 3,
    alpha: float = 0.01,
    cells: int = 50,
) -> RankTest:
    """Uniformity of ``F(z_l)`` over held-out pairs: of random projections of each latent, and of its norm.

    For ``z ~ N(0, I)`` of D elements, ``Φ(wᵀz)`` for a unit vector w and ``χ²_D(|z|²)`` are uniform. With a finite
    ``lr_log_scale`` the same is asked of ``(y − lr)/σ``, which a trained flow often fails: σ is not the error of its LR
    image.

    Cost: one encoding pass per pair.

    Args:
        flow: a model with the capability ``condition``.
        hr: true images ``(n, C, H, W)``.
        lr: their LR images ``(n, C, h, w)``.
        lr_log_scale: log σ of the flow's LR image; ``-inf`` leaves the LR image out. Only for models that have one in
            their latent.
        projections: random directions per latent.
        alpha: probability that a right model fails, all together.
        cells: into which the values are sorted.

    Raises:
        ValueError: for a density of images alone, fewer than 10 pairs, LR images of another size, or numbers out of
            range.

    References:
        Gneiting, Balabdaoui and Raftery (JRSS B 2007), section 3.1.

    Example:
        >>> from flowsr.calibration import model_pairs
        >>> from flowsr.posterior import GaussianLR, LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 100)
        >>> latent_pit(flow, hr, lr).passed
        True
    """
    from scipy import stats

    require(flow, Capability.CONDITION)
    if lr_log_scale != -math.inf:
        require(flow, Capability.LR_LATENT)
    if len(hr) < 10 or len(hr) != len(lr):
        raise ValueError(f"expected at least 10 HR images and as many LR images; got {len(hr)} and {len(lr)}")
    if not 0 < alpha < 1 or not lr_log_scale < math.inf or projections < 0 or cells < 2:
        raise ValueError(
            "expected alpha in (0, 1), a finite lr_log_scale or -inf, projections >= 0 and cells >= 2; got "
            f"{alpha}, {lr_log_scale}, {projections} and {cells}"
        )
    generator = torch.Generator().manual_seed(0)
    parts: dict[str, list[Tensor]] = {}
    for image, small in zip(hr, lr, strict=True):
        small = small.to(flow.device, flow.dtype)
        encoding = flow.encode(image.to(flow.device, flow.dtype), small)
        for level, z in zip(flow.latent_levels(), encoding.z, strict=True):
            parts.setdefault(f"z_{level}", []).append(z.flatten().double().cpu())
        if lr_log_scale != -math.inf:
            off = (encoding.lr - small) * math.exp(-lr_log_scale)
            parts.setdefault("lr", []).append(off.flatten().double().cpu())
    values = {}
    for name, rows in parts.items():
        z = torch.stack(rows)
        directions = torch.randn(
            z.shape[1], projections, generator=generator, dtype=torch.float64, device=generator.device
        )
        along = z @ (directions / directions.norm(dim=0))
        for i in range(projections):
            values[f"{name} projection {i}"] = stats.norm.cdf(along[:, i].numpy())
        values[f"{name} norm"] = stats.chi2.cdf(z.square().sum(1).numpy(), z.shape[1])
    ranked = {name: np.minimum((u * cells).astype(np.int64), cells - 1) for name, u in values.items()}
    p_values = tuple(uniformity_p_value(column, cells=cells) for column in ranked.values())
    table = torch.from_numpy(np.stack(list(ranked.values()), -1))
    return RankTest("Latent PIT", tuple(ranked), table, cells, p_values, alpha, "probability integral transform")
