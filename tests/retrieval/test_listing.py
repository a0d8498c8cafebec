"""`index list`, `show` and `search`: what an index holds, and what a question finds, without an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ragengine import RagEngine, Retriever, list_passages, show_passages
from ragengine.cli.index import index as index_command
from ragengine.errors import InputError
from ragengine.indexing.build import build_index
from ragengine.retrieval import listing
from tests.support.described_passages import metadata_of, write_corpus
from tests.support.paths import GOLDEN

BUNDLE, INDEX = GOLDEN / "bundle_v4", GOLDEN / "index_v1"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(index_command, [str(argument) for argument in arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build_index(**write_corpus(tmp_path, range(30)), index=tmp_path / "index")
    return tmp_path / "index"


def test_passages_are_listed_in_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_ROWS_AT_ONCE", 4)
    everything = list(list_passages(path))
    assert [d.id for d in everything] == [f"p{row}" for row in range(30)]
    assert [d.metadata for d in everything] == [metadata_of(row) for row in range(30)]
    assert everything[5:12] == list(list_passages(path, start=5, limit=7))
    chosen = [d for d in everything if d.metadata.get("owner") == "search"]
    assert list(list_passages(path, filter={"owner": "search"})) == chosen
    assert list(list_passages(path, filter={"owner": "search"}, start=1, limit=1)) == chosen[1:2]
    assert list(list_passages(path, limit=0)) == []
    for wrong in ({"start": -1}, {"limit": 1.5}):
        with pytest.raises(InputError, match="must be a whole number of at least 0"):
            list_passages(path, **wrong)


def test_passages_are_shown_by_id(path: Path) -> None:
    assert [d.id for d in show_passages(path, ["p7", "p2", "p7"])] == ["p7", "p2", "p7"]
    with pytest.raises(InputError, match="has no passage with the id 'absent'"):
        show_passages(path, ["p2", "absent"])
    with pytest.raises(InputError, match="ids is 'p2'; give a list"):
        show_passages(path, "p2")


def test_looking_compares_sizes_alone(path: Path) -> None:
    """So that it begins at once, however large the index is."""
    content = bytearray((path / "vectors.npy").read_bytes())
    content[-1] ^= 1
    (path / "vectors.npy").write_bytes(content)
    assert len(list(list_passages(path))) == 30
    assert len(show_passages(path, ["p7"])) == 1


def test_commands_list_and_show(path: Path) -> None:
    listed = run("list", path, "--filter", "owner=search", "--filter", "year=2021", "--limit", 2)
    assert listed.exit_code == 0, listed.output
    said = [f"p{row}  t{row}  owner=search year=2021" for row in (1, 16)]
    assert listed.stdout.splitlines() == said
    (line,) = run("list", path, "--json", "--start", 1, "--limit", 1).stdout.splitlines()
    passage = {"id": "p1", "title": "t1", "text": "x", "metadata": metadata_of(1)}
    assert json.loads(line) == passage
    assert json.loads(run("show", path, "p1", "--json").stdout) == passage
    shown = run("show", path, "p1", "p0").stdout
    assert shown == "id: p1\ntitle: t1\nowner: search\nyear: 2021\n\nx\n\nid: p0\ntitle: t0\n\nx\n\n"
    assert run("list", path, "--filter", "owner").exit_code == 2


def test_search_finds_what_the_engine_reads(path: Path) -> None:
    questions = ["where is Quito?", "who founded Accra"]
    with RagEngine.load(BUNDLE, INDEX, device="cpu", threads=1) as engine:
        expected: list[Any] = [
            [(d.id, d.score) for d in engine.retrieve(question, 4)] for question in questions
        ]
    with Retriever.load(BUNDLE, INDEX, device="cpu", threads=1) as retriever:
        assert [[(d.id, d.score) for d in found] for found in retriever.search(questions, 4)] == expected
        documents = retriever.search(questions[0])
        assert [(d.id, d.score) for d in documents] == expected[0][:3]  # the model's n_docs
    done = run("search", BUNDLE, INDEX, *questions, "--n-docs", 4, "--json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["question"] for one in lines] == questions
    for one, best in zip(lines, expected, strict=True):
        assert [(d["id"], d["doc_score"]) for d in one["documents"]] == [
            (id, pytest.approx(score)) for id, score in best
        ]
    plain = run("search", BUNDLE, INDEX, questions[0], "--n-docs", 2, "--device", "cpu").stdout.splitlines()
    assert plain[0] == questions[0]
    assert [line.split()[2] for line in plain[1:]] == [id for id, _ in expected[0][:2]]
