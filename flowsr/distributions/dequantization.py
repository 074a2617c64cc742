"""Dequantization: from the density of real-valued images to the probability of 8-bit ones."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr._support.shapes import add_ladj, check_image_shape, constant_ladj, sum_event
from flowsr.distributions.packed_normal import normal_log_prob
from flowsr.nn import FCN, RRDBEncoder
from flowsr.transforms import Compose, FlowStep, InvertibleConv1x1, affine_coupling, depth_to_space, space_to_depth


@runtime_checkable
class Dequantizer(Protocol):
    """A distribution q of noise u within one bin, by which ``log P(v) ≥ E_u[log p(v + u) − log q(u | v)]``.

    Attributes:
        bins: number of bins per unit, 256 for 8-bit images.
    """

    bins: int

    def dequantize(self, image: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Add noise: ``(v + u, log q(u | v))``, the latter in nats, of the batch's shape."""
        ...


class UniformDequantizer:
    """Uniform noise over one bin: ``u ~ U[0, 1/bins)``, ``log q = D·log(bins)``.

    Cost: one pass over the image.

    Args:
        bins: number of bins per unit; 256 for 8-bit images.

    Raises:
        ValueError: unless bins is at least 2.

    References:
        Theis et al., A note on the evaluation of generative models (ICLR 2016), section 3.1.

    Example:
        >>> _, log_q = UniformDequantizer().dequantize(torch.zeros(3, 2, 2))
        >>> print(f"{log_q / (12 * math.log(2)):.2f}")  # bits per dimension
        8.00
    """

    def __init__(self, bins: int = 256) -> None:
        _check_bins(bins)
        self.bins = bins

    def dequantize(
        self, image: Float[Tensor, "*batch channels height width"], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add noise: ``(v + u, log q(u))``; noise is drawn on the generator's device and moved."""
        noisy = uniform_dequantize(image, bins=self.bins, generator=generator)
        return noisy, constant_ladj(image, math.prod(image.shape[-3:]) * math.log(self.bins))


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
        ValueError: unless bins is at least 2, or for values that are no floating point numbers.

    References:
        Theis et al., A note on the evaluation of generative models (ICLR 2016), section 3.1.

    Example:
        >>> noisy = uniform_dequantize(torch.zeros(3, 4, 4))
        >>> bool((noisy >= 0).all() and (noisy < 1 / 256).all())
        True
    """
    _check_bins(bins)
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(f"expected a floating point image in [0, 1]; got {kind}: divide 8-bit images by 255")
    # In half precision the noise of a bin would be rounded away.
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    device = image.device if generator is None else generator.device
    noise = torch.rand(image.shape, dtype=image.dtype, device=device, generator=generator)
    return image + noise.to(image.device) / bins


def _check_bins(bins: int) -> None:
    if not isinstance(bins, int) or bins < 2:
        raise ValueError(f"expected an integer of at least 2 bins; got {bins!r}")


class VariationalDequantizer(nn.Module):
    """Noise ``u = sigmoid(f(ε; v))/bins``, ``ε ~ N(0, 1)``, with a conditional flow f that knows the image v.

    ``log q(u | v) = log N(ε; 0, 1) − log|det ∂f/∂ε| − Σ log sigmoid'(f) + D·log(bins)``

    With random weights it is a little worse than uniform noise; train it with
    :func:`flowsr.likelihood.fit_dequantizer`. The flow works on 2x2 blocks, so that gray images have channels to
    couple.

    Cost: a small network and ``steps`` couplings at half resolution.

    Args:
        image_channels: channels C of the image.
        steps: flow steps.
        hidden_channels: width of the couplings' conditioners.
        features: width of the features of the image.
        bins: number of bins per unit; 256 for 8-bit images.

    Raises:
        ValueError: for images whose sides are not even, or fewer than 2 bins.

    References:
        Ho et al., Flow++ (ICML 2019), section 3.1.

    Example:
        >>> noisy, log_q = VariationalDequantizer(3, steps=2).dequantize(torch.rand(5, 3, 8, 8))
        >>> noisy.shape, log_q.shape
        (torch.Size([5, 3, 8, 8]), torch.Size([5]))
    """

    def __init__(
        self, image_channels: int = 3, *, steps: int = 4, hidden_channels: int = 32, features: int = 16, bins: int = 256
    ) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"expected at least 2 bins; got {bins}")
        self.bins = bins
        channels = 4 * image_channels
        half = channels // 2
        self.encoder = RRDBEncoder(channels, channels=features, growth=features, blocks=(1, 1), stack_trunks=False)
        self.flow = Compose(
            FlowStep(
                channels,
                coupling=affine_coupling(
                    channels,
                    FCN(half, 2 * half, hidden_channels=hidden_channels, context_channels=features),
                    kept_channels=half,
                    context_channels=features,
                ),
                mixing=InvertibleConv1x1(channels),
            )
            for _ in range(steps)
        )

    def dequantize(
        self, image: Float[Tensor, "*batch channels height width"], *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add noise: ``(v + u, log q(u | v))``, differentiable with respect to the parameters."""
        check_image_shape(image.shape, channels=self.encoder.in_channels // 4, multiple=2, name="the image")
        # In half precision the noise of a bin would be rounded away.
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        dtype = next(self.parameters()).dtype
        # Centred, as the network sees an image and not a residual.
        context = self.encoder(space_to_depth(image.to(dtype) - 0.5, 2))
        device = image.device if generator is None else generator.device
        shape = (*image.shape[:-3], self.encoder.in_channels, image.shape[-2] // 2, image.shape[-1] // 2)
        noise = torch.randn(shape, dtype=dtype, device=device, generator=generator).to(image.device)
        value, ladj = self.flow.call_and_ladj(noise, context)
        slope = sum_event(F.logsigmoid(value) + F.logsigmoid(-value))
        volume = constant_ladj(value, math.prod(image.shape[-3:]) * math.log(self.bins))
        log_q = add_ladj((volume, sum_event(normal_log_prob(noise)), -ladj, -slope))
        return image + depth_to_space(torch.sigmoid(value), 2) / self.bins, log_q
