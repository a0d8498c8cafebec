"""The parts of an index fit together and stay inside its folder, or the error lists every mismatch.

Every index here is forged: its manifest lists its files with matching hashes.
"""

import shutil
import sqlite3
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragengine.errors import IndexFolderError
from ragengine.retrieval.faiss_reader import read_faiss
from ragengine.retrieval.index import PassageIndex
from tests.robustness.forgery import Change, field
from tests.support.bundles import rewrite_manifest
from tests.support.paths import GOLDEN


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "index_v1", tmp_path / "index"))


def write_sqlite(path: Path, *statements: str) -> None:
    with sqlite3.connect(path / "passages.sqlite") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def with_vectors(path: Path, rows: int, columns: int) -> None:
    np.save(path / "vectors.npy", np.zeros((rows, columns), np.float16))


def with_questions(path: Path, columns: int) -> None:
    np.save(path / "queries.npy", np.zeros((3, columns), np.float32))
    tuning = {"target": 0.9, "n_docs": 5, "queries": 3, "source": "file", "points": []}
    field("tuning", tuning)(path)


INDEX_MISFITS: dict[str, tuple[Change, str]] = {
    "fewer vectors": (
        lambda p: with_vectors(p, 19, 8),
        "vectors.npy has 19 vectors of 8, its manifest says 20",
    ),
    "wider vectors": (lambda p: with_vectors(p, 20, 9), "vectors.npy has 20 vectors of 9"),
    "another count": (field("count", 21), "passages.sqlite has 20 passages, its manifest says 21 of 8"),
    "another dimension": (
        field("dimension", 9),
        "index.faiss has 20 vectors of 8, its manifest says 20 of 9",
    ),
    "fewer passages": (
        lambda p: write_sqlite(p, "DELETE FROM passages WHERE row = 19"),
        "passages.sqlite has 19 passages",
    ),
    "a view": (
        lambda p: write_sqlite(p, "CREATE VIEW more AS SELECT * FROM passages"),
        "instead of the table of passages",
    ),
    "a view in place of the table": (
        lambda p: write_sqlite(
            p,
            "ALTER TABLE passages RENAME TO x",
            "CREATE VIEW passages AS SELECT row, id, title, text FROM x",
        ),
        "instead of the table of passages",
    ),
    "a trigger": (
        lambda p: write_sqlite(p, "CREATE TRIGGER t AFTER INSERT ON passages BEGIN SELECT 1; END"),
        "instead of the table of passages",
    ),
    "another table": (lambda p: write_sqlite(p, "CREATE TABLE more (x)"), "instead of the table of passages"),
    "another column": (
        lambda p: write_sqlite(p, "ALTER TABLE passages ADD COLUMN x"),
        "instead of the table of passages",
    ),
    "questions of another dimension": (
        lambda p: with_questions(p, 9),
        "queries.npy is [3, 9], [Q, 8] was expected",
    ),
    "questions that are not there": (
        lambda p: (with_questions(p, 8), (p / "queries.npy").unlink()),
        "does not list queries.npy",
    ),
}


@pytest.mark.parametrize("case", INDEX_MISFITS)
def test_a_misfit_of_an_index_is_named(index: Path, case: str) -> None:
    change, message = INDEX_MISFITS[case]
    change(index)
    rewrite_manifest(index)
    with pytest.raises(IndexFolderError) as caught:
        PassageIndex.open(index)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_all_misfits_of_an_index_are_named_at_once(index: Path) -> None:
    cases = ["fewer vectors", "fewer passages", "questions of another dimension"]
    for case in cases:
        INDEX_MISFITS[case][0](index)
    rewrite_manifest(index)
    with pytest.raises(IndexFolderError) as caught:
        PassageIndex.open(index)
    for case in cases:
        assert INDEX_MISFITS[case][1] in str(caught.value)


@pytest.mark.parametrize("factory", ["IVF4,Flat", "PCA4,IVF4,Flat"])
@pytest.mark.parametrize("there", [True, False])
def test_inverted_lists_in_a_file_that_the_index_names_are_not_read(
    tmp_path: Path, factory: str, there: bool
) -> None:
    """FAISS would open any file of the machine for writing, and read past its end."""
    folder, vectors = tmp_path / "elsewhere", np.random.default_rng(0).random((200, 8), np.float32)
    folder.mkdir()
    made = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    made.train(vectors)
    made.add(vectors)
    inverted = faiss.extract_index_ivf(made)
    lists = faiss.OnDiskInvertedLists(inverted.nlist, inverted.code_size, str(folder / "lists"))
    lists.merge_from_1(inverted.invlists)
    inverted.replace_invlists(lists, False)
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    if there:
        (tmp_path / "lists").write_bytes((folder / "lists").read_bytes())
    for mapped in (True, False):
        with pytest.raises(IndexFolderError, match=r"in another file|could not open"):
            read_faiss(tmp_path / "index.faiss", mapped=mapped)


@pytest.mark.parametrize("value", ["x'ff00'", "CAST(x'ff' AS TEXT)"])
def test_a_passage_that_is_not_text_is_refused_when_it_is_read(index: Path, value: str) -> None:
    """SQLite stores any type in any column; checking every row when an index is opened would take minutes."""
    write_sqlite(index, f"UPDATE passages SET title = {value} WHERE row = 4")
    rewrite_manifest(index)
    with PassageIndex.open(index) as opened:
        assert len(opened.passages([3, 5])) == 2
        with pytest.raises(IndexFolderError, match="build the index again"):
            opened.passages([4])


def test_a_number_under_a_forged_schema_is_refused_when_it_is_read(index: Path) -> None:
    """The column gets its declared type, which would convert to text, only after the number is stored."""
    columns = "row INTEGER PRIMARY KEY, id{0}, title{0}, text{0}"
    declared = f"CREATE TABLE passages ({columns.format(' TEXT NOT NULL')})"
    with sqlite3.connect(index / "passages.sqlite") as connection:
        connection.execute("DROP TABLE passages")
        connection.execute(f"CREATE TABLE passages ({columns.format('')})")
        connection.executemany(
            "INSERT INTO passages VALUES (?, 'id', ?, 'text')", ((n, n) for n in range(20))
        )
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET sql = ?", [declared])
    connection.close()
    rewrite_manifest(index)
    with (
        PassageIndex.open(index) as opened,
        pytest.raises(IndexFolderError, match=r"not text: \('id', 4, 'text'\)"),
    ):
        opened.passages([4])
