"""Rational-quadratic splines as the elementwise map of a coupling: as flexible as one likes, and never steep."""

import math

from pyro.distributions.transforms.spline import _monotonic_rational_spline
from torch import Tensor
from torch.nn import functional as F

from flowsr._precision import full_precision
from flowsr._shapes import sum_event
from flowsr.transforms.elementwise import ElementwiseMap

_LEAST_SLOPE = 1e-3  # what Pyro's function adds to every slope


class SplineMap(ElementwiseMap):
    """Monotonic rational-quadratic spline on ``[−bound, bound]``, the identity outside ("linear tails").

    Of the ``3·bins − 1`` parameters per channel the first ``bins`` give the widths of the bins (softmax), the next
    their heights (softmax), the rest the slopes at the knots between them (softplus). At zero all bins are equal and
    all inner slopes are 1, the identity to within 1e-3. Outside the interval values cannot grow at all, inside each
    bin's slope is bounded: the published cure for inverses that explode on images unlike the training data.

    Cost: O(bins) per value, with a search for the bin; several times an affine map.

    Args:
        bins: number of bins, at least 2.
        bound: where the tails begin; activations behind an ActNorm have standard deviation 1.

    Raises:
        ValueError: for fewer bins, more than a thousand of them, or a bound that is not positive.

    References:
        Durkan et al., Neural Spline Flows (NeurIPS 2019), section 3.1.

    Example:
        >>> spline = SplineMap(bins=4, bound=3.0)
        >>> z, ladj = spline.encode(torch.full((1, 1, 1), 7.0), torch.randn(11, 1, 1))
        >>> z.item(), ladj.item()
        (7.0, 0.0)
    """

    def __init__(self, *, bins: int = 8, bound: float = 5.0) -> None:
        super().__init__()
        if not 2 <= bins < 1000:
            raise ValueError(f"expected from 2 to 999 bins; got {bins}")
        if not (bound > 0 and math.isfinite(bound)):
            raise ValueError(f"expected a positive bound; got {bound}")
        self.bins, self.bound = bins, float(bound)
        self.params_per_channel = 3 * bins - 1

    def encode(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_spline(x, h, inverse=False)

    def decode(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply_spline(z, h, inverse=True)

    def _apply_spline(self, x: Tensor, h: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        self.check_parameters(x, h)
        with full_precision(x):
            h = h.to(x.dtype).expand(*x.shape[:-3], *h.shape[-3:])
            h = h.unflatten(-3, (x.shape[-3], self.params_per_channel)).movedim(-3, -1)
            widths, heights, slopes = h.split((self.bins, self.bins, self.bins - 1), -1)
            unit_slope = math.log(math.expm1(1.0 - _LEAST_SLOPE))
            y, log_slope = _monotonic_rational_spline(
                x,
                widths.softmax(-1),
                heights.softmax(-1),
                F.softplus(slopes + unit_slope),
                inverse=inverse,
                bound=self.bound,
                min_derivative=_LEAST_SLOPE,
            )
        return y, sum_event(log_slope)

    def extra_repr(self) -> str:
        return f"bins={self.bins}, bound={self.bound}"
