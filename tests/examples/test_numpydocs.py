"""The recipe over numpy's documentation: facts, splits, copies, and what its generator begins with."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DPRQuestionEncoder, T5ForConditionalGeneration

from ragengine.corpus.passage import Passage
from ragengine_train.checkpoint import load_encoder, load_encoder_tokenizer
from ragengine_train.encoders import encode, passage_tokens, question_tokens
from tests.support.paths import ROOT

FOLDER = ROOT / "examples" / "numpydocs"
NAMES = ("facts", "copies", "documentation", "lexical", "prepare", "claims", "train")
DOCUMENTATION = """sortish(a, /, axis=-1)

Sort an array of :ref:`numbers <numbers>`.

It is quick.

Parameters
----------
a : array_like
    Array to be sorted. Is copied.
axis : int or None, optional
    Axis to sort along
b, c : int
    Two of one line.

Returns
-------
out : ndarray
    Sorted array.

See Also
--------
nothing : of this
"""


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:  # other examples have modules of these names
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("numpydocs")
    modules["documentation"].build(folder)
    return folder


@pytest.fixture(scope="module")
def start(data: Path, modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("start")
    modules["prepare"].prepare(data, folder)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def passages(data: Path) -> dict[str, list[str]]:
    _, *rows = (data / "passages.tsv").read_text("utf-8").splitlines()
    return {row.split("\t")[0]: row.split("\t")[1:] for row in rows}


def test_facts_of_a_function(modules: dict[str, ModuleType]) -> None:
    found = list(modules["facts"].facts_of("numpy.sortish", DOCUMENTATION))
    assert [(one.id, one.text) for one in found] == [
        ("numpy.sortish", "Sort an array of numbers. It is quick."),
        ("numpy.sortish#argument-a", "The argument a is array_like. Array to be sorted. Is copied."),
        (
            "numpy.sortish#argument-axis",
            "The argument axis is int or None, optional. Axis to sort along",
        ),
        ("numpy.sortish#result-out", "It returns out, which is ndarray. Sorted array."),
    ]
    asked = [(kind, names["asked"], answer) for one in found for kind, names, answer in one.questions()]
    assert asked == [
        ("function", "sort an array of numbers", "numpy.sortish"),
        ("argument", "a", "array_like"),
        ("described", "array to be sorted", "a"),
        ("argument", "axis", "int or None"),
        ("described", "axis to sort along", "axis"),
        ("result", "out", "ndarray"),
    ]


def test_answers_stand_in_their_passages(data: Path) -> None:
    known = passages(data)
    for split in ("train", "dev", "test"):
        for line in lines(data / f"{split}.jsonl"):
            for answer, name in zip(line["answers"], [line["passage_id"]], strict=False):
                assert answer in " ".join(known[name])
            assert set(line["passage_ids"]) <= set(known)
    for line in lines(data / "copies.jsonl"):
        assert line["answers"][0] in f"{line['passage']['title']} {line['passage']['text']}"
        assert line["passage"] not in line["hard_negatives"]


def test_splits_share_no_function_no_summary_and_no_wording(
    data: Path, modules: dict[str, ModuleType]
) -> None:
    def names(split: str) -> set[str]:
        return {name.split("#")[0] for line in lines(data / f"{split}.jsonl") for name in line["passage_ids"]}

    train, dev, test = map(names, ("train", "dev", "test"))
    assert train
    assert dev
    assert test
    assert not train & dev
    assert not train & test
    assert not dev & test
    assert len(train) + len(dev) + len(test) == len({title for _, title in passages(data).values()})
    held_out = {kind: wordings[-1].split("{")[0] for kind, wordings in modules["facts"].WORDINGS.items()}
    trained = lines(data / "train.jsonl") + lines(data / "copies.jsonl")
    for kind, beginning in held_out.items():
        if beginning:  # one wording begins with the name
            assert not any(
                line["question"].startswith(beginning) for line in trained if line["group"].endswith(kind)
            )
    # Made-up functions are none of those that are measured.
    assert not (dev | test) & {line["passage"]["title"] for line in lines(data / "copies.jsonl")}


def test_the_encoder_begins_by_comparing_words(data: Path, start: Path) -> None:
    """Untrained, it finds the passages of functions whose words nothing was fitted to."""
    encoder = load_encoder(str(start / "question_encoder"), DPRQuestionEncoder)
    tokenizer = load_encoder_tokenizer(str(start / "question_encoder"))
    asked, known = lines(data / "dev.jsonl")[::4], passages(data)
    names = list(dict.fromkeys([name for line in asked for name in line["passage_ids"]] + list(known)))[:400]
    made = [Passage(id=name, text=known[name][0], title=known[name][1]) for name in names]
    questions = question_tokens(encoder, tokenizer, 96, [line["question"] for line in asked])
    vectors = encode(encoder, passage_tokens(made, encoder, tokenizer, 160), 0)
    scores = encode(encoder, questions, 0) @ vectors.T
    best = np.argsort(-scores, axis=1)[:, :5]
    found = [
        {names[row] for row in rows} & set(line["passage_ids"])
        for rows, line in zip(best, asked, strict=True)
    ]
    assert sum(map(bool, found)) / len(asked) > 0.85  # by chance one in 80


def test_the_generator_begins_by_copying(start: Path) -> None:
    """Untrained, it continues a row of tokens as the prompt does: nothing but attention can know how."""
    model = T5ForConditionalGeneration.from_pretrained(start / "generator").eval()
    drawn, right = torch.Generator().manual_seed(7), 0
    for _ in range(8):
        ids = (torch.randperm(2900, generator=drawn)[:40] + 10)[None]
        with torch.no_grad():
            said = model(input_ids=ids, labels=ids).logits.argmax(-1)
        right += int((said[:, 1:] == ids[:, 1:]).sum())
    assert right / (8 * 39) > 0.5  # by chance one in 3,000


@pytest.mark.slow
def test_every_step_runs_on_a_toy(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    modules["train"].main(["--toy", str(tmp_path)], standalone_mode=False)
    figures = json.loads((tmp_path / "results" / "figures.json").read_text())
    assert set(figures["documents"]) == {str(count) for count in range(1, 11)}
    assert set(figures["index swap"]) == {"index of documentation", "index of exchanged"}
    for name in ("documents.svg", "claims.svg"):
        assert (tmp_path / "results" / name).read_text().startswith("<?xml")
