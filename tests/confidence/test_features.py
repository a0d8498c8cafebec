"""The features of an answer against the model itself: what is derived from posteriors is what it computes."""

import dataclasses
import math

import numpy as np
import pytest

from ragengine import Answer, Document
from ragengine.confidence.features import FEATURES, LOWEST, document_log_probs, features
from ragengine.confidence.rarity import Rarity
from ragengine_bench.parity.pairs import Pair

KINDS = ("token", "sequence")


def answered(pair: Pair, marginalize: str, **options: object) -> Answer:
    settings = {"n_docs": 4, "num_beams": 2, "num_return_sequences": 2, "max_length": 8, **options}
    return pair.engine.generate("where is Quito?", marginalize=marginalize, **settings)


def named(answer: Answer, rarity: Rarity | None = None) -> dict[str, float]:
    return dict(zip(FEATURES, features(answer, rarity or Rarity()).tolist(), strict=True))


@pytest.mark.parametrize("marginalize", KINDS)
def test_probabilities_under_each_document_are_the_models(pair: Pair, marginalize: str) -> None:
    answer = answered(pair, marginalize)
    priors = np.array([document.prior for document in answer.documents])
    found = document_log_probs(answer.hypotheses[0], priors, marginalize)
    for number, document in enumerate(answer.documents):
        alone = pair.engine.score(
            answer.question, answer.hypotheses[0].token_ids, documents=[document], marginalize="token"
        )
        expected = max(alone, LOWEST) if marginalize == "sequence" else alone
        assert found[:, number].sum() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("marginalize", KINDS)
def test_the_drop_is_that_of_the_model_without_the_main_document(pair: Pair, marginalize: str) -> None:
    answer = answered(pair, marginalize)
    main = int(answer.document_shares.argmax())
    rest = [document for number, document in enumerate(answer.documents) if number != main]
    without = pair.engine.score(
        answer.question,
        answer.hypotheses[0].token_ids,
        documents=rest,
        marginalize=marginalize,
        exclude_bos_score=False,
    )
    values = named(answer)
    expected = max(answer.log_prob, LOWEST) - max(without, LOWEST)
    assert values["drop_without_main"] == pytest.approx(expected, abs=2e-3)


def test_numbers_of_the_search_are_taken_as_they_are(pair: Pair) -> None:
    answer = answered(pair, "token")
    values, scores = named(answer), [document.score or 0.0 for document in answer.documents]
    assert values["log_prob"] == pytest.approx(max(answer.log_prob, LOWEST))
    first, second = (max(found.log_prob, LOWEST) for found in answer.hypotheses)
    assert values["margin"] == pytest.approx(first - second)
    assert values["best_score"] == max(scores)
    assert values["score_gap"] == pytest.approx(max(scores) - (sum(scores) - max(scores)) / 3)
    shares = answer.document_shares.astype(float)
    assert values["posterior_entropy"] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-5)
    assert values["tokens"] == pytest.approx(math.log(len(answer.hypotheses[0].token_ids)))


def test_words_are_weighed_by_their_rarity(pair: Pair) -> None:
    answer = dataclasses.replace(
        answered(pair, "token"),
        question="Which mayor has Oslo?",
        texts=("Anna Berg", "x"),
        documents=tuple(
            dataclasses.replace(document, title=title, text=text)
            for document, (title, text) in zip(
                answered(pair, "token").documents,
                [("Oslo", "Oslo has parks."), ("Bergen", "Anna Berg lives."), ("", "mayor"), ("", "")],
                strict=True,
            )
        ),
    )
    main = int(answer.document_shares.argmax())
    rarity = Rarity({"which": 0.1, "has": 0.2})
    values = named(answer, rarity)
    texts = [f"{document.title} {document.text}".lower() for document in answer.documents]
    weights = {"which": 0.1, "has": 0.2, "mayor": 1.0, "oslo": 1.0}
    lacking = [weight for word, weight in weights.items() if word not in texts[main]]
    assert values["missing_in_main"] == pytest.approx(sum(lacking) / 2.3)
    assert values["rarest_missing_in_main"] == max(lacking)
    assert values["missing"] == pytest.approx(0.1 / 2.3)
    assert values["rarest_missing"] == 0.1
    assert values["span_share"] == 0.25
    assert values["span_posterior"] == pytest.approx(float(answer.document_shares[1]))
    assert values["repeats_question"] == 0.0


@pytest.mark.parametrize("marginalize", KINDS)
def test_every_feature_is_finite_whatever_the_scores(pair: Pair, marginalize: str) -> None:
    scores = [[5.0], [0.0, -math.inf], [3e38, -3e38, 0.0], [0.0, 0.0]]
    for given in scores:
        own = [Document("a", "b", score=score) for score in given]
        answer = pair.engine.generate(
            "where?", documents=own, num_beams=1, max_length=5, marginalize=marginalize
        )
        assert np.isfinite(features(answer, Rarity())).all(), given


def test_rarity_is_scaled_inverse_frequency() -> None:
    questions = ["What is A?", "What is B?", "Who is C?", "What was D?"]
    from collections import Counter

    rarity = Rarity.of(questions, Counter({"is": 99, "who": 1, "river": 50}), 99)
    assert rarity.weight("what") == pytest.approx(math.log(5 / 4) / math.log(5), abs=1e-4)
    assert rarity.weight("is") == 0.0  # in every passage
    assert rarity.weight("who") == pytest.approx(math.log(100 / 2) / math.log(100), abs=1e-4)
    assert rarity.weight("river") == pytest.approx(math.log(100 / 51) / math.log(100), abs=1e-4)
    assert rarity.weight("a") == rarity.weight("never seen") == 1.0  # in one question
