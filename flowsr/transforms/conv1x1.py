"""Invertible 1x1 convolutions: a learned linear mixing of the channels, the same at every pixel."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flowsr._support.shapes import constant_ladj, full_precision, pixelwise_ladj
from flowsr.nn import Prepared, conv2d
from flowsr.transforms.base import SameShapeTransform

_GLOW = """@inproceedings{kingma2018glow,
  title     = {Glow: Generative Flow with Invertible 1x1 Convolutions},
  author    = {Kingma, Diederik P. and Dhariwal, Prafulla},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2018},
  url       = {https://arxiv.org/abs/1807.03039}
}"""


class InvertibleConv1x1(SameShapeTransform):
    """Dense invertible 1x1 convolution; encoding ``z = W x`` per pixel, ``ladj = H·W·log|det W|``.

    ``W`` starts as a random rotation. Its inverse and determinant are computed in float64 whatever the dtype, and
    the convolution is kept out of autocast: errors here would be amplified by every later layer.

    Cost: O(C²·H·W), and O(C³) for determinant and inverse.

    Args:
        channels: number of channels.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.2.

    Example:
        >>> conv = InvertibleConv1x1(3)
        >>> print(f"{conv.inv.call_and_ladj(torch.ones(3, 2, 2))[1].abs().item():.4f}")  # a rotation
        0.0000
    """

    citations: ClassVar[tuple[str, ...]] = (_GLOW,)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(random_rotation(channels))
        self._prepared = Prepared()

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return mix_channels(z, self._inverse(z.dtype)), -pixelwise_ladj(z, self._log_det())

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return mix_channels(x, self.weight), pixelwise_ladj(x, self._log_det())

    def _inverse(self, dtype: torch.dtype) -> Tensor:
        return self._prepared(dtype, (self.weight,), lambda: torch.linalg.inv(self.matrix()).to(dtype))

    def _log_det(self) -> Tensor:
        return self._prepared("log_det", (self.weight,), lambda: torch.linalg.slogdet(self.matrix())[1])

    def matrix(self) -> Tensor:
        """``W``, as it encodes, in float64."""
        return self.weight.double()

    def extra_repr(self) -> str:
        return f"{self.channels}"


class InvertibleConv1x1PLU(SameShapeTransform):
    """Invertible 1x1 convolution with ``W = P·L·(U + diag(s))``; ``ladj = H·W·Σ log|s|`` costs O(C).

    ``P`` is a fixed permutation, ``L`` unit lower triangular, ``U`` strictly upper triangular. The start is a random
    rotation, as for the dense one. The signs of ``s`` are fixed at the start, so ``W`` cannot become singular.

    Cost: O(C²·H·W); the inverse takes two triangular solves, O(C³) once per call.

    Args:
        channels: number of channels.

    References:
        Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.2, equation 10.

    Example:
        >>> conv = InvertibleConv1x1PLU(4)
        >>> conv.inv(conv(torch.ones(4, 2, 2))).allclose(torch.ones(4, 2, 2), atol=1e-5)
        True
    """

    citations: ClassVar[tuple[str, ...]] = (_GLOW,)

    permutation: Tensor
    scale_sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        permutation, lower, upper = torch.linalg.lu(random_rotation(channels).double())
        scale = upper.diagonal()
        dtype = torch.get_default_dtype()
        self.register_buffer("permutation", permutation.to(dtype))
        self.register_buffer("scale_sign", scale.sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_scale = nn.Parameter(scale.abs().log().to(dtype))
        self._prepared = Prepared()

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return mix_channels(z, self._ready(self._inverse, z.dtype)), -pixelwise_ladj(z, self.log_scale.sum())

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return mix_channels(x, self._ready(self.matrix, x.dtype)), pixelwise_ladj(x, self.log_scale.sum())

    def matrix(self) -> Tensor:
        """``W = P·L·(U + diag(s))``, as it encodes, in float64."""
        lower, upper = self._factors()
        return self.permutation.double() @ lower @ upper

    def _ready(self, matrix: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
        parameters, buffers = (self.lower, self.upper, self.log_scale), (self.permutation, self.scale_sign)
        key = (matrix.__name__, dtype)
        return self._prepared(key, parameters, lambda: matrix().to(dtype), buffers=buffers)

    def _inverse(self) -> Tensor:
        lower, upper = self._factors()
        solved = torch.linalg.solve_triangular(lower, self.permutation.double().mT, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, solved, upper=True)

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(self.channels, dtype=torch.float64, device=self.lower.device)
        lower = self.lower.double().tril(-1) + one
        upper = self.upper.double().triu(1) + torch.diag((self.scale_sign * self.log_scale.exp()).double())
        return lower, upper

    def extra_repr(self) -> str:
        return f"{self.channels}"


class InvertibleConv1x1Orthogonal(SameShapeTransform):
    """Orthogonal 1x1 convolution; encoding ``z = W x`` per pixel with ``W = exp(A)·W₀``, ``ladj = 0``.

    ``A`` is skew-symmetric and learned, zero at the start; ``W₀`` is a fixed random rotation. Its inverse is its
    transpose, so no error is amplified.

    Cost: O(C²·H·W), and O(C³) for the matrix exponential.

    Args:
        channels: number of channels.

    References:
        Lezcano-Casado and Martínez-Rubio, Cheap Orthogonal Constraints (ICML 2019), section 3: the exponential.

    Example:
        >>> conv = InvertibleConv1x1Orthogonal(4)
        >>> conv(torch.ones(4, 1, 1)).square().sum().round().item()
        4.0
    """

    rotation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("rotation", random_rotation(channels))
        self.skew = nn.Parameter(torch.zeros(channels * (channels - 1) // 2))
        self._prepared = Prepared()

    def call_and_ladj(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(z.shape)
        return mix_channels(z, self._ready(z.dtype).mT), constant_ladj(z, 0.0)

    def inv_call_and_ladj(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.inverse_shape(x.shape)
        return mix_channels(x, self._ready(x.dtype)), constant_ladj(x, 0.0)

    def matrix(self) -> Tensor:
        """``W = exp(A)·W₀``, as it encodes, in float64."""
        rows, columns = torch.triu_indices(self.channels, self.channels, 1, device=self.skew.device)
        upper = self.skew.new_zeros(self.channels, self.channels, dtype=torch.float64)
        upper = upper.index_put((rows, columns), self.skew.double())
        # Once more onto the rotations: the buffer is rounded to the dtype of the weights.
        rotation = torch.linalg.qr(self.rotation.double())
        sign = rotation.R.diagonal().sign()
        return torch.linalg.matrix_exp(upper - upper.mT) @ (rotation.Q * sign)

    def _ready(self, dtype: torch.dtype) -> Tensor:
        return self._prepared(dtype, (self.skew,), lambda: self.matrix().to(dtype), buffers=(self.rotation,))

    def extra_repr(self) -> str:
        return f"{self.channels}"


def random_rotation(channels: int) -> Tensor:
    """A random orthogonal matrix: the Q of the QR decomposition of a Gaussian matrix."""
    # Contiguous, as Pyro's parameter store copies other layouts and would then train the copy.
    return torch.linalg.qr(torch.randn(channels, channels))[0].contiguous()


def mix_channels(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply the channels of each pixel by a matrix, in the dtype of ``x``, outside of autocast."""
    with full_precision(x):
        return conv2d(x, weight.to(x.dtype)[:, :, None, None])
