"""What an index is built from: several inputs, passages of a program, how they are read, and progress."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ragengine.cli.index import index as index_command
from ragengine.errors import InputError, PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.import_index import import_index
from ragengine.indexing.update import add_passages
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import IndexManifest
from tests.support.bundles import WORDS, E, add_passage_encoder, random_vectors, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a passage encoder."""
    bundle = write_bundle(tmp_path / "bundle", E)
    add_passage_encoder(bundle, np.random.default_rng(0).integers(-4, 5, (len(WORDS), E)))
    return bundle


def stored(index: Path) -> list[tuple[str, str, str]]:
    with PassageIndex.open(index) as opened:
        return [(p.id, p.title, p.text) for p in opened.passages(list(range(opened.count)))]


def test_several_inputs_make_one_index(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\nx,1\n")
    (tmp_path / "b.md").write_text("# B\n## C\ny")
    manifest = build_index([tmp_path / "a.csv", str(tmp_path / "b.md")], tmp_path / "index", bundle=bundle)
    assert stored(tmp_path / "index") == [("1", "", "x"), ("b.md#0", "B: C", "y")]
    assert manifest.created_from["passages"] == "a.csv, b.md"


def test_the_commands_take_them_too(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "a.csv").write_text("body,nr\nx y z,1\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.txt").write_text("one two three")
    (tmp_path / "docs" / "c.png").write_text("")

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(index_command, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.exception
        return done.output

    reading = (
        "--bundle",
        bundle,
        "--text-field",
        "body",
        "--id-field",
        "nr",
        "--passage-words",
        2,
        "--overlap",
        1,
    )
    run("build", tmp_path / "a.csv", tmp_path / "docs" / "b.txt", tmp_path / "index", *reading)
    assert [(id, text) for id, _, text in stored(tmp_path / "index")] == [
        ("1#0", "x y"),
        ("1#1", "y z"),
        ("b.txt#0", "one two"),
        ("b.txt#1", "two three"),
    ]
    (tmp_path / "docs" / "b.txt").rename(tmp_path / "docs" / "d.txt")
    run("add", tmp_path / "index", tmp_path / "docs", "--bundle", bundle, "--passage-words", 3)
    done = CliRunner().invoke(
        index_command,
        ["build", str(tmp_path / "docs"), str(tmp_path / "other"), "--bundle", str(bundle), "--strict"],
    )
    assert isinstance(done.exception, PassagesError)
    assert "1 file left out: c.png" in str(done.exception)
    assert not (tmp_path / "other").exists()


def test_passages_of_a_program(tmp_path: Path, bundle: Path) -> None:
    def passages() -> Iterator[dict[str, Any]]:
        yield {"id": 7, "title": "t", "text": "x"}
        yield {"text": "y"}

    manifest = build_index(passages(), tmp_path / "index", bundle=bundle)
    assert stored(tmp_path / "index") == [("7", "t", "x"), ("1", "", "y")]
    assert manifest.created_from["passages"] == "passages of the program"
    add_passages(tmp_path / "index", [{"_id": "z", "text": "z"}], bundle=bundle)
    assert stored(tmp_path / "index")[2] == ("z", "", "z")
    with pytest.raises(InputError, match="resume needs passages that can be read again"):
        build_index(passages(), tmp_path / "index", bundle=bundle, resume=True)
    with pytest.raises(PassagesError, match="passages of the program has no passages"):
        build_index([], tmp_path / "other", bundle=bundle)


def test_an_empty_dataset_is_said_to_be_that(tmp_path: Path, bundle: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"title": [], "text": []}).save_to_disk(tmp_path / "data")
    with pytest.raises(PassagesError, match="data has no passages; an index needs at least one"):
        build_index(tmp_path / "data", tmp_path / "index", bundle=bundle)


def test_metadata_of_a_table_is_in_the_index(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "a.csv").write_text("text,owner,team\nx,data,\n")
    (tmp_path / "b.md").write_text("---\ntitle: B\nowner: ops\n---\ny")
    build_index([tmp_path / "a.csv", tmp_path / "b.md"], tmp_path / "index", bundle=bundle)
    with PassageIndex.open(tmp_path / "index") as opened:
        assert [p.metadata for p in opened.passages([0, 1])] == [{"owner": "data"}, {"owner": "ops"}]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_embeddings_and_queries_of_half_precision(tmp_path: Path, bundle: Path, dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    vectors = random_vectors(300).astype(kind)
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", vectors[:20])
    build_index(
        [{"text": str(row)} for row in range(300)],
        tmp_path / "index",
        bundle=bundle,
        embeddings=tmp_path / "vectors.npy",
        queries=tmp_path / "queries.npy",
        factory="IVF4,Flat",
    )
    found = np.load(tmp_path / "index" / "vectors.npy")
    np.testing.assert_array_equal(found, vectors.astype(np.float32).astype(np.float16))
    np.testing.assert_array_equal(
        np.load(tmp_path / "index" / "queries.npy"), vectors[:20].astype(np.float32)
    )


def test_import_names_its_columns(tmp_path: Path, bundle: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(E)
    index.add(random_vectors(2))
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    (tmp_path / "a.csv").write_text("body,nr\nx,1\ny,2\n")
    options = {"bundle": bundle, "faiss": tmp_path / "a.faiss"}
    import_index(tmp_path / "a.csv", tmp_path / "index", **options, id_field="nr", text_field="body")
    assert stored(tmp_path / "index") == [("1", "", "x"), ("2", "", "y")]


def test_every_phase_begins_before_its_work_and_moves_with_it(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "p.jsonl").write_text(
        "".join(json.dumps({"text": "a " * (n % 9)}) + "\n" for n in range(300))
    )
    steps: list[tuple[str, int, int | None]] = []
    manifest = build_index(
        tmp_path / "p.jsonl",
        tmp_path / "index",
        bundle=bundle,
        factory="IVF4,SQ8",
        recall=0.5,
        batch_tokens=64,
        progress=lambda *step: steps.append(step),
    )
    phases = list(dict.fromkeys(phase for phase, _, _ in steps))
    assert phases == ["passages", "vectors", "train", "add", "exact", "tune"]
    for phase in phases:
        of_phase = [(done, total) for name, done, total in steps if name == phase]
        assert of_phase[0] == (0, None)
        assert of_phase[-1][0] == of_phase[-1][1]
        assert [done for done, _ in of_phase] == sorted(done for done, _ in of_phase)
    vectors = {done for name, done, _ in steps if name == "vectors"}
    assert len(vectors) > 10  # with each batch, not with 4,096 passages
    assert {f"{phase}_s" for phase in phases} == {name for name in manifest.timings if name.endswith("_s")}


def test_a_resumed_build_must_read_alike(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "p.csv").write_text("text\na b c\n")

    def stop(phase: str, done: int, total: int | None) -> None:
        if phase == "vectors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path / "p.csv", tmp_path / "index", bundle=bundle, progress=stop)
    with pytest.raises(Exception, match="cannot be resumed: reading was"):
        build_index(tmp_path / "p.csv", tmp_path / "index", bundle=bundle, passage_words=2, resume=True)
    build_index(tmp_path / "p.csv", tmp_path / "index", bundle=bundle, resume=True)
    assert IndexManifest.read(tmp_path / "index").count == 1
