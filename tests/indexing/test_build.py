"""Building an index, from Python and from the command line: it is whole and true, or the old one stays."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ragengine.bundle.bundle import Bundle
from ragengine.cli.index import index as index_command
from ragengine.corpus.passage import Passage
from ragengine.errors import ClosedError, IndexFolderError, InputError, PassagesError, RagEngineError
from ragengine.indexing import training
from ragengine.indexing.build import build_index
from ragengine.indexing.import_index import import_index
from ragengine.indexing.plan import IndexPlan
from ragengine.indexing.update import merge_indexes
from ragengine.installation import pip_install
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FAISS_FILE, FORMAT, IndexManifest
from ragengine.retrieval.recall import sample_rows
from ragengine.storage import folders
from tests.support.bundles import (
    WORDS,
    Array,
    E,
    add_passage_encoder,
    brute_force,
    random_vectors,
    write_bundle,
)

# --- building --------------------------------------------------------------------------------------


def test_build_open_search(build: Callable[..., Path], bundle: Path) -> None:
    vectors, questions = random_vectors(300), random_vectors(4, seed=1)
    progress: list[tuple[str, int, int | None]] = []
    path = build(vectors, progress=lambda *step: progress.append(step))
    with PassageIndex.open(path) as index:
        assert (index.count, index.dimension) == (300, E)
        assert (index.manifest.factory, index.manifest.recall) == ("Flat", 1.0)
        assert index.manifest.encoder.kind == "passage_encoder"
        rows, scores = brute_force(vectors.astype(np.float16), questions, 5)
        found = index.search(questions, 5)
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.scores, scores)
        assert index.passages([7, 7, 2]) == [
            Passage(f"id{row}", f"title {row}", f"text {row}") for row in (7, 7, 2)
        ]
        index.check_belongs_to(Bundle.open(bundle))
        index.verify()
    assert [step for step in progress if step[1] == step[2] == 300] == [
        ("passages", 300, 300),
        ("vectors", 300, 300),
        ("add", 300, 300),
    ]
    index.close()
    with pytest.raises(ClosedError, match="is closed"):
        index.search(questions, 5)
    with pytest.raises(ClosedError, match="is closed"):
        index.passages([1])


def test_same_input_gives_the_same_index(build: Callable[..., Path]) -> None:
    files = [IndexManifest.read(build(random_vectors(300), factory="IVF4,Flat")).files for _ in range(2)]
    assert files[0] == files[1]


def test_embeddings_of_a_datasets_folder(tmp_path: Path, bundle: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    vectors = random_vectors(30)
    columns = {"title": ["t"] * 30, "text": [str(row) for row in range(30)], "embeddings": list(vectors)}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "data")
    build_index(tmp_path / "data", tmp_path / "index", bundle=bundle)
    with PassageIndex.open(tmp_path / "index") as index:
        found = index.search(vectors[4:5], 1)
        assert found.rows[0, 0] == brute_force(vectors.astype(np.float16), vectors[4:5], 1)[0][0, 0]
        assert index.passages([4])[0].text == "4"


@pytest.mark.parametrize("batch_tokens", [1, 70, 8192])
def test_passages_are_encoded_in_file_order(tmp_path: Path, bundle: Path, batch_tokens: int) -> None:
    random = np.random.default_rng(0)
    weights = random.integers(-4, 5, (len(WORDS), E))  # whole numbers: their sums are exact in any order
    add_passage_encoder(bundle, weights)
    letters = [random.choice(WORDS[4:], random.integers(0, 20)) for _ in range(50)]
    lines = [json.dumps({"title": "t", "text": " ".join(words)}) for words in letters]
    (tmp_path / "passages.jsonl").write_text("\n".join(lines))
    build_index(tmp_path / "passages.jsonl", tmp_path / "index", bundle=bundle, batch_tokens=batch_tokens)
    stored = np.load(tmp_path / "index" / "vectors.npy")
    tokens = [["[CLS]", "t", "[SEP]", *words, "[SEP]"] for words in letters]
    expected = [sum(weights[WORDS.index(token)] for token in passage) for passage in tokens]
    np.testing.assert_array_equal(stored, np.array(expected, np.float16))


@pytest.mark.parametrize(
    ("vectors", "count", "message"),
    [
        (random_vectors(5), 6, "vectors.npy has only 5 vectors for 6 passages"),
        (random_vectors(5), 4, "vectors.npy has more vectors for 4 passages"),
        (random_vectors(5)[:0], 5, "has only 0 vectors for 5 passages"),
        (random_vectors(5), 0, "passages.jsonl has no passages"),
        (random_vectors(5, E + 1), 5, "has vectors of 9 numbers, the bundle's encoder gives 8"),
        (
            random_vectors(5).astype(np.float64),
            5,
            "holds float64 .*; float32, float16 or bfloat16 .* was expected",
        ),
        (
            random_vectors(5).ravel(),
            40,
            r"holds float32 \[40\]; float32, float16 or bfloat16 \[passages, dimension\]",
        ),
        (
            np.array([[0.0] * E, [np.nan] * E], np.float32),
            2,
            "the vector of row 1 has a component that is NaN",
        ),
        (np.array([[70000.0] * E], np.float32), 1, "the vector of row 0 .* larger than 65504"),
        (np.array([[{}] * E], object), 1, "cannot be read as a .npy file: .*object"),
    ],
)
def test_wrong_embeddings_are_named(
    build: Callable[..., Path], vectors: Array, count: int, message: str
) -> None:
    with pytest.raises(PassagesError, match=message):
        build(vectors, count)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factory": "bogus"}, InputError, r"factory 'bogus' is not one that .*'bogus' is not a way"),
        ({"factory": ""}, InputError, "factory '' is not one"),
        ({"factory": "PQ7"}, InputError, "8 components do not split into 7 equal parts"),
        ({"factory": "IVF0,Flat"}, InputError, "'IVF0' is not a part of one"),
        ({"factory": "IVF99,Flat"}, InputError, "learns from at least 99 vectors, there are 20"),
        ({"recall": 0}, InputError, "recall is 0; it must be above 0"),
        ({"recall": "0.9"}, InputError, "recall is '0.9'; it must be above 0"),
        ({"recall": True}, InputError, "recall is True"),
        ({"recall": float("nan")}, InputError, "recall is nan"),
        ({"threads": 0}, InputError, "threads is 0; it must be a whole number"),
        ({"batch_tokens": 0}, InputError, "batch_tokens is 0"),
        ({"batch_tokens": "9"}, InputError, "batch_tokens is '9'"),
        ({"seed": -1}, InputError, "seed is -1"),
        (
            {"seed": 2**48 + 1},
            InputError,
            "seed is 281474976710657; .* from 0 to 2814",
        ),
        ({"seed": True}, InputError, "seed is True"),
        ({"seed": 1.5}, InputError, "seed is 1.5"),
        ({"embeddings": "absent.npy"}, PassagesError, "absent.npy cannot be read"),
    ],
)
def test_wrong_options_leave_the_old_index_whole(
    build: Callable[..., Path], options: dict[str, Any], error: type[RagEngineError], message: str
) -> None:
    path = build(random_vectors(7))
    with pytest.raises(error, match=message):
        build(random_vectors(20), **options)
    with PassageIndex.open(path) as index:
        assert index.count == 7
    assert not [sibling for sibling in path.parent.iterdir() if sibling.name.startswith(".")]


def test_the_largest_seed_and_numbers_of_numpy_can_be_read_again(build: Callable[..., Path]) -> None:
    path = build(random_vectors(70), factory="IVF2,Flat", seed=np.int64(2**48), recall=np.float32(0.5))
    manifest = IndexManifest.read(path)
    assert (manifest.seed, manifest.tuning and manifest.tuning.target) == (2**48, 0.5)


def test_embeddings_that_are_cut_while_they_are_read_end_in_an_error(
    build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To touch mapped memory behind the end of the file would end the process (SIGBUS)."""
    monkeypatch.setattr("ragengine.indexing.vector_sources.ROWS_AT_ONCE", 1024)

    def cut(phase: str, done: int, total: int | None) -> None:
        if phase == "vectors" and done:
            os.truncate(tmp_path / "vectors.npy", 9000)

    with pytest.raises(PassagesError, match=r"vectors\.npy cannot be read to its end: it was cut"):
        build(random_vectors(5000), progress=cut)


