"""How good a model is on files of images: every figure with its convention, per image and over all of them.

:func:`evaluate_files` does the work for ``flowsr evaluate``; several processes share the images out by rank.
"""

from flowsr.evaluation.columns import Column, EvaluationPlan, list_columns
from flowsr.evaluation.pairs import read_pair
from flowsr.evaluation.report import Evaluation
from flowsr.evaluation.run import evaluate_files
from flowsr.evaluation.score import score_pair

__all__ = [
    "Column",
    "Evaluation",
    "EvaluationPlan",
    "evaluate_files",
    "list_columns",
    "read_pair",
    "score_pair",
]
