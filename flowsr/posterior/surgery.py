"""Latent surgery: keep some of an image's latents and draw, scale, mix or borrow the others.

An image is its own LR image and a latent per level. Latents are local but not pixels: a latent position of a level
stands for a block of pixels, and convolutions and the levels below spread a change by some blocks more. So what is
kept in latent space is kept approximately in the picture; each function says how far.

A model that is conditioned on the LR image (SRFlow) finds none in an image: it is given the bicubic one,
:func:`flowsr.images.make_lr`, unless it is told another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flowsr.distributions import Temperature, level_temperatures
from flowsr.images import make_lr
from flowsr.models import Capability, ConditionalModel, Latents, require


@torch.no_grad()
def resample(
    flow: ConditionalModel,
    hr: Tensor,
    mask: Tensor | None = None,
    *,
    lr: Tensor | None = None,
    levels: Sequence[int] | None = None,
    temperature: Temperature = 1.0,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw some latents of an image anew, by level or by region, and keep the others.

    Limits: with a mask, pixels outside of it change too where the receptive field of the flow reaches them, least far
    from its border; paste the result by the mask if they must not. Latents are independent under the model only, so
    an image the model finds unusual does not stay consistent where new latents meet old ones.

    Cost: one encoding and one decoding pass.

    Args:
        flow: a model with the capability ``condition``.
        hr: image ``(C, H, W)`` in [0, 1].
        mask: ``(H, W)``, 1 where to draw and 0 where to keep, or in between: a latent is then
            ``√(1 − m)·old + √m·new``, which stays standard normal. Averaged over the block of each latent.
        lr: LR image to decode with; by default the flow's own of ``hr``, so that nothing changes but the latents, and
            for SRFlow, which encodes with it too, the bicubic one.
        levels: which levels to draw, of ``flow.latent_levels()``, 1 the finest; all by default.
        temperature: τ ≥ 0 of the new latents, or one per level, coarse to fine.
        num_samples: how many.
        generator: source of randomness; the global one by default.

    Returns:
        Images ``(num_samples, C, H, W)``, not clamped.

    Raises:
        ValueError: for levels that do not exist, an LR image or mask of another size, or a mask with values outside of
            [0, 1].

    References:
        Lugmayr et al., SRFlow (ECCV 2020), section 4.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> resample(flow, torch.rand(3, 16, 16), levels=[1], num_samples=2).shape
        torch.Size([2, 3, 16, 16])
    """
    encoding = _encode(flow, hr, lr)
    base = _lr_for(encoding.lr, lr)
    new = flow.draw_latents(base, sample_shape=(num_samples,), temperature=temperature, generator=generator)
    chosen = _chosen(flow, levels)
    z = []
    for level, old, fresh in zip(flow.latent_levels(), encoding.z, new, strict=True):
        if level not in chosen:
            z.append(old.expand_as(fresh))
        elif mask is None:
            z.append(fresh)
        else:
            weight = _to_level(mask, hr, old)
            z.append((1 - weight).sqrt() * old + weight.sqrt() * fresh)
    return flow.decode(base, z)


