"""Two batches of images made comparable: same pixels, broadcast batches, double precision."""

import torch
from torch import Tensor

from flowsr.images import check_image


def paired(a: Tensor, b: Tensor, *, channels: int | tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Check two batches of images and broadcast their batch shapes; both come back in float64."""
    check_image(a, name="a", channels=channels, tolerance=None)
    check_image(b, name="b", channels=channels, tolerance=None)
    if a.shape[-3:] != b.shape[-3:]:
        raise ValueError(
            f"expected images of the same channels, height and width; got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    try:
        batch = torch.broadcast_shapes(a.shape[:-3], b.shape[:-3])
    except RuntimeError as error:
        raise ValueError(
            f"expected batch shapes that broadcast; got {tuple(a.shape[:-3])} and {tuple(b.shape[:-3])}"
        ) from error
    shape = (*batch, *a.shape[-3:])
    return a.double().expand(shape), b.to(a.device).double().expand(shape)
