"""What a model can do, so that an analysis asks for a capability and never for a class.

======================  ========================================================================
capability              means
======================  ========================================================================
``condition``           a density of HR images given an LR image
``lr-latent``           finds an LR image in an HR image, which is a part of its latent, of a width σ
``downscale``           makes LR images to be enlarged again
``density``             a density of images alone
======================  ========================================================================

Which model has which is said in its own module, by ``model.capabilities``.
"""

from enum import StrEnum
from typing import Any


class Capability(StrEnum):
    """The capabilities by name; ``model.capabilities`` is the set of those that a model has."""

    CONDITION = "condition"
    LR_LATENT = "lr-latent"
    DOWNSCALE = "downscale"
    DENSITY = "density"


MEANINGS: dict[Capability, str] = {
    Capability.CONDITION: "a density of HR images given an LR image",
    Capability.LR_LATENT: "finds an LR image in an HR image, which is a part of its latent, of a width σ",
    Capability.DOWNSCALE: "makes LR images to be enlarged again",
    Capability.DENSITY: "a density of images alone",
}
"""The capabilities in words, as in the table above."""


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
