"""A file that somebody else made is a plain file inside of what was named, or it is refused at once."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.corpus.corpus import Corpus
from ragengine.errors import PassagesError, RagEngineError
from ragengine.evaluation import read_questions
from ragengine.indexing.build import build_index
from ragengine.indexing.import_index import import_index, read_ids
from ragengine.indexing.inputs import read_queries
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.replay import read_records
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest
from ragengine.storage.foreign_files import LONGEST_LINE
from tests.robustness.children import message_fault
from tests.support.bundles import E, random_vectors, write_bundle
from tests.support.paths import GOLDEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")


def corpus_texts(path: Path) -> object:
    return list(Corpus.open(path).read())


def dataset(path: Path) -> object:
    """``path`` is the Arrow file of a dataset."""
    state = {"_data_files": [{"filename": path.name}]}
    (path.parent / "state.json").write_text(json.dumps(state))
    return list(Corpus.open(path.parent).read())


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "TSV": ("passages.tsv", corpus_texts),
    "CSV": ("passages.csv", corpus_texts),
    "gzip": ("passages.csv.gz", corpus_texts),
    "Parquet": ("passages.parquet", corpus_texts),
    "HTML": ("notes.html", corpus_texts),
    "PDF": ("notes.pdf", corpus_texts),
    "DOCX": ("notes.docx", corpus_texts),
    "a table in a folder": ("passages.csv", lambda path: corpus_texts(path.parent)),
    "JSONL": ("passages.jsonl", corpus_texts),
    "text": ("notes.txt", corpus_texts),
    "Markdown": ("notes.md", corpus_texts),
    "text in a folder": ("notes.txt", lambda path: corpus_texts(path.parent)),
    "state.json": ("state.json", lambda path: corpus_texts(path.parent)),
    "Arrow file": ("data.arrow", dataset),
    "questions": ("questions.jsonl", read_questions),
    "records": ("records.jsonl", read_records),
    "ids, a text": ("ids.txt", lambda path: list(read_ids(path))),
    "ids, JSON": ("ids.json", lambda path: list(read_ids(path))),
    "queries": ("queries.npy", lambda path: read_queries(path, E)),
    "FAISS file": ("some.faiss", lambda path: read_faiss(path, mapped=False)),
    "manifest": ("manifest.json", lambda path: IndexManifest.read(path.parent)),
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """A reader that waits for a pipe ends its test."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    yield
    signal.alarm(0)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(RagEngineError) as caught:
        act()
    assert message_fault(str(caught.value)) is None, str(caught.value)
    return str(caught.value)


