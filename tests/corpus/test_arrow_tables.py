"""Datasets folders and Parquet files: the same columns, ids and embeddings."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.corpus import parquet
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.options import ReadingOptions
from ragengine.corpus.passage import Passage
from ragengine.errors import PassagesError

pyarrow = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

Save = Callable[..., Path]


@pytest.fixture(params=["dataset", "parquet"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Save:
    """Write columns as a datasets folder, by datasets itself, and as a Parquet file."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def write(columns: dict[str, Any], features: Any = None) -> Path:
        data = datasets.Dataset.from_dict(columns, features=features)
        if request.param == "dataset":
            data.save_to_disk(tmp_path / "data")
            return tmp_path / "data"
        data.to_parquet(str(tmp_path / "data.parquet"))
        return tmp_path / "data.parquet"

    return write


def test_columns(save: Save) -> None:
    path = save(
        {
            "n": [float("nan"), 1.5],
            "id": [7, 8],
            "text": ["x", "y"],
            "title": ["t", None],
            "day": [datetime.date(2026, 1, 2), None],
        }
    )
    corpus = Corpus.open(path)
    assert list(corpus.read()) == [
        Passage("7", "t", "x", metadata={"day": "2026-01-02"}),
        Passage("8", "", "y", metadata={"n": "1.5"}),
    ]
    assert corpus.estimate() == 2
    assert not corpus.has_embeddings()


def test_columns_by_their_names_and_long_texts(save: Save) -> None:
    path = save({"nr": ["a", "b"], "body": ["x y z", "w"], "owner": ["o", "p"], "list": [[1], [2]]})
    options = ReadingOptions(id_field="nr", text_field="body", passage_words=2)
    assert list(Corpus.open(path, options).read()) == [
        Passage("a#0", "", "x y", metadata={"owner": "o"}),
        Passage("a#1", "", "z", metadata={"owner": "o"}),
        Passage("b", "", "w", metadata={"owner": "p"}),
    ]
    with pytest.raises(
        PassagesError, match="no column 'text'; its columns are 'nr', 'body', 'owner', 'list'"
    ):
        list(Corpus.open(path).read())


def test_embeddings(save: Save) -> None:
    datasets = pytest.importorskip("datasets")
    values = [[0.5, -1.0], [2.0, 3.0], [1.5, 0.0]]
    features = datasets.Features(
        {"text": datasets.Value("string"), "embeddings": datasets.Sequence(datasets.Value("float16"))}
    )
    for chosen in (None, features):
        corpus = Corpus.open(save({"text": ["a", "b", "c"], "embeddings": values}, chosen))
        assert corpus.has_embeddings()
        np.testing.assert_array_equal(np.concatenate(list(corpus.read_embeddings())), values)
        assert [p.text for p in corpus.read()] == ["a", "b", "c"]
        if features is chosen:
            break


def test_nothing_in_it(save: Save) -> None:
    path = save({"text": [], "title": []})
    corpus = Corpus.open(path)
    assert list(corpus.read()) == []
    assert corpus.estimate() == 0


def test_parquet_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 4000)
    texts = [f"{row} " * 100 for row in range(500)]
    pq.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", row_group_size=200)
    assert [p.text for p in Corpus.open(tmp_path / "a.parquet").read()] == texts
    sizes = [batch.num_rows for batch in Corpus.open(tmp_path / "a.parquet").sources[0]._batches(["text"])]
    assert max(sizes) < 20


def test_a_text_that_is_stored_once_takes_its_memory_once(tmp_path: Path) -> None:
    text = "word " * 200_000  # a megabyte, in a file of some kilobytes
    column = pyarrow.array([text]).dictionary_encode()
    column = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 5000, pyarrow.int32()), column.dictionary
    )
    pq.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    before = pyarrow.total_allocated_bytes()
    peak = 0
    for number, passage in enumerate(Corpus.open(tmp_path / "a.parquet").read()):
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
        assert len(passage.text) == len(text)
        if number == 2000:
            break
    assert peak < 64 << 20


def test_a_column_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_COLUMN", 1000)
    pq.write_table(pyarrow.table({"text": ["x" * 5000], "other": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(
        PassagesError, match=r"a column of its row group 0 unpacks to \d+ bytes, .* smaller row groups"
    ):
        list(Corpus.open(tmp_path / "a.parquet").read())


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "middle"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pyarrow.table({"text": ["x", "y"] * 1000}), path)
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"id,text\n", "cut": content[:-20], "middle": bytes(300) + content[300:]}[
            damage
        ]
    )
    with pytest.raises(PassagesError, match=r"a\.parquet (cannot be read as Parquet|is damaged)"):
        list(Corpus.open(path).read())
