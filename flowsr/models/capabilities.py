"""What a model can do, so that an analysis asks for a capability and never for a class.

======================  ==========================================  ======  ======  ===  ====  =======
capability              means                                       HCFlow  SRFlow  IRN  Glow  RealNVP
======================  ==========================================  ======  ======  ===  ====  =======
``condition``           a density of HR images given an LR image    yes     yes     yes  no    no
``lr-latent``           finds an LR image in an HR image, which is  yes     no      yes  no    no
                        a part of its latent, of a width σ
``downscale``           makes LR images to be enlarged again        task    no      yes  no    no
``density``             a density of images alone                   no      no      no   yes   yes
======================  ==========================================  ======  ======  ===  ====  =======

"task": an HCFlow made for rescaling does, one made for super-resolution does not.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from flowsr.distributions import FlowDistribution, Temperature


class Capability(StrEnum):
    """The capabilities by name; ``model.capabilities`` is the set of those that a model has."""

    CONDITION = "condition"
    LR_LATENT = "lr-latent"
    DOWNSCALE = "downscale"
    DENSITY = "density"


@runtime_checkable
class ConditionalDensity(Protocol):
    """A model with ``Capability.CONDITION``: ``p(hr | lr)``, HR images being ``upscale`` times larger."""

    @property
    def upscale(self) -> int:
        """The factor between LR and HR image."""
        ...

    def latent_shapes(self, height: int, width: int) -> tuple[torch.Size, ...]:
        """Event shapes of the latents, coarsest first, for an LR image of this size."""
        ...

    def condition(self, lr: Tensor, *, temperature: Temperature = 1.0) -> FlowDistribution:
        """The distribution of HR images given an LR image."""
        ...

    def draw_latents(
        self,
        lr: Tensor,
        *,
        sample_shape: Sequence[int] = (),
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """Latents for :meth:`decode`."""
        ...

    def decode(self, lr: Tensor, z: Sequence[Tensor] | None = None) -> Tensor:
        """HR image from LR image and latents."""
        ...

    def sample(
        self,
        lr: Tensor,
        *,
        num_samples: int = 1,
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """HR images, ``(num_samples, *batch, C, H, W)``."""
        ...


@runtime_checkable
class Rescaler(ConditionalDensity, Protocol):
    """A model with ``Capability.DOWNSCALE``: it makes the LR image that it enlarges again."""

    def downscale(self, hr: Tensor) -> Tensor:
        """LR image, on the grid of 8-bit files."""
        ...

    def enlarge(
        self, lr: Tensor, *, temperature: Temperature = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """HR image from what :meth:`downscale` made of it."""
        ...


@runtime_checkable
class ImageDensity(Protocol):
    """A model with ``Capability.DENSITY``: ``p(x)`` of images alone."""

    def distribution(self, size: tuple[int, int], *, temperature: Temperature = 1.0) -> FlowDistribution:
        """The distribution of images of a size."""
        ...

    def log_prob(self, hr: Tensor) -> Tensor:
        """Log-density of images in nats."""
        ...

    def sample(
        self,
        size: tuple[int, int],
        *,
        num_samples: int = 1,
        temperature: Temperature = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images, ``(num_samples, C, H, W)``."""
        ...


def require(model: Any, capability: Capability | str) -> None:
    """Raise ValueError unless a model has a capability.

    Args:
        model: any model of ``flowsr.models.REGISTRY``.
        capability: a :class:`Capability` or its name.

    Raises:
        ValueError: saying what the model can do instead.

    Example:
        >>> from flowsr.models import IRN
        >>> require(IRN.from_preset("irn-x4-small"), "downscale")
    """
    wanted = Capability(capability)
    has = getattr(model, "capabilities", frozenset())
    if wanted not in has:
        able = ", ".join(sorted(has)) or "none of them"
        raise ValueError(
            f"expected a model with the capability {wanted.value}; got {type(model).__name__}, which has {able}"
        )
