"""Training of the noise of dequantization, with the model held fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from flowsr.distributions import VariationalDequantizer
from flowsr.errors import NonFiniteError
from flowsr.likelihood.decompose import decompose
from flowsr.likelihood.inputs import Pair, check_8bit
from flowsr.models import HasTerms


def fit_dequantizer(
    dequantizer: VariationalDequantizer,
    model: HasTerms,
    pairs: Sequence[Pair],
    *,
    steps: int = 500,
    learning_rate: float = 1e-3,
    lr_log_scale: float | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[float], None] | None = None,
) -> list[float]:
    """Train the noise to tighten the bound ``E_u[log p(v + u | lr) − log q(u | v)]`` of a model that stays as it is.

    Cost: ``steps`` encoding passes with their gradients with respect to the noise.

    Args:
        dequantizer: is trained in place, with Adam and gradients clipped to norm 1.
        model: a model with a likelihood; its parameters get no gradients.
        pairs: 8-bit HR images with their LR images (None where the model is not conditional), or batches of them,
            taken in turn.
        steps: of the optimizer.
        learning_rate: of Adam, falling to zero along half a cosine.
        lr_log_scale: log σ of the LR image; by default the model's own, −6 for HCFlow.
        generator: source of the noise; the global one by default.
        on_step: called after each step with the bound in bits per dimension.

    Returns:
        The bound at each step, in bits per dimension.

    Raises:
        ValueError: without images or steps, or for images that are not 8-bit.
        NonFiniteError: if the bound is no longer finite.

    References:
        Ho et al., Flow++ (ICML 2019), section 3.1.

    Example:
        >>> import flowsr
        >>> flow = flowsr.HCFlow.from_preset("sr-x4-small", start="haar")
        >>> pair = ((torch.rand(3, 16, 16) * 255).round() / 255, torch.rand(3, 4, 4))
        >>> len(fit_dequantizer(VariationalDequantizer(3, steps=1), flow, [pair], steps=2))
        2
    """
    if not pairs or steps < 1:
        raise ValueError(f"expected at least one image and one step; got {len(pairs)} images, {steps} steps")
    for hr, _ in pairs:
        check_8bit(hr)
    optimizer = torch.optim.Adam(dequantizer.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    frozen = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    bounds: list[float] = []
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for step in range(steps):
            hr, lr = pairs[step % len(pairs)]
            terms = decompose(model, hr, lr, lr_log_scale=lr_log_scale, dequantizer=dequantizer, generator=generator)
            loss = terms.bits_per_dim.mean()
            if not bool(torch.isfinite(loss)):
                raise NonFiniteError(f"expected a finite bound; got {float(loss)} at step {step}: lower learning_rate")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(dequantizer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bounds.append(float(loss.detach()))
            if on_step is not None:
                on_step(bounds[-1])
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return bounds
