"""`ragengine data convert`, and `[data]` in the formats of other projects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from ragengine.corpus.corpus import Corpus
from ragengine.errors import PassagesError
from ragengine.evaluation import read_questions
from ragengine_train import check_data, convert_questions, read_config, train
from ragengine_train.cli import data
from ragengine_train.config import DataConfig, ModelConfig, TrainConfig
from ragengine_train.data import TrainingPassages, read_examples
from ragengine_train.foreign_data import as_jsonl
from tests.support.training_world import write_config, write_data, write_models

RIGHT = [
    {"title": "A", "text": "text a", "passage_id": "a"},
    {"title": "N", "text": "new", "passage_id": "9"},
]
WRONG = [{"title": "B", "text": "text b"}, {"title": "A", "text": "other", "passage_id": "a"}]


def dpr_file(folder: Path, **changes: Any) -> Path:
    entry = {"question": "q", "answers": ["x"], "positive_ctxs": RIGHT, "hard_negative_ctxs": WRONG}
    path = folder / "nq-train.json"
    path.write_text(json.dumps([entry | changes, entry | {"answers": ["\ud800"]}, entry | {"answers": []}]))
    return path


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_contexts_stand_in_the_lines_or_are_named(tmp_path: Path) -> None:
    source, target = dpr_file(tmp_path), tmp_path / "out" / "nq.jsonl"
    common = {"question": "q", "answers": ["x"], "titles": ["A", "N"]}
    text = {"title": "A", "text": "text a"}
    report = convert_questions(source, target)
    inline = [{"title": "B", "text": "text b"}, {"title": "A", "text": "other"}]
    assert entries(target) == [{**common, "passage": text, "hard_negatives": inline}]
    assert report.written == 1
    assert {reason: one.count for reason, one in report.dropped.items()} == {
        "no answer": 1,
        "half a surrogate pair, which no UTF-8 text can hold": 1,
    }
    assert report.dropped["no answer"].first == f"{source}, entry 2"
    assert [one.count for one in report.noted.values()] == [2], "the second positive of both entries"
    convert_questions(source, target, contexts="ids")
    assert entries(target) == [
        {
            **common,
            "passage_id": "a",
            "passage_ids": ["a", "9"],
            "hard_negative_ids": ["a"],
            "hard_negatives": inline[:1],
        }
    ]


def test_contexts_are_written_as_passages(tmp_path: Path) -> None:
    """Equal ones once, and an id that another passage has is not given again."""
    target, passages = tmp_path / "nq.jsonl", tmp_path / "passages.jsonl"
    report = convert_questions(dpr_file(tmp_path), target, passages=passages)
    (entry,) = entries(target)
    found = {one.id: (one.title, one.text) for one in Corpus.open(passages).read()}
    assert report.passages == len(found) == 4
    assert found[entry["passage_id"]] == ("A", "text a")
    assert [found[name] for name in entry["hard_negative_ids"]] == [("B", "text b"), ("A", "other")]
    assert entry["passage_ids"] == ["a", "9"]
    corpus = TrainingPassages.read(passages)
    (example,) = read_examples([target], corpus)
    assert [corpus.passages[row].text for row in example.hard_negatives] == ["text b", "other"]
    (question,) = read_questions(target)
    assert question.gold_ids == {"a", "9"}


def test_questions_of_beir_have_passages_and_no_answers(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "who?"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq1\td1\t1\n")
    (tmp_path / "corpus.jsonl").write_text(
        "".join(f'{{"_id": "d{n}", "title": "", "text": "t{n}"}}\n' for n in range(3))
    )
    convert_questions(tmp_path, tmp_path / "ours.jsonl")
    (question,) = read_questions(tmp_path / "ours.jsonl")
    assert (question.answers, question.answers_known, question.answerable) == ((), False, True)
    assert question.gold_ids == {"d1", "d2"}
    corpus = TrainingPassages.read(tmp_path / "corpus.jsonl")
    (example,) = read_examples([tmp_path / "ours.jsonl"], corpus)
    assert (example.passage, example.others, example.answers_known) == (2, (2, 1), False)


def test_the_command_reports(tmp_path: Path) -> None:
    source, target = dpr_file(tmp_path), tmp_path / "nq.jsonl"
    done = CliRunner().invoke(data, ["convert", str(source), str(target)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == f"{target}: 1 of 3 entries of {source} (dpr)"
    assert f"1 dropped: no answer; the first is {source}, entry 2" in done.output
    asked, answers = tmp_path / "q", tmp_path / "a"
    asked.write_text("who?\n")
    answers.write_text("\n")
    done = CliRunner().invoke(data, ["convert", str(asked), str(target), "--answers", str(answers)])
    assert isinstance(done.exception, PassagesError)
    assert "no question that can be used (1 with no answer)" in str(done.exception)
    assert entries(target), "what was there stays"


def test_passages_of_the_file_are_named_and_others_stay_in_the_line(
    tmp_path: Path, corpus: TrainingPassages
) -> None:
    source = dpr_file(tmp_path, hard_negative_ctxs=[WRONG[0], {"title": "C", "text": "text c", "id": "zz"}])
    settings = TrainConfig(tmp_path, DataConfig("", str(source), str(source)), ModelConfig("", ""))
    ours = as_jsonl(settings, corpus, tmp_path / "questions", lambda report: None)
    assert entries(Path(ours.data.train[0])) == [
        {
            "question": "q",
            "answers": ["x"],
            "passage_id": "a",
            "hard_negative_ids": ["b", "c"],
            "titles": ["A", "N"],
        }
    ]
    assert ours.data.dev != ours.data.train[0]
    again = as_jsonl(settings, corpus, tmp_path / "questions", lambda report: None)
    assert again == ours
    assert as_jsonl(ours, corpus, tmp_path / "questions", lambda report: None) == ours


def test_a_folder_of_source_and_target_is_trained_on(tmp_path: Path) -> None:
    """`finetune_rag.py`'s `--data_dir` as `[data]`; the same run goes on from its own results."""
    write_data(tmp_path / "data")
    write_models(tmp_path / "start")
    for name, part in (("train", "train"), ("dev", "val")):
        asked = entries(tmp_path / "data" / f"{name}.jsonl")[:20]
        for suffix, texts in (
            ("source", [one["question"] for one in asked]),
            ("target", [one["answers"][0] for one in asked]),
        ):
            (tmp_path / "data" / f"{part}.{suffix}").write_text("\n".join([*texts[:19], ""]) + "\n")
    path = write_config(tmp_path, joint="max_steps = 1\nper_device_train_batch_size = 2\n")
    path.write_text(path.read_text().replace("data/train.jsonl", "data").replace("data/dev.jsonl", "data"))
    assert check_data(path) == ()
    said: list[str] = []
    result = train(path, progress=lambda report: said.append(report.message))
    assert sum("19 of 20 entries" in message for message in said) == 2
    assert any("1 dropped: no question" in message for message in said)
    assert result.dev["checkpoint"]["retrieval"]["n"] == 19
    assert train(read_config(path)) == result
