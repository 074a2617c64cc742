"""The adversarial game of HCFlow++: the published discriminator, and vanilla, least-squares and relativistic losses."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr.images import size_text
from flowsr.training.recipes import Adversary

Critic = Callable[[Tensor], Tensor]


class Discriminator(nn.Module):
    """VGG-like critic: ten convolutions (3x3, then 4x4 of stride 2, five times), two linear layers, one logit.

    Batch normalization follows every convolution but the first; LeakyReLU 0.2 everywhere.

    Cost: about 28 GFLOP per 160x160 image at the published width.

    Args:
        crop: side of the square images in pixels, at least 32.
        image_channels: channels of the images.
        width: channels of the first convolutions; the last ones have eight times as many.

    Raises:
        ValueError: for a smaller crop, or images of another size.

    References:
        Liang et al., HCFlow (ICCV 2021), section 4; Wang et al., ESRGAN (ECCVW 2018), released code.

    Example:
        >>> Discriminator(64, width=4)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1])
    """

    def __init__(self, crop: int, *, image_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if crop < 32:
            raise ValueError(f"expected crops of at least 32 pixels, which are halved five times; got {crop}")
        self.crop = crop
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = []
        channels = image_channels
        for out in widths:
            for kernel, stride in ((3, 1), (4, 2)):
                first = not layers
                layers.append(nn.Conv2d(channels, out, kernel, stride, 1, bias=first))
                if not first:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.LeakyReLU(0.2))
                channels = out
        self.features = nn.Sequential(*layers)
        side = crop // 32
        self.head = nn.Sequential(nn.Linear(channels * side * side, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``(B, 1)`` of images ``(B, C, crop, crop)``: high for real ones."""
        if image.shape[-2:] != (self.crop, self.crop):
            raise ValueError(
                f"expected images of {size_text((self.crop, self.crop))}; got {size_text(image.shape[-2:])}"
            )
        return self.head(torch.flatten(self.features(image), 1))


def critic_loss(critic: Critic, fake: Tensor, real: Tensor, *, form: Adversary = "vanilla") -> Tensor:
    """What the discriminator minimizes; with logits d(x) and the loss ℓ(d, target) of ``adversarial_term``

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
