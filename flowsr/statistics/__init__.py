"""Streams of numbers and what to say of them: moments, quantiles, principal components, intervals. No flow in sight."""

from flowsr.statistics.intervals import Interval, bootstrap_interval
from flowsr.statistics.moments import RunningMoments
from flowsr.statistics.principal_components import PrincipalComponents
from flowsr.statistics.quantiles import PixelQuantiles
from flowsr.statistics.scalar_summaries import image_summaries

__all__ = [
    "Interval",
    "PixelQuantiles",
    "PrincipalComponents",
    "RunningMoments",
    "bootstrap_interval",
    "image_summaries",
]
