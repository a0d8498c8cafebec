"""Adding, deleting and merging: the index is what a build of the same passages would be, or the old one."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from click.testing import CliRunner, Result

from ragengine.cli.index import index as index_command
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, InputError, PassagesError, RagEngineError
from ragengine.indexing.build import build_index
from ragengine.indexing.update import add_passages, delete_passages, merge_indexes
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.history import described, of_merged, with_added, with_deleted
from ragengine.retrieval.index import PassageIndex
from ragengine.retrieval.manifest import FAISS_FILE, VECTORS_FILE
from ragengine.retrieval.passage_store import rename_passages
from tests.support.bundles import (
    WORDS,
    E,
    add_passage_encoder,
    brute_force,
    random_vectors,
    rewrite_manifest,
    write_bundle,
)

FACTORIES = ["Flat", "IVF4,Flat", "OPQ2_4,IVF4,PQ2x4", "HNSW8", "SQfp16", "IVF4,PQ2x4,RFlat"]
VECTORS = random_vectors(400)


class Corpus:
    """Passages with ids ``p0``, ``p1``, ... and the rows of VECTORS, indexed by parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = write_bundle(folder / "bundle", E)

    def write(self, name: str, rows: Any) -> dict[str, Path]:
        """The passages and embeddings of ``rows``, as arguments of a build."""
        rows = list(rows)
        lines = [json.dumps({"id": f"p{row}", "title": f"t{row}", "text": f"text {row}"}) for row in rows]
        (self.folder / f"{name}.jsonl").write_text("\n".join(lines))
        np.save(self.folder / f"{name}.npy", VECTORS[rows])
        return {
            "passages": self.folder / f"{name}.jsonl",
            "embeddings": self.folder / f"{name}.npy",
            "bundle": self.bundle,
        }

    def build(self, name: str, rows: Any, **options: Any) -> Path:
        build_index(index=self.folder / name, **self.write(name, rows), **options)
        return self.folder / name


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path)


def check(path: Path, rows: Any) -> None:
    """The index at ``path`` is whole and is that of ``rows`` in that order, with a recall that is true."""
    rows = list(rows)
    with PassageIndex.open(path) as opened:
        opened.verify()
        assert opened.count == len(rows)
        assert opened.passages(range(len(rows))) == [
            Passage(f"p{row}", f"t{row}", f"text {row}") for row in rows
        ]
        stored = VECTORS[rows].astype(np.float16)
        np.testing.assert_array_equal(np.load(path / "vectors.npy"), stored)
        questions = random_vectors(50, seed=5)
        expected, _ = brute_force(stored, questions, 5)
        found = opened.search(questions, 5)
        hits = (found.rows[:, :, None] == expected[:, None, :]).sum() / expected.size
        assert hits >= (1.0 if opened.manifest.factory == "Flat" else 0.9)
        every_score = questions.astype(np.float64) @ stored.astype(np.float64).T
        np.testing.assert_array_equal(
            found.scores, np.take_along_axis(every_score, found.rows, 1).astype(np.float32)
        )


