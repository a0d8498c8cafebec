"""Files written by hand or by a program: any content is read, or refused in one sentence."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import RagEngineError
from ragengine.evaluation import read_questions
from ragengine.indexing.import_index import read_ids
from ragengine.replay import read_records
from tests.robustness.children import message_fault

Read = Callable[[Path], Iterable[object]]

READERS: dict[str, Read] = {
    "passages.tsv": lambda path: Corpus.open(path).read(),
    "passages.jsonl": lambda path: Corpus.open(path).read(),
    "passages.txt": lambda path: Corpus.open(path).read(),
    "passages.md": lambda path: Corpus.open(path).read(),
    "questions.jsonl": read_questions,
    "records.jsonl": read_records,
    "ids.tsv": read_ids,
    "ids.json": read_ids,
}
TEXT = st.text(
    st.sampled_from('ab\t\n\r"\\\0\x1b\u2028\u202e\ufeff\x85é😀{}[]:,#`') | st.characters(), max_size=20
)
NAMES = st.sampled_from(
    ["id", "title", "text", "question", "answers", "format", "format_version", "files", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=5),
    max_leaves=12,
)
LINES = st.one_of(
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(JSON, st.booleans()).map(
        lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1]).encode("utf-8", "surrogatepass")
    ),
    st.lists(TEXT, min_size=1, max_size=4).map(
        lambda cells: "\t".join(cells).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=12),
    st.sampled_from(
        [b"id\ttext\ttitle", b'"', b"# title #", b"```", b"\xef\xbb\xbf", b"[", b"[" * 3000, b"9" * 5000]
    ),
)
FILES = st.tuples(
    st.lists(LINES, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r", b""]), st.booleans()
).map(lambda drawn: (b"id\ttext\ttitle\n" if drawn[2] else b"") + drawn[1].join(drawn[0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("read")


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=250, deadline=None)
@given(content=FILES | st.binary(max_size=200))
@example(b'""0')
@example(b"[" * 100_000)
@example(b'{"id": ' + b"9" * 5000 + b"}")
@example(b'{"question": "\\ud800", "answers": ["a"]}')
@example('{"question": "a\u2028b", "answers": ["a\x85"], "title": "", "text": "\u2028"}'.encode())
def test_any_file_is_read_or_refused_in_one_sentence(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.write_bytes(content)
    found, refusal = read_or_refused(READERS[name], path)
    if refusal is not None:
        assert message_fault(refusal) is None, repr(refusal)
        assert name in refusal
    for each in found:
        texts = (each.id, each.title, each.text) if isinstance(each, Passage) else (str(each),)
        "".join(texts).encode("utf-8")


def read_or_refused(read: Read, path: Path) -> tuple[list[object], str | None]:
    try:
        return list(read(path)), None
    except RagEngineError as error:
        return [], str(error)


def test_a_line_separator_inside_of_a_text_does_not_end_its_line(tmp_path: Path) -> None:
    """JSON allows U+2028 and U+0085 unescaped; only a line feed ends a line."""
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "a\u2028b", "answers": ["c\x85d"]}\n', "utf-8")
    (question,) = read_questions(path)
    assert (question.question, question.answers) == ("a\u2028b", ("c\x85d",))
