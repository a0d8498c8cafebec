"""The writer that every command uses: what it wrote is read back before it takes the old index's place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.errors import IndexFolderError
from ragengine.indexing import training, writer
from ragengine.indexing.build import build_index
from ragengine.indexing.import_index import import_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval.index import PassageIndex
from ragengine.storage.ownership import MARK
from tests.support.bundles import E, random_vectors


@pytest.fixture
def inputs(tmp_path: Path, bundle: Path) -> Callable[..., dict[str, Any]]:
    """Write passages of ``rows`` with their vectors, as arguments of a build."""

    def write(name: str, rows: range) -> dict[str, Any]:
        lines = [json.dumps({"id": f"p{row}", "title": "t", "text": f"text {row}"}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        np.save(tmp_path / f"{name}.npy", random_vectors(len(rows), seed=rows[0]))
        return {
            "passages": tmp_path / f"{name}.jsonl",
            "embeddings": tmp_path / f"{name}.npy",
            "bundle": bundle,
        }

    return write


Inputs = Callable[..., dict[str, Any]]


def _build(folder: Path, index: Path, inputs: Inputs) -> None:
    build_index(index=index, force=True, **inputs("other", range(50)))


def _add(folder: Path, index: Path, inputs: Inputs) -> None:
    add_passages(index, **inputs("more", range(100, 110)))


def _delete(folder: Path, index: Path, inputs: Inputs) -> None:
    delete_passages(index, ["p3"])


def _merge(folder: Path, index: Path, inputs: Inputs) -> None:
    merge_indexes(index, folder / "second", index, force=True)


def _import(folder: Path, index: Path, inputs: Inputs) -> None:
    other = inputs("other", range(50))
    foreign = faiss.IndexFlatIP(E)
    foreign.add(np.load(other["embeddings"]))
    faiss.write_index(foreign, str(folder / "foreign.faiss"))
    import_index(other["passages"], index, bundle=other["bundle"], faiss=folder / "foreign.faiss", force=True)


COMMANDS = {"build": _build, "add": _add, "delete": _delete, "merge": _merge, "import": _import}


def _short_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The FAISS file lacks a vector, as after an error in what fills it."""
    real = training.write_faiss

    def write(faiss_index: Any, path: Path) -> None:
        if path.name == "index.faiss":
            faiss_index.remove_ids(np.array([0]))
        real(faiss_index, path)

    monkeypatch.setattr(training, "write_faiss", write)


def _wrong_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest lists a file of another size."""
    real = writer.write_index_manifest

    def write(folder: Path, manifest: Any) -> None:
        real(folder, manifest)
        with (folder / "vectors.npy").open("ab") as file:
            file.write(b"x")

    monkeypatch.setattr(writer, "write_index_manifest", write)


def _unsearchable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index opens, and its first search fails."""

    def fail(self: PassageIndex) -> None:
        raise IndexFolderError("The FAISS index cannot be searched.")

    monkeypatch.setattr(PassageIndex, "warm_up", fail)


@pytest.mark.parametrize("damage", [_short_faiss, _wrong_manifest, _unsearchable])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_read_back_never_takes_the_place(
    tmp_path: Path,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    damage: Callable[[pytest.MonkeyPatch], None],
) -> None:
    index = tmp_path / "index"
    build_index(index=index, **inputs("first", range(100)))
    build_index(index=tmp_path / "second", **inputs("second", range(200, 220)))
    before = (index / "manifest.json").read_bytes()
    with monkeypatch.context() as damaged:
        damage(damaged)
        with pytest.raises(IndexFolderError, match=r"cannot be read back, so .* was not changed"):
            COMMANDS[command](tmp_path, index, inputs)
    assert (index / "manifest.json").read_bytes() == before
    assert not (tmp_path / ".index.writing").exists()  # nothing that --resume would go on with
    COMMANDS[command](tmp_path, index, inputs)
    assert (index / "manifest.json").read_bytes() != before


def test_what_another_command_left_is_not_resumed(tmp_path: Path, inputs: Inputs) -> None:
    index = tmp_path / "index"
    build_index(index=index, **inputs("first", range(100)))
    left = tmp_path / ".index.writing"
    (left / "output").mkdir(parents=True)
    (left / MARK).touch()
    (left / "state.json").write_text(json.dumps({"settings": {"command": "add"}, "count": 7}))
    with pytest.raises(IndexFolderError, match=r"cannot be resumed: .*command was add, is build"):
        build_index(index=index, resume=True, **inputs("first", range(100)))
