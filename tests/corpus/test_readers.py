"""Passage files and the passage store: what goes in comes out, and every fault is named with its line."""

import csv
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError, PassagesError
from ragengine.retrieval.passage_store import PassageStore, write_passages

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text('"\t\n\r\0 a,\\', max_size=8)
PASSAGES = st.lists(st.builds(Passage, id=TEXT, title=TEXT, text=TEXT), max_size=6)
HEADER = "id\ttext\ttitle\n"


def read_bytes(folder: Path, name: str, content: bytes | str) -> list[Passage]:
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return list(Corpus.open(path).read())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passages")


# --- TSV -------------------------------------------------------------------------------------------


@given(passages=PASSAGES, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_tsv_round_trip_and_agreement_with_dpr(folder: Path, passages: list[Passage], quoting: Any) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", quoting=quoting)
    writer.writerow(["id", "text", "title"])
    writer.writerows([p.id, p.text, p.title] for p in passages)
    assert read_bytes(folder, "round.tsv", file.getvalue()) == passages
    # The loop of DPR's dpr/data/retriever_data.py.
    with (folder / "round.tsv").open(encoding="utf-8", newline="") as dpr_file:
        rows = list(csv.reader(dpr_file, delimiter="\t"))[1:]
    assert rows == [[p.id, p.text, p.title] for p in passages]


def test_tsv_of_dpr(folder: Path) -> None:
    content = HEADER + (
        '1\t"Aaron Aaron ( or ; ""Ahärôn"") is a prophet, high priest"\tAaron\n'
        '2\t"two\nlines\tand a tab"\t"""Weird Al"" Yankovic"\r\n'
        '\n3\tinner "quotes" stay\t5" gun\n'
    )
    assert read_bytes(folder, "psgs.tsv", content) == [
        Passage("1", "Aaron", 'Aaron Aaron ( or ; "Ahärôn") is a prophet, high priest'),
        Passage("2", '"Weird Al" Yankovic', "two\nlines\tand a tab"),
        Passage("3", '5" gun', 'inner "quotes" stay'),
    ]


def test_tsv_with_a_byte_order_mark_and_a_huge_field(folder: Path) -> None:
    huge = "x" * 1_000_000
    assert read_bytes(folder, "bom.tsv", "\ufeff" + HEADER + f"1\t{huge}\tt\n") == [Passage("1", "t", huge)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; the header id, text, title"),
        (
            "id\ttitle\tbody\n1\ta\tb\n",
            r"line 1: the header is \['id', 'title', 'body'\]; .* no column 'text'",
        ),
        ("1\ta\tb\n", "line 1: the header is"),
        (HEADER + "1\ta\tb\n2\ta\n", "line 3: 2 tab-separated columns instead of 3"),
        (HEADER + "1\ta\tb\tc\n", "line 2: 4 tab-separated columns instead of 3"),
        (HEADER + '1\t"a" b\tc\n', "line 2: not a TSV record .*double those inside"),
        (HEADER + "1\ta\rb\tc\n", "line 2: not a TSV record .*holds a line break in double quotes"),
        (HEADER + '1\ta\tb\n2\t"never\nclosed\tb\n', "line 3: not a TSV record"),
        (HEADER.encode() + b"1\ta\xff\tb\n", "line 2: byte 0xff at position 3 is not UTF-8"),
    ],
)
def test_tsv_faults_are_named_with_their_line(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(PassagesError, match=rf"fault\.tsv.*{message}"):
        read_bytes(folder, "fault.tsv", content)


# --- JSONL -----------------------------------------------------------------------------------------


@given(passages=PASSAGES, ascii_only=st.booleans())
def test_jsonl_round_trip(folder: Path, passages: list[Passage], ascii_only: bool) -> None:
    lines = [
        json.dumps({"id": p.id, "title": p.title, "text": p.text}, ensure_ascii=ascii_only) for p in passages
    ]
    assert read_bytes(folder, "round.jsonl", "\n".join(lines)) == passages


def test_jsonl_without_ids_counts_rows_not_lines(folder: Path) -> None:
    content = '{"title": "a", "text": "b", "more": 1}\n\n{"title": "c", "text": "d"}\n'
    assert read_bytes(folder, "ids.jsonl", content) == [
        Passage("0", "a", "b", metadata={"more": "1"}),
        Passage("1", "c", "d"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON"),
        ("[" * 100_000, r"not JSON"),
        ('["a", "b"]', "found list; write one object"),
        ('{"title": "a"}', "there is no 'text', only 'title'; write it, or name"),
        ('{"id": 7.5, "title": "a", "text": "b"}', "'id' must be a string, found float"),
        ('{"id": true, "title": "a", "text": "b"}', "'id' must be a string, found bool"),
        ('{"id": null, "title": "a", "text": "b"}', "'id' must be a string, found NoneType"),
        ('{"title": 7, "text": "b"}', "'title' must be a string, found int"),
        (
            r'{"title": "a", "text": "b\ud800"}',
            r"'text' has half a surrogate pair \('\\ud800'\) at character 1",
        ),
        (b'{"title": "a", "text": "\xe9"}', "byte 0xe9 at position 24 is not UTF-8"),
    ],
)
def test_jsonl_faults_are_named_with_their_line(folder: Path, line: str | bytes, message: str) -> None:
    whole = b'{"title": "a", "text": "b"}\n'
    line = line.encode("utf-8") if isinstance(line, str) else line
    with pytest.raises(PassagesError, match=rf"fault\.jsonl, line 2: .*{message}"):
        read_bytes(folder, "fault.jsonl", whole + line)


def test_reading_streams(folder: Path) -> None:
    content = HEADER + "1\ta\tb\n" * 3 + "broken\n"
    (folder / "stream.tsv").write_text(content)
    passages = Corpus.open(folder / "stream.tsv").read()
    assert [next(passages).id for _ in range(3)] == ["1", "1", "1"]
    with pytest.raises(PassagesError, match="line 5"):
        next(passages)


@pytest.mark.parametrize("name", ["absent.tsv", "passages.xlsx"])
def test_what_cannot_be_read_is_said(folder: Path, name: str) -> None:
    (folder / "passages.xlsx").write_text(HEADER)
    with pytest.raises(PassagesError, match=name):
        Corpus.open(folder / name).read()


# --- datasets folders ------------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write columns with `datasets` itself."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def save_columns(columns: dict[str, list[Any]], features: Any = None, **options: Any) -> Path:
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "data", **options)
        return tmp_path / "data"

    return save_columns


