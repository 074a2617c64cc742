"""Batch normalization that never changes while a model scores or samples.

In most libraries a batch norm changes its statistics, and its output, with the mode of the network. Here it uses its
running statistics always, except inside :func:`batch_statistics`, which a training loop enters to say that it trains.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

_BATCH_NORM = """@inproceedings{ioffe2015batch,
  title     = {Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift},
  author    = {Ioffe, Sergey and Szegedy, Christian},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2015},
  url       = {https://arxiv.org/abs/1502.03167}
}"""


class BatchStatistics(nn.Module):
    """Mean and log standard deviation of each channel: running ones, or those of the batch while training.

    Args:
        channels: number of channels.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.

    Attributes:
        use_batch: set inside :func:`batch_statistics`, and nowhere else.
    """

    citations: ClassVar[tuple[str, ...]] = (_BATCH_NORM,)

    mean: Tensor
    var: Tensor
    initialized: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-4, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.use_batch = False
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("var", torch.ones(channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Float[Tensor, "*batch channels height width"] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, ``(channels, 1, 1)`` each; without an input, the running ones."""
        mean, var = self.mean, self.var
        if self.use_batch and x is not None:
            mean, var = _moments(x.to(self.mean.dtype))  # autocast gives a lower one, too coarse for moments
            with torch.no_grad():
                self.mean.lerp_(mean.detach(), self.momentum)
                self.var.lerp_(var.detach(), self.momentum)
        return mean, 0.5 * (var + self.eps).log()

    @torch.no_grad()
    def initialize_from(self, x: Float[Tensor, "*batch channels height width"] | None = None) -> None:
        """Take the running statistics from a first batch, once; later calls change nothing."""
        if x is None or bool(self.initialized):
            return
        mean, var = _moments(x)
        self.mean.copy_(mean)
        self.var.copy_(var)
        self.initialized.fill_(True)

    def extra_repr(self) -> str:
        return f"{self.channels}"


class BatchNorm(nn.Module):
    """Per-channel normalization ``y = (x − mean)/√(var + eps) · exp(logs) + bias``, of any batch shape.

    Args:
        channels: number of channels.

    References:
        Ioffe and Szegedy (ICML 2015), algorithm 1; Dinh et al., RealNVP (ICLR 2017), section 3.7.

    Example:
        >>> norm = BatchNorm(2)
        >>> with batch_statistics(norm):
        ...     y = norm(3 + torch.randn(8, 2, 4, 4))
        >>> print(f"{y.mean().abs():.3f} {norm.statistics.mean.mean():.1f}")  # the running mean follows
        0.000 0.3
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.statistics = BatchStatistics(channels)
        self.logs = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "*batch channels height width"]) -> Tensor:
        """Normalize; any batch shape."""
        mean, log_std = self.statistics(x)
        return (x - mean) * (self.logs - log_std).exp() + self.bias


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    values = x.transpose(-3, 0).flatten(1)
    var, mean = torch.var_mean(values, dim=1, correction=0)
    return mean.reshape(-1, 1, 1), var.reshape(-1, 1, 1)


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Within this context every batch norm of ``module`` uses, and remembers, the statistics of its batch.

    For the loss of a training step only: what is encoded then depends on the other images of the batch, so it is no
    density of one image. Inversion and evaluation belong outside.

    Args:
        module: the network or flow.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, BatchStatistics)]
    before = [norm.use_batch for norm in norms]
    for norm in norms:
        norm.use_batch = True
    try:
        yield
    finally:
        for norm, value in zip(norms, before, strict=True):
            norm.use_batch = value
