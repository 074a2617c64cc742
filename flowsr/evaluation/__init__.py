"""How good a model is: what is measured of one image and of many, every figure with its convention.

:func:`flowsr.workflows.evaluate.evaluate_files` measures files of images, for ``flowsr evaluate``.
"""

from flowsr.evaluation.cards import Metric, MetricCard, fidelity_metrics, likelihood_metrics
from flowsr.evaluation.columns import Column, EvaluationPlan, list_columns
from flowsr.evaluation.many_images import Evaluation
from flowsr.evaluation.one_image import score_pair

__all__ = [
    "Column",
    "Evaluation",
    "EvaluationPlan",
    "Metric",
    "MetricCard",
    "fidelity_metrics",
    "likelihood_metrics",
    "list_columns",
    "score_pair",
]
