"""Each format of another project: what is read of it, what is dropped and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ragengine.errors import PassagesError
from ragengine_train.formats import Context, Dropped, Record, read_records
from ragengine_train.formats.dpr import json_array


def records(path: Path, **options: Any) -> list[Record | Dropped]:
    return list(read_records(path, **options)[1])


def lines(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text + "\n" for text in texts), "utf-8")
    return path


def json_file(path: Path, content: Any, **options: Any) -> Path:
    path.write_text(json.dumps(content, **options), "utf-8")
    return path


def test_source_and_target(tmp_path: Path) -> None:
    lines(tmp_path / "train.source", "who?", "where?", " ")
    lines(tmp_path / "train.target", " Ann ", "", "x")
    lines(tmp_path / "val.source", "when?")
    lines(tmp_path / "val.target", "now")
    name, found = read_records(tmp_path)
    place = f"{tmp_path / 'train.source'}, line"
    assert name == "source-target"
    assert list(found) == [
        Record(f"{place} 1", "who?", ("Ann",)),
        Dropped(f"{place} 2", "no answer"),
        Dropped(f"{place} 3", "no question"),
    ]
    assert records(tmp_path, split="dev") == records(tmp_path / "val.source")
    with pytest.raises(PassagesError, match=r"none of test\.source, qrels/test\.tsv"):
        read_records(tmp_path, split="test")
    lines(tmp_path / "val.target", "now", "then")
    with pytest.raises(PassagesError, match=r"val\.source has 1 lines, and another"):
        records(tmp_path, split="val")


def test_gold_files_of_eval_rag(tmp_path: Path) -> None:
    """`qa` is read as pandas and ast.literal_eval read it; `ans` and titles go with a file of questions."""
    qa = lines(tmp_path / "gold.tsv", "who?\t['Ann', \"Bo's\"]", '"a ""q"""\t["x"]', "none?\t[]")
    first, second, third = records(qa)
    assert first == Record(f"{qa}, line 1", "who?", ("Ann", "Bo's"))
    assert isinstance(second, Record)
    assert (second.question, second.answers) == ('a "q"', ("x",))
    assert third == Dropped(f"{qa}, line 3", "no answer")
    for wrong in ("who?", "who?\t__import__('os')", "who?\t" + "[" * 5000):
        with pytest.raises(PassagesError, match=r"gold\.tsv, line 1"):
            records(lines(qa, wrong))
    asked = lines(tmp_path / "test.questions", "who?", "where?")
    ans = lines(tmp_path / "ans", "Ann", "here")
    titles = lines(tmp_path / "titles", "Ann\tAnn Lee", "")
    both = records(asked, answers=ans, titles=titles)
    assert both[0] == Record(f"{asked}, line 1", "who?", ("Ann",), titles=("Ann", "Ann Lee"))
    assert both[1] == Record(f"{asked}, line 2", "where?", ("here",))
    only = records(asked, titles=titles)
    assert only[0] == Record(f"{asked}, line 1", "who?", None, titles=("Ann", "Ann Lee"))
    assert only[1] == Dropped(f"{asked}, line 2", "no title")
    with pytest.raises(PassagesError, match="format lines"):
        read_records(asked, "qa", answers=ans)


def test_dpr(tmp_path: Path) -> None:
    right = [{"title": "T", "text": "x", "passage_id": 7}, {"title": "U", "text": "y", "psg_id": "8"}]
    wrong = [{"title": "V", "text": "z", "score": 1.0}]
    entry = {"dataset": "nq", "question": "q ", "answers": ["a", "a", ""], "negative_ctxs": wrong}
    path = json_file(
        tmp_path / "biencoder-nq-train.json",
        [
            {**entry, "positive_ctxs": right, "hard_negative_ctxs": wrong},
            {**entry, "positive_ctxs": [], "hard_negative_ctxs": []},
            {**entry, "answers": [], "positive_ctxs": right},
        ],
        indent=4,
    )
    place = f"{path}, entry"
    contexts = (Context("T", "x", "7"), Context("U", "y", "8"))
    assert records(path) == [
        Record(f"{place} 0", "q", ("a",), contexts, (Context("V", "z"),), titles=("T", "U")),
        Record(f"{place} 1", "q", ("a",)),
        Dropped(f"{place} 2", "no answer"),
    ]
    found = [{"id": "wiki:1", "title": "T", "text": "x", "has_answer": True}]
    found += [{"id": "wiki:2", "title": "V", "text": "z", "has_answer": False}]
    path = json_file(tmp_path / "found.json", [{"question": "q", "answers": ["a"], "ctxs": found}])
    (record,) = records(path)
    assert isinstance(record, Record)
    assert record.positives == (Context("T", "x", "wiki:1"),)
    assert record.negatives == (Context("V", "z", "wiki:2"),)


