"""Importing indexes: what the original library finds in its own files is found in the imported index."""

import json
import pickle
from pathlib import Path
from typing import Any

import datasets
import faiss
import numpy as np
import pytest
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragengine.errors import InputError
from ragengine.indexing.import_index import import_index
from tests.support.bundles import Array, brute_force, random_vectors, write_bundle
from tests.support.foreign_indexes import (
    COUNT,
    DIMENSION,
    FP16_SCORE,
    N_DOCS,
    found,
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


@pytest.fixture
def questions() -> Array:
    return random_vectors(20, DIMENSION, seed=1)


def texts(count: int) -> dict[str, list[str]]:
    return {
        "title": [f"title {row}" for row in range(count)],
        "text": [f"text {row}" for row in range(count)],
    }


# --- Hugging Face's custom index -------------------------------------------------------------------


def write_custom_index(folder: Path, vectors: Array, index: Any) -> tuple[Path, Path]:
    """`passages_path` and `index_path`, as transformers' use_own_knowledge_dataset.py writes them."""
    dataset = datasets.Dataset.from_dict({**texts(len(vectors)), "embeddings": list(vectors)})
    dataset.save_to_disk(str(folder / "hf_dataset"))
    dataset.add_faiss_index("embeddings", custom_index=index)
    dataset.get_index("embeddings").save(folder / "hf_dataset_index.faiss")
    return folder / "hf_dataset", folder / "hf_dataset_index.faiss"


def searched_by_transformers(passages: Path, index: Path, questions: Array) -> tuple[Array, Array]:
    """Rows and doc_scores as RagRetriever and RagModel compute them."""
    theirs = CustomHFIndex.load_from_disk(DIMENSION, str(passages), str(index))
    theirs.init_index()
    theirs.dataset.get_index("embeddings").faiss_index.hnsw.efSearch = COUNT  # its graph misses nothing
    rows, vectors = theirs.get_top_docs(questions, N_DOCS)
    return rows, np.einsum("qe,qde->qd", questions, vectors)


@pytest.mark.parametrize("exact", [True, False], ids=["fp16 embeddings", "fp32 embeddings"])
def test_custom_index_finds_what_transformers_finds(
    tmp_path: Path, bundle: Path, half: Array, questions: Array, exact: bool
) -> None:
    vectors = half if exact else (half + 1e-4 * random_vectors(COUNT, DIMENSION, seed=2)).astype(np.float32)
    hnsw = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
    passages, index = write_custom_index(tmp_path, vectors, hnsw)
    manifest = import_index(passages, tmp_path / "index", bundle=bundle, faiss=index, recall=1.0)
    assert (manifest.factory, manifest.count) == ("HNSW32", COUNT)
    rows, scores = searched_by_transformers(passages, index, questions)
    ids, ours = found(tmp_path / "index", questions)
    np.testing.assert_allclose(ours, scores, atol=1e-5 if exact else FP16_SCORE)
    if exact:
        assert ids == [[str(row) for row in row_list] for row_list in rows.tolist()]


def test_a_saved_retriever_folder_has_both_parts(tmp_path: Path, bundle: Path, half: Array) -> None:
    hnsw = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
    write_custom_index(tmp_path / "retriever", half, hnsw)
    assert import_index(tmp_path / "retriever", tmp_path / "index", bundle=bundle).count == COUNT


def test_a_saved_retriever_whose_config_names_both_parts(
    tmp_path: Path, bundle: Path, half: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `save_pretrained` writes after loading from `passages_path` and `index_path`."""
    hnsw = faiss.IndexHNSWFlat(DIMENSION, 32, faiss.METRIC_INNER_PRODUCT)
    passages, index = write_custom_index(tmp_path / "elsewhere", half, hnsw)
    retriever = tmp_path / "retriever"
    retriever.mkdir()
    monkeypatch.chdir(tmp_path)
    for named in (index, index.relative_to(tmp_path)):
        config = {"index_path": str(named), "passages_path": str(passages), "index_name": "custom"}
        (retriever / "config.json").write_text(json.dumps(config))
        assert import_index(retriever, tmp_path / "index", bundle=bundle, force=True).count == COUNT
    for content in ("[" * 10**5, "[]", "{}", '{"index_path": 1}', "\xff"):
        (retriever / "config.json").write_text(content, "latin-1")
        with pytest.raises(InputError, match=r"hf_dataset is missing\); give the"):
            import_index(retriever, tmp_path / "index", bundle=bundle)


# --- fast scan and graphs --------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["IVF4,PQ4x4fs", "OPQ2_8,IVF4,PQ2x4fs", "IVF4,PQ4x4fs,RFlat", "PQ4x4fs"])
@pytest.mark.parametrize("rebuilt", [None, "Flat"])
def test_fast_scan_lists_are_kept_or_built_again(
    tmp_path: Path, bundle: Path, half: Array, factory: str, rebuilt: str | None
) -> None:
    made = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    index = write_faiss(tmp_path / "their\nfs.faiss", made, half)
    np.save(tmp_path / "vectors.npy", half)
    manifest = import_index(
        write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT)),
        tmp_path / "index",
        bundle=bundle,
        faiss=index,
        embeddings=tmp_path / "vectors.npy",
        factory=rebuilt,
        recall=1.0,
    )
    assert manifest.factory == (rebuilt or factory.replace("RFlat", "Refine(Flat)"))
    assert manifest.created_from["faiss"] == "their fs.faiss"
    assert rebuilt or manifest.reason == "the FAISS structure of their fs.faiss was kept"
    rows, _ = brute_force(half, half[:1], 1)
    assert found(tmp_path / "index", half[:1])[0][0][0] == passage_ids(COUNT)[rows[0, 0]]


def test_an_nsg_graph_is_built_again(tmp_path: Path, bundle: Path, half: Array) -> None:
    """FAISS can search one, and neither add to it nor build another reliably."""
    made = faiss.index_factory(DIMENSION, "NSG32,Flat", faiss.METRIC_INNER_PRODUCT)
    index = write_faiss(tmp_path / "nsg.faiss", made, half)
    passages = write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    assert import_index(passages, tmp_path / "index", bundle=bundle, faiss=index).factory == "Flat"


# --- DPR's files -----------------------------------------------------------------------------------


def write_dpr_files(folder: Path, vectors: Array, ids: list[str], storage: str) -> tuple[Path, float]:
    """As DPR's `DenseHNSWFlatIndexer` does: `√(φ - |v|²)` is appended, the graph searches by L2 distance.

    The pickle of the ids beside it would raise an exception if anybody loaded it.
    """
    squares = (vectors**2).sum(1)
    phi = squares.max()
    widened = np.hstack([vectors, np.sqrt(phi - squares)[:, None]]).astype(np.float32)
    index = faiss.index_factory(DIMENSION + 1, f"HNSW64,{storage}")
    index.hnsw.efConstruction = 200
    path = write_faiss(folder / "dpr.index.dpr", index, widened)
    (folder / "dpr.index_meta.dpr").write_bytes(pickle.dumps(Bomb()))
    return path, phi


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("the pickle was read",))


def searched_by_dpr(path: Path, ids: list[str], questions: Array) -> tuple[list[list[str]], Array]:
    """As DPR's `search_knn` and transformers' `LegacyIndex.get_top_docs` do."""
    index = faiss.read_index(str(path))
    index.hnsw.efSearch = COUNT
    widened = np.hstack([questions, np.zeros((len(questions), 1), np.float32)])
    _, rows = index.search(widened, N_DOCS)
    vectors = np.stack([[index.reconstruct(int(row))[:-1] for row in found] for found in rows])
    return [[ids[row] for row in found] for found in rows], np.einsum("qe,qde->qd", questions, vectors)


@pytest.mark.parametrize("storage", ["Flat", "SQ8"])
def test_dpr_files_give_what_dpr_finds(
    tmp_path: Path, bundle: Path, half: Array, questions: Array, storage: str
) -> None:
    ids = passage_ids(COUNT)
    passages = write_tsv(tmp_path / "psgs.tsv", ids)
    index, _ = write_dpr_files(tmp_path, half, ids, storage)
    manifest = import_index(passages, tmp_path / "index", bundle=bundle, faiss=index)
    assert manifest.factory == "Flat"
    assert "auxiliary dimension" in manifest.reason
    expected, scores = searched_by_dpr(index, ids, questions)
    if storage == "Flat":
        ours, our_scores = found(tmp_path / "index", questions)
        assert ours == expected
        np.testing.assert_allclose(our_scores, scores, atol=1e-5)
    else:  # 8-bit codes of the auxiliary component put DPR's order out: compare document by document
        ours, our_scores = found(tmp_path / "index", questions, COUNT)
        for q, ids_of_q in enumerate(expected):
            same = our_scores[q][[ours[q].index(id) for id in ids_of_q]]
            np.testing.assert_allclose(same, scores[q], atol=FP16_SCORE)


def test_ids_say_which_passage_a_row_is(tmp_path: Path, bundle: Path, half: Array, questions: Array) -> None:
    order = [passage_ids(COUNT)[row] for row in np.random.default_rng(3).permutation(COUNT)]
    passages = write_tsv(tmp_path / "psgs.tsv", passage_ids(COUNT))
    index, _ = write_dpr_files(tmp_path, half, order, "Flat")
    (tmp_path / "ids.json").write_text(json.dumps([int(id) for id in order]))
    (tmp_path / "ids.tsv").write_text("\n".join(["id\tnote", *(f"{id}\tx" for id in order)]))
    expected, _ = searched_by_dpr(index, order, questions)
    for name in ("ids.json", "ids.tsv"):
        import_index(
            passages, tmp_path / "index", bundle=bundle, faiss=index, ids=tmp_path / name, force=True
        )
        assert found(tmp_path / "index", questions)[0] == expected
    assert not list((tmp_path / "index").glob("scratch*"))


# --- a bare FAISS file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "kept"),
    [
        ("Flat", "Flat"),
        ("IDMap,Flat", "Flat"),
        ("IVF8,Flat", "IVF8,Flat"),
        ("IVF8,SQfp16", "IVF8,SQfp16"),
        ("HNSW64", "HNSW64"),
        ("IVF8,PQ4x4,RFlat", "IVF8,PQ4x4,Refine(Flat)"),
    ],
)
def test_a_bare_file_gives_what_faiss_finds(
    tmp_path: Path, bundle: Path, half: Array, questions: Array, factory: str, kept: str
) -> None:
    passages = write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    index = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("IDMap"):
        index.add_with_ids(half, np.arange(COUNT))
        faiss.write_index(index, str(tmp_path / "bare.faiss"))
    else:
        write_faiss(tmp_path / "bare.faiss", index, half)
    manifest = import_index(
        passages, tmp_path / "index", bundle=bundle, faiss=tmp_path / "bare.faiss", recall=1.0
    )
    assert manifest.factory == kept
    assert manifest.recall is not None
    assert manifest.recall > 0.999  # a graph may miss one
    rows, scores = brute_force(half, questions, N_DOCS)
    ours, our_scores = found(tmp_path / "index", questions)
    assert ours == [[str(row + 1) for row in row_list] for row_list in rows.tolist()]
    np.testing.assert_allclose(our_scores, scores, atol=FP16_SCORE if "SQ" in factory else 1e-5)


def test_codes_need_embeddings_and_keep_their_structure(
    tmp_path: Path, bundle: Path, half: Array, questions: Array
) -> None:
    passages = write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    index = faiss.index_factory(DIMENSION, "OPQ4_8,IVF4,PQ4x4", faiss.METRIC_INNER_PRODUCT)
    path = write_faiss(tmp_path / "codes.faiss", index, half)
    refused(tmp_path, bundle, path, "keeps codes")
    np.save(tmp_path / "vectors.npy", half)
    manifest = import_index(
        passages,
        tmp_path / "index",
        bundle=bundle,
        faiss=path,
        embeddings=tmp_path / "vectors.npy",
        recall=0.9,
    )
    assert manifest.factory == "OPQ4_8,IVF4,PQ4x4"
    assert manifest.recall is not None
    assert manifest.recall >= 0.9
    kept = faiss.read_index(str(tmp_path / "index" / "index.faiss"))
    np.testing.assert_array_equal(kept.search(questions, 20)[1], index.search(questions, 20)[1])


def test_an_l2_index_is_built_again_and_says_so(tmp_path: Path, bundle: Path, half: Array) -> None:
    write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    path = write_faiss(tmp_path / "l2.faiss", faiss.IndexFlatL2(DIMENSION), half)
    said: list[Any] = []
    manifest = import_index(
        tmp_path / "passages.tsv", tmp_path / "index", bundle=bundle, faiss=path, on_plan=said.append
    )
    assert manifest.factory == said[0].factory == "Flat"
    assert "another metric" in manifest.reason == said[0].reason


def test_a_factory_is_built_instead(tmp_path: Path, bundle: Path, half: Array) -> None:
    passages = write_tsv(tmp_path / "passages.tsv", passage_ids(COUNT))
    path = write_faiss(tmp_path / "flat.faiss", faiss.IndexFlatIP(DIMENSION), half)
    manifest = import_index(passages, tmp_path / "index", bundle=bundle, faiss=path, factory="IVF8,Flat")
    assert manifest.factory == "IVF8,Flat"
