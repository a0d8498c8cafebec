"""What cannot be imported is refused, and leaves nothing behind."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.cli.index_import import import_command
from ragengine.errors import InputError, PassagesError
from ragengine.indexing.import_index import import_index
from ragengine.retrieval.manifest import IndexManifest
from tests.support.bundles import Array, random_vectors, write_bundle
from tests.support.foreign_indexes import (
    COUNT,
    DIMENSION,
    half_vectors,
    passage_ids,
    refused,
    write_faiss,
    write_tsv,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", DIMENSION)


@pytest.fixture
def half() -> Array:
    return half_vectors()


def test_files_that_do_not_fit_are_refused(tmp_path: Path, bundle: Path, half: Array) -> None:
    flat = write_faiss(tmp_path / "flat.faiss", faiss.IndexFlatIP(DIMENSION), half)
    fewer = write_faiss(tmp_path / "fewer.faiss", faiss.IndexFlatIP(DIMENSION), half[:-1])
    wide = write_faiss(
        tmp_path / "wide.faiss", faiss.IndexFlatIP(DIMENSION + 1), random_vectors(9, DIMENSION + 1)
    )
    mapped = faiss.IndexIDMap(faiss.IndexFlatIP(DIMENSION))
    mapped.add_with_ids(half, np.arange(COUNT)[::-1].copy())
    faiss.write_index(mapped, str(tmp_path / "mapped.faiss"))
    lists = faiss.index_factory(DIMENSION, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    lists.train(half)
    lists.add_with_ids(half, np.arange(1, COUNT + 1))
    faiss.write_index(lists, str(tmp_path / "lists.faiss"))
    (tmp_path / "damaged.faiss").write_bytes(flat.read_bytes()[:200])
    np.save(tmp_path / "other.npy", half[::-1].copy())
    np.save(tmp_path / "fewer.npy", half[:-1])
    (tmp_path / "ids.json").write_text(json.dumps(["7"] * COUNT))
    (tmp_path / "unknown.txt").write_text("1\nnobody\n")
    (tmp_path / "object.json").write_text("{}")
    write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    refused(tmp_path, bundle, fewer, "599 vectors for 600 passages")
    refused(tmp_path, bundle, wide, "vectors of 17 numbers")
    refused(tmp_path, bundle, tmp_path / "mapped.faiss", "IDMap")
    refused(tmp_path, bundle, tmp_path / "lists.faiss", "has vector ids other than 0 to")
    refused(tmp_path, bundle, tmp_path / "damaged.faiss", "cannot be read by faiss")
    refused(tmp_path, bundle, tmp_path / "absent.faiss", "cannot be read by faiss")
    refused(
        tmp_path, bundle, flat, "differs from the embedding of passage", embeddings=tmp_path / "other.npy"
    )
    refused(tmp_path, bundle, flat, "only 599 vectors", embeddings=tmp_path / "fewer.npy")
    refused(tmp_path, bundle, flat, "'nobody', which is not in the passages", ids=tmp_path / "unknown.txt")
    refused(tmp_path, bundle, flat, "not a JSON list", ids=tmp_path / "object.json")
    refused(tmp_path, bundle, flat, "7.*more than once", ids=tmp_path / "ids.json")
    refused(tmp_path, bundle, flat, "recall is 0", recall=0)


def test_the_command_imports_and_needs_a_faiss_file(tmp_path: Path, bundle: Path, half: Array) -> None:
    passages = write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    path = write_faiss(tmp_path / "lists.faiss", faiss.index_factory(DIMENSION, "IVF4,Flat", 0), half)
    arguments = [str(passages), str(tmp_path / "index"), "--bundle", str(bundle)]
    result = CliRunner().invoke(import_command, [*arguments, "--faiss", str(path)])
    assert result.exit_code == 0, result.output
    assert "lists.faiss was kept" in result.output
    assert IndexManifest.read(tmp_path / "index").created_from["faiss"] == "lists.faiss"
    result = CliRunner().invoke(import_command, arguments)
    assert isinstance(result.exception, InputError)
    assert "--faiss" in str(result.exception)


def test_ids_in_the_passages_must_be_unique(tmp_path: Path, bundle: Path, half: Array) -> None:
    write_tsv(tmp_path / "passages.tsv", ["1"] * COUNT)
    (tmp_path / "ids.txt").write_text("1\n" * COUNT)
    flat = write_faiss(tmp_path / "flat.faiss", faiss.IndexFlatIP(DIMENSION), half)
    with pytest.raises(PassagesError, match="Several passages have the id '1'"):
        import_index(
            tmp_path / "passages.tsv",
            tmp_path / "index",
            bundle=bundle,
            faiss=flat,
            ids=tmp_path / "ids.txt",
        )


def test_a_last_component_that_is_not_auxiliary_is_refused(tmp_path: Path, bundle: Path) -> None:
    index = faiss.IndexHNSWFlat(DIMENSION + 1, 16)
    path = write_faiss(tmp_path / "other.faiss", index, random_vectors(COUNT, DIMENSION + 1))
    refused(tmp_path, bundle, path, "auxiliary")
