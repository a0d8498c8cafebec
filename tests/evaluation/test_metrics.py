"""Measures on hand-made cases, and against the definitions of SQuAD, DPR and Hugging Face's eval_rag."""

import re
import string
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from ragengine import Document
from ragengine.errors import PassagesError
from ragengine.evaluation import (
    Question,
    exact_match,
    f1,
    has_answer,
    label_match,
    normalize_answer,
    read_questions,
    title_precision,
)
from ragengine.evaluation.long_answers import bleu, bleu_statistics, rouge_scorer
from ragengine.evaluation.metrics import regex_match
from ragengine.evaluation.retrieval import retrieval_values

WORDS = st.lists(
    st.sampled_from(["the", "a", "Paris", "paris!", "new", "York", "1,234", "U.S.A.", "Reykjavík", "?", "_"]),
    max_size=6,
).map(" ".join)
TEXT = WORDS | st.text(st.characters(max_codepoint=0x24F), max_size=12)
REFERENCES = st.lists(TEXT, min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" The  Cat! ", "cat"),
        ("an a the", ""),
        ("U.S.A.", "usa"),
        ("theory", "theory"),
        ("Côte d'Ivoire", "côte divoire"),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


def test_exact_match_takes_any_reference() -> None:
    assert exact_match(" the Euro.", ["dollar", "euro"])
    assert not exact_match("euros", ["euro"])
    assert not exact_match("", ["euro"])


def test_f1_is_the_best_word_overlap() -> None:
    assert f1("new york city", ["york"]) == pytest.approx(0.5)  # precision 1/3, recall 1
    assert f1("new york city", ["york", "new york"]) == pytest.approx(0.8)
    assert f1("paris", ["london"]) == 0.0
    assert f1("", []) == 0.0


def test_labels_are_compared_as_they_are() -> None:
    assert label_match(" SUPPORTS", ["SUPPORTS"])
    assert not label_match("supports", ["SUPPORTS"])


# transformers 4, examples/research_projects/rag/utils_rag.py and eval_rag.py, restated
def hf_normalize(text: str) -> str:
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def hf_exact_match_score(prediction: str, truth: str) -> bool:
    return hf_normalize(prediction) == hf_normalize(truth)


def hf_f1_score(prediction: str, truth: str) -> float:
    tokens, truths = hf_normalize(prediction).split(), hf_normalize(truth).split()
    same = sum((Counter(tokens) & Counter(truths)).values())
    if same == 0:
        return 0
    precision, recall = same / len(tokens), same / len(truths)
    return (2 * precision * recall) / (precision + recall)


def hf_precision_at_k(hypo: list[str], reference: list[str], k: int) -> float:
    """`get_precision_at_k` for one line, after `strip_title`."""

    def strip_title(title: str) -> str:
        title = title[1:] if title.startswith('"') else title
        return title[:-1] if title.endswith('"') else title

    return len({strip_title(title) for title in hypo[:k]} & set(reference)) / k


@given(TEXT, REFERENCES)
def test_answers_are_measured_as_eval_rag_does(answer: str, references: list[str]) -> None:
    assert exact_match(answer, references) == max(hf_exact_match_score(answer, r) for r in references)
    assert f1(answer, references) == pytest.approx(max(hf_f1_score(answer, r) for r in references))


@given(
    st.lists(st.sampled_from(["A", "B", '"A"', '"C D"', "C D", '"', ""]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["A", "B", "C D", ""]), max_size=3),
    st.integers(1, 6),
)
def test_title_precision_is_that_of_eval_rag(hypo: list[str], reference: list[str], k: int) -> None:
    assert title_precision(hypo, reference, k) == hf_precision_at_k(hypo, reference, k)


@given(TEXT, REFERENCES)
def test_laws_of_the_measures(answer: str, references: list[str]) -> None:
    value = f1(answer, references)
    assert 0 <= value <= 1 + 1e-12
    assert f1(answer, references[:1]) == pytest.approx(f1(references[0], [answer]))
    if exact_match(answer, references) and normalize_answer(answer):
        assert value == pytest.approx(1)
    assert f1(answer, references[::-1]) == value
    assert exact_match(answer, references[::-1]) == exact_match(answer, references)
    words = answer.split()
    assert f1(" ".join(reversed(words)), references) == pytest.approx(f1(" ".join(words), references))


# DPR, dpr/data/qa_validation.py `has_answer` and dpr/utils/tokenizers.py `SimpleTokenizer`, restated
DPR_TOKEN = regex.compile(r"([\p{L}\p{N}\p{M}]+)|([^\p{Z}\p{C}])", regex.I | regex.U | regex.M)


def dpr_words(text: str) -> list[str]:
    return [match.group().lower() for match in DPR_TOKEN.finditer(unicodedata.normalize("NFD", text))]


def dpr_has_answer(answers: list[str], text: str) -> bool:
    tokens = dpr_words(text)
    for answer in map(dpr_words, answers):
        for start in range(len(tokens) - len(answer) + 1):
            if answer == tokens[start : start + len(answer)]:
                return True
    return False


