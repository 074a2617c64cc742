"""Held-out pairs against draws: one pass that keeps a few numbers per draw, from which all calibration follows.

A pair (hr, lr) of test data is a joint draw. If the model is right, hr and draws of the model given lr are
exchangeable: nothing tells them apart, whatever is measured. So calibration needs samples only, no density.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsr.calibration.pixel_ranks import PixelRanks, gather_pixels, rank_pixels
from flowsr.distributions import Temperature
from flowsr.images import check_image
from flowsr.models import Capability, ConditionalModel, require
from flowsr.posterior import GaussianLR
from flowsr.statistics import image_summaries

LEAST_PAIRS = 10
"""Fewer say nothing of calibration."""

_TRUTHS = 0x7275_7468
"""Sets the stream of the truths that a model makes apart from that of draws with the same seed."""

_TIES = 0x7469_6573
"""Sets the stream that breaks ties of pixels apart from that of the draws."""

Sampler = Callable[[Tensor, int, torch.Generator], Tensor]
"""From an LR image ``(C, h, w)``, a number n and a generator to n HR images ``(n, C, H, W)``."""

TestFunctions = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""From HR images ``(n, C, H, W)`` and the LR image ``(C, h, w)`` to named scalars ``(n,)``."""


@dataclass(frozen=True)
class HeldOut:
    """What is kept of held-out pairs and the draws given each LR image.

    Attributes:
        names: of the test functions.
        truth: their values for the true images, ``(n, functions)``.
        draws: for the draws, ``(n, draws, functions)``.
        reference_truth: distance of each true image to a reference image, ``(n,)``.
        reference_draws: of the draws to the same reference, ``(n, draws)``.
        energy: energy score of each pair, in units of the images' Euclidean norm.
        pixels: ranks at single pixels and what is there, or None where they were not kept.
    """

    names: tuple[str, ...]
    truth: Tensor
    draws: Tensor
    reference_truth: Tensor
    reference_draws: Tensor
    energy: Tensor
    pixels: PixelRanks | None = None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def num_samples(self) -> int:
        """Draws per pair."""
        return self.draws.shape[1]

    @property
    def pixel_ranks(self) -> PixelRanks:
        """The ranks at single pixels; raises ValueError where they were not kept."""
        if self.pixels is None:
            raise ValueError("expected held-out pairs with ranks of pixels; got none: make them by hold_out")
        return self.pixels


