"""Measures of answers and of retrieval, as SQuAD, DPR and Hugging Face's ``eval_rag`` define them.

``docs/evaluation.md`` defines every figure.  ``measure`` turns questions into per-question figures, and
``report`` and ``compare`` turn those into the tables of ``ragengine eval``; ``evaluate`` is the short way.
"""

from ragengine.evaluation.comparison import compare
from ragengine.evaluation.metrics import exact_match, f1, label_match, normalize_answer
from ragengine.evaluation.questions import Question, read_questions
from ragengine.evaluation.report import report
from ragengine.evaluation.retrieval import has_answer, title_precision
from ragengine.evaluation.run import Measured, Prediction, Task, evaluate, measure

__all__ = [
    "Measured",
    "Prediction",
    "Question",
    "Task",
    "compare",
    "evaluate",
    "exact_match",
    "f1",
    "has_answer",
    "label_match",
    "measure",
    "normalize_answer",
    "read_questions",
    "report",
    "title_precision",
]
