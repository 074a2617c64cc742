"""A mixture of logistics as an elementwise bijection: any shape of a density, at the price of a search (Flow++)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from flowsr._support.shapes import full_precision, sum_event
from flowsr.transforms.elementwise import ElementwiseMap

_FLOW_PP = """@inproceedings{ho2019flow,
  title     = {Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design},
  author    = {Ho, Jonathan and Chen, Xi and Srinivas, Aravind and Duan, Yan and Abbeel, Pieter},
  booktitle = {International Conference on Machine Learning (ICML)},
  year      = {2019},
  url       = {https://arxiv.org/abs/1902.00275}
}"""

_SEARCH, _POLISH = 60, 2


class LogisticMixtureMap(ElementwiseMap):
    """The log-odds of a mixture of logistics, then an affine map; of ``2 + 3·K`` parameters for each value.

    With K weights π (softmax), means μ (spread out at the start), log-scales s bounded by ±2, shift b and log-scale a
    bounded by ±1, encoding is ::

        F(x) = Σ_k π_k·σ((x − μ_k)·exp(−s_k)),      z = logit(F(x))·exp(a) + b,

    which grows like x far out, as the widest component does. With all parameters zero it is near the identity. There is
    no closed form of the inverse: it lies between those of the single components, and is searched for there by Newton
    steps, with bisection where they would leave; gradients and second derivatives are those of the solution.

    Cost: encoding O(K) per value; decoding the same 63 times, however soon the search has ended.

    Args:
        components: K, at least 1.

    Raises:
        ValueError: for fewer components, or more than a hundred.

    References:
        Ho et al., Flow++ (ICML 2019), section 3.2.

    Example:
        >>> mixture = LogisticMixtureMap(components=3)
        >>> x, h = torch.linspace(-30, 30, 7).reshape(1, 1, 7), torch.randn(11, 1, 7)
        >>> bool((mixture.decode(mixture.encode(x, h)[0], h)[0] - x).abs().max() < 1e-3)
        True
    """

    citations: ClassVar[tuple[str, ...]] = (_FLOW_PP,)

    family = "logistic-mixture"

    def __init__(self, *, components: int = 4) -> None:
        super().__init__()
        if not 1 <= components <= 100:
            raise ValueError(f"expected from 1 to 100 components; got {components}")
        self.components = components
        self.params_per_channel = 2 + 3 * components

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            shift, log_scale, parts = self._split(x, h)
            odds, log_slope = _log_odds(x, *parts)
            return odds * log_scale.exp() + shift, sum_event(log_slope + log_scale)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            shift, log_scale, parts = self._split(z, h)
            x = _inverse((z - shift) * (-log_scale).exp(), *parts)
            return x, -sum_event(_log_odds(x, *parts)[1] + log_scale)

    def _split(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        h = self.fitted(x, h).unflatten(-3, (x.shape[-3], self.params_per_channel)).movedim(-3, -1)
        weights, means, log_scales = h[..., 2:].chunk(3, -1)
        # Equal components would have equal gradients, and stay equal.
        apart = torch.linspace(-1.0, 1.0, self.components, dtype=x.dtype, device=x.device)
        return h[..., 0], h[..., 1].tanh(), (weights.log_softmax(-1), means + apart, 2.0 * (0.5 * log_scales).tanh())

    def extra_repr(self) -> str:
        return f"components={self.components}"


def _log_odds(x: Tensor, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """logit(F(x)) and the logarithm of its slope, with no probability rounded to 0 or 1 on the way."""
    standard = (x.unsqueeze(-1) - means) * (-log_scales).exp()
    below, above = F.logsigmoid(standard), F.logsigmoid(-standard)
    log_below, log_above = (log_weights + below).logsumexp(-1), (log_weights + above).logsumexp(-1)
    log_density = (log_weights + below + above - log_scales).logsumexp(-1)
    return log_below - log_above, log_density - log_below - log_above


@torch.no_grad()
def _search(odds: Tensor, *parts: Tensor) -> Tensor:
    """The x of these log-odds: Newton's steps within bounds that close in, and halves where a step leaves them."""
    _, means, log_scales = parts
    alone = means + odds.unsqueeze(-1) * log_scales.exp()  # where each component alone has these odds
    low, high = alone.amin(-1), alone.amax(-1)
    x = 0.5 * (low + high)
    for _ in range(_SEARCH):
        found, log_slope = _log_odds(x, *parts)
        low, high = torch.where(found < odds, x, low), torch.where(found > odds, x, high)
        step = x - (found - odds) * (-log_slope).exp()
        x = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
    return x


def _inverse(odds: Tensor, *parts: Tensor) -> Tensor:
    x = _search(odds, *parts)
    # From the solution a step of Newton's has its first derivatives, and a second one its second derivatives.
    for _ in range(_POLISH):
        found, log_slope = _log_odds(x, *parts)
        x = x - (found - odds) * (-log_slope).exp()
    return x
