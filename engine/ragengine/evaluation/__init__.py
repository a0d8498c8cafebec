"""Measures of answers and of retrieval, as SQuAD, DPR and Hugging Face's ``eval_rag`` define them.

``docs/guides/evaluation.md`` defines every figure.  :func:`evaluate` is `ragengine eval` as one call;
:func:`measure` gives the figures of single questions, :func:`report` their summary.
"""

from ragengine.evaluation.comparison import Difference, compare
from ragengine.evaluation.definitions import Metrics
from ragengine.evaluation.measured import Measured, Prediction, Task
from ragengine.evaluation.metrics import exact_match, f1, label_match, normalize_answer
from ragengine.evaluation.questions import Question, read_questions
from ragengine.evaluation.report import Evaluation, Source, report
from ragengine.evaluation.retrieval import has_answer, title_precision
from ragengine.evaluation.run import evaluate, measure

__all__ = [
    "Difference",
    "Evaluation",
    "Measured",
    "Metrics",
    "Prediction",
    "Question",
    "Source",
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
