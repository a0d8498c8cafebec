"""The flags that an answer raises by itself."""

import dataclasses

import numpy as np
import pytest

from ragengine import Answer, Document, GenerationOptions, Hypothesis
from ragengine.confidence.corpus import Corpus
from ragengine.pipeline.flags import doubts

DOCUMENTS = (
    Document("Iceland", "Its capital is Reykjavik.", score=3.0),
    Document("Oslo", "A town.", score=1.0),
)


def answer(text: str = "Reykjavik", log_prob: float = -0.1, share: float = 0.75) -> Answer:
    posteriors = np.array([[share, 1 - share]], np.float32)
    found = Hypothesis(np.array([5]), log_prob, log_prob, np.array([log_prob], np.float32), posteriors)
    return Answer(
        question="What is the capital?",
        texts=(text,),
        documents=DOCUMENTS,
        hypotheses=(found,),
        tokens=(text,),
        flags=(),
        timings_ms={},
        options=GenerationOptions(n_docs=2),
    )


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (answer(), ()),
        (answer("the capital of Iceland"), ("not_in_documents",)),  # "of" stands nowhere
        (answer("the capital Iceland"), ()),  # of the question, and of a title
        (answer("Bergen"), ("not_in_documents",)),
        (answer(" "), ("empty_answer",)),
        (answer(""), ("empty_answer",)),
        (answer("?"), ()),
        (answer(log_prob=np.log(0.49)), ("low_probability",)),
        (answer(log_prob=np.log(0.51)), ()),
        (answer(share=0.5), ()),
    ],
)
def test_each_flag_has_its_reason(given: Answer, flags: tuple[str, ...]) -> None:
    assert doubts(given, None, None) == flags
    assert len(dataclasses.replace(given, flags=flags).notes) == len(flags)


def test_a_posterior_over_three_documents_is_spread() -> None:
    one = answer()
    posteriors = np.array([[0.4, 0.3, 0.3]], np.float32)
    spread = dataclasses.replace(
        one,
        documents=(*DOCUMENTS, Document("c", "d", score=0.5)),
        hypotheses=(dataclasses.replace(one.hypotheses[0], token_posteriors=posteriors),),
    )
    assert doubts(spread, None, None) == ("posterior_spread",)


def test_far_from_the_corpus_is_by_the_best_score_and_the_vector() -> None:
    sample = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    corpus, vector = Corpus("x", sample, 2.0), np.array([1, 1], np.float32)  # mean 0, deviation 1
    assert doubts(answer(), corpus, vector) == ()  # the best score is 3
    assert doubts(answer(), dataclasses.replace(corpus, nearness=3.5), vector) == ("far_from_corpus",)
    assert doubts(answer(), dataclasses.replace(corpus, nearness=3.5), None) == ()
