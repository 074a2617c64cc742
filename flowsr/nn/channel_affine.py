"""The per-channel affine map behind ActNorm, and its data-dependent initialization.

The same map serves as a layer inside conditioners (where it has no log-determinant to count) and inside the
ActNorm transform. Nothing here changes while a model scores or samples: parameters are set from data only inside
:func:`initialize_from_data`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowsr.nn.prepared import Prepared


class ChannelAffine(nn.Module):
    """Per-channel affine map ``y = (x + bias) · exp(logs)``.

    Args:
        channels: number of channels.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.

    Example:
        >>> layer = ChannelAffine(3)
        >>> layer.initialize_from(torch.arange(24.0).reshape(2, 3, 2, 2))
        >>> y = layer(torch.arange(24.0).reshape(2, 3, 2, 2))
        >>> print(f"{y.mean().abs():.4f} {y[:, 0].std(correction=0):.4f}")
        0.0000 1.0000
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1, 1))
        # A buffer, so that a checkpoint remembers that the first batch has been seen.
        self.register_buffer("initialized", torch.tensor(False))
        self._prepared = Prepared()

    def forward(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Apply the map; any batch shape."""
        scale, shift = self._prepared("forward", (self.logs, self.bias), self._forward)
        return torch.addcmul(shift, x, scale)

    def inverse(self, y: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Undo the map; any batch shape."""
        scale, shift = self._prepared("inverse", (self.logs, self.bias), self._inverse)
        return torch.addcmul(shift, y, scale)

    def log_det(self) -> Tensor:
        """The log-determinant of the map at one pixel, ``Σ logs``."""
        return self._prepared("log_det", (self.logs,), lambda: self.logs.sum())

    def _forward(self) -> tuple[Tensor, Tensor]:
        scale = self.logs.exp()
        return scale, self.bias * scale

    def _inverse(self) -> tuple[Tensor, Tensor]:
        return (-self.logs).exp(), -self.bias

    @torch.no_grad()
    def initialize_from(self, x: Float[Tensor, "*batch channels height width"]) -> None:
        """Set ``bias = −mean`` and ``logs = −log(std + 1e-6)`` per channel, once; later calls change nothing."""
        if bool(self.initialized):
            return
        values = x.detach().transpose(-3, 0).flatten(1).to(self.bias.dtype)
        std, mean = torch.std_mean(values, dim=1, correction=0)
        self.bias.copy_(-mean.reshape(-1, 1, 1))
        self.logs.copy_(-(std + 1e-6).log().reshape(-1, 1, 1))
        self.initialized.fill_(True)

    def extra_repr(self) -> str:
        return f"{self.channels}"


@contextmanager
def initialize_from_data(module: nn.Module) -> Iterator[None]:
    """Within this context, each layer of ``module`` that can learn its start from data does so on its first input.

    Layers take part by having a method ``initialize_from(*inputs)``. Each sees inputs that the layers before it,
    already initialized, have produced.

    Args:
        module: the network or flow about to see its first batch.

    Example:
        >>> layer = ChannelAffine(3)
        >>> with initialize_from_data(layer):
        ...     _ = layer(torch.randn(8, 3, 4, 4))
        >>> layer.initialized
        tensor(True)
    """

    def initialize(layer: Any, inputs: tuple[Any, ...]) -> None:
        layer.initialize_from(*inputs)

    layers = [layer for layer in module.modules() if hasattr(layer, "initialize_from")]
    handles = [layer.register_forward_pre_hook(initialize) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