def place(kind: str, path: Path) -> None:
    """Make what is no plain file at ``path``."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_at_once(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    folder = tmp_path / "folder"
    folder.mkdir()
    place(kind, folder / name)
    if kind == "folder" and read is corpus_texts:
        return  # a folder of that name, which is empty
    refused(lambda: read(folder / name))


@pytest.mark.parametrize("reader", READERS)
def test_unreadable_and_absent_files_are_one_sentence(reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(lambda: read(folder / name))
    (folder / name).symlink_to(name)  # to itself
    refused(lambda: read(folder / name))


LINKED = {
    "notes.md": lambda path: corpus_texts(path.parent),
    "notes.html": lambda path: corpus_texts(path.parent),
    "notes.pdf": lambda path: corpus_texts(path.parent),
    "notes.docx": lambda path: corpus_texts(path.parent),
    "passages.csv": lambda path: corpus_texts(path.parent),
    "passages.jsonl.gz": lambda path: corpus_texts(path.parent),
    "passages.parquet": lambda path: corpus_texts(path.parent),
    "sub/notes.txt": lambda path: corpus_texts(path.parents[1]),
    "data.arrow": dataset,
    "state.json": lambda path: corpus_texts(path.parent),
}


@pytest.mark.parametrize("name", LINKED)
def test_link_in_a_folder_leads_to_nothing_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("secret")
    link = tmp_path / "docs" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(tmp_path / "secret.key", link.parent))
    assert "it is a link that leads out of" in refused(lambda: LINKED[name](link))


def test_link_that_is_named_and_link_inside_a_folder_are_followed(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "one.txt").write_text("some words")
    (docs / "two.txt").symlink_to("one.txt")
    (tmp_path / "link").symlink_to(docs)
    (tmp_path / "link.txt").symlink_to(docs / "one.txt")
    assert [p.id for p in Corpus.open(tmp_path / "link").read()] == ["one.txt#0", "two.txt#0"]
    assert [p.text for p in Corpus.open(tmp_path / "link.txt").read()] == ["some words"]


def test_file_that_is_replaced_by_a_link_after_the_look_is_not_read(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "one.txt").write_text("some words")
    (tmp_path / "secret.key").write_text("secret")
    corpus = Corpus.open(docs)
    (docs / "one.txt").unlink()
    (docs / "one.txt").symlink_to("../secret.key")
    assert "leads out of" in refused(lambda: list(corpus.read()))


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.csv", "a.jsonl", "questions.jsonl", "state.json"])
def test_sparse_file_is_not_read_whole(name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(100 << 30)
    read: Callable[[Path], object] = corpus_texts
    if name == "questions.jsonl":
        read = read_questions
    path = tmp_path if name == "state.json" else tmp_path / name
    said = refused(lambda: read(path))
    assert str(LONGEST_LINE) in said or "more than the" in said


def test_quote_that_never_closes_does_not_take_the_memory(tmp_path: Path) -> None:
    line = b"x" * (1 << 20) + b"\n"
    with (tmp_path / "a.tsv").open("wb") as file:
        file.write(b'id\ttext\ttitle\n1\t"')
        file.writelines([line] * (LONGEST_LINE // len(line) + 1))
    assert "field larger than field limit" in refused(lambda: corpus_texts(tmp_path / "a.tsv"))


NOT_UTF8 = os.fsdecode(b"na\xefve")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "passages.jsonl").write_text('{"title": "t", "text": "x"}\n' * 20)
    np.save(tmp_path / "vectors.npy", random_vectors(20))
    return {
        "passages": tmp_path / "passages.jsonl",
        "index": tmp_path / "index",
        "bundle": write_bundle(tmp_path / "bundle", E),
        "embeddings": tmp_path / "vectors.npy",
    }


@pytest.mark.parametrize("which", ["passages", "index", "embeddings", "queries", "bundle"])
@pytest.mark.parametrize("name", [NOT_UTF8, "x" * 5000, "a\0b", "\ud800"])
def test_impossible_path_is_refused_before_the_work(
    which: str, name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    suffix = {"passages": ".jsonl"}.get(which, ".npy" if which != "bundle" else "")
    path = tmp_path / f"{name}{suffix}"
    if name == NOT_UTF8 and which in ("passages", "embeddings"):
        path.write_bytes(arguments[which].read_bytes())
    if name == NOT_UTF8 and which == "queries":
        np.save(path, random_vectors(3))
    phases: list[str] = []
    changed = {**arguments, which: path}
    refused(lambda: build_index(**changed, progress=lambda phase, *_: phases.append(phase)))
    assert phases == []
    assert not arguments["index"].exists()


def test_impossible_paths_of_other_commands(arguments: dict[str, Any], tmp_path: Path) -> None:
    build_index(**arguments)
    index, bundle = arguments["index"], arguments["bundle"]
    for name in (NOT_UTF8, "x" * 5000, "a\0b"):
        path = tmp_path / name
        refused(lambda path=path: add_passages(index, path, bundle=bundle))
        refused(lambda path=path: merge_indexes(index, index, path))
        refused(lambda path=path: delete_passages(path, ["0"]))
        refused(lambda path=path: import_index(path, index, bundle=bundle, force=True))
        given = {"bundle": bundle, "faiss": path, "force": True}
        refused(lambda given=given: import_index(arguments["passages"], index, **given))
        refused(lambda path=path: read_questions(path))
        refused(lambda path=path: read_records(path))
    assert IndexManifest.read(index).count == 20


def test_index_and_bundle_at_a_path_that_is_not_utf8_are_refused_in_one_sentence(tmp_path: Path) -> None:
    for name, open_ in (("bundle_v4", Bundle.open), ("index_v1", PassageIndex.open)):
        folder = tmp_path / NOT_UTF8 / name
        shutil.copytree(GOLDEN / name, folder)
        assert "is not a path in UTF-8" in refused(lambda open_=open_, folder=folder: open_(folder))


def test_file_name_that_is_not_utf8_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / f"{NOT_UTF8}.txt").write_text("words")
    with pytest.raises(PassagesError, match=r"'na\\udcefve\.txt' is not a path in UTF-8|na.*is not a path"):
        Corpus.open(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    refused(lambda: Corpus.open(tmp_path / "closed" / "a.txt"))
    refused(lambda: Corpus.open(tmp_path / "closed"))


JOINED: Iterable[tuple[str, str]] = [
    ("id\ttext\ttitle\n", "plain"),
    ("\ufeffid\ttext\ttitle\n", "with a byte order mark"),
    ('\ufeff"id"\t"text"\t"title"\r\n', "quoted"),
]


@pytest.mark.parametrize(("header", "_"), JOINED)
def test_header_between_joined_files_is_no_passage(header: str, _: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(f"{header}1\ta\tA\n2\tb\tB\n{header}3\tc\tC\n{header}", newline="")
    assert [(p.id, p.text, p.title) for p in Corpus.open(tmp_path / "a.tsv").read()] == [
        ("1", "a", "A"),
        ("2", "b", "B"),
        ("3", "c", "C"),
    ]
    if '"' not in header:  # a list of ids has no quotes
        assert list(read_ids(tmp_path / "a.tsv")) == ["1", "2", "3"]


def test_byte_order_mark_between_joined_jsonl_files(tmp_path: Path) -> None:
    passage, question = '{"title": "t", "text": "x"}\n', '{"question": "q", "answers": []}\n'
    (tmp_path / "a.jsonl").write_text(f"\ufeff{passage}\ufeff{passage}\ufeff\n")
    assert [p.id for p in Corpus.open(tmp_path / "a.jsonl").read()] == ["0", "1"]
    (tmp_path / "b.jsonl").write_text(f"\ufeff{question}\ufeff{question}")
    assert len(read_questions(tmp_path / "b.jsonl")) == 2