def test_dataset_with_shards_and_embeddings(save: Callable[..., Path]) -> None:
    rows = range(25)
    path = save(
        {
            "text": [f"text {row}" for row in rows],
            "title": [f"title {row}" for row in rows],
            "embeddings": [[row + 0.5, -row] for row in rows],
        },
        num_shards=3,
    )
    assert list(Corpus.open(path).read()) == [
        Passage(str(row), f"title {row}", f"text {row}") for row in rows
    ]
    assert Corpus.open(path).has_embeddings()
    blocks = list(Corpus.open(path).read_embeddings())
    assert all(block.dtype == "float32" for block in blocks)
    assert [list(vector) for block in blocks for vector in block] == [[row + 0.5, -row] for row in rows]


def test_dataset_that_was_filtered_and_has_ids(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_dict(
        {"id": ["x", "y", "z"], "title": ["a", "b", "c"], "text": ["d", "e", "f"]}
    )
    data.select([2, 0]).save_to_disk(tmp_path / "data")
    assert list(Corpus.open(tmp_path / "data").read()) == [Passage("z", "c", "f"), Passage("x", "a", "d")]
    assert not Corpus.open(tmp_path / "data").has_embeddings()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"title": ["a"], "body": ["b"]}, "no column 'text'; its columns are 'title', 'body'; name them"),
        ({"title": ["a", "b"], "text": ["b", None]}, "row 1: 'text' must be a string, found NoneType"),
        ({"title": ["a"], "text": ["b"], "id": [3.5]}, "row 0: 'id' must be a string, found float"),
    ],
)
def test_dataset_columns_are_checked(
    save: Callable[..., Path], columns: dict[str, list[Any]], message: str
) -> None:
    path = save(columns)
    with pytest.raises(PassagesError, match=message):
        list(Corpus.open(path).read())


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([[1.0, 2.0], [3.0]], "row 1: the embedding has 1 numbers, row 0 has 2"),
        ([[1.0, 2.0], None], "row 1: the embedding has 0 numbers, row 0 has 2"),
        ([[1, 2], [3, 4]], "'embeddings' is of type list<.*int64>"),
        (["1", "2"], "'embeddings' is of type string"),
    ],
)
def test_dataset_embeddings_are_checked(
    save: Callable[..., Path], embeddings: list[Any], message: str
) -> None:
    path = save({"title": ["a", "b"], "text": ["c", "d"], "embeddings": embeddings})
    with pytest.raises(PassagesError, match=message):
        list(Corpus.open(path).read_embeddings())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "has no state.json"),
        ("{", "is not what datasets writes"),
        ("[]", "is not what datasets writes"),
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "outside the folder"),
        ('{"_data_files": [{"filename": "absent.arrow"}]}', r"absent\.arrow cannot be read: No such file"),
        ('{"_data_files": [{"filename": "state.json"}]}', "cannot be read as an Arrow stream"),
        ('{"_data_files": [], "_indices_data_files": [{}]}', "rows rearranged; save it again"),
    ],
)
def test_folder_that_is_no_dataset(tmp_path: Path, state: str | None, message: str) -> None:
    if state is not None:
        (tmp_path / "state.json").write_text(state)
    with pytest.raises(PassagesError, match=message):
        list(Corpus.open(tmp_path).read())


