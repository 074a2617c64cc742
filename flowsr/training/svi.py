"""The likelihood recipe as stochastic variational inference: the same loss, said in Pyro."""

import math
from typing import Any

import pyro
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from flowsr.models import ConditionalModel
from flowsr.programs import super_resolution


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
