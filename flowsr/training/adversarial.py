"""Adversarial losses: vanilla (binary cross-entropy), least squares, and relativistic average."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr.training.recipes import Adversary

Critic = Callable[[Tensor], Tensor]


def critic_loss(critic: Critic, fake: Tensor, real: Tensor, *, form: Adversary = "vanilla") -> Tensor:
    """What the discriminator minimizes; with logits d(x) and the loss ℓ(d, target) of :func:`adversarial_term`

    - vanilla, least squares: ``ℓ(d(real), 1) + ℓ(d(fake), 0)``;
    - relativistic: ``½[ℓ(d(real) − mean d(fake), 1) + ℓ(d(fake) − mean d(real), 0)]``.

    Args:
        critic: maps images to one logit each.
        fake: generated images; no gradient reaches them.
        real: real images.
        form: vanilla, least-squares or relativistic.

    References:
        Goodfellow et al. (NeurIPS 2014); Mao et al., LSGAN (ICCV 2017); Jolicoeur-Martineau (ICLR 2019);
        Wang et al., ESRGAN (ECCVW 2018), section 3.2.

    Example:
        >>> x = torch.zeros(4, 1)
        >>> print(f"{critic_loss(lambda x: x, x, x):.3f}")  # twice ln 2
        1.386
    """
    d_real, d_fake = critic(real), critic(fake.detach())
    if form == "relativistic":
        return 0.5 * (
            adversarial_term(d_real - d_fake.mean(), real=True, form=form)
            + adversarial_term(d_fake - d_real.mean(), real=False, form=form)
        )
    return adversarial_term(d_real, real=True, form=form) + adversarial_term(d_fake, real=False, form=form)


def generator_loss(critic: Critic, fake: Tensor, real: Tensor, *, form: Adversary = "vanilla") -> Tensor:
    """What the generator minimizes: ``ℓ(d(fake), 1)``, or both relativistic terms with their targets exchanged.

    Example:
        >>> x = torch.zeros(4, 1)
        >>> print(f"{generator_loss(lambda x: x, x, x, form='least-squares'):.1f}")
        1.0
    """
    d_fake = critic(fake)
    if form != "relativistic":
        return adversarial_term(d_fake, real=True, form=form)
    with torch.no_grad():
        d_real = critic(real)
    return 0.5 * (
        adversarial_term(d_real - d_fake.mean(), real=False, form=form)
        + adversarial_term(d_fake - d_real.mean(), real=True, form=form)
    )


class CriticObjective(nn.Module):
    """The discriminator's loss as a module: DDP must see one forward pass per backward pass, not one per batch.

    Args:
        critic: the discriminator.
        form: vanilla, least-squares or relativistic.
    """

    def __init__(self, critic: nn.Module, *, form: Adversary) -> None:
        super().__init__()
        self.critic = critic
        self.form: Adversary = form

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """The loss of :func:`critic_loss`."""
        return critic_loss(self.critic, fake, real, form=self.form)


def adversarial_term(logits: Tensor, *, real: bool, form: Adversary) -> Tensor:
    """Mean binary cross-entropy with logits against 1 or 0, or mean squared error for least squares.

    Raises:
        ValueError: for an unknown form.
    """
    target = torch.full_like(logits, float(real))
    if form == "least-squares":
        return F.mse_loss(logits, target)
    if form in ("vanilla", "relativistic"):
        return F.binary_cross_entropy_with_logits(logits, target)
    raise ValueError(f"expected form to be vanilla, least-squares or relativistic; got {form!r}")
