"""Metric cards: figures that say under which conventions they hold, as a table for people and as JSON for programs."""

from flowsr.cards.card import Metric, MetricCard
from flowsr.cards.fidelity import fidelity_metrics
from flowsr.cards.likelihood import likelihood_metrics

__all__ = ["Metric", "MetricCard", "fidelity_metrics", "likelihood_metrics"]
