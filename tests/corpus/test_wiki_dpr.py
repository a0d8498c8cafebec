"""The layout of the public ``wiki_dpr`` data: Parquet shards of id, text, title and embeddings.

Its dataset card: ``id``, ``text`` and ``title`` are strings, ``embeddings`` a list of float32, ids from 1 on.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.corpus.corpus import Corpus
from ragengine.corpus.sizes import text_bytes
from ragengine.errors import PassagesError
from ragengine.indexing.build import build_index
from ragengine.retrieval.index import PassageIndex
from tests.support.bundles import E, random_vectors

pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SHARDS, ROWS, GROUP = 3, 50, 20
VECTORS = random_vectors(SHARDS * ROWS)

Change = Callable[[int, dict[str, Any]], None]


def write_shards(folder: Path, change: Change = lambda shard, columns: None, ids: type = str) -> Path:
    """Shards of several row groups; ``change`` may alter the columns of each."""
    folder.mkdir(parents=True)
    for shard in range(SHARDS):
        rows = range(shard * ROWS, (shard + 1) * ROWS)
        columns: dict[str, Any] = {
            "id": [ids(row + 1) for row in rows],
            "text": [f"text {row}" for row in rows],
            "title": [f"title {row // 7}" for row in rows],
            "embeddings": pyarrow.array(
                VECTORS[rows.start : rows.stop].tolist(), pyarrow.list_(pyarrow.float32())
            ),
        }
        change(shard, columns)
        name = folder / f"train-{shard:05}-of-{SHARDS:05}.parquet"
        pq.write_table(pyarrow.table(columns), name, row_group_size=GROUP)
    return folder


@pytest.mark.parametrize("ids", [str, int])
def test_a_folder_of_shards_becomes_an_index(tmp_path: Path, bundle: Path, ids: type) -> None:
    folder = write_shards(tmp_path / "data" / "psgs_w100" / "nq", ids=ids)
    manifest = build_index(folder, tmp_path / "index", bundle=bundle)
    assert manifest.count == len(VECTORS)
    assert manifest.created_from["vectors"] == "column 'embeddings' of nq"
    with PassageIndex.open(tmp_path / "index") as index:
        passages = index.passages(range(index.count))
        found = index.search(VECTORS, 1)
    assert [passage.id for passage in passages] == [str(row + 1) for row in range(len(VECTORS))]
    assert [passage.text for passage in passages] == [f"text {row}" for row in range(len(VECTORS))]
    assert not any(passage.metadata for passage in passages)
    best = (VECTORS @ VECTORS.T).argmax(axis=1)
    np.testing.assert_array_equal(found.rows[:, 0], best)


@pytest.mark.parametrize(
    "first", [0, 1, GROUP, GROUP + 3, ROWS - 1, ROWS, ROWS + 41, 2 * ROWS + GROUP, SHARDS * ROWS]
)
def test_embeddings_are_read_from_any_row_on(tmp_path: Path, first: int) -> None:
    corpus = Corpus.open(write_shards(tmp_path / "nq"))
    blocks = [np.empty((0, E), np.float32), *corpus.read_embeddings(first)]
    np.testing.assert_array_equal(np.concatenate(blocks), VECTORS[first:])


def test_what_was_read_already_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.open(write_shards(tmp_path / "nq"))
    read: list[tuple[str, list[int]]] = []
    iter_batches = pq.ParquetFile.iter_batches

    def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        read.append((self.metadata.num_rows, list(options["row_groups"])))
        return iter_batches(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    list(corpus.read_embeddings(ROWS + 2 * GROUP + 5))
    assert [groups for _, groups in read] == [[2], [0, 1, 2]]


def test_embeddings_do_not_count_as_texts(tmp_path: Path) -> None:
    def widen(shard: int, columns: dict[str, Any]) -> None:
        wide = np.random.default_rng(shard).standard_normal((ROWS, 768)).astype(np.float32)
        columns["embeddings"] = pyarrow.array(wide.tolist(), pyarrow.list_(pyarrow.float32()))

    corpus = Corpus.open(write_shards(tmp_path / "nq", widen))
    texts = sum(len(p.text) + len(p.title) + len(p.id) for p in corpus.read())
    assert texts / 3 < sum(map(text_bytes, corpus.sources)) < 10 * texts < ROWS * 768 * 4


def _lacking(column: str) -> Change:
    return lambda shard, columns: columns.pop(column) and None


def _in_second(column: str, values: Callable[[], Any]) -> Change:
    def change(shard: int, columns: dict[str, Any]) -> None:
        if shard == 1:
            columns[column] = values()

    return change


WIDE = [[0.5] * (E + 1)] * ROWS
RAGGED = [[0.5] * E] * 30 + [[0.5] * 3] + [[0.5] * E] * 19
EMPTY = [[0.5] * E] * 30 + [None] + [[0.5] * E] * 19
HOLE = [[0.5] * E] * 30 + [[0.5, None, *[0.5] * (E - 2)]] + [[0.5] * E] * 19


NULL_TEXT = ["a"] * 30 + [None] + ["b"] * 19
SHORT = "train-00001-of-00003.parquet, row 30: the embedding has"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lacking("text"), r"no column 'text'"),
        (
            _in_second("embeddings", lambda: WIDE),
            f"vectors of {E + 1} numbers, the bundle's encoder gives {E}",
        ),
        (_in_second("embeddings", lambda: RAGGED), f"{SHORT} 3 numbers, row 0 has {E}"),
        (_in_second("embeddings", lambda: EMPTY), f"{SHORT} 0 numbers, row 0 has {E}"),
        (_in_second("embeddings", lambda: HOLE), "the vector of row 80 has a component that is NaN"),
        (_in_second("embeddings", lambda: ["x"] * ROWS), "the column 'embeddings' is of type string"),
        (_in_second("text", lambda: NULL_TEXT), r"00001-of-00003.*, row 30: 'text' must be a string"),
        (_in_second("id", lambda: [None] * ROWS), r"00001-of-00003.*, row 0: 'id' must be a string"),
        (_in_second("id", lambda: ["7"] * ROWS), "Several passages have the id '7'"),
    ],
)
def test_wrong_shards_are_refused(tmp_path: Path, bundle: Path, change: Change, message: str) -> None:
    folder = write_shards(tmp_path / "nq", change)
    with pytest.raises(PassagesError, match=message):
        build_index(folder, tmp_path / "index", bundle=bundle)
    assert not (tmp_path / "index").exists()


def test_a_shard_is_not_held_in_memory(tmp_path: Path) -> None:
    rows, dimension = 60_000, 256
    numbers = np.random.default_rng(0).standard_normal(rows * dimension, np.float32)
    embeddings = pyarrow.ListArray.from_arrays(
        np.arange(0, rows * dimension + 1, dimension, np.int32), numbers
    )
    columns = {"id": list(map(str, range(rows))), "text": ["x"] * rows, "embeddings": embeddings}
    pq.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=1000)
    del numbers, embeddings, columns
    before, peak, read = pyarrow.total_allocated_bytes(), 0, 0
    for block in Corpus.open(tmp_path / "a.parquet").read_embeddings():
        read += len(block)
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert read == rows
    assert peak < rows * dimension * 4 / 4


def test_without_pyarrow_the_extra_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path / "nq")
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from ragengine.corpus.corpus import Corpus\n"
        "from ragengine.errors import DependencyError\n"
        "try: list(Corpus.open(sys.argv[1]).read())\n"
        "except DependencyError as error: print(error)\n"
    )
    shard = tmp_path / "nq" / "train-00000-of-00003.parquet"
    said = subprocess.run(
        [sys.executable, "-c", program, shard], capture_output=True, text=True, check=True
    ).stdout
    assert "pyarrow" in said
    assert "[documents]" in said