def test_a_name_with_line_breaks_is_one_line_in_the_manifest(tmp_path: Path, bundle: Path) -> None:
    passages, vectors = tmp_path / "a\nb.jsonl", tmp_path / "c\nd.npy"
    passages.write_text('{"title": "t", "text": "x"}\n')
    np.save(vectors, random_vectors(1))
    manifest = build_index(passages, tmp_path / "index", bundle=bundle, embeddings=vectors)
    assert manifest.created_from == {"passages": "a b.jsonl", "vectors": "file c d.npy"}


def test_an_index_is_not_replaced_where_force_is_false(
    tmp_path: Path, build: Callable[..., Path], bundle: Path
) -> None:
    """As by the commands: what took hours to build is not lost to a path that was typed twice."""
    index = build(random_vectors(300))
    before = (index / folders.MANIFEST).read_bytes()
    source, vectors = tmp_path / "passages.jsonl", tmp_path / "vectors.npy"
    writers: list[Callable[[], object]] = [
        lambda: build_index(source, index, bundle=bundle, embeddings=vectors, force=False),
        lambda: import_index(source, index, bundle=bundle, faiss=index / FAISS_FILE, force=False),
        lambda: merge_indexes(index, index, index, force=False),
    ]
    for write in writers:
        with pytest.raises(IndexFolderError, match=r"exists; give --force .*\(in Python force=True\)"):
            write()
    assert (index / folders.MANIFEST).read_bytes() == before
    assert not list(tmp_path.glob(".*"))
    assert build_index(source, index, bundle=bundle, embeddings=vectors, seed=1).seed == 1


