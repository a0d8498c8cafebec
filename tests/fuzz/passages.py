"""Fuzz passage files of every kind, lists of ids, questions and records."""

import atheris

with atheris.instrument_imports(include=["ragengine"]):
    from ragengine.corpus.corpus import Corpus
    from ragengine.evaluation import read_questions
    from ragengine.indexing.import_index import read_ids
    from ragengine.replay import read_records

import gzip
from pathlib import Path

from tests.corpus.files import pdf
from tests.fuzz.fuzzing import fuzz

SUFFIXES = {
    b"t": ".tsv",
    b"c": ".csv",
    b"g": ".tsv.gz",
    b"j": ".jsonl",
    b"x": ".txt",
    b"m": ".md",
    b"h": ".html",
    b"p": ".pdf",
    b"w": ".docx",
    b"a": ".parquet",
    b"i": ".tsv",
    b"l": ".json",
}
SEEDS = [
    b'tid\ttext\ttitle\n1\t"a ""quoted"" text"\tTitle\n2\tb\tc\n',
    b'j{"id": "1", "title": "t", "text": "x \\ud83d\\ude00"}\n{"title": "t", "text": "y"}\n',
    b"xA paragraph.\n\nAnother one, which is longer.\n",
    b"m# Heading\n\ntext *emphasised*\n\n## Second\n\n- item\n",
    b'ctitle,text,_id\nT,"a, ""b""",1\n',
    b"g" + gzip.compress(b"id\ttext\ttitle\n1\ta\tb\n"),
    b"m---\ntitle: T\nowner: x\n---\nA\n=\n\n```\nx\n```\n\na | b\n--|--\n1 | 2\n",
    b"h<title>T</title><h1>A</h1><p>b &amp; c<table><tr><td>1<td>2</table><pre>x</pre>",
    b"p" + pdf([["Hello"], ["World"]], "Title"),
    b'q{"question": "q", "answers": ["a", "b"], "passage_id": "7"}\n',
    b'r{"format": "ragengine-record", "format_version": 1}\n',
    b"iid\ttext\ttitle\n7\ta\tb\n",
    b'l["7", "8"]',
]


def read_lines_file(folder: Path, data: bytes) -> None:
    """The first byte chooses the kind."""
    kind = data[:1]
    path = folder / f"file{SUFFIXES.get(kind, '.jsonl')}"
    path.write_bytes(data[1:])
    if kind == b"q":
        read_questions(path)
    elif kind == b"r":
        read_records(path)
    elif kind in (b"i", b"l"):
        read_ids(path)
    else:
        for passage in Corpus.open(path).read():
            passage.text.encode("utf-8")
            passage.title.encode("utf-8")


if __name__ == "__main__":
    fuzz(read_lines_file, SEEDS)
