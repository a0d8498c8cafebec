"""Measures on hand-made cases, worked out from SQuAD's and DPR's definitions."""

from pathlib import Path

import pytest

from ragengine import Document
from ragengine.errors import PassagesError
from ragengine.evaluation import evaluate, exact_match, f1, has_answer, normalize_answer, read_questions
from tests.parity.pairs import Pair


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


def test_has_answer_matches_whole_words_in_order() -> None:
    document = Document(title="Iceland", text="The capital of Iceland is Reykjavík, population 1,234.")
    assert has_answer(document, ["reykjavík"])
    assert has_answer(document, ["1,234"])
    assert not has_answer(document, ["cap"])
    assert not has_answer(document, ["Iceland of capital"])
    assert not has_answer(document, [""])


def test_questions_are_read_and_faults_named(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(
        '{"question": "q", "answers": ["a"]}\n\n{"question": "r", "answers": [], "passage_id": "7"}\n'
    )
    first, second = read_questions(path)
    assert (first.question, first.answers, first.passage_id) == ("q", ("a",), None)
    assert second.passage_id == "7"
    for line in ("nonsense", "[1]", '{"question": 1, "answers": []}', '{"question": "q", "answers": "a"}'):
        path.write_text('{"question": "q", "answers": ["a"]}\n' + line + "\n")
        with pytest.raises(PassagesError, match=r"questions\.jsonl line 2 is not"):
            read_questions(path)
    with pytest.raises(PassagesError, match="cannot be read"):
        read_questions(tmp_path / "nowhere")


def test_evaluate_counts_what_the_engine_answers(pair: Pair, tmp_path: Path) -> None:
    asked = pair.questions(0, 3)
    answers = [pair.engine.generate(question) for question in asked]
    lines = [
        f'{{"question": {_json(q)}, "answers": [{_json(a.text)}]}}'
        for q, a in zip(asked, answers, strict=True)
    ]
    lines[2] = f'{{"question": {_json(asked[2])}, "answers": ["no such answer"], "passage_id": "none"}}'
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    result = evaluate(pair.engine, read_questions(tmp_path / "q.jsonl"), batch_size=2)
    readable = sum(bool(normalize_answer(answer.text)) for answer in answers[:2])
    assert result["n"] == 3
    assert result["exact_match"] == pytest.approx(2 / 3)
    assert result["f1"] == pytest.approx(readable / 3)
    assert result["passage_recall@5"] == 0


def _json(text: str) -> str:
    import json

    return json.dumps(text)
