"""Questions with known answers for the small random model."""

from ragengine.evaluation import Question
from ragengine_bench.parity.pairs import Pair


def known_questions(pair: Pair) -> list[Question]:
    """Two questions with the answers that the model gives, one that it has wrong, one without an answer."""
    texts = pair.questions(0, 4)
    answers = [pair.engine.generate(text, n_docs=5) for text in texts]
    return [
        Question(texts[0], (answers[0].text, "other"), passage_id=answers[0].documents[1].id, type="t"),
        Question(texts[1], (answers[1].text,), type="t", kind="k"),
        Question(texts[2], ("no such answer",), passage_id="none", type="u"),
        Question(texts[3], ()),
    ]
