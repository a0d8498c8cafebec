"""`index sync`: the index becomes that of the folder, and nothing is encoded that it holds already."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragengine.cli.index import index as index_command
from ragengine.corpus.corpus import Corpus
from ragengine.corpus.passage import Passage
from ragengine.errors import IndexFolderError, PassagesError
from ragengine.indexing import watching
from ragengine.indexing.build import build_index
from ragengine.indexing.matching import Digests, Matches
from ragengine.indexing.sync import sync_index
from ragengine.indexing.upsert import upsert_passages
from ragengine.retrieval.encoder import TextEncoder
from ragengine.retrieval.index import PassageIndex
from ragengine.storage.ownership import MARK
from tests.support.bundles import WORDS, E, add_passage_encoder, write_bundle

LETTERS = WORDS[4:]


@pytest.fixture(scope="module")
def encoding_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose passage encoder adds up vectors of letters, whole numbers: exact whatever the batch."""
    folder = write_bundle(tmp_path_factory.mktemp("sync") / "bundle", E)
    add_passage_encoder(folder, np.random.default_rng(0).integers(-4, 5, (len(WORDS), E)))
    return folder


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every title and text that is encoded."""
    seen: list[tuple[str, str]] = []
    encode = TextEncoder.encode_by_length

    def noted(self: TextEncoder, pairs: Any, *arguments: Any, **options: Any) -> Any:
        seen.extend(pairs)
        return encode(self, pairs, *arguments, **options)

    monkeypatch.setattr(TextEncoder, "encode_by_length", noted)
    return seen


def letters(count: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(LETTERS, count))


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def held(index: Path) -> dict[str, tuple[str, str, dict[str, str], tuple[float, ...]]]:
    """What the index holds by id: title, text, metadata and vector; it is whole."""
    with PassageIndex.open(index) as opened:
        opened.verify()
        stored = np.load(index / "vectors.npy")
        passages = opened.passages(range(opened.count))
        found = {
            p.id: (p.title, p.text, dict(p.metadata), tuple(v))
            for p, v in zip(passages, stored.tolist(), strict=True)
        }
        assert len(found) == opened.count
        norms = np.linalg.norm(stored.astype(np.float64), axis=1)
        assert opened.manifest.max_norm >= norms.max() * (1 - 1e-6)
        return found


@pytest.mark.parametrize("factory", [None, "IVF2,Flat", "HNSW4"])
def test_an_index_becomes_that_of_the_folder(
    tmp_path: Path, encoding_bundle: Path, encoded: list[tuple[str, str]], factory: str | None
) -> None:
    folder = write(tmp_path / "docs", a=letters(350, 1), b=letters(120, 2), c="x y z", d=letters(90, 3))
    build_index(folder, tmp_path / "index", bundle=encoding_bundle, factory=factory)
    (folder / "c.txt").unlink()
    (folder / "d.txt").rename(folder / "e.txt")
    # a: another passage first, which moves the others; b: its second passage changes; new: one more
    write(folder, a=f"{letters(100, 9)} {letters(350, 1)}", b=letters(100, 2), new="n e w")
    encoded.clear()
    result = sync_index(folder, tmp_path / "index", bundle=encoding_bundle)
    build_index(folder, tmp_path / "fresh", bundle=encoding_bundle)
    assert held(tmp_path / "index") == held(tmp_path / "fresh")
    assert result.added == ("e.txt#0", "new.txt#0")  # whose title is the file's name
    assert set(result.deleted) == {"b.txt#1", "c.txt#0", "d.txt#0"}
    assert encoded[:3] == [("a", letters(100, 9)), ("e", letters(90, 3)), ("new", "n e w")]
    assert result.encoded == 3
    assert result.manifest.created_from["passages"] == "docs"


def test_what_the_index_holds_is_not_encoded_again(
    tmp_path: Path, encoding_bundle: Path, encoded: list[tuple[str, str]]
) -> None:
    folder = write(tmp_path / "docs", a=letters(350, 1), b=letters(120, 2))
    index = tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    encoded.clear()
    before = (index / "manifest.json").read_bytes()
    same = sync_index(folder, index, bundle=encoding_bundle)
    assert (same.added, same.changed, same.moved, same.deleted, same.encoded) == ((), (), (), (), 0)
    assert same.unchanged == 6
    assert (index / "manifest.json").read_bytes() == before  # nothing was written
    left = tmp_path / ".index.writing"  # by a run that was killed after it had put the index in place
    left.mkdir()
    (left / MARK).touch()
    sync_index(folder, index, bundle=encoding_bundle, dry_run=True)
    assert left.exists()
    sync_index(folder, index, bundle=encoding_bundle)
    assert not left.exists()
    write(folder, a=f"{letters(100, 9)} {letters(350, 1)}")
    result = sync_index(folder, index, bundle=encoding_bundle)
    assert encoded == [("a", letters(100, 9))]
    assert result.encoded == 1
    assert result.moved == tuple((f"a.txt#{n}", f"a.txt#{n + 1}") for n in range(4))
    assert result.changed == ("a.txt#0",)  # what it said is there under another id
    assert (result.added, result.deleted, result.unchanged) == ((), (), 2)
    write(folder, b=letters(30, 2))
    (folder / "a.txt").unlink()
    encoded.clear()
    last = sync_index(folder, index, bundle=encoding_bundle)
    assert encoded == [("b", letters(30, 2))]
    assert (last.changed, last.encoded) == (("b.txt#0",), 1)
    assert last.deleted == ("a.txt#1", "a.txt#2", "a.txt#3", "a.txt#4", "b.txt#1", "a.txt#0")
    assert held(index).keys() == {"b.txt#0"}


def test_a_dry_run_lists_what_a_sync_does(tmp_path: Path, encoding_bundle: Path) -> None:
    folder = write(tmp_path / "docs", a=letters(250, 1), b="x y z")
    index = tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    write(folder, a=letters(150, 1), c="n e w")
    (folder / "b.txt").unlink()
    before = held(index)
    planned = sync_index(folder, index, bundle=encoding_bundle, dry_run=True)
    assert held(index) == before
    done = sync_index(folder, index, bundle=encoding_bundle)
    for name in ("added", "changed", "moved", "deleted", "unchanged", "encoded"):
        assert getattr(planned, name) == getattr(done, name)
    assert (planned.added, planned.changed) == (("c.txt#0",), ("a.txt#1",))
    assert set(planned.deleted) == {"a.txt#2", "b.txt#0"}


RECORDS = st.lists(
    st.builds(
        lambda id, text, owner, named: (
            ({"id": f"i{id}"} if named else {})
            | {"title": "t", "text": text}
            | ({"owner": owner} if owner else {})
        ),
        st.integers(0, 9),
        st.sampled_from(["a", "b b", "c d", "e", "f"]),
        st.sampled_from(["", "x", "y"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda record: record.get("id") or object(),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(RECORDS, min_size=2, max_size=4))
def test_after_any_changes_the_index_holds_what_the_file_holds(
    tmp_path: Path, encoding_bundle: Path, states: list[list[dict[str, str]]]
) -> None:
    file, index = tmp_path / "p.jsonl", tmp_path / "index"

    def write_state(state: list[dict[str, str]]) -> None:
        file.write_text("\n".join(map(json.dumps, state)))

    write_state(states[0])
    build_index(file, index, bundle=encoding_bundle, force=True)
    for state in states[1:]:
        write_state(state)
        sync_index(file, index, bundle=encoding_bundle)
        found = held(index)
        expected = sorted((r["text"], r.get("owner", "")) for r in state)
        assert sorted((text, meta.get("owner", "")) for _, text, meta, _ in found.values()) == expected
        for record in state:
            if "id" in record:
                _, text, metadata, _ = found[record["id"]]
                assert (text, metadata.get("owner", "")) == (record["text"], record.get("owner", ""))
        again = sync_index(file, index, bundle=encoding_bundle)
        assert (again.encoded, again.added, again.changed, again.moved, again.deleted) == (0, (), (), (), ())


def test_a_passage_that_has_no_id_any_more_leaves_it_to_another(
    tmp_path: Path, encoding_bundle: Path
) -> None:
    file, index = tmp_path / "p.jsonl", tmp_path / "index"
    file.write_text('{"id": "i", "title": "", "text": "a"}')
    build_index(file, index, bundle=encoding_bundle)
    file.write_text('{"title": "", "text": "a"}')
    assert sync_index(file, index, bundle=encoding_bundle).unchanged == 1
    file.write_text('{"id": "i", "title": "", "text": "b"}\n{"title": "", "text": "a"}')
    sync_index(file, index, bundle=encoding_bundle)
    found = held(index)
    assert found["i"][1] == "b"
    assert sorted(text for _, text, _, _ in found.values()) == ["a", "b"]
    again = sync_index(file, index, bundle=encoding_bundle)
    assert (again.unchanged, again.moved, again.changed) == (2, (), ())


def test_matches_prefer_the_same_id() -> None:
    old = [Passage("a", "", "x"), Passage("b", "", "x"), Passage("c", "", "y")]
    new = [Passage("b", "", "x"), Passage("d", "", "x"), Passage("c", "", "z"), Passage("e", "", "x")]
    found = Matches.between(Digests(new), Digests(old))
    assert found.row_of.tolist() == [1, 0, -1, -1]
    assert found.renewed.tolist() == [1]
    assert found.changed.tolist() == [2]
    assert found.gone.tolist() == [2]


# --- refused ----------------------------------------------------------------------------------------


def test_passages_of_other_origins_are_not_deleted_unasked(tmp_path: Path, encoding_bundle: Path) -> None:
    folder, index = write(tmp_path / "docs", a="a b c"), tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    (tmp_path / "more.jsonl").write_text('{"id": "m", "title": "", "text": "x"}')
    upsert_passages(index, tmp_path / "more.jsonl", bundle=encoding_bundle)
    with pytest.raises(IndexFolderError, match=r"holds passages of more\.jsonl, which would be deleted"):
        sync_index(folder, index, bundle=encoding_bundle)
    assert held(index).keys() == {"a.txt#0", "m"}
    assert sync_index(folder, index, bundle=encoding_bundle, force=True).deleted == ("m",)
    assert sync_index(folder, index, bundle=encoding_bundle).unchanged == 1
    with pytest.raises(IndexFolderError, match="holds passages of docs"):
        sync_index(write(tmp_path / "other", a="a b c"), index, bundle=encoding_bundle)


def test_a_folder_that_changes_meanwhile_leaves_the_index_as_it_was(
    tmp_path: Path, encoding_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = write(tmp_path / "docs", a="a b c", b="d"), tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    before = held(index)
    write(folder, b="e", c="f")
    read, turns = Corpus.read, []

    def changing(self: Corpus, *arguments: Any) -> Iterator[Passage]:
        turns.append(1)
        if len(turns) == 3:  # the turn that writes the new passages
            write(folder, c="g")
        return read(self, *arguments)

    monkeypatch.setattr(Corpus, "read", changing)
    with pytest.raises(PassagesError, match="changed while it was read; sync it again"):
        sync_index(folder, index, bundle=encoding_bundle)
    assert len(turns) == 3
    assert held(index) == before


def test_an_empty_folder_is_refused(tmp_path: Path, encoding_bundle: Path) -> None:
    folder, index = write(tmp_path / "docs", a="a b c"), tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    write(folder, a=" ")
    with pytest.raises(PassagesError, match="has no passages; an index needs at least one"):
        sync_index(folder, index, bundle=encoding_bundle)
    assert held(index).keys() == {"a.txt#0"}


# --- commands ---------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(index_command, [str(argument) for argument in arguments])


def test_the_command_lists_ids_and_counts(tmp_path: Path, encoding_bundle: Path) -> None:
    folder, index = write(tmp_path / "docs", a=letters(250, 1), b="x y z"), tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)
    write(folder, a=letters(150, 1), c="n e w")
    (folder / "b.txt").unlink()
    dry = run("sync", folder, index, "--bundle", encoding_bundle, "--dry-run")
    assert dry.exit_code == 0, dry.output
    lines = dry.stdout.splitlines()
    assert lines[:2] == ["+ c.txt#0", "~ a.txt#1"]
    assert set(lines[2:4]) == {"- a.txt#2", "- b.txt#0"}
    assert lines[4].endswith("1 added, 1 changed, 0 moved, 2 deleted, 1 unchanged; 2 would be encoded.")
    done = run("sync", folder, index, "--bundle", encoding_bundle, "--json")
    content = json.loads(done.stdout)
    assert (content["added"], content["encoded"], content["manifest"]["count"]) == (["c.txt#0"], 2, 3)
    both = run("sync", folder, index, "--bundle", encoding_bundle, "--watch", "--dry-run")
    assert both.exit_code == 2


def test_changes_are_noticed_once_they_have_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "docs", a="a")
    waited: list[Callable[[], object]] = [
        lambda: None,
        lambda: write(folder, a="a b"),  # is being written ...
        lambda: write(folder, a="a b c"),
        lambda: None,  # ... and is done
        lambda: (folder / "a.txt").unlink(),
        lambda: None,
        lambda: write(folder, b="b"),
        lambda: None,
    ]
    seen: list[int] = []

    def sleep(seconds: float) -> None:
        assert seconds == 7.0
        waited.pop(0)()

    monkeypatch.setattr(watching.time, "sleep", sleep)
    changes = watching.file_changes(folder, 7.0)
    for _ in range(4):
        next(changes)
        seen.append(len(waited))
    assert seen == [8, 4, 2, 0]


def test_watching_syncs_after_each_change_and_outlives_errors(
    tmp_path: Path, encoding_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = write(tmp_path / "docs", a="a b c"), tmp_path / "index"
    build_index(folder, index, bundle=encoding_bundle)

    def changes(passages: Any, every: float) -> Iterator[None]:
        assert every == 0.5
        yield
        write(folder, b="d")
        yield
        write(folder, a="", b="")
        yield
        write(folder, b="e")
        yield

    monkeypatch.setattr(watching, "file_changes", changes)
    done = run("sync", folder, index, "--bundle", encoding_bundle, "--watch", "--every", 0.5)
    assert done.exit_code == 0, done.output
    assert [line.partition(": ")[2] for line in done.stdout.splitlines() if "added" in line] == [
        "0 added, 0 changed, 0 moved, 0 deleted, 1 unchanged; 0 encoded.",
        "1 added, 0 changed, 0 moved, 0 deleted, 1 unchanged; 1 encoded.",
        "0 added, 1 changed, 0 moved, 1 deleted, 0 unchanged; 1 encoded.",
    ]
    assert "has no passages; an index needs at least one" in done.stderr
    assert held(index).keys() == {"b.txt#0"}