@pytest.mark.parametrize("factory", FACTORIES)
def test_added_passages_are_found(corpus: Corpus, factory: str) -> None:
    path = corpus.build("index", range(300), factory=factory)
    manifest = add_passages(path, **corpus.write("more", range(300, 400)))
    check(path, range(400))
    assert manifest.created_from["added"] == ["more.jsonl"]
    assert manifest.recall is not None
    assert manifest.recall >= 0.95
    whole = corpus.build("whole", range(400), factory=factory)
    for name in ("passages.sqlite", "vectors.npy"):
        assert (path / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("factory", FACTORIES)
def test_deleted_passages_are_gone(corpus: Corpus, factory: str) -> None:
    path = corpus.build("index", range(400), factory=factory)
    gone = [0, 7, 8, 399, *range(100, 180)]
    manifest = delete_passages(path, [f"p{row}" for row in gone])
    check(path, (row for row in range(400) if row not in gone))
    assert manifest.created_from["deleted"] == len(gone)


@pytest.mark.parametrize("factory", FACTORIES)
def test_merged_indexes(corpus: Corpus, factory: str) -> None:
    first = corpus.build("first", range(300), factory=factory)
    second = corpus.build("second", range(300, 400))
    merge_indexes(first, second, corpus.folder / "both")
    check(corpus.folder / "both", range(400))
    check(first, range(300))
    check(second, range(300, 400))


def test_deleting_what_was_added_gives_the_old_index_back(corpus: Corpus) -> None:
    path = corpus.build("index", range(300))
    old = {name: (path / name).read_bytes() for name in ("passages.sqlite", "vectors.npy", "index.faiss")}
    add_passages(path, **corpus.write("more", range(300, 320)))
    delete_passages(path, [f"p{row}" for row in range(300, 320)])
    assert old == {name: (path / name).read_bytes() for name in old}


def test_added_passages_are_encoded_and_numbered(corpus: Corpus) -> None:
    add_passage_encoder(corpus.bundle, np.random.default_rng(0).integers(-4, 5, (len(WORDS), E)))
    lines = [json.dumps({"title": "t", "text": f"{WORDS[4 + row]} {WORDS[9]}"}) for row in range(20)]
    for name, part in (("first", lines[:12]), ("second", lines[12:]), ("all", lines)):
        (corpus.folder / f"{name}.jsonl").write_text("\n".join(part))
    path = corpus.folder / "index"
    build_index(corpus.folder / "first.jsonl", path, bundle=corpus.bundle)
    add_passages(path, corpus.folder / "second.jsonl", bundle=corpus.bundle)
    build_index(corpus.folder / "all.jsonl", corpus.folder / "all", bundle=corpus.bundle)
    for name in ("passages.sqlite", "vectors.npy", "index.faiss"):
        assert (path / name).read_bytes() == (corpus.folder / "all" / name).read_bytes()


def test_given_questions_stay_with_the_index(corpus: Corpus) -> None:
    np.save(corpus.folder / "queries.npy", random_vectors(40, seed=3))
    options = {"factory": "IVF8,Flat", "queries": corpus.folder / "queries.npy", "recall": 0.8}
    path = corpus.build("index", range(300), **options)
    manifest = add_passages(path, **corpus.write("more", range(300, 400)))
    assert manifest.tuning is not None
    assert (manifest.tuning.source, manifest.tuning.queries, manifest.tuning.target) == ("file", 40, 0.8)
    np.testing.assert_array_equal(np.load(path / "queries.npy"), random_vectors(40, seed=3))
    check_recall = PassageIndex.open(path)
    check_recall.verify()
    check_recall.close()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda c: add_passages(c.folder / "index", **c.write("more", [3, 4, 5, 6, 7, 50])),
            PassagesError,
            "passages with the id 'p3', 'p4', 'p5' and others already; replace them with"
            " ragengine index upsert",
        ),
        (
            lambda c: add_passages(c.folder / "index", **c.write("more", [])),
            PassagesError,
            "There are no passages to add",
        ),
        (
            lambda c: add_passages(
                c.folder / "index",
                **{**c.write("more", [50]), "embeddings": c.write("two", [1, 2])["embeddings"]},
            ),
            PassagesError,
            "two.npy has more vectors for 1 passages",
        ),
        (
            lambda c: add_passages(
                c.folder / "index",
                **{
                    **c.write("more", [50]),
                    "bundle": write_bundle(c.folder / "other", E, fingerprint="a" * 64),
                },
            ),
            IndexFolderError,
            "was built with the encoder",
        ),
        (
            lambda c: delete_passages(c.folder / "index", ["p3", "p400", "x"]),
            InputError,
            "no passage with the id 'p400', 'x'; nothing was deleted",
        ),
        (
            lambda c: delete_passages(c.folder / "index", ["p3", b"a"]),
            InputError,
            "The id b'a' is of type bytes; give each id as a string",
        ),
        (
            lambda c: delete_passages(c.folder / "index", "p3"),
            InputError,
            "ids is 'p3'; give a list of passage ids",
        ),
        (
            lambda c: delete_passages(c.folder / "index", 3),
            InputError,
            "ids is 3; give a list of passage ids",
        ),
        (
            lambda c: delete_passages(c.folder / "index", [f"p{row}" for row in range(50)]),
            InputError,
            "has no other passages",
        ),
        (
            lambda c: merge_indexes(c.folder / "index", c.build("two", [1]), c.folder / "index", force=True),
            PassagesError,
            "passages with the id 'p1' already",
        ),
    ],
)
def test_wrong_changes_leave_the_index_as_it_was(
    corpus: Corpus, change: Callable[[Corpus], object], error: type[RagEngineError], message: str
) -> None:
    path = corpus.build("index", range(50))
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(error, match=message):
        change(corpus)
    assert (path / "manifest.json").read_bytes() == before
    check(path, range(50))
    assert not [sibling for sibling in corpus.folder.iterdir() if sibling.name.startswith(".")]