def flow_sampler(flow: ConditionalModel, *, temperature: Temperature = 1.0, lr_log_scale: float = -math.inf) -> Sampler:
    """A model as a sampler: draws of ``p(hr | lr)`` as ``flow.sample`` makes them, with a width σ of the LR image.

    Args:
        flow: a model with the capability ``condition``.
        temperature: τ ≥ 0, or one per level, coarse to fine.
        lr_log_scale: log σ of the flow's LR image; ``-inf`` is the Dirac limit.

    Raises:
        ValueError: for a density of images alone.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> flow_sampler(flow)(torch.rand(3, 4, 4), 2, torch.Generator()).shape
        torch.Size([2, 3, 16, 16])
    """

    require(flow, Capability.CONDITION)

    def draw(lr: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        return flow.sample(
            lr, num_samples=num_samples, temperature=temperature, lr_log_scale=lr_log_scale, generator=generator
        )

    return draw


def default_functions(hr: Tensor, lr: Tensor) -> dict[str, Tensor]:
    """The test functions of :func:`flowsr.statistics.image_summaries`, three that know the LR image, and extremes.

    Functions of hr alone cannot tell a posterior from the prior: draws that ignore the LR image pass on them. Three
    can: the inner products of hr with the enlarged LR image, and with its horizontal and vertical slopes. The last is
    the largest standardized error of an image, of any pixel from the mean of all images given, in their standard
    deviations: it sees pixels that are wrong at another place in each image.

    Cost: O(C·H·W) per image.

    References:
        Modrák et al., Simulation-based calibration checking for Bayesian computation: the choice of test quantities
        shapes sensitivity (Bayesian Analysis 2023), section 3.

    Example:
        >>> sorted(default_functions(torch.rand(2, 1, 8, 8), torch.rand(1, 2, 2)))[:3]
        ['along LR', 'along LR slope x', 'along LR slope y']
    """
    factor = hr.shape[-1] // lr.shape[-1]
    base = enlarge(lr, factor).to(hr)
    base = base - base.mean()
    directions = {
        "along LR": base,
        "along LR slope x": base - base.roll(factor, -1),
        "along LR slope y": base - base.roll(factor, -2),
    }
    values = image_summaries(hr)
    for name, direction in directions.items():
        values[name] = hr.flatten(1) @ direction.flatten() / direction.norm().clamp_min(1e-12)
    errors = (hr - hr.mean(0)) / hr.std(0, correction=0).clamp_min(1e-12)
    values["largest error"] = errors.abs().flatten(1).max(1).values
    return values


def enlarge(lr: Tensor, factor: int) -> Tensor:
    """LR images with each pixel repeated."""
    return lr.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def reference_images(hr: Tensor, lr: Tensor) -> Tensor:
    """References of TARP: the enlarged LR image of each pair, with the details of the next pair.

    They depend on the LR image, without which TARP cannot see that a model ignores it, and not on the pair's truth.

    Cost: a few additions per pixel.

    Args:
        hr: true images ``(n, C, H, W)``.
        lr: their LR images ``(n, C, h, w)``.

    References:
        Lemos et al., Sampling-based accuracy testing of posterior estimators (ICML 2023), section 3.

    Example:
        >>> reference_images(torch.rand(12, 1, 4, 4), torch.rand(12, 1, 2, 2)).shape
        torch.Size([12, 1, 4, 4])
    """
    base = enlarge(lr, hr.shape[-1] // lr.shape[-1]).to(hr)
    return base + (hr - base).roll(-1, 0)


@torch.no_grad()
def hold_out(
    sampler: Sampler,
    hr: Tensor,
    lr: Tensor,
    *,
    num_samples: int = 99,
    functions: TestFunctions = default_functions,
    seed: int = 0,
    on_pair: Callable[[], None] | None = None,
) -> HeldOut:
    """Draw given the LR image of each held-out pair, and keep test functions, distances, scores and ranks of pixels.

    The references of the pairs, for TARP, are those of ``reference_images``.

    Cost: ``num_samples`` decoded images per pair, and their pairwise distances; memory for those of one pair,
    and two bytes for each rank.

    Args:
        sampler: the model, see :func:`flow_sampler`.
        hr: true images ``(n, C, H, W)``, n ≥ 10.
        lr: their LR images ``(n, C, h, w)``.
        num_samples: per pair; ranks have one value more, so 99 gives 100 cells.
        functions: test functions.
        seed: of all noise; pair by pair, so that a subset of the pairs has other draws only after its first gap.
        on_pair: called after each pair, for a progress bar.

    Raises:
        ValueError: for shapes that do not fit, too few pairs or draws, or draws that are not finite.

    References:
        Talts et al., Validating Bayesian inference algorithms with simulation-based calibration (arXiv 1804.06788);
        Lemos et al., Sampling-based accuracy testing of posterior estimators (ICML 2023), section 3, for references.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> hr, lr = model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 12)
        >>> hold_out(flow_sampler(flow), hr, lr, num_samples=19).draws.shape[:2]
        torch.Size([12, 19])
    """
    check_pairs(hr, lr)
    if len(hr) < LEAST_PAIRS or num_samples < 9:
        raise ValueError(f"expected at least {LEAST_PAIRS} pairs and 9 draws of each; got {len(hr)} and {num_samples}")
    generator = torch.Generator().manual_seed(seed)
    ties = torch.Generator().manual_seed(seed ^ _TIES)
    references = reference_images(hr, lr)
    names: tuple[str, ...] = ()
    truth, values, reference_truth, reference_draws, energy, pixels = [], [], [], [], [], []
    for i, (image, small) in enumerate(zip(hr, lr, strict=True)):
        draws = checked_draws(sampler, small, image.shape, num_samples, generator, pair=i)
        image, small = image.to(draws), small.to(draws)
        both = torch.cat([image[None], draws])
        found = functions(both, small)
        _check_values(found, len(both))
        names = tuple(found)
        table = torch.stack([found[name] for name in names], -1).double().cpu()
        truth.append(table[0])
        values.append(table[1:])
        distance = (both - references[i].to(draws)).flatten(1).norm(dim=1).double().cpu()
        reference_truth.append(distance[0])
        reference_draws.append(distance[1:])
        spread = F.pdist(draws.flatten(1).double()).mean()
        energy.append(((draws - image).flatten(1).double().norm(dim=1).mean() - 0.5 * spread).cpu())
        pixels.append(rank_pixels(both, small, generator=ties))
        if on_pair is not None:
            on_pair()
    return HeldOut(
        names,
        torch.stack(truth),
        torch.stack(values),
        torch.stack(reference_truth),
        torch.stack(reference_draws),
        torch.stack(energy),
        gather_pixels(pixels),
    )


def check_pairs(hr: Tensor, lr: Tensor) -> None:
    """Raise ValueError unless these are HR images ``(n, C, H, W)`` with their LR images ``(n, C, h, w)``."""
    if hr.dim() != 4 or lr.dim() != 4 or len(hr) != len(lr):
        raise ValueError(
            f"expected as many HR as LR images, (n, C, H, W) and (n, C, h, w); got {tuple(hr.shape)}, {tuple(lr.shape)}"
        )
    check_image(hr, name="hr", tolerance=None)
    check_image(lr, name="lr", tolerance=None)
    factor = hr.shape[-1] // lr.shape[-1]
    if lr.shape[-1] * factor != hr.shape[-1] or lr.shape[-2] * factor != hr.shape[-2]:
        raise ValueError(f"expected HR sides to be multiples of LR ones; got {tuple(hr.shape)} and {tuple(lr.shape)}")


def checked_draws(
    sampler: Sampler, lr: Tensor, shape: torch.Size, num_samples: int, generator: torch.Generator, *, pair: int
) -> Tensor:
    """Draws of a sampler ``(n, C, H, W)``; raises ValueError unless they are finite and of the HR image's shape."""
    draws = sampler(lr, num_samples, generator)
    if draws.shape != (num_samples, *shape) or not bool(torch.isfinite(draws).all()):
        raise ValueError(
            f"expected finite draws of shape {(num_samples, *shape)}; got {tuple(draws.shape)} for pair {pair}: "
            "check the sampler"
        )
    return draws


def _check_values(found: Mapping[str, Tensor], count: int) -> None:
    if not found:
        raise ValueError("expected at least one test function; got none")
    for name, values in found.items():
        if values.shape != (count,) or not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"expected one finite number per image, shape ({count},), from the test function {name!r}; got shape "
                f"{tuple(values.shape)}, or NaN or infinity in it"
            )


@torch.no_grad()
def model_pairs(
    flow: ConditionalModel, lr_prior: GaussianLR, count: int, *, lr_log_scale: float = -math.inf, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Pairs that a model itself makes: lr from a prior, then hr given lr. Calibration of that model holds exactly.

    LR images are clipped to [−0.25, 1.25], which is as far as a model takes them for images.

    Args:
        flow: a model with the capability ``condition``.
        lr_prior: of the LR images.
        count: number n of pairs.
        lr_log_scale: log σ of the flow's LR image; ``-inf`` is the Dirac limit.
        seed: of all noise.

    Returns:
        HR images ``(n, C, H, W)`` and LR images ``(n, C, h, w)``.

    Raises:
        ValueError: for a density of images alone, or fewer than one pair.

    Example:
        >>> from flowsr.posterior import LinearGaussianFlow
        >>> flow = LinearGaussianFlow(detail_std=(0.1,))
        >>> [tuple(t.shape) for t in model_pairs(flow, GaussianLR(torch.full((1, 2, 2), 0.5), std=0.2), 3)]
        [(3, 1, 4, 4), (3, 1, 2, 2)]
    """
    if count < 1:
        raise ValueError(f"expected count >= 1; got {count}")
    # Not the stream that hold_out draws from with this seed: a truth might be one of its draws.
    generator = torch.Generator().manual_seed(seed ^ _TRUTHS)
    noise = torch.randn((count, *lr_prior.mean.shape), generator=generator, device=generator.device)
    lr = lr_prior(noise.to(lr_prior.mean)).clamp(-0.25, 1.25)
    sampler = flow_sampler(flow, lr_log_scale=lr_log_scale)
    return torch.cat([sampler(small, 1, generator) for small in lr]), lr


def ranks(truth: Tensor, draws: Tensor, *, generator: torch.Generator) -> Tensor:
    """How many of the draws lie below the truth, ties broken at random: 0 to the number of draws.

    Args:
        truth: ``(n, *)``.
        draws: ``(n, draws, *)``.
        generator: for the ties.

    Example:
        >>> ranks(torch.tensor([0.5]), torch.tensor([[0.1, 0.2, 0.9]]), generator=torch.Generator())
        tensor([2])
    """
    below = (draws < truth.unsqueeze(1)).sum(1)
    ties = (draws == truth.unsqueeze(1)).sum(1)
    chance = torch.rand(truth.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return below + (chance * (ties + 1)).long().clamp(max=ties)
