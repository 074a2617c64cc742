"""How good a model is: what is measured of one image and of many, every figure with its convention.

:func:`flowsr.workflows.evaluate.evaluate_files` measures files of images, for ``flowsr evaluate``, and
:func:`flowsr.workflows.compare.compare_files` those of two models, for ``flowsr compare``.
"""

from flowsr.evaluation.cards import fidelity_figures, likelihood_figures
from flowsr.evaluation.columns import Column, EvaluationPlan, ResolvedPlan
from flowsr.evaluation.many_images import Evaluation
from flowsr.evaluation.one_image import score_pair
from flowsr.evaluation.paired import Comparison, PairedFigure, compare_evaluations, require_comparable

__all__ = [
    "Column",
    "Comparison",
    "Evaluation",
    "EvaluationPlan",
    "PairedFigure",
    "ResolvedPlan",
    "compare_evaluations",
    "fidelity_figures",
    "likelihood_figures",
    "require_comparable",
    "score_pair",
]
