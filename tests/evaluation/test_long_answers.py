"""ROUGE-L and BLEU on hand-made cases, and BLEU against sacrebleu's own of a corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from ragengine.evaluation.long_answers import bleu, bleu_statistics, rouge_scorer
from tests.support.texts import WORDS


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    rouge_l = rouge_scorer()
    # 3 of 4 words in order: precision 3/4, recall 3/3 of the better reference
    assert rouge_l("the cat sat down", ["a dog", "the cat down"]) == pytest.approx(2 * 0.75 / 1.75)
    assert rouge_l("nothing", ["else"]) == 0


def corpus_bleu(answers: list[str], references: list[list[str]], order: int = 4) -> float:
    return bleu(bleu_statistics(answers, references).sum(axis=0), order)


def test_bleu_is_of_the_corpus_with_any_number_of_references() -> None:
    same = "the capital of Iceland is Reykjavik"
    assert corpus_bleu([same, same], [[same], ["other words", same]]) == pytest.approx(1)
    # clipped unigrams 2 of 4 and 4 of 4, no brevity penalty: 6/8
    assert corpus_bleu(["a b x y", "c d e f"], [["a b c d"], ["c d e f"]], order=1) == pytest.approx(0.75)
    # brevity: 2 words for 4, all right: exp(1 - 4/2)
    assert corpus_bleu(["a b"], [["a b c d"]], order=1) == pytest.approx(0.36788, abs=1e-4)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5))
def test_bleu_is_that_of_sacrebleu(rows: list[tuple[str, str, str]]) -> None:
    answers, *columns = (list(column) for column in zip(*rows, strict=True))
    for order in (1, 4):
        expected = BLEU(max_ngram_order=order).corpus_score(answers, columns).score / 100
        assert corpus_bleu(answers, [list(row[1:]) for row in rows], order) == pytest.approx(expected)
