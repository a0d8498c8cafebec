"""Questions with known answers are read from JSONL, and what is wrong is named with its line."""

from pathlib import Path

import pytest

from ragengine.errors import PassagesError
from ragengine.evaluation import Question, read_questions


def test_questions_are_read_and_errors_name_the_line(tmp_path: Path) -> None:
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
    with pytest.raises(
        PassagesError, match=r"line 1 has the answer 'a\(b', which is not a regular expression"
    ):
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
