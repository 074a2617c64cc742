"""Networks side by side: one input, their outputs stacked along the channels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Parallel(nn.ModuleList):
    """Several networks on the same input, ``h = [f₁(x), f₂(x), …]``: a conditioner with a network for each parameter.

    Args:
        networks: modules from ``(*batch, in, H, W)`` to ``(*batch, out_i, H, W)``.

    Example:
        >>> from flowsr.nn import Conv2d
        >>> Parallel(Conv2d(3, 4), Conv2d(3, 2))(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 6, 8, 8])
    """

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__(networks)

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Run all networks; any batch shape."""
        return torch.cat([network(x) for network in self], -3)
