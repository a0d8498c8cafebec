"""JSONL: ids and titles as they come, and other fields as metadata."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from tests.corpus.files import read


def read_records(
    folder: Path, *records: dict[str, Any], options: ReadingOptions | None = None
) -> list[Passage]:
    return read(folder / "a.jsonl", "\n".join(map(json.dumps, records)), options)


@pytest.mark.parametrize(
    ("record", "passage"),
    [
        ({"id": 7, "title": "t", "text": "x"}, Passage("7", "t", "x")),
        ({"id": -(10**30), "text": "x"}, Passage(str(-(10**30)), "", "x")),
        ({"title": None, "text": "x"}, Passage("0", "", "x")),
        ({"_id": "b", "title": "t", "text": "x", "metadata": {}}, Passage("b", "t", "x")),
        ({"_id": 3, "text": "x", "metadata": {"url": "u"}}, Passage("3", "", "x", metadata={"url": "u"})),
        ({"id": "a", "_id": "b", "text": "x"}, Passage("a", "", "x", metadata={"_id": "b"})),
        (
            {"text": "x", "n": 1.5, "b": True, "l": [1]},
            Passage("0", "", "x", metadata={"n": "1.5", "b": "true", "l": "[1]"}),
        ),
    ],
)
def test_records(tmp_path: Path, record: dict[str, Any], passage: Passage) -> None:
    assert read_records(tmp_path, record) == [passage]
    assert read(tmp_path / "a.jsonl.gz", gzip.compress(json.dumps(record).encode())) == [passage]


def test_fields_by_their_names(tmp_path: Path) -> None:
    options = ReadingOptions("doc", "head", "body")
    records: list[dict[str, Any]] = [{"doc": 1, "head": "h", "body": "b"}, {"doc": "2", "body": "c"}]
    assert read_records(tmp_path, *records, options=options) == [
        Passage("1", "h", "b"),
        Passage("2", "", "c"),
    ]
    with pytest.raises(PassagesError, match=r"line 2: there is no 'doc', only 'body'"):
        read_records(tmp_path, records[0], {"body": "c"}, options=options)
    with pytest.raises(PassagesError, match="no line has the field 'tytle'; correct --title-field"):
        read_records(tmp_path, *records, options=ReadingOptions("doc", "tytle", "body"))


def test_cr_alone_is_said(tmp_path: Path) -> None:
    with pytest.raises(PassagesError, match=r"carriage return \(CR\) alone, so it is one line"):
        read(tmp_path / "a.jsonl", '{"text": "a"}\r{"text": "b"}\r')


def test_long_texts_are_split_where_words_are_given(tmp_path: Path) -> None:
    record = {"id": "x", "text": "a b c", "owner": "o"}
    found = read_records(tmp_path, record, options=ReadingOptions(passage_words=2))
    assert [(p.id, p.text, p.metadata) for p in found] == [
        ("x#0", "a b", {"owner": "o"}),
        ("x#1", "c", {"owner": "o"}),
    ]
