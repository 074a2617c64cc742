"""The losses of the recipes, each a plain function of a model and images."""

import math
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor
from torch.nn import functional as F

from flowsr.distributions import normal_log_prob
from flowsr.images import round_to_8bit
from flowsr.likelihood import decompose
from flowsr.likelihood.decompose import LEAST_BINS
from flowsr.models import ConditionalModel, ImageModel
from flowsr.models.hierarchy_model import HierarchyModel
from flowsr.programs import super_resolution


def likelihood_loss(
    flow: ImageModel, hr: Tensor, lr: Tensor | None = None, *, bins: int = 256, lr_log_scale: float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log-likelihood in bits per *pixel*, ``−log p(hr | lr)/(H·W·ln 2) + C·log2(bins)``.

    Of a density of images alone it is that of ``p(hr)``.

    It is C times the bits per dimension: this unit is the one that the published clipping thresholds and weights of
    other losses belong to.

    Cost: one encoding pass.

    Args:
        flow: the model.
        hr: dequantized HR images ``(B, C, H, W)``, see :func:`flowsr.distributions.uniform_dequantize`.
        lr: LR images in [0, 1]; None for a density of images alone.
        bins: quantization levels of the dequantization.
        lr_log_scale: log σ of the LR image; by default the model's own: −6 for HCFlow, or the learned one, which is
            then trained too.

    Returns:
        The mean over the batch, and to look at ``bits_per_dim``, with at least 255 bins, as of 8-bit images; where the
        LR image is a part of the latent also ``encoded_lr_psnr`` (of the flow's LR image, dB).

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> loss, seen = likelihood_loss(flow, torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4))
        >>> torch.allclose(loss, 3 * seen["bits_per_dim"])
        True
    """
    terms = decompose(flow, hr, lr, lr_log_scale=lr_log_scale).dequantized(bins=bins)
    loss = terms.total_bits.mean() / hr.shape[-2:].numel()
    # Wider noise is good to train with, and tells nothing of 8-bit images.
    seen = {"bits_per_dim": terms.bits_per_dim.mean().detach()} if bins >= LEAST_BINS else {}
    width = terms.lr_log_scale
    if lr is not None and width is not None:
        # The LR term is a squared error in disguise; undoing it saves a second pass.
        constant = normal_log_prob(torch.zeros_like(loss), log_scale=width)
        mse = 2 * math.exp(2 * width) * (constant - terms.of("lr")[0].detach() / lr.shape[-3:].numel())
        seen["encoded_lr_psnr"] = mean_psnr(mse)
    return loss, seen


def l1_loss(flow: ConditionalModel, hr: Tensor, lr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean absolute error of the decoding at temperature 0, ``|decode(lr, z = 0) − hr|``.

    Cost: one decoding pass.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small")
        >>> l1_loss(flow, torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 4, 4))[0].item()
        0.0
    """
    # The transform itself: a model that has diverged must give NaN, to be skipped, not an error about its images.
    sr = flow.decode_unchecked(lr.to(flow.dtype), _zeros(flow, lr))
    loss = F.l1_loss(sr, hr)
    return loss, {"l1": loss.detach(), "psnr": mean_psnr((sr.detach() - hr).square().mean((-3, -2, -1)))}


def rescaling_loss(
    flow: HierarchyModel,
    hr: Tensor,
    lr: Tensor,
    noise: list[Tensor],
    *,
    hr_l1: float = 1.0,
    lr_mse: float = 5e-2,
    z_square: float = 1e-5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Round trip through an 8-bit LR image: ``hr_l1·|decode(round8(y), z') − hr| + lr_mse·(y − lr)² + z_square·z²``.

    ``(y, z) = encode(hr)`` and ``z'`` is the noise. Rounding passes gradients straight through. No log-determinant
    takes part: a rescaling model is not trained to be a likelihood.

    Cost: one encoding and one decoding pass.

    Args:
        flow: a model with the capability ``downscale``.
        hr: HR images in [0, 1], not dequantized.
        lr: what the LR images shall look like.
        noise: latents to decode with, coarsest first.
        hr_l1: weight of the HR error.
        lr_mse: weight of the LR error.
        z_square: weight of the mean square of the encoded latents.

    Returns:
        The loss, and ``psnr`` and ``encoded_lr_psnr`` (dB) to look at.

    References:
        Liang et al., HCFlow (ICCV 2021), section 3; the released weights.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("rescaling-x4-small")
        >>> hr, lr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
        >>> noise = [torch.zeros(2, *shape) for shape in flow.transform.latent_shapes(4, 4)]
        >>> sorted(rescaling_loss(flow, hr, lr, noise)[1])
        ['encoded_lr_psnr', 'psnr', 'z_square']
    """
    latents = flow.transform.encode(hr.to(flow.dtype))
    sr = flow.transform.decode(round_to_8bit(latents.lr, straight_through=True), noise)[0]
    squares = torch.cat([z.flatten(1).square() for z in latents.z], 1).mean()
    loss = hr_l1 * F.l1_loss(sr, hr) + lr_mse * F.mse_loss(latents.lr, lr) + z_square * squares
    seen = {
        "psnr": mean_psnr((sr.detach() - hr).square().mean((-3, -2, -1))),
        "encoded_lr_psnr": mean_psnr((latents.lr.detach() - lr).square().mean((-3, -2, -1))),
        "z_square": squares.detach(),
    }
    return loss, seen


def _zeros(flow: ConditionalModel, lr: Tensor) -> list[Tensor]:
    shapes = flow.latent_shapes(*lr.shape[-2:])
    return [torch.zeros(*lr.shape[:-3], *shape, dtype=flow.dtype, device=lr.device) for shape in shapes]


def mean_psnr(mse: Tensor) -> Tensor:
    """The mean over a batch of ``−10·log10(mse)``, in dB."""
    return -10.0 * mse.clamp_min(1e-10).log10().mean()


def likelihood_svi(flow: ConditionalModel, optimizer: Any, *, lr_log_scale: float | None = None) -> SVI:
    """SVI of :func:`flowsr.programs.super_resolution` with every site observed, which is maximum likelihood.

    With nothing left to infer the ELBO is ``log p(hr | lr)``. It is scaled by ``1/(B·H·W·ln 2)``, so that the loss is
    :func:`flowsr.training.objectives.likelihood_loss` without its constant ``C·log2(bins)``, with the same gradients.

    Cost: per step, one encoding pass and its backward pass.

    Args:
        flow: the model; its parameters live in Pyro's parameter store under ``flow``. They are trained where they are:
            clear the store (``pyro.clear_param_store()``) before training another model in the same process.
        optimizer: a Pyro optimizer, for example ``pyro.optim.Adam({"lr": 2.5e-4, "betas": (0.9, 0.99)})``.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.

    Returns:
        An object whose ``step(hr, lr)`` makes one step on dequantized images and returns the loss in bits per pixel.

    References:
        Bingham et al., Pyro (JMLR 2019); Liang et al., HCFlow (ICCV 2021), section 3.

    Example:
        >>> import flowsr, torch
        >>> pyro.clear_param_store()
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> svi = likelihood_svi(flow, pyro.optim.Adam({"lr": 1e-3}))
        >>> hr, lr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
        >>> before = svi.evaluate_loss(hr, lr)
        >>> for _ in range(3):
        ...     _ = svi.step(hr, lr)
        >>> svi.evaluate_loss(hr, lr) < before
        True
        >>> pyro.clear_param_store()
    """

    def model(hr: Tensor, lr: Tensor) -> Tensor:
        images = hr.shape[:-3].numel() * hr.shape[-2:].numel()
        with pyro.poutine.scale(scale=1.0 / (images * math.log(2.0))):
            return super_resolution(flow, lr, hr, lr_log_scale=lr_log_scale)

    def guide(hr: Tensor, lr: Tensor) -> None:
        """Nothing is latent."""

    return SVI(model, guide, optimizer, Trace_ELBO())