@torch.no_grad()
def sample_with_temperature_map(
    flow: ConditionalModel,
    lr: Tensor,
    maps: Tensor | float | Sequence[Tensor | float],
    *,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw with a temperature that varies over the image, and from level to level.

    Limits: only τ = 1 everywhere is the model; a map says how adventurous to be where, and no density goes with it.

    Cost: one decoding pass.

    Args:
        flow: a model with the capability ``condition``.
        lr: LR image ``(C, h, w)`` in [0, 1].
        maps: τ ≥ 0: a map ``(H, W)`` at HR size or a number for all levels, or one of them for each, coarse to fine.
        num_samples: how many.
        generator: source of randomness; the global one by default.

    Returns:
        Images ``(num_samples, C, H, W)``, not clamped.

    Raises:
        ValueError: for negative temperatures, or maps of another size.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> sample_with_temperature_map(flow, torch.rand(3, 4, 4), [0.0, torch.rand(16, 16)]).shape
        torch.Size([1, 3, 16, 16])
    """
    require(flow, Capability.CONDITION)
    noise = flow.draw_latents(_one(lr, "lr"), sample_shape=(num_samples,), generator=generator)
    per_level = [maps] * len(noise) if isinstance(maps, Tensor | int | float) else list(maps)
    if len(per_level) != len(noise):
        raise ValueError(f"expected one map or {len(noise)}, one per level from coarse to fine; got {len(per_level)}")
    image = lr.new_zeros(1, *(side * flow.upscale for side in lr.shape[-2:]))
    z = []
    for tau, latent in zip(per_level, noise, strict=True):
        if isinstance(tau, Tensor):
            if not float(tau.min()) >= 0:
                raise ValueError("expected finite temperatures >= 0 in the map; got others")
            z.append(_to_level(tau, image, latent, largest=None) * latent)
        else:
            z.append(level_temperatures(tau, 1)[0] * latent)
    return flow.decode(lr, z)


@torch.no_grad()
def interpolate(
    flow: ConditionalModel,
    hr: Tensor,
    other: Tensor,
    *,
    lr: Tensor | None = None,
    other_lr: Tensor | None = None,
    steps: int = 5,
    spherical: bool = True,
) -> Tensor:
    """Images between two of one size, along a path through latent space.

    LR images are mixed linearly; latents along the great circle between them, so that their norm, which the model
    expects near √D, does not shrink on the way: ``sin((1−t)θ)/sin θ·a + sin(tθ)/sin θ·b``.

    Limits: the path is the model's idea of in between where both ends are usual for it, and a cross-fade where their
    LR images differ; it is no geodesic of anything.

    Cost: two encoding passes, one decoding pass of ``steps`` images.

    Args:
        flow: a model with the capability ``condition``.
        hr: image ``(C, H, W)`` at t = 0.
        other: image ``(C, H, W)`` at t = 1.
        lr: LR image of ``hr`` for SRFlow, the bicubic one by default; other models find their own.
        other_lr: the same of ``other``.
        steps: images on the path, both ends included, at least 2.
        spherical: great circle; otherwise straight.

    Returns:
        ``(steps, C, H, W)``, the first and the last equal to the given images up to rounding.

    Raises:
        ValueError: for images of different shapes, or fewer than two steps.

    References:
        White, Sampling generative networks (arXiv 1609.04468), section 2.1; SRFlow, section 4.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> a, b = torch.rand(2, 3, 16, 16)
        >>> torch.allclose(interpolate(flow, a, b)[-1], b, atol=1e-3)
        True
    """
    if hr.shape != other.shape or steps < 2:
        raise ValueError(
            f"expected two images of one shape and steps >= 2; got {tuple(hr.shape)}, {tuple(other.shape)} and {steps}"
        )
    one, two = _encode(flow, hr, lr), _encode(flow, other, other_lr)
    t = torch.linspace(0, 1, steps, device=one.lr.device, dtype=one.lr.dtype)[:, None, None, None]
    lr = (1 - t) * one.lr + t * two.lr
    z = []
    for a, b in zip(one.z, two.z, strict=True):
        angle = torch.acos(((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12)).clamp(-1, 1))
        if spherical and 1e-3 < float(angle) < torch.pi - 1e-3:
            z.append((((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin())
        else:
            z.append((1 - t) * a + t * b)
    return flow.decode(lr, z)


@torch.no_grad()
def transfer(
    flow: ConditionalModel,
    source: Tensor,
    lr: Tensor,
    *,
    source_lr: Tensor | None = None,
    levels: Sequence[int] | None = None,
) -> Tensor:
    """Give the details of one image to the LR image of another: its latents, decoded with that LR image.

    Limits: latents say how details deviate from what the LR image makes likely, in a standard normal's units, place by
    place. Textures move well between images of like structure, aligned; objects do not move at all.

    Cost: one encoding and one decoding pass.

    Args:
        flow: a model with the capability ``condition``.
        source: image ``(C, H, W)`` whose latents are taken.
        lr: LR image ``(C, h, w)`` of the same size as that of the source.
        source_lr: LR image of the source for SRFlow, the bicubic one by default; other models find their own.
        levels: which levels to take, of ``flow.latent_levels()``, 1 the finest; all by default. The
            others are zero, their mean.

    Returns:
        Image ``(C, H, W)``, not clamped.

    Raises:
        ValueError: for sizes that do not fit or levels that do not exist.

    References:
        SRFlow, section 4, "content transfer".

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> transfer(flow, torch.rand(3, 16, 16), torch.rand(3, 4, 4)).shape
        torch.Size([3, 16, 16])
    """
    encoding = _encode(flow, source, source_lr, name="source")
    chosen, own = _chosen(flow, levels), zip(flow.latent_levels(), encoding.z, strict=True)
    z = [latent if level in chosen else torch.zeros_like(latent) for level, latent in own]
    return flow.decode(_lr_for(encoding.lr, lr), z)


@torch.no_grad()
def restore(flow: ConditionalModel, hr: Tensor, lr: Tensor | None = None, *, temperature: Temperature = 1.0) -> Tensor:
    """Bring an unusual image nearer to what the model expects, by giving its latents the model's mean and spread.

    Each channel of each latent is centred, and scaled to standard deviation τ: noise and artefacts, which the flow sees
    as latents that are too large, shrink to the size of ordinary details.

    Limits: it changes good images too, whose latents happen not to have unit spread; it knows nothing of the
    degradation, and cannot bring back what is not in the latents. A known degradation is an inverse problem.

    Cost: one encoding and one decoding pass.

    Args:
        flow: a model with the capability ``condition``.
        hr: degraded image ``(C, H, W)`` in [0, 1].
        lr: LR image of the undegraded image, if known; by default the flow's own of ``hr``, and for SRFlow, which
            encodes with it too, the bicubic one.
        temperature: τ ≥ 0, or one per level, coarse to fine.

    Returns:
        Image ``(C, H, W)``, not clamped.

    Raises:
        ValueError: for a negative temperature, or an LR image of another size.

    References:
        SRFlow, section 4, "image restoration" by latent normalization.

    Example:
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> restore(flow, torch.rand(3, 16, 16), temperature=0.8).shape
        torch.Size([3, 16, 16])
    """
    encoding = _encode(flow, hr, lr)
    temperatures = level_temperatures(temperature, len(encoding.z))
    z = []
    for tau, latent in zip(temperatures, encoding.z, strict=True):
        centred = latent - latent.mean((-2, -1), keepdim=True)
        z.append(tau * centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-6))
    return flow.decode(_lr_for(encoding.lr, lr), z)


def _one(image: Tensor, name: str) -> Tensor:
    if image.dim() != 3:
        raise ValueError(f"expected {name} to be one image (C, H, W); got shape {tuple(image.shape)}")
    return image


def _encode(flow: ConditionalModel, hr: Tensor, lr: Tensor | None, *, name: str = "hr") -> Latents:
    """The latents of an image; only a model that is conditioned on the LR image needs one to find them."""
    require(flow, Capability.CONDITION)
    hr = _one(hr, name).to(flow.device, flow.dtype)
    if Capability.LR_LATENT in flow.capabilities:
        return flow.encode(hr)
    return flow.encode(hr, make_lr(hr, flow.upscale) if lr is None else lr.to(hr))


def _chosen(flow: ConditionalModel, levels: Sequence[int] | None) -> set[int]:
    own = flow.latent_levels()
    chosen = set(own if levels is None else levels)
    if not chosen <= set(own):
        listed = " or ".join(map(str, sorted(own)))
        raise ValueError(f"expected levels among {listed}, 1 the finest; got {sorted(chosen)}")
    return chosen


def _lr_for(own: Tensor, lr: Tensor | None) -> Tensor:
    """The LR image to decode with: the flow's own, or another of its size."""
    if lr is None:
        return own
    if lr.shape != own.shape:
        raise ValueError(f"expected an LR image of the image's own size, {tuple(own.shape)}; got {tuple(lr.shape)}")
    return lr.to(own)


def _to_level(mask: Tensor, image: Tensor, latent: Tensor, *, largest: float | None = 1.0) -> Tensor:
    """A map at HR size averaged over the block of each position of a latent."""
    if mask.shape != image.shape[-2:]:
        raise ValueError(f"expected a map of the HR image's size, {tuple(image.shape[-2:])}; got {tuple(mask.shape)}")
    if not bool(torch.isfinite(mask).all()):
        raise ValueError("expected a finite map; got NaN or infinity in it")
    mask = mask.to(latent)
    if largest is not None and (float(mask.min()) < 0 or float(mask.max()) > largest):
        raise ValueError(f"expected a mask in [0, {largest:g}]; got {float(mask.min()):g} to {float(mask.max()):g}")
    return F.adaptive_avg_pool2d(mask[None], (latent.shape[-2], latent.shape[-1]))
