"""Dequantization: from the density of real-valued images to the probability of 8-bit ones."""

import torch
from jaxtyping import Float
from torch import Tensor


def uniform_dequantize(
    image: Float[Tensor, "*batch channels height width"],
    *,
    bins: int = 256,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*batch channels height width"]:
    """Add uniform noise of one bin: ``x = v + u``, ``u ~ U[0, 1/bins)``.

    For a density p the probability of the quantized image obeys ``log P(v) ≥ E_u log p(v + u) − D·log(bins)`` with
    D = C·H·W, so bits per dimension are ``−log₂ p(v + u)/D + log₂(bins)`` (8 for 256 bins). Values v are taken to be
    multiples of 1/255, so that the bins of neighbouring values do not overlap.

    Cost: one pass over the image.

    Args:
        image: quantized values in [0, 1].
        bins: number of bins per unit; 256 for 8-bit images.
        generator: source of randomness; the global one by default.

    Raises:
        ValueError: unless bins is at least 2.

    References:
        Theis et al., A note on the evaluation of generative models (ICLR 2016), section 3.1.

    Example:
        >>> noisy = uniform_dequantize(torch.zeros(3, 4, 4))
        >>> bool((noisy >= 0).all() and (noisy < 1 / 256).all())
        True
    """
    if bins < 2:
        raise ValueError(f"expected at least 2 bins; got {bins}")
    noise = torch.rand(image.shape, dtype=image.dtype, device=image.device, generator=generator)
    return image + noise / bins