def test_folder_of_several_splits(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(PassagesError, match="several splits; give the folder of one"):
        list(Corpus.open(tmp_path).read())


# --- the store -------------------------------------------------------------------------------------


@given(passages=PASSAGES, data=st.data())
def test_store_round_trip(folder: Path, passages: list[Passage], data: st.DataObject) -> None:
    path = folder / "round.sqlite"
    path.unlink(missing_ok=True)
    assert write_passages(path, passages) == len(passages)
    store = PassageStore(path)
    assert store.count == store.count_all() == len(passages)
    assert [p for block in store.blocks(2) for p in block] == passages
    rows = data.draw(st.lists(st.sampled_from(range(len(passages)))) if passages else st.just([]))
    assert store.fetch(rows) == [passages[row] for row in rows]
    store.close()


def make(count: int) -> list[Passage]:
    return [Passage(f"id{row}", f"title {row}", "text " * (row % 50)) for row in range(count)]


def test_same_passages_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_passages(tmp_path / name, make(500))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_store_is_read_by_many_threads(tmp_path: Path) -> None:
    passages = make(300)
    write_passages(tmp_path / "store", passages)
    store = PassageStore(tmp_path / "store")
    wrong: list[object] = []

    def read(seed: int) -> None:
        for turn in range(100):
            rows = [(seed * 31 + turn * 7 + k * 13) % 300 for k in range(5)]
            try:
                if store.fetch(rows) != [passages[row] for row in rows]:
                    wrong.append(rows)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_store_writes_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "odd name? #1 %41"
    folder.mkdir()
    write_passages(folder / "store", make(3))
    store = PassageStore(folder / "store")
    store.fetch([0])
    assert [path.name for path in folder.iterdir()] == ["store"]
    store.close()
    store.close()
    with pytest.raises(ClosedError, match="is closed"):
        store.fetch([0])


@pytest.mark.parametrize("row", [3, -1, 2**70])
def test_row_that_is_not_there(tmp_path: Path, row: int) -> None:
    write_passages(tmp_path / "store", make(3))
    with pytest.raises(IndexFolderError):
        PassageStore(tmp_path / "store").fetch([0, row])


@pytest.mark.parametrize("content", [None, b"", b"not sqlite" * 1000, "cut"])
def test_file_that_is_no_store(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "store"
    if content == "cut":
        write_passages(path, make(2000))
        path.write_bytes(path.read_bytes()[:8192])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(IndexFolderError, match="store"):
        PassageStore(path).count_all()


def test_a_file_that_sqlite_cannot_make_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="unable to open"):
        write_passages(tmp_path / "absent" / "store", make(1))
