"""Measures of answers and of retrieval, as SQuAD and DPR define them."""

import json
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragengine.engine import RagEngine
from ragengine.errors import PassagesError
from ragengine.results import Answer, Document
from ragengine.retrieval.passages import utf8_lines

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Question:
    """A question with the answers that count as right, and the passage that holds them if that is known."""

    question: str
    answers: tuple[str, ...]
    passage_id: str | None = None


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space (SQuAD's `normalize_answer`)."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(answer: str, references: Sequence[str]) -> bool:
    """Whether the normalised answer equals a normalised reference."""
    return normalize_answer(answer) in map(normalize_answer, references)


def f1(answer: str, references: Sequence[str]) -> float:
    """The best harmonic mean of word precision and recall over the references (SQuAD's `f1_score`)."""
    return max(
        (_f1(normalize_answer(answer).split(), normalize_answer(r).split()) for r in references), default=0.0
    )


def _f1(words: list[str], reference: list[str]) -> float:
    common = sum((Counter(words) & Counter(reference)).values())
    return 2 * common / (len(words) + len(reference)) if common else 0.0


def has_answer(document: Document, references: Sequence[str]) -> bool:
    """Whether a reference's words occur in the document's text, in order and uncased (DPR's `has_answer`)."""
    words = _WORD.findall(document.text.lower())
    targets = (_WORD.findall(reference.lower()) for reference in references)
    return any(
        words[start : start + len(target)] == target
        for target in targets
        for start in range(len(words) - len(target) + 1)
        if target
    )


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file of ``{"question": str, "answers": [str, ...], "passage_id": str?}``."""
    questions = []
    for number, line in enumerate(utf8_lines(path), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            question, answers = entry["question"], entry["answers"]
        except (ValueError, KeyError, TypeError, RecursionError):
            entry, question, answers = {}, None, None
        if (
            not isinstance(question, str)
            or not isinstance(answers, list)
            or not all(isinstance(a, str) for a in answers)
            or not _is_unicode(question, *answers)
        ):
            raise PassagesError(f'{path} line {number} is not {{"question": str, "answers": [str, ...]}}.')
        passage_id = entry.get("passage_id")
        questions.append(
            Question(question, tuple(answers), passage_id if isinstance(passage_id, str) else None)
        )
    if not questions:
        raise PassagesError(f"{path} holds no questions.")
    return questions


def _is_unicode(*texts: str) -> bool:
    """Whether no text has half a surrogate pair, which JSON can write and nothing can read."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def evaluate(
    engine: RagEngine,
    questions: Sequence[Question],
    *,
    batch_size: int = 8,
    progress: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> dict[str, float]:
    """Answer every question and measure: fractions of the questions, and ``n``, how many there were.

    ``recall@5`` counts questions with an answer's words in one of the first five documents;
    ``passage_recall@5``, where the file names the right passage, those with that passage among them.
    """
    sums: dict[str, float] = defaultdict(float)
    named = 0
    for question, answer in _answered(engine, questions, batch_size, options):
        top = answer.documents[:5]
        sums["exact_match"] += exact_match(answer.text, question.answers)
        sums["f1"] += f1(answer.text, question.answers)
        sums["recall@5"] += any(has_answer(document, question.answers) for document in top)
        if question.passage_id is not None:
            named += 1
            sums["passage_recall@5"] += any(document.id == question.passage_id for document in top)
        progress(1)
    result = {"n": float(len(questions))}
    result |= {name: sums[name] / len(questions) for name in ("exact_match", "f1", "recall@5")}
    return result | ({"passage_recall@5": sums["passage_recall@5"] / named} if named else {})


def _answered(
    engine: RagEngine, questions: Sequence[Question], batch_size: int, options: dict[str, Any]
) -> Iterator[tuple[Question, Answer]]:
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        yield from zip(batch, engine.generate([q.question for q in batch], **options), strict=True)