def test_indexes_of_two_encoders_are_not_merged(corpus: Corpus) -> None:
    first = corpus.build("first", range(20))
    corpus.bundle = write_bundle(corpus.folder / "other", E, fingerprint="a" * 64)
    second = corpus.build("second", range(20, 40))
    with pytest.raises(IndexFolderError, match=r"\(ffffffffffff\), .*\(aaaaaaaaaaaa\); only vectors of one"):
        merge_indexes(first, second, corpus.folder / "both")


def test_damaged_index_is_not_made_whole_by_adding(corpus: Corpus) -> None:
    path = corpus.build("index", range(50))
    content = bytearray((path / "vectors.npy").read_bytes())
    content[-1] ^= 1
    (path / "vectors.npy").write_bytes(content)
    with pytest.raises(IndexFolderError, match=r"vectors\.npy has another sha256"):
        add_passages(path, **corpus.write("more", [60]))


def test_duplicates_of_an_id_are_deleted_together(corpus: Corpus) -> None:
    """Early versions built an index of passages that share an id."""
    path = corpus.build("index", [*range(20), 25])
    rename_passages(path / "passages.sqlite", [(20, "p5")])
    rewrite_manifest(path)
    assert delete_passages(path, ["p5"]).count == 19
    check(path, (row for row in range(20) if row != 5))


def test_ids_that_are_not_unicode_are_ids_that_no_passage_has(corpus: Corpus) -> None:
    """A shell hands over bytes that are not UTF-8 as halves of surrogate pairs."""
    path = corpus.build("index", range(5))
    for wanted in (["\udcff"], ["p1", "\ud800x"]):
        with pytest.raises(
            InputError, match=r"has no passage with the id '.*'; nothing was deleted"
        ) as caught:
            delete_passages(path, wanted)
        assert caught.value.args[0].isprintable()
    with PassageIndex.open(path) as index:
        assert index.missing_ids(["p1", "\udfff", "é"]) == ["\udfff", "é"]


CHILD = """
import os, signal, sys
from ragengine.indexing.update import add_passages, delete_passages
what, phase, index, passages, embeddings, bundle = sys.argv[1:]
def progress(name, done, total):
    if name == phase:
        os.kill(os.getpid(), signal.SIGKILL)
if what == "add":
    add_passages(index, passages, bundle=bundle, embeddings=embeddings, progress=progress)
else:
    delete_passages(index, ["p1"], progress=progress)
"""


@pytest.mark.parametrize("what", ["add", "delete"])
@pytest.mark.parametrize("phase", ["passages", "vectors", "tune"])
def test_killed_change_leaves_the_old_index(corpus: Corpus, what: str, phase: str) -> None:
    path = corpus.build("index", range(100), factory="IVF4,Flat")
    more = corpus.write("more", range(100, 120))
    arguments = [what, phase, path, more["passages"], more["embeddings"], corpus.bundle]
    child = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], check=False)
    assert child.returncode == -signal.SIGKILL
    check(path, range(100))
    delete_passages(path, ["p0"])
    check(path, range(1, 100))
    assert not [sibling for sibling in corpus.folder.iterdir() if sibling.name.startswith(".")]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(index_command, [str(argument) for argument in arguments])


