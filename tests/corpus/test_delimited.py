"""Tables of text: any order of columns, CSV and TSV, with a header or RAG's titles and texts without one."""

import gzip
import logging
from pathlib import Path

import pytest

from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError
from tests.corpus.files import read

ONE = Passage("1", "T", "x, y")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "title\tid\ttext\nT\t1\tx, y\n"),
        ("a.tsv", "text\ttitle\t_id\nx, y\tT\t1\n"),
        ("a.csv", 'text,id,title\n"x, y",1,T\n'),
        ("a.CSV", '\ufeff"title", "id", "text"\r\nT,1,"x, y"\r\n'.replace(", ", ",", 2)),
        ("a.csv", 'id, title, text,,\n1,T,"x, y",,\n'),
    ],
)
def test_header_in_any_order(tmp_path: Path, name: str, content: str, packed: bool) -> None:
    data = gzip.compress(content.encode()) if packed else content.encode()
    assert read(tmp_path / (name + ".gz" * packed), data) == [ONE]


def test_columns_by_their_names(tmp_path: Path) -> None:
    options = ReadingOptions("nr", "name", "body")
    content = 'name,body,nr,owner,text\nT,"x, y",1,data,z\n'
    (found,) = read(tmp_path / "a.csv", content, options)
    assert found == Passage("1", "T", "x, y", metadata={"owner": "data", "text": "z"})


def test_missing_titles_and_ids(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "text\na\nb\n") == [Passage("0", "", "a"), Passage("1", "", "b")]
    assert read(tmp_path / "a.csv", "title,text,n\n,a,\n") == [Passage("0", "", "a")]


def test_beir_corpus_as_tsv_joined(tmp_path: Path) -> None:
    header = "_id\ttitle\ttext\n"
    content = f"{header}d1\tT\tx\n{header}d2\t\ty\n"
    assert read(tmp_path / "a.tsv", content) == [Passage("d1", "T", "x"), Passage("d2", "", "y")]


@pytest.mark.parametrize("separator", ["\t", ","])
def test_titles_and_texts_without_a_header_are_split(
    tmp_path: Path, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As ``use_own_knowledge_dataset.py`` of transformers reads and splits them."""
    words = [f"w{number}" for number in range(250)]
    content = f"Aaron{separator}{' '.join(words)}\n{separator}short\nEmpty{separator}\n"
    name = "a.tsv" if separator == "\t" else "a.csv"
    with caplog.at_level(logging.WARNING, "ragengine"):
        passages = read(tmp_path / name, content)
    expected = [" ".join(words[start : start + 100]) for start in (0, 100, 200)]
    assert [p.text for p in passages] == [*expected, "short", ""]
    assert [(p.id, p.title) for p in passages[:4]] == [
        ("0", "Aaron"),
        ("1", "Aaron"),
        ("2", "Aaron"),
        ("3", ""),
    ]
    assert f"{name} has no header: its two columns are read as title and text" in caplog.text


def test_rows_are_split_only_where_words_are_given(tmp_path: Path) -> None:
    content = "id,text\nx,a b c d e\ny,f\n"
    assert [p.id for p in read(tmp_path / "a.csv", content)] == ["x", "y"]
    found = read(tmp_path / "a.csv", content, ReadingOptions(passage_words=3, overlap=1))
    assert [(p.id, p.text) for p in found] == [("x#0", "a b c"), ("x#1", "c d e"), ("y", "f")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            gzip.compress(b"id\ttext\ttitle\n", mtime=0),
            r"a\.tsv is a gzip file; give it a name that ends in \.gz\.",
        ),
        ("a.csv", b"\xff\xfei\0d\0", r"a\.csv is text in UTF-16; convert it to UTF-8"),
        ("a.csv", b"PK\3\4\x14\0\xff\n", r"a\.csv is a zip archive, as \.docx and \.xlsx are"),
        ("a.csv", b"PAR1\xff", r"is a Parquet file; give it a name that ends in \.parquet"),
        ("a.tsv", b"id\ttext\ttitle\r1\ta\tb\r", r"lines that end in a carriage return \(CR\) alone"),
        (
            "a.tsv",
            b"id\ttext\ttitle\n1\ta\n",
            "line 2: 2 tab-separated columns instead of 3 .* fields that are missing",
        ),
        (
            "a.csv",
            b"id,text\n1,a,b\n",
            "line 2: 3 comma-separated .* field that contains commas in double quotes",
        ),
        ("a.csv", b"id;text\n1;a\n", r"\['id;text'\]; the columns seem to be separated by semicolons"),
        ("a.csv", b"id\ttext\n1\ta\n", "separated by tabs, not by commas"),
        ("a.tsv", b"id,text\n1,a\n", "separated by commas, not by tabs"),
        ("a.csv", b"id,text,text\n1,a,b\n", "several columns 'text'; give each column a name of its own"),
        (
            "a.csv",
            b"title,body\na,b\n",
            "no column 'text'; its columns are 'title', 'body'; name them with --id",
        ),
        ("a.csv", b"Title,Text\na,b\n", "no column 'text'"),  # a header, not a title and a text
        ("a.csv", b"\n\n", "is empty; the header"),
        ("a.csv.gz", b"text\na\n", "it is not a gzip file, whatever its name says"),
        ("a.csv.gz", gzip.compress(b"text\na\n" * 99, mtime=0)[:-12], "a gzip file that is cut off"),
        ("a.csv.gz", gzip.compress(b"text\na\n", mtime=0)[:-8] + bytes(8), "damaged"),
    ],
)
def test_faults_have_remedies_that_fit(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(PassagesError, match=message):
        read(tmp_path / name, content)


@pytest.mark.parametrize("field", ["id_field", "title_field", "text_field"])
def test_a_column_that_is_named_and_not_there(tmp_path: Path, field: str) -> None:
    with pytest.raises(PassagesError, match="no column 'nome'; its columns are 'id', 'title', 'text'"):
        read(tmp_path / "a.csv", "id,title,text\n1,2,3\n", ReadingOptions(**{field: "nome"}))
    with pytest.raises(PassagesError, match="no column 'nome'"):  # two columns, and no titles and texts
        read(tmp_path / "a.csv", "a,b\n1,2\n", ReadingOptions(**{field: "nome"}))
