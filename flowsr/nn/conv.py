"""Convolutions that accept any batch shape, and those that normalizing flows start or normalize in their own way.

Torch's convolutions take 3-D or 4-D input only, while a Pyro sample shape makes images 5-D. Every network of
flowsr is built from the convolutions of this file, so this is the one place where batch dimensions are flattened.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from flowsr.nn.channel_affine import ChannelAffine
from flowsr.nn.prepared import Prepared, channels_last, convolved_dtype, runs_with_channels_last

_WEIGHT_NORM = """@inproceedings{salimans2016weight,
  title     = {Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks},
  author    = {Salimans, Tim and Kingma, Diederik P.},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2016},
  url       = {https://arxiv.org/abs/1602.07868}
}"""


def conv2d(
    x: Float[Tensor, "*batch in height width"],
    weight: Float[Tensor, "out kernel_in kernel kernel"],
    bias: Float[Tensor, " out"] | None = None,
    *,
    mark_border: bool = False,
) -> Float[Tensor, "*batch out height width"]:
    """Convolve with zero padding that keeps the image size, for any batch shape.

    Cost: O(batch · out · in · kernel² · height · width).

    Args:
        x: images or features; any number of batch dimensions, none included.
        weight: an odd, square kernel.
        bias: one number per output channel.
        mark_border: the last input channel of ``weight`` sees 1 in the padding and 0 in the image, so that pixels can
            tell how far the border is (Glow's released code).

    Raises:
        ValueError: if the channels of ``x`` and ``weight`` differ.

    Example:
        >>> conv2d(torch.zeros(5, 2, 3, 8, 8), torch.zeros(4, 3, 3, 3)).shape
        torch.Size([5, 2, 4, 8, 8])
    """
    if mark_border:
        # A channel that is 1 outside and 0 inside is 1 everywhere, which is a bias, and −1 inside, which zero padding
        # ends at the border.
        outside = weight[:, -1].sum((-2, -1))
        bias = outside if bias is None else bias + outside
        x = torch.cat([x, x.new_full((*x.shape[:-3], 1, *x.shape[-2:]), -1.0)], -3)
    if x.shape[-3] != weight.shape[1]:
        raise ValueError(f"expected {weight.shape[1]} channels; got an input of shape {tuple(x.shape)}")
    if x.dim() == 4:
        return _convolve(x, weight, bias)
    out = _convolve(x.reshape(-1, *x.shape[-3:]), weight, bias)
    return out.reshape(*x.shape[:-3], *out.shape[-3:])


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if weight.shape[-1] == 1 and runs_with_channels_last(x):
        # One product of matrices; torch's own way with few pixels is several times slower.
        return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class _Convolution(nn.Module):
    """Base of the convolutions: their kernel is a function of parameters, and is made ready once while they stay."""

    mark_border = False
    makes_new_memory = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self._prepared = Prepared()

    def sources(self) -> tuple[Tensor, ...]:
        """The parameters that the kernel is made of, as :meth:`kernel` takes them."""
        raise NotImplementedError

    def kernel(self, *sources: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(out, in, kernel, kernel)`` and bias ``(out,)`` as they are convolved with."""
        return sources[0], sources[1]

    def convolve(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Convolve ``[x, context]``; a context with fewer batch dimensions is convolved once and shared."""
        sources = self.sources()
        dtype = convolved_dtype(x, sources[0])

        def make() -> tuple[Tensor, Tensor]:
            weight, bias = self.kernel(*sources)
            # Not a copy of each kernel for the way back: in the midst of short-lived memory they cost twice their size.
            weight = weight.to(dtype)
            wanted = torch.is_grad_enabled() and weight.requires_grad
            return weight if wanted else channels_last(weight), bias.to(dtype)

        weight, bias = self._prepared(dtype, sources, make)
        if context is None:
            return conv2d(x, weight, bias, mark_border=self.mark_border)
        if dtype != sources[0].dtype:
            x, context = x.to(dtype), context.to(dtype)  # before the copy of a concatenation, not after
        if context.shape[:-3] == x.shape[:-3]:
            return conv2d(torch.cat([x, context], -3), weight, bias, mark_border=self.mark_border)
        own = x.shape[-3]
        return conv2d(x, weight[:, :own]) + conv2d(context, weight[:, own:], bias, mark_border=self.mark_border)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"


class Conv2d(_Convolution):
    """Convolution ``h = W * x + b`` with Xavier-normal weights, scaled at the start, and zero bias.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd width of the kernel.
        gain: factor on the initial weights; 0 makes the convolution zero at the start.

    References:
        HCFlow's networks multiply a Xavier-normal start by 0.1 (Liang et al., ICCV 2021, released settings).

    Example:
        >>> Conv2d(3, 8)(torch.zeros(2, 3, 4, 6)).shape
        torch.Size([2, 8, 4, 6])
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, gain: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(gain)

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Convolve; any batch shape."""
        return self.convolve(x)

    def sources(self) -> tuple[Tensor, ...]:
        """Weights and bias, which are the kernel."""
        return self.weight, self.bias


class NormedConv2d(_Convolution):
    """Convolution without bias followed by an ActNorm, computed as one convolution.

    ``h = (W * x + bias) · exp(logs)`` equals a convolution with weights ``W · exp(logs)`` and bias
    ``bias · exp(logs)``, which saves a pass over the activations; the parameters stay those of the two layers.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd width of the kernel.
        std: standard deviation of the initial weights; None for Xavier-normal ones times 0.1, HCFlow's start.
        mark_border: see :func:`conv2d`.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.3; HCFlow's released settings for the start.

    Example:
        >>> NormedConv2d(3, 8)(torch.zeros(2, 3, 4, 6)).shape
        torch.Size([2, 8, 4, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        std: float | None = None,
        mark_border: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.mark_border = mark_border
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels + mark_border, kernel_size, kernel_size))
        self.norm = ChannelAffine(out_channels)
        if std is not None:
            nn.init.normal_(self.weight, std=std)
            return
        nn.init.xavier_normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(0.1)

    def forward(
        self,
        x: Float[Tensor, "*batch in height width"],
        context: Float[Tensor, "*context features height width"] | None = None,
    ) -> Float[Tensor, "*batch out height width"]:
        """Convolve ``[x, context]`` and normalize.

        A context with fewer batch dimensions than ``x`` (many draws for one image) is convolved once and its
        result shared: a convolution of a concatenation is the sum of the convolutions of its parts.
        """
        return self.convolve(x, context)

    def sources(self) -> tuple[Tensor, ...]:
        """Weights, and the ActNorm's bias and log-scale."""
        return self.weight, self.norm.bias, self.norm.logs

    def kernel(self, *sources: Tensor) -> tuple[Tensor, Tensor]:
        """The weights with the ActNorm's scale, and its bias."""
        weight, bias, logs = sources
        scale = logs.exp()
        return weight * scale.unsqueeze(-1), (bias * scale).flatten()

    def initialize_from(
        self,
        x: Float[Tensor, "*batch in height width"],
        context: Float[Tensor, "*context features height width"] | None = None,
    ) -> None:
        """Set the ActNorm so that the outputs for this batch have mean 0 and standard deviation 1."""
        if context is not None:
            x = torch.cat([x, context.expand(*x.shape[:-3], *context.shape[-3:])], -3)
        self.norm.initialize_from(conv2d(x, self.weight, mark_border=self.mark_border))


class ZeroConv2d(_Convolution):
    """Convolution that starts at zero, with a learned output gain: ``h = (W * x + b) · exp(3 · logs)``.

    Starting the last layer of a conditioner at zero starts its coupling at the identity; the factor 3 lets the
    gain move quickly. Computed as one convolution.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        mark_border: see :func:`conv2d`.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.3.

    Example:
        >>> ZeroConv2d(3, 4)(torch.ones(1, 3, 2, 2)).abs().max().item()
        0.0
    """

    def __init__(self, in_channels: int, out_channels: int, *, mark_border: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3)
        self.mark_border = mark_border
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels + mark_border, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Convolve; any batch shape."""
        return self.convolve(x)

    def sources(self) -> tuple[Tensor, ...]:
        """Weights, bias and log-gain."""
        return self.weight, self.bias, self.logs

    def kernel(self, *sources: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and bias with the gain."""
        weight, bias, logs = sources
        gain = (3.0 * logs).exp()
        return weight * gain.unsqueeze(-1), bias * gain.flatten()

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


class WeightNormConv2d(_Convolution):
    """Convolution whose kernels are a direction and a length, ``W = exp(log_length)·v/‖v‖`` for each output channel.

    It starts as a :class:`Conv2d`. Torch's own weight norm is a hook that cannot be pickled.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd width of the kernel.
        gain: factor on the initial weights.

    References:
        Salimans and Kingma, Weight Normalization (NeurIPS 2016), section 2.

    Example:
        >>> WeightNormConv2d(3, 8)(torch.zeros(2, 3, 4, 6)).shape
        torch.Size([2, 8, 4, 6])
    """

    citations: ClassVar[tuple[str, ...]] = (_WEIGHT_NORM,)

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int = 3, gain: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.direction = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_normal_(self.direction)
        with torch.no_grad():
            self.direction.mul_(gain)
            length = self.direction.flatten(1).norm(dim=1).log()
        self.log_length = nn.Parameter(length)

    def forward(self, x: Float[Tensor, "*batch in height width"]) -> Float[Tensor, "*batch out height width"]:
        """Convolve; any batch shape."""
        return self.convolve(x)

    def sources(self) -> tuple[Tensor, ...]:
        """Directions, bias and log-lengths."""
        return self.direction, self.bias, self.log_length

    def kernel(self, *sources: Tensor) -> tuple[Tensor, Tensor]:
        """The directions with their lengths, and the bias."""
        direction, bias, log_length = sources
        length = log_length.exp() / direction.flatten(1).norm(dim=1)
        return direction * length[:, None, None, None], bias