def test_a_large_array_is_read_object_by_object(tmp_path: Path) -> None:
    """Objects that end anywhere in a chunk, escapes, braces in texts, and one that is longer than a chunk."""
    content = [{"n": number, "text": 'a "}{][\\ é' * (number % 50)} for number in range(3000)]
    content.insert(1500, {"n": -1, "text": "x" * 3_000_000})
    path = json_file(tmp_path / "large.json", content, ensure_ascii=False)
    assert list(json_array(path)) == content
    assert list(json_array(lines(tmp_path / "empty.json", "[ ]"))) == []


@pytest.mark.parametrize(
    "text", ["", "[", '[{"a": 1}', '[{"a": 1} {"a": 2}]', "[1]", '[{"a": 1},]', '{"a": 1}', '[{"a" 1}]']
)
def test_what_is_no_array_of_objects_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PassagesError, match="cannot be read as a JSON array of objects"):
        list(json_array(lines(tmp_path / "x.json", text)))


@pytest.mark.parametrize("indent", [None, 1])
def test_squad(tmp_path: Path, indent: int | None) -> None:
    asked = [
        {"id": "1", "question": "who?", "answers": [{"text": "Ann", "answer_start": 0}] * 2},
        {"id": "2", "question": "why?", "answers": [], "is_impossible": True},
        {"id": "3", "question": "how?", "answers": []},
    ]
    article = {"title": "Ann_Lee", "paragraphs": [{"context": "Ann is.", "qas": asked}]}
    path = json_file(tmp_path / "train.json", {"version": "v2.0", "data": [article]}, indent=indent)
    where = f"{path}, 'Ann_Lee', paragraph 0,"
    assert records(path) == [
        Record(f"{where} 1", "who?", ("Ann",), (Context("Ann_Lee", "Ann is."),), titles=("Ann_Lee",)),
        Record(f"{where} 2", "why?", ()),
        Dropped(f"{where} 3", "no answer"),
    ]


def test_nq_open_and_kilt(tmp_path: Path) -> None:
    path = lines(tmp_path / "NQ-open.jsonl", '{"question": "who?", "answer": ["Ann", "A. Lee"]}')
    assert records(path) == [Record(f"{path}, line 1", "who?", ("Ann", "A. Lee"))]
    page = {"wikipedia_id": "1", "title": "Ann Lee", "start_paragraph_id": 2}
    outputs: list[dict[str, Any]] = [{"answer": "Ann"}, {"provenance": [page]}, {"answer": "Ann"}]
    path = lines(
        tmp_path / "nq-dev-kilt.jsonl",
        json.dumps({"id": "a", "input": "who?", "output": outputs}),
        json.dumps({"id": "b", "input": "hidden?"}),
    )
    assert records(path) == [
        Record(f"{path}, line 1", "who?", ("Ann",), titles=("Ann Lee",)),
        Dropped(f"{path}, line 2", "no answer"),
    ]


def test_beir(tmp_path: Path) -> None:
    lines(
        tmp_path / "queries.jsonl", '{"_id": "q1", "text": "who?"}', '{"_id": "q2", "text": "never judged?"}'
    )
    qrels = lines(
        tmp_path / "qrels" / "test.tsv",
        "query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t2", "q1\td3\t0", "q9\td1\t1",
    )  # fmt: skip
    assert records(tmp_path, split="test") == [
        Dropped(f"{qrels}, line 4", "judged as not relevant"),
        Dropped(f"{qrels}, line 5", "no such query in queries.jsonl"),
        Record(f"{qrels}, query q1", "who?", None, passage_ids=("d2", "d1")),
    ]
    with pytest.raises(PassagesError, match="whole number"):
        records(lines(qrels, "q1\td1\tmuch"))


def test_what_is_of_no_format_is_said(tmp_path: Path) -> None:
    ours = lines(tmp_path / "ours.jsonl", '{"question": "q", "answers": ["a"]}')
    with pytest.raises(PassagesError, match="our own format already"):
        read_records(ours)
    with pytest.raises(PassagesError, match="no known format; name it: source-target, dpr"):
        read_records(lines(tmp_path / "x.txt", "text"))
    with pytest.raises(PassagesError, match="where a str was expected; is it another --format"):
        records(ours, name="kilt")
