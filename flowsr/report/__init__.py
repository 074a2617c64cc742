"""A report on one image: everything this package can say about it, as one page that needs nothing else."""

from flowsr.report.build import build_report

__all__ = ["build_report"]
