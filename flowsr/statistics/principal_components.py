"""Leading principal components of a stream of images in fixed memory and with a known error: Frequent Directions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PrincipalComponents:
    """Leading eigenvectors of the covariance of images, from a sketch of ``2·rows`` images.

    Frequent Directions keeps a matrix B with ``0 ⪯ AᵀA − BᵀB ⪯ Δ·I``, where the rows of A are the images minus the
    first batch's mean, and Δ is the sum of what was shrunk, at most ``|A − A_k|²/(rows − k)`` for every k. The
    offset of that mean from the mean of all images is taken out in the end. Up to ``2·rows`` images nothing is shrunk,
    and the components are exact. Beyond, the variances of the sketch are too small by 0 to Δ/(n − 1), so half of that
    is added, and :attr:`error` is what remains: a component that stands out is under the estimate by no more, one of a
    flat spectrum above it by no more.

    Cost: memory for ``2·rows`` images; a singular value decomposition of those every ``rows`` images.

    Args:
        components: how many, at least 1.
        rows: of the sketch, more than ``components``; by default as many as 64 MiB hold, from four times as many as
            components (at least 24) to 512.

    Raises:
        ValueError: for numbers out of range.

    References:
        Ghashami, Liberty, Phillips and Woodruff, Frequent Directions: simple and deterministic matrix sketching
        (SIAM J. Computing 2016), theorem 1.1.

    Example:
        >>> pca = PrincipalComponents(1)
        >>> direction = torch.tensor([0.6, 0.8]).reshape(1, 1, 2)
        >>> pca.add(torch.randn(500, 1, 1, 1) * direction)
        >>> vectors, variances = pca.components()
        >>> f"{float((vectors[0] * direction).sum().abs()):.3f}"
        '1.000'
    """

    def __init__(self, components: int, *, rows: int | None = None) -> None:
        if components < 1 or (rows is not None and rows <= components):
            raise ValueError(f"expected components >= 1 and more rows; got {components} and {rows}")
        self.number, self.rows = components, rows or 0
        self.count = 0
        self.shrunk = 0.0
        self._shift = self._sum = torch.zeros((), device="cpu")
        self._buffer = torch.zeros(0, 0, device="cpu")
        self._filled = 0

    def add(self, images: Tensor) -> None:
        """Take a batch ``(n, C, H, W)`` into account."""
        images = images.float().cpu()
        if self.count == 0:
            self._shift = images.mean(0)
            self._sum = torch.zeros(images.shape[1:], dtype=torch.float64, device="cpu")
            self.rows = self.rows or _rows_that_fit(images[0].numel(), self.number)
            self._buffer = torch.zeros(2 * self.rows, images[0].numel(), device="cpu")
        for image in images:
            off = image - self._shift
            self._sum += off
            self._buffer[self._filled] = off.flatten()
            self._filled += 1
            self.count += 1
            if self._filled == len(self._buffer):
                self._shrink()

    def _shrink(self) -> None:
        values, vectors = _right_singular(self._buffer)
        if len(values) <= self.rows:
            # Images of fewer pixels than rows: nothing needs to go.
            self._buffer.zero_()
            self._buffer[: len(values)] = (values.sqrt()[:, None] * vectors).float()
            self._filled = len(values)
            return
        delta = values[self.rows]
        self.shrunk += float(delta)
        kept = (values[: self.rows] - delta).clamp_min(0).sqrt()
        self._buffer[: self.rows] = (kept[:, None] * vectors[: self.rows]).float()
        self._filled = self.rows

    def components(self) -> tuple[Tensor, Tensor]:
        """Unit images ``(k, C, H, W)`` and the variance along each, up to :attr:`error`, in falling order.

        Raises:
            ValueError: before the second image.
        """
        if self.count < 2:
            raise ValueError(f"expected at least two images for principal components; got {self.count}")
        rows = self._buffer[: self._filled].double()
        offset = (self._sum / self.count).flatten()
        # Eigenvectors of BᵀB − n·ddᵀ lie in the span of the rows of B and d.
        basis = torch.linalg.qr(torch.cat([rows, offset[None]]).T)[0]
        inner = rows @ basis
        along = offset @ basis
        values, vectors = torch.linalg.eigh((inner.T @ inner - self.count * along.outer(along)) / (self.count - 1))
        order = values.argsort(descending=True)[: self.number]
        images = (basis @ vectors[:, order]).T.reshape(-1, *self._sum.shape)
        return images.float(), (values[order].clamp_min(0) + self.error).float()

    @property
    def error(self) -> float:
        """Bound of the error of a variance, in squared units of the image; 0 while nothing was shrunk."""
        return 0.5 * self.shrunk / max(1, self.count - 1)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on later; tensors and numbers only."""
        return {
            "count": self.count,
            "shrunk": self.shrunk,
            # Copies: what is added later is written into the sum and the buffer.
            "shift": self._shift.clone(),
            "sum": self._sum.clone(),
            "buffer": self._buffer.clone(),
            "filled": self._filled,
            "rows": self.rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`.

        Raises:
            ValueError: for a sketch of another size.
        """
        if self.rows not in (0, state["rows"]):
            raise ValueError(
                f"expected a sketch of {self.rows} rows; got {state['rows']}: resume with the settings of the first run"
            )
        self.rows = int(state["rows"])
        self.count, self.shrunk, self._filled = int(state["count"]), float(state["shrunk"]), int(state["filled"])
        self._shift, self._sum, self._buffer = (state[name].clone() for name in ("shift", "sum", "buffer"))


def _rows_that_fit(values: int, components: int) -> int:
    """How many rows to sketch images of so many values with."""
    return max(24, 4 * components, min(512, 2**26 // (2 * 4 * values)))


def _right_singular(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values in falling order, and right singular vectors, of a wide matrix by its Gram matrix."""
    gram = matrix.double() @ matrix.double().T
    values, left = torch.linalg.eigh(gram)
    values, left = values.flip(0).clamp_min(0), left.flip(1)
    good = values > 1e-12 * values[0].clamp_min(1e-30)
    vectors = (left[:, good].T @ matrix.double()) / values[good].sqrt()[:, None]
    return values[good], vectors
