"""`index upsert`: passages by id, new or in the place of old ones; only what is new is encoded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine.errors import PassagesError
from ragengine.indexing.build import build_index
from ragengine.indexing.upsert import upsert_passages
from tests.indexing.test_sync import encoded, encoding_bundle, held, run
from tests.support.bundles import random_vectors

__all__ = ["encoded", "encoding_bundle"]  # fixtures


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps({"title": "t", **record}) for record in records))
    return path


@pytest.fixture
def index(tmp_path: Path, encoding_bundle: Path) -> Path:
    records = [{"id": f"p{n}", "text": f"a {'b ' * n}", "owner": "x"} for n in range(8)]
    build_index(write(tmp_path / "p.jsonl", *records), tmp_path / "index", bundle=encoding_bundle)
    return tmp_path / "index"


def test_passages_are_replaced_by_id_and_the_others_stay(
    tmp_path: Path, index: Path, encoding_bundle: Path, encoded: list[tuple[str, str]]
) -> None:
    before = held(index)
    encoded.clear()
    changes = [
        {"id": "p2", "text": "c c"},
        {"id": "p3", "text": "a b b b ", "owner": "y"},  # only its metadata
        {"id": "p4", "text": "a b b b b ", "owner": "x"},  # nothing
        {"id": "new", "text": "d"},
    ]
    file = write(tmp_path / "u.jsonl", *changes)
    manifest = upsert_passages(index, file, bundle=encoding_bundle)
    assert encoded == [("t", "c c"), ("t", "d")]
    found = held(index)
    assert list(found) == [*(f"p{n}" for n in (0, 1, 3, 4, 5, 6, 7)), "p2", "new"]
    assert found["p2"][:3] == ("t", "c c", {})
    assert found["p3"] == (*before["p3"][:2], {"owner": "y"}, before["p3"][3])
    assert all(found[id] == before[id] for id in ("p0", "p1", "p4", "p5", "p6", "p7"))
    build_index(
        write(tmp_path / "c.jsonl", changes[0], changes[3]), tmp_path / "fresh", bundle=encoding_bundle
    )
    assert {id: found[id] for id in ("p2", "new")} == held(tmp_path / "fresh")
    assert manifest.created_from == {
        "passages": "p.jsonl", "vectors": "passage encoder test/passage_encoder", "added": ["u.jsonl"]
    }  # fmt: skip
    written = (index / "manifest.json").read_bytes()
    assert upsert_passages(index, file, bundle=encoding_bundle).count == 9
    assert (index / "manifest.json").read_bytes() == written  # the same again changes nothing


def test_vectors_that_are_given_replace_those_that_were_encoded(
    tmp_path: Path, index: Path, encoding_bundle: Path, encoded: list[tuple[str, str]]
) -> None:
    encoded.clear()
    file = write(tmp_path / "u.jsonl", {"id": "p4", "text": "a b b b b ", "owner": "x"})
    np.save(tmp_path / "u.npy", random_vectors(1))
    upsert_passages(index, file, bundle=encoding_bundle, embeddings=tmp_path / "u.npy")
    assert encoded == []
    assert held(index)["p4"][3] == tuple(random_vectors(1)[0].astype(np.float16).tolist())


def test_every_passage_may_be_replaced(tmp_path: Path, index: Path, encoding_bundle: Path) -> None:
    records = [{"id": f"p{n}", "text": "z"} for n in range(8)]
    found = run("upsert", index, write(tmp_path / "u.jsonl", *records), "--bundle", encoding_bundle)
    assert found.exit_code == 0, found.output
    assert [passage[1] for passage in held(index).values()] == ["z"] * 8


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "There are no passages in"),
        ([{"id": "p1", "text": "a"}, {"text": "b"}], "passage 1 has no id, so it can replace none"),
        ([{"id": "p1", "text": "a"}, {"id": "p1", "text": "b"}], "several passages have the id 'p1'"),
    ],
)
def test_what_cannot_be_upserted_changes_nothing(
    tmp_path: Path, index: Path, encoding_bundle: Path, records: list[dict[str, Any]], said: str
) -> None:
    before = held(index)
    with pytest.raises(PassagesError, match=said):
        upsert_passages(index, write(tmp_path / "u.jsonl", *records), bundle=encoding_bundle)
    assert held(index) == before
