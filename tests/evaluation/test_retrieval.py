"""Which documents hold an answer, by the definitions of DPR, DrQA and Hugging Face's eval_rag."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from ragengine import Document
from ragengine.evaluation import Question, has_answer, title_precision
from ragengine.evaluation.metrics import regex_match
from ragengine.evaluation.retrieval import retrieval_values
from tests.support.texts import WORDS


# transformers 4, examples/research_projects/rag/eval_rag.py, restated
def hf_precision_at_k(hypo: list[str], reference: list[str], k: int) -> float:
    """`get_precision_at_k` for one line, after `strip_title`."""

    def strip_title(title: str) -> str:
        title = title[1:] if title.startswith('"') else title
        return title[:-1] if title.endswith('"') else title

    return len({strip_title(title) for title in hypo[:k]} & set(reference)) / k


@given(
    st.lists(st.sampled_from(["A", "B", '"A"', '"C D"', "C D", '"', ""]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["A", "B", "C D", ""]), max_size=3),
    st.integers(1, 6),
)
def test_title_precision_is_that_of_eval_rag(hypo: list[str], reference: list[str], k: int) -> None:
    assert title_precision(hypo, reference, k) == hf_precision_at_k(hypo, reference, k)


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
