"""An index is changed while an engine answers from it: every answer is of the old index or of the new."""

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from ragengine import RagEngine, compact_index, delete_passages, sync_index, upsert_passages
from ragengine.indexing.build import build_index
from tests.indexing.test_sync import encoding_bundle
from tests.retrieval.test_index_slot import QUESTIONS, ask_while, found_by

__all__ = ["encoding_bundle"]  # a fixture


def write(path: Path, *records: tuple[str, str]) -> Path:
    path.write_text("\n".join(json.dumps({"id": id, "title": id, "text": text}) for id, text in records))
    return path


def test_sync_upsert_delete_and_compact_under_load(tmp_path: Path, encoding_bundle: Path) -> None:
    """Its question vectors are zero, so the first rows are found: each change begins with these."""
    passages = write(tmp_path / "p.jsonl", *((f"p{n}", "abcdefgh"[n]) for n in range(8)))
    index = tmp_path / "index"
    build_index(passages, index, bundle=encoding_bundle)
    states = [shutil.copytree(index, tmp_path / "state0")]
    changes: list[Any] = [
        lambda: sync_index(
            write(passages, *((f"q{n}", "abcdxyzw"[n]) for n in range(8))), index, bundle=encoding_bundle
        ),
        lambda: upsert_passages(
            index, write(tmp_path / "u.jsonl", ("q0", "u"), ("q2", "v")), bundle=encoding_bundle
        ),
        lambda: delete_passages(index, ["q1"]),
        lambda: compact_index(index, factory="SQfp16"),
    ]
    with RagEngine.load(encoding_bundle, index, device="cpu", threads=1) as engine:
        swapped = threading.Event()

        def change_all() -> None:
            for number, change in enumerate(changes, start=1):
                change()
                states.append(shutil.copytree(index, tmp_path / f"state{number}"))
                time.sleep(0.05)  # what was open before the change goes on answering
                engine.swap_index(index)
                time.sleep(0.1)
            swapped.set()

        got = ask_while(engine, change_all, threads=4)
        assert swapped.is_set()
    expected = set()
    for state in states:
        with RagEngine.load(encoding_bundle, state, device="cpu", threads=1) as engine:
            answers = {(n, found_by(engine, question)) for n, question in enumerate(QUESTIONS)}
            assert answers & set(got)  # each index was answered from
            expected |= answers
    assert set(got) <= expected