# few characters, so that answers occur: soft hyphen, zero-width space, accents alone and composed, sigmas
SIGNS = st.text(st.sampled_from("aé1_.-½ΑΣσς \n\u00a0\u00ad\u200b\u0301\u0308"), max_size=8)


@given(
    st.lists((WORDS | SIGNS).filter(dpr_words), min_size=1, max_size=3), st.lists(WORDS | SIGNS, max_size=4)
)
def test_documents_hold_answers_as_dpr_has_it(references: list[str], parts: list[str]) -> None:
    text = " ".join(parts)
    assert has_answer(Document(title="", text=text), references) == dpr_has_answer(references, text)


def test_what_is_not_seen_is_no_part_of_an_answer() -> None:
    document = Document(title="", text="\u200bNew\u00adYork\u200b, and re\u0301sume\u0301s of Œdipus")
    assert has_answer(document, ["new york"])
    assert has_answer(document, ["New\u200bYork,"])
    assert has_answer(document, ["résumés"])
    assert not has_answer(document, ["NewYork"])
    assert not has_answer(document, ["resumes"])


def test_has_answer_matches_whole_words_in_order() -> None:
    document = Document(title="Iceland", text="The capital of Iceland is Reykjavík, population 1,234.")
    assert has_answer(document, ["reykjavík"])
    assert has_answer(document, [unicodedata.normalize("NFD", "reykjavík")])
    assert has_answer(document, ["1,234"])
    assert not has_answer(document, ["reykjavik"])
    assert not has_answer(document, ["cap"])
    assert not has_answer(document, ["Iceland of capital"])
    assert not has_answer(document, ["", "\u200b"])  # DPR finds these everywhere


def test_retrieval_by_answer_passage_and_title() -> None:
    documents = [
        Document(title='"One"', text="nothing", id="1"),
        Document(title="Two", text="in Quito it rains", id="2"),
        Document(title="Two", text="Quito is high", id="3"),
    ]
    question = Question("?", ("Quito",), passage_id="2", passage_ids=("2", "9"), titles=("Two", "Nine"))
    assert retrieval_values(question, documents, (1, 3, 5), n_docs=3) == {
        "recall@1": 0.0,
        "recall@3": 1.0,
        "recall@5": 1.0,
        "precision@1": 0.0,
        "precision@3": pytest.approx(2 / 3),
        "passage_recall@1": 0.0,
        "passage_recall@3": 0.5,
        "passage_recall@5": 0.5,
        "passage_precision@1": 0.0,
        "passage_precision@3": pytest.approx(1 / 3),
        "title_precision@1": 0.0,
        "title_precision@3": pytest.approx(1 / 3),
    }
    assert set(retrieval_values(Question("?", ("Quito",)), documents, (1,), 3)) == {"recall@1", "precision@1"}


def test_regular_expressions_match_as_drqa_and_dpr_have_it() -> None:
    question = Question("?", (r"(Mt\.?|Mount) Ever?est", "nothing"), regex=True)
    assert regex_match(" mount everest", question.answers)
    assert not regex_match("the Mount Everest", question.answers)  # `match`: from the start
    documents = [Document(title="", text="It is\nMt. Everest."), Document(title="", text="K2")]
    assert retrieval_values(question, documents, (1, 2), 2) == {
        "recall@1": 1, "recall@2": 1, "precision@1": 1, "precision@2": 0.5,
    }  # fmt: skip
    composed, single = "Reykjav\u00edk", "Reykjavi\u0301k"
    for pattern, text in ((composed, single), (single, composed), ("Reykjavi.k", composed)):
        assert regex_match(text, [pattern])
        asked = Question("?", (pattern,), regex=True)
        assert retrieval_values(asked, [Document(title="", text=text)], (1,), 1)["recall@1"] == 1


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


def test_questions_are_read_and_faults_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"question": "q", "answers": ["a"]}\n\n'
        '{"question": "r", "answers": [], "passage_id": "7", "passage_ids": ["7", "8"], "titles": ["T"], '
        '"type": "t"}\n'
    )
    first, second = read_questions(path)
    assert first == Question("q", ("a",))
    assert second == Question("r", (), "7", ("7", "8"), ("T",), "t", None)
    assert second.gold_ids == {"7", "8"}
    assert (first.answerable, second.answerable) == (True, False)
    path.write_text('{"question": "q", "answers": ["a(b"], "regex": true}')
    with pytest.raises(PassagesError, match=r"line 1 has the answer 'a\(b', which is no regular expression"):
        read_questions(path)
    for line in ("nonsense", "[1]", '{"question": 1, "answers": []}', '{"question": "q", "answers": "a"}'):
        path.write_text('{"question": "q", "answers": ["a"]}\n' + line + "\n")
        with pytest.raises(PassagesError, match=r"questions\.jsonl line 2 is not"):
            read_questions(path)
    for field in ('"passage_id": 7', '"titles": ["T", 1]', '"kind": ["a"]', '"regex": "yes"'):
        path.write_text('{"question": "q", "answers": ["a"], ' + field + "}\n")
        with pytest.raises(PassagesError, match=rf"line 1: {field.partition(':')[0]} is "):
            read_questions(path)
    with pytest.raises(PassagesError, match="cannot be read"):
        read_questions(tmp_path / "nowhere")