def test_bundle_without_passage_encoder_needs_embeddings(tmp_path: Path, build: Callable[..., Path]) -> None:
    bundle = write_bundle(tmp_path / "question only", E, passage_encoder=False)
    with pytest.raises(PassagesError, match="has no passage encoder and no embeddings are given; export it"):
        build(random_vectors(5), bundle=bundle, embeddings=None)
    path = build(random_vectors(5), bundle=bundle)
    assert IndexManifest.read(path).encoder.kind == "question_encoder"


def test_index_is_never_written_over_something_else(tmp_path: Path, build: Callable[..., Path]) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis").write_text("years of work")
    with pytest.raises(IndexFolderError, match=f"is not a {FORMAT}"):
        build(random_vectors(5))
    assert (tmp_path / "index" / "thesis").read_text() == "years of work"


def test_recall_that_cannot_be_reached_is_told(tmp_path: Path, build: Callable[..., Path]) -> None:
    # One dimension of eight is kept: hopeless, and the 100 candidates that are re-ranked are few of 3000.
    path = build(random_vectors(3000), factory="PCA1,Flat", recall=0.95)
    recall = IndexManifest.read(path).recall
    assert recall is not None
    assert recall < 0.8
    result = run(
        *("build", tmp_path / "passages.jsonl", path, "--bundle", tmp_path / "bundle"),
        *("--factory", "PCA1,Flat", "--embeddings", tmp_path / "vectors.npy", "--force"),
    )
    assert f"The recall@5 is {recall:.3f}, below the 0.95 asked for" in result.stderr


# --- the command line ------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(index_command, [str(argument) for argument in arguments])


def test_commands(tmp_path: Path, build: Callable[..., Path], bundle: Path) -> None:
    path = build(random_vectors(20))
    made = run(
        *("build", tmp_path / "passages.jsonl", path, "--bundle", bundle, "--recall", "0.9"),
        *("--factory", "IVF2,Flat", "--embeddings", tmp_path / "vectors.npy", "--force"),
    )
    assert made.exit_code == 0, made.output
    assert "IVF2,Flat" in made.stdout
    told = run("info", path, "--json")
    manifest = json.loads(told.stdout)
    assert (manifest["count"], manifest["factory"]) == (20, "IVF2,Flat")
    assert manifest["recall"] >= 0.9
    assert set(manifest["files"]) == {"index.faiss", "passages.sqlite", "vectors.npy"}
    assert "inner product" in run("info", path).stdout
    assert run("verify", path).stdout == f"{path} is whole: 20 passages of 8 dimensions.\n"


