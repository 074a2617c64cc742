"""How much draws for one LR image differ: two definitions in use, each under its own name.

They answer different questions and their figures cannot be compared. ``pixel_std`` asks how far draws scatter;
``ntire_diversity`` how much closer to the truth one comes by choosing, at each pixel, the best of the draws.
"""

from jaxtyping import Float
from torch import Tensor

from flowsr.images import check_image


def pixel_std(samples: Float[Tensor, "sample *batch channel height width"]) -> Float[Tensor, "*batch"]:
    r"""Diversity in grey levels: :math:`255 \cdot \mathrm{mean}_{c,h,w}\; \mathrm{std}_{s}\, x_{s,c,h,w}`.

    The unit is 1/255 and the standard deviation the unbiased one (n - 1), as in HCFlow's test script. Draws are not
    rounded or clamped here.

    Cost: one pass in float64.

    Args:
        samples: Draws for the same LR image in [0, 1], shape ``(S, *batch, C, H, W)``, at least two.

    Returns:
        Grey levels from 0 (all draws equal), one per image, float64.

    Raises:
        ValueError: If there are fewer than two draws, or they are not finite images.

    References:
        Liang et al., Hierarchical Conditional Flow (ICCV 2021), section 4 ("diversity").

    Example:
        >>> import torch
        >>> pixel_std(torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)]))
        tensor(18.0312, dtype=torch.float64)
    """
    check_image(samples, name="samples", tolerance=None)
    if samples.ndim < 4 or samples.shape[0] < 2:
        raise ValueError(
            f"samples: expected at least two draws, shape (S, ..., C, H, W); got shape {tuple(samples.shape)}"
        )
    return 255 * samples.double().std(0).mean((-3, -2, -1))


def ntire_diversity(distances: Float[Tensor, "sample *batch height width"]) -> Float[Tensor, "*batch"]:
    r"""The NTIRE challenge's diversity score in percent: how much choosing per pixel gains over choosing one draw.

    .. math:: 100\, \frac{G - L}{G}, \qquad G = \min_s \mathrm{mean}_{h,w}\, d_{s,h,w}, \quad
        L = \mathrm{mean}_{h,w} \min_s d_{s,h,w}

    The challenge takes the spatial LPIPS map for d; any per-pixel distance to the HR image will do, such as the squared
    error ``(samples - hr).square().mean(-3)``, but figures compare only under the same one.

    Cost: one pass.

    Args:
        distances: Per-pixel distance of each draw to the HR image, at least 0, shape ``(S, *batch, H, W)``.

    Returns:
        Percent from 0 (one draw is best everywhere) to 100, one per image; 0 where a draw is perfect.

    Raises:
        ValueError: If distances are negative, not finite, or have no sample axis.

    References:
        Lugmayr et al., NTIRE 2021 Learning the Super-Resolution Space Challenge (CVPRW 2021), section 3.

    Example:
        >>> import torch
        >>> ntire_diversity(torch.tensor([[[1.0, 3.0]], [[3.0, 1.0]]]))  # each draw best on one half
        tensor(50., dtype=torch.float64)
    """
    check_image(distances, name="distances", tolerance=None)
    if distances.min() < 0:
        raise ValueError(f"distances: expected values of at least 0; got {distances.min().item():g}")
    distances = distances.double()
    best_draw = distances.mean((-2, -1)).amin(0)
    best_pixels = distances.amin(0).mean((-2, -1))
    return (100 * (best_draw - best_pixels) / best_draw).where(best_draw > 0, 0.0)
