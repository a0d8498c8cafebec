"""Replay records: an answer given again, and what differs."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragengine import Answer, Document, RagEngine, Record, shard_index
from ragengine.errors import InputError
from ragengine.replay import DocumentRecord, FolderRecord, read_records, replay, write_records
from ragengine.storage.folders import sha256_of
from ragengine_bench.parity.pairs import Pair
from tests.robustness.golden import GOLDEN

ASKED = "where is Quito?"
OWN = [
    Document("Kyoto", "a city", "k", 2.0),
    Document("Quito", "a capital", "q", 1.5),
    Document("", "", "z", -9.0),
]


def recorded(pair: Pair, **settings: Any) -> tuple[Answer, Record]:
    answer = pair.engine.generate(ASKED, **{"n_docs": 4, "max_length": 9, **settings})
    return answer, Record.of(pair.engine, answer)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2, "doc_pruning": 0.1, "no_repeat_ngram_size": 2},
        {"documents": OWN, "doc_pruning": 0.05},
        {"marginalize": "sequence", "search": "joint", "bad_words_ids": [[7, 8], [9]]},
        {"do_sample": True, "num_beams": 1, "seed": 7, "eos_token_id": [2, 11]},
    ],
)
def test_a_record_on_disk_replays_as_the_same(pair: Pair, tmp_path: Path, settings: dict[str, Any]) -> None:
    answer, record = recorded(pair, **settings)
    assert record.bundle.sha256 == sha256_of(pair.bundle / "manifest.json")
    assert [d.id for d in record.documents] == [d.id for d in answer.documents]
    assert all((d.text is None) != ("documents" in settings) for d in record.documents)
    write_records(tmp_path / "record.json", [record, record])
    read = read_records(tmp_path / "record.json")
    assert read == [Record.from_dict(json.loads(json.dumps(record.to_dict())))] * 2
    again = replay(pair.engine, read[0])
    assert again.differences == ()
    assert again.answer.hypotheses[0].token_ids.tolist() == record.token_ids


def test_an_answer_from_shards_is_recorded_and_given_again(pair: Pair, tmp_path: Path) -> None:
    whole, shards = pair.bundle.parent / "index", tmp_path / "shards"
    shard_index(whole, shards, shards=3)
    with RagEngine.load(pair.bundle, shards, device="cpu", threads=1) as engine:
        record = Record.of(engine, engine.generate(ASKED, n_docs=4))
        assert record.index.sha256 == sha256_of(shards / "shards.json")
        assert replay(engine, record).differences == ()
    (difference,) = replay(pair.engine, record).differences
    assert difference.startswith(f"index: the manifest of {whole} has sha256 ")


def test_an_answer_whose_index_is_gone_is_not_recorded(pair: Pair, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(pair.bundle.parent / "index", index)
    with RagEngine.load(pair.bundle, index, device="cpu", threads=1) as engine:
        answer = engine.generate(ASKED, n_docs=2)
        shutil.rmtree(index)
        with pytest.raises(InputError, match=r"cannot be recorded: .*index"):
            Record.of(engine, answer)


def test_every_field_that_differs_is_named_and_nothing_else(pair: Pair) -> None:
    _, record = recorded(pair, doc_pruning=0.1)
    other = FolderRecord("/elsewhere", "0" * 64)
    moved = [
        replace(record.documents[0], score=(record.documents[0].score or 0) + 0.01),
        *record.documents[1:],
    ]
    changes: list[tuple[dict[str, Any], str]] = [
        ({"bundle": other}, "bundle: the manifest of "),
        ({"index": other}, "index: the manifest of "),
        ({"documents": [DocumentRecord("none", 1.0), *record.documents[1:]]}, "documents (ids): "),
        ({"documents": moved}, f"documents: {record.documents[0].id!r} has the score "),
        ({"pruned": [*record.pruned, DocumentRecord("none", 1.0)]}, "pruned (ids): "),
        ({"token_ids": [*record.token_ids[:-1], 999]}, "token_ids: "),
        ({"token_ids": record.token_ids[:-1]}, "token_ids: "),
        ({"score": record.score + 0.01}, f"score: {record.score:.6f}, recorded was"),
        ({"log_prob": record.log_prob - 0.01}, "log_prob: "),
        ({"text": "something else"}, "text: "),
    ]
    for change, message in changes:
        (difference,) = replay(pair.engine, replace(record, **change)).differences
        assert difference.startswith(message), difference
    rounding = replace(record, score=record.score + 1e-6, ragengine="0.0.0", device="cuda")
    assert replay(pair.engine, rounding).differences == ()


def test_what_cannot_be_replayed_is_not_recorded(pair: Pair) -> None:
    with pytest.raises(InputError, match=r"seed=None.*sample with a seed"):
        recorded(pair, do_sample=True, num_beams=1)
    with pytest.raises(InputError, match="prefix_allowed_tokens_fn, which a record cannot hold"):
        recorded(pair, prefix_allowed_tokens_fn=lambda question, tokens: [5, 6, 7])
    for pruning in (None, 0.1):
        with pytest.raises(InputError, match="'left out' has the score -inf, which a record cannot hold"):
            recorded(pair, documents=[*OWN, Document("a", "b", "left out", -math.inf)], doc_pruning=pruning)


def test_what_was_replaced_is_not_recorded_in_the_place_of_what_answered(tmp_path: Path) -> None:
    folders = {name: shutil.copytree(GOLDEN / name, tmp_path / name) for name in ("bundle_v4", "index_v2")}
    with RagEngine.load(folders["bundle_v4"], index=folders["index_v2"], device="cpu") as engine:
        answer = engine.generate(ASKED, max_length=4)
        record = Record.of(engine, answer)
        for folder in folders.values():
            manifest = folder / "manifest.json"
            before = manifest.read_bytes()
            content = json.loads(before)
            manifest.write_text(json.dumps(content | {"created_by": "another"}), "utf-8")
            with pytest.raises(InputError, match=rf"cannot be recorded: {folder} holds another"):
                Record.of(engine, answer)
            manifest.unlink()
            with pytest.raises(InputError, match=rf"cannot be recorded: .*{folder}"):
                Record.of(engine, answer)
            manifest.write_bytes(before)
        assert Record.of(engine, answer) == record


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_no_number_is_close_to_one_that_is_not_finite(pair: Pair, number: float) -> None:
    _, record = recorded(pair)
    for name in ("score", "log_prob"):
        (difference,) = replay(pair.engine, replace(record, **{name: number})).differences
        assert difference.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no records"),
        ("{", "line 1 is not JSON"),
        ("[]", "line 1 says format 'list'"),
        ('{"format": "ragengine-replay", "format_version": 9}', "format version 9"),
        (
            '{"format": "ragengine-replay", "format_version": 1, "score": "x"}',
            "is damaged: ragengine: missing",
        ),
        ("\udcff", "line 1: byte 0xff at position 0 is not UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_damaged_records_are_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "record.json"
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_records(file)