def test_commands_raise_typed_errors_only(tmp_path: Path, build: Callable[..., Path], bundle: Path) -> None:
    path = build(random_vectors(20))
    (path / "vectors.npy").unlink()
    for arguments in (
        ("verify", path),
        ("info", tmp_path / "absent"),
        ("build", tmp_path / "absent.tsv", tmp_path / "new", "--bundle", bundle),
        ("build", tmp_path / "passages.jsonl", tmp_path / "new", "--bundle", tmp_path / "absent"),
    ):
        assert isinstance(run(*arguments).exception, RagEngineError), arguments
    assert run("build", "p", "i", "--bundle", "b", "--recall", "1.5").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_describing_the_commands_loads_no_search_library() -> None:
    code = "import sys, ragengine.cli.index; print([m for m in ('faiss', 'pyarrow') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_missing_faiss_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "from ragengine.retrieval.vector_index import import_faiss\n"
        "from ragengine.errors import DependencyError\n"
        "try: import_faiss()\n"
        "except DependencyError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"run {pip_install('cpu')}, or on a CUDA machine {pip_install('gpu')}" in run.stdout


def test_manifest_names_its_format(build: Callable[..., Path]) -> None:
    content = json.loads((build(random_vectors(20)) / folders.MANIFEST).read_text())
    assert (content["format"], content["format_version"]) == ("ragengine-index", 2)


# --- the same input gives the same index -----------------------------------------------------------


def clustered_vectors(count: int, dimension: int) -> Array:
    random = np.random.default_rng(0)
    centres = random.standard_normal((50, dimension))
    vectors = centres[random.integers(0, 50, count)] + 0.5 * random.standard_normal((count, dimension))
    return vectors.astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("factory", ["OPQ4_16,IVF32,PQ4x6", "PCA16,IVF32,SQ8", "HNSW8", "IVF32_HNSW8,Flat"])
def test_same_input_and_threads_give_the_same_index(tmp_path: Path, factory: str, threads: int) -> None:
    vectors = clustered_vectors(6000, 32)
    bundle = write_bundle(tmp_path / "bundle", 32)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "p.jsonl").write_text('{"title": "t", "text": "x"}\n' * len(vectors))
    written = []
    for name in ("one", "two"):
        path = tmp_path / name
        build_index(
            *(tmp_path / "p.jsonl", path),
            **{"bundle": bundle, "embeddings": tmp_path / "v.npy", "factory": factory, "threads": threads},
            recall=0.9,
        )
        content = json.loads((path / folders.MANIFEST).read_text())
        assert content.pop("timings")["search_ms"] > 0
        written.append(content)
    assert written[0] == written[1]


def test_another_seed_draws_other_samples(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragengine.indexing.plan.TRAINING_VECTORS", 256)
    first, second = (
        IndexManifest.read(build(random_vectors(2000), factory="IVF4,PQ2x4", seed=seed)) for seed in (0, 1)
    )
    assert (first.seed, second.seed) == (0, 1)
    assert first.files["index.faiss"] != second.files["index.faiss"]
    assert first.files["vectors.npy"] == second.files["vectors.npy"]


def test_training_leaves_the_questions_of_the_recall_test_out() -> None:
    faiss_index = training.empty_faiss_index("IVF4,Flat", E)
    assert np.array_equal(training.training_rows(faiss_index, 60_000, 0), np.arange(60_000))
    rows = training.training_rows(faiss_index, 200_000, 0)
    assert 65536 - 1000 <= len(rows) < 65536
    assert not np.isin(rows, sample_rows(200_000, 0)).any()
    assert (np.diff(rows) > 0).all()


def test_automatic_factory_is_told_with_its_reason(
    build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragengine.indexing.plan.FLAT_LIMIT", 1000)
    plans: list[IndexPlan] = []
    small = IndexManifest.read(build(random_vectors(999), on_plan=plans.append))
    large = IndexManifest.read(build(random_vectors(4000), on_plan=plans.append))
    assert [plan.factory for plan in plans] == ["Flat", "OPQ2_8,IVF256,PQ2"]
    assert [small.reason, large.reason] == [plan.reason for plan in plans]
    assert "256 lists" in large.reason


def test_manifest_of_the_first_version_still_opens(build: Callable[..., Path]) -> None:
    path = build(random_vectors(300), factory="IVF4,Flat", recall=1.0)
    content = json.loads((path / folders.MANIFEST).read_text())
    for name in ("reason", "seed", "tuning", "timings"):
        del content[name]
    (path / folders.MANIFEST).write_text(json.dumps(content))
    with PassageIndex.open(path) as index:
        assert index.manifest.tuning is None
        index.verify()
    assert "not recorded" in run("info", path).stdout
