"""How good a model is: what is measured of one image and of many, every figure with its convention.

:func:`flowsr.workflows.evaluate.evaluate_files` measures files of images, for ``flowsr evaluate``.
"""

from flowsr.evaluation.cards import fidelity_figures, likelihood_figures
from flowsr.evaluation.columns import Column, EvaluationPlan, ResolvedPlan
from flowsr.evaluation.many_images import Evaluation
from flowsr.evaluation.one_image import score_pair

__all__ = [
    "Column",
    "Evaluation",
    "EvaluationPlan",
    "ResolvedPlan",
    "fidelity_figures",
    "likelihood_figures",
    "score_pair",
]