def test_commands(corpus: Corpus) -> None:
    path = corpus.build("index", range(60), factory="IVF2,Flat")
    more = corpus.write("more", range(60, 80))
    added = run("add", path, more["passages"], "--bundle", corpus.bundle, "--embeddings", more["embeddings"])
    assert added.exit_code == 0, added.output
    deleted = run("delete", path, "p3", "p70")
    assert deleted.exit_code == 0, deleted.output
    check(path, (row for row in range(80) if row not in (3, 70)))
    corpus.build("other", [3, 70])
    merged = run("merge", path, corpus.folder / "other", corpus.folder / "both", "--threads", 1)
    assert merged.exit_code == 0, merged.output
    check(corpus.folder / "both", [*(row for row in range(80) if row not in (3, 70)), 3, 70])
    assert isinstance(run("delete", path, "absent").exception, InputError)
    assert run("delete", path).exit_code == 2


def test_history_of_many_changes_stays_flat_and_short(corpus: Corpus) -> None:
    both = merge_indexes(corpus.build("a", [1]), corpus.build("b", [2]), corpus.folder / "both")
    source = {"passages": "a.jsonl", "vectors": "file a.npy"}
    assert both.created_from == {
        "merged": [source, {"passages": "b.jsonl", "vectors": "file b.npy"}],
    }
    history = both.created_from
    for turn in range(300):
        history = of_merged(with_deleted(with_added(history, f"{turn}.jsonl"), 2), source)
    assert history["merged"] == [source] * 100
    assert history["added"] == [f"{turn}.jsonl" for turn in range(200, 300)]
    assert (history["merged_before"], history["added_before"]) == (202, 200)
    assert history["deleted"] == 600
    assert "merged before: 202" in described(history)


@pytest.mark.parametrize(("levels", "opens"), [(247, True), (300, False)])
def test_history_that_early_versions_nested_is_read_flat(corpus: Corpus, levels: int, opens: bool) -> None:
    """Each merge nested it by two levels, and the 248th failed; a stranger's may be nested at will."""
    path = corpus.build("index", range(10))
    nested: dict[str, Any] = {"passages": "first"}
    for level in range(levels):
        nested = {"merged": [nested, {"passages": str(level), "more": [[[[]]]]}]}
    content = json.loads((path / "manifest.json").read_text())
    text = json.dumps({**content, "created_from": "nested"}).replace('"nested"', json.dumps(nested))
    (path / "manifest.json").write_text(text)
    if not opens:
        with pytest.raises(IndexFolderError, match="its objects are nested deeper than 512 levels"):
            add_passages(path, **corpus.write("more", [50]))
        return
    manifest = add_passages(path, **corpus.write("more", [50]))
    assert manifest.created_from["merged_before"] == levels + 1 - 100
    assert run("info", path, "--json").exit_code == 0
    assert delete_passages(path, ["p50"]).created_from["deleted"] == 1


def test_an_nsg_graph_of_an_older_version_is_searched_but_not_changed(
    build: Callable[..., Path], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = random_vectors(300)
    path = build(vectors, factory="HNSW8")
    made = faiss.index_factory(E, "NSG32,Flat", faiss.METRIC_INNER_PRODUCT)
    made.add(np.load(path / VECTORS_FILE).astype(np.float32))
    faiss.write_index(made, str(path / FAISS_FILE))
    rewrite_manifest(path, factory="NSG32,Flat")
    with PassageIndex.open(path) as index:
        assert index.search_documents(vectors[:1] * 9, 1)[0]
    monkeypatch.setattr(TextEncoder, "encode_by_length", None)  # nothing is encoded before
    (tmp_path / "more.jsonl").write_text('{"id": "new", "title": "t", "text": "x"}\n')
    for change in (
        lambda: add_passages(path, tmp_path / "more.jsonl", bundle=bundle),
        lambda: delete_passages(path, ["id1"]),
        lambda: merge_indexes(path, path, tmp_path / "merged"),
    ):
        with pytest.raises(IndexFolderError, match=r"searched, but not changed.*NSG.*cannot add to it"):
            change()
    rewrite_manifest(path, factory="Flat")  # a manifest that lies
    with pytest.raises(IndexFolderError, match="is an NSG graph, which FAISS cannot add to"):
        delete_passages(path, ["id1"])
