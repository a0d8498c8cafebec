"""Opening and verifying an index: what is damaged, forged or another's is refused."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.errors import IndexFolderError
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FORMAT
from tests.support.bundles import Array, E, random_vectors, rewrite_manifest, write_bundle


def write_faiss(path: Path, vectors: Array, metric: int = faiss.METRIC_INNER_PRODUCT) -> None:
    index = faiss.IndexFlat(vectors.shape[1], metric)
    index.add(vectors)
    faiss.write_index(index, str(path))


@pytest.mark.parametrize("verify", ["sha256", "size"])
def test_cut_file_is_refused(build: Callable[..., Path], verify: Any) -> None:
    path = build(random_vectors(20))
    content = (path / "vectors.npy").read_bytes()
    (path / "vectors.npy").write_bytes(content[:-1])
    with pytest.raises(IndexFolderError, match=r"vectors\.npy has 447 bytes instead of 448"):
        PassageIndex.open(path, verify=verify)


def test_flipped_bit_is_refused(build: Callable[..., Path]) -> None:
    path = build(random_vectors(20))
    content = bytearray((path / "index.faiss").read_bytes())
    content[-1] ^= 1
    (path / "index.faiss").write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"index\.faiss has another sha256"):
        PassageIndex.open(path)


FORGERIES: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "fewer vectors": (
        lambda path: np.save(path / "vectors.npy", random_vectors(19).astype(np.float16)),
        {},
        "vectors.npy has 19 vectors of 8, its manifest says 20 of 8",
    ),
    "fp32 vectors": (
        lambda path: np.save(path / "vectors.npy", random_vectors(20)),
        {},
        "vectors.npy holds float32",
    ),
    "pickled vectors": (
        lambda path: np.save(path / "vectors.npy", np.array([{}], object)),
        {},
        "vectors.npy cannot be read as a .npy file",
    ),
    "no vectors": (lambda path: (path / "vectors.npy").write_bytes(b""), {}, "cannot be read as a .npy file"),
    "faiss of another size": (
        lambda path: write_faiss(path / "index.faiss", random_vectors(21)),
        {},
        "index.faiss has 21 vectors of 8",
    ),
    "faiss of another metric": (
        lambda path: write_faiss(path / "index.faiss", random_vectors(20), faiss.METRIC_L2),
        {},
        "index.faiss has the metric number 1",
    ),
    "no faiss": (
        lambda path: (path / "index.faiss").write_bytes(b"no"),
        {},
        "index.faiss cannot be read by faiss",
    ),
    "no passages": (lambda path: (path / "passages.sqlite").write_bytes(b"no"), {}, "passages.sqlite"),
    "another dimension": (
        lambda path: None,
        {"dimension": 9},
        "has 20 vectors of 8, its manifest says 20 of 9",
    ),
    "another setting": (lambda path: None, {"search": {"nprobe": 4}}, "nprobe=4 does not fit"),
    "a negative setting": (
        lambda path: None,
        {"search": {"nprobe": -4}},
        "search.nprobe: -4 is not from 1 to 2147483647",
    ),
    "unlisted file": (lambda path: (path / "index.faiss").unlink(), {}, "does not list index.faiss"),
    "wrong types": (lambda path: None, {"count": "20"}, "count: expected int, found str"),
    "newer version": (
        lambda path: None,
        {"format_version": 3},
        "format version 3, this ragengine reads up to 2",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_folder_is_refused(build: Callable[..., Path], forgery: str) -> None:
    change, fields, message = FORGERIES[forgery]
    path = build(random_vectors(20))
    change(path)
    rewrite_manifest(path, **fields)
    with pytest.raises(IndexFolderError, match=message):
        PassageIndex.open(path)


def forge_passages(path: Path) -> None:
    with sqlite3.connect(path / "passages.sqlite") as connection:
        connection.execute("DELETE FROM passages WHERE row = 3")
    connection.close()


def forge_vectors(path: Path) -> None:
    vectors = np.load(path / "vectors.npy")
    vectors[17] = np.nan
    np.save(path / "vectors.npy", vectors)


def lengthen_the_longest(path: Path) -> None:
    vectors = np.load(path / "vectors.npy").astype(np.float32)
    longest = np.linalg.norm(vectors, axis=1).argmax()
    vectors[longest] *= 1.004
    np.save(path / "vectors.npy", vectors.astype(np.float16))


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (forge_passages, "passages.sqlite has 19 passages, its manifest says 20"),
        (forge_vectors, "the stored vector of row 17 has the norm nan"),
        (lengthen_the_longest, r"the stored vector of row \d+ has the norm .*, more than max_norm "),
        (
            lambda path: write_faiss(path / "index.faiss", random_vectors(20)),
            "row 0 of index.faiss is not the vector",
        ),
    ],
)
def test_verify_finds_what_hashes_cannot_show(
    build: Callable[..., Path], forge: Callable[[Path], None], message: str
) -> None:
    path = build(random_vectors(20))
    forge(path)
    rewrite_manifest(path)
    with PassageIndex.open(path) as index, pytest.raises(IndexFolderError, match=message):
        index.verify()


def test_opening_reads_no_passages_but_the_first_and_the_last(build: Callable[..., Path]) -> None:
    path = build(random_vectors(4000))
    content = (path / "passages.sqlite").read_bytes()
    third = len(content) // 3
    (path / "passages.sqlite").write_bytes(content[:third] + b"\xff" * third + content[2 * third :])
    with PassageIndex.open(path, verify="size") as index:
        assert [passage.id for passage in index.passages([0, 3999])] == ["id0", "id3999"]
        with pytest.raises(IndexFolderError, match=r"passages\.sqlite cannot be read"):
            index.passages([2000])


def test_verify_measures_recall_again(build: Callable[..., Path]) -> None:
    path = build(random_vectors(300), factory="IVF16,Flat", recall=1.0)
    rewrite_manifest(path, search={"nprobe": 1, "rerank_width": 100})
    with PassageIndex.open(path) as index, pytest.raises(IndexFolderError, match=r"the manifest says 1\.000"):
        index.verify()


def test_recall_that_was_measured_without_tuning_is_measured_again(build: Callable[..., Path]) -> None:
    """As of the first version, which sampled with the same seed."""
    path = build(random_vectors(300), factory="IVF16,Flat", recall=1.0)
    rewrite_manifest(path, tuning=None)
    told: list[tuple[str, int, int]] = []
    with PassageIndex.open(path) as opened:
        opened.verify(lambda phase, done, count: told.append((phase, done, count)))
    assert told[-1] == ("exact", 300, 300)
    rewrite_manifest(path, tuning=None, search={"nprobe": 1})
    with PassageIndex.open(path) as opened, pytest.raises(IndexFolderError, match=r"its recall is 0\."):
        opened.verify()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped as Linux says it")
def test_vectors_are_mapped_not_read(build: Callable[..., Path]) -> None:
    path = build(random_vectors(3000))
    with PassageIndex.open(path):
        mapped = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    assert {str(path / "vectors.npy"), str(path / "index.faiss")} <= mapped


@pytest.mark.parametrize("shape", [(0, E), (9, E + 1), (9, E)])
def test_questions_of_the_recall_fit_the_index(
    tmp_path: Path, build: Callable[..., Path], shape: tuple[int, int]
) -> None:
    np.save(tmp_path / "asked.npy", random_vectors(30, seed=1))
    path = build(random_vectors(300), factory="IVF16,Flat", recall=0.9, queries=tmp_path / "asked.npy")
    with PassageIndex.open(path) as opened:
        opened.verify()
    np.save(path / "queries.npy", np.zeros(shape, np.float32))
    rewrite_manifest(path)
    if shape == (9, E):
        PassageIndex.open(path).close()
        return
    message = rf"queries.npy is \[{shape[0]}, {shape[1]}\], \[Q, 8\] was expected; build the index again"
    with pytest.raises(IndexFolderError, match=message):
        PassageIndex.open(path)


def test_index_of_another_encoder_is_refused_with_both_names(
    tmp_path: Path, build: Callable[..., Path]
) -> None:
    index = PassageIndex.open(build(random_vectors(20)))
    other = Bundle.open(write_bundle(tmp_path / "other", E, fingerprint="a" * 64))
    with pytest.raises(
        IndexFolderError, match=r"passage_encoder \(ffffffffffff\).*passage_encoder \(aaaaaaaaaaaa\)"
    ):
        index.check_belongs_to(other)
    wider = Bundle.open(write_bundle(tmp_path / "wider", E + 1))
    with pytest.raises(IndexFolderError, match=r"vectors of 8 numbers, .* gives 9"):
        index.check_belongs_to(wider)


def test_bundle_is_not_an_index(bundle: Path) -> None:
    with pytest.raises(IndexFolderError, match=f"says format 'ragengine-bundle'; '{FORMAT}' was expected"):
        PassageIndex.open(bundle)
